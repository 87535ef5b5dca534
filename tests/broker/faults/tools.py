"""What the fault tests need beyond Python: programs, and namespaces to break things in without breaking the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import pytest


def need(program: str, package: str = "") -> str:
    """The program's path. Without it the test is skipped, and fails where REQUIRE_FAULT_TOOLS=1 (as in CI)."""
    path = shutil.which(program)
    if path is None:
        missing(f"{program} is not installed: apt install {package or program}")
        raise AssertionError
    return path


def need_namespaces(*kinds: str) -> list[str]:
    """A command prefix that runs the rest in namespaces of its own (``--mount``, ``--net``), as their root."""
    prefix = [need("unshare", "util-linux"), "--user", "--map-root-user", *kinds]
    if why := _refusal(tuple(prefix)):
        missing(f"no namespaces here: {why}")
    return prefix


def missing(why: str) -> None:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("REQUIRE_FAULT_TOOLS") == "1":
        pytest.fail(why)
    pytest.skip(why)


@cache
def _refusal(prefix: tuple[str, ...]) -> str:
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""
