"""The web server: gunicorn's worker, its limits, and what it tells the application."""

from __future__ import annotations

# In the environ: when the request was whole, by the monotonic clock.
RECEIVED_AT = "api.server.received_at"
