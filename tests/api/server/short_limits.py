"""gunicorn's configuration with short times, and the application of waiting.py.

SHORT_LIMITS='{"REQUEST_SECONDS": 1}' gunicorn --config tests/api/server/short_limits.py
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[3])
_OWN = runpy.run_path(f"{_ROOT}/gunicorn.conf.py")
globals().update({name: value for name, value in _OWN.items() if not name.startswith("_")})
sys.path.insert(0, _ROOT)
wsgi_app = "tests.api.server.waiting:application"

_limits = importlib.import_module("api.server.limits")
for _name, _value in json.loads(os.environ.get("SHORT_LIMITS", "{}")).items():
    assert hasattr(_limits, _name)
    setattr(_limits, _name, _value)
