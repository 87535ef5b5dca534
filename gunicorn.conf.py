"""gunicorn's settings for the web service: ``manage.py serve``, or ``gunicorn telemetry_site.wsgi`` in this folder."""

from __future__ import annotations

import gc
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gunicorn import util

from telemetry_site import options
from telemetry_site.env import Address, SettingError

try:
    bind = str(Address(options.HOST.read(), options.PORT.read()))
    # With memory storage every process would have readings of its own.
    workers = 1 if options.STORAGE_TYPE.read() == "memory" else options.WEB_CONCURRENCY.read()
except SettingError as error:
    sys.exit(f"error: {error}")

# Started with nohup: it outlives its terminal.
_NOHUP = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

wsgi_app = "telemetry_site.wsgi:application"
proc_name = "gpu-telemetry"
logger_class = "telemetry_site.gunicorn_logs.GunicornLogger"
# Slow clients hold none of its threads, and probes have threads of their own.
worker_class = "api.server.worker.TelemetryWorker"
threads = 4 + options.QUERIES_AT_ONCE.read()
worker_connections = 1000
timeout = 60
# Every service stops within 10 s of SIGTERM; this leaves a margin.
graceful_timeout = 8
# Longer than the 60 s after which proxies close connections that they keep.
keepalive = 65
# A query may name many hosts or pods.
limit_request_line = 8190
# Django decides which proxies to trust (TRUSTED_PROXIES); gunicorn trusts none.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
# gunicorn would put a management socket into the home folder.
control_socket_disable = True


def when_ready(server: Any) -> None:
    """Says who may read, if that is everyone. From here on SIGHUP stops the service like any other of ours; gunicorn would reload."""

    def hang_up() -> None:
        server.log.info("SIGHUP: stopping")
        server.handle_term()

    server.handle_hup = hang_up
    if _NOHUP:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from api.auth.openness import warning

    if text := warning(options.auth_required(), server.LISTENERS):
        server.log.warning(text)


def post_worker_init(worker: Any) -> None:
    """Connects the worker to the API, which can be imported only now that Django is set up."""
    signal.signal(
        signal.SIGHUP, signal.SIG_IGN
    )  # a terminal that closes signals all; this process waits for its parent
    from api.auth import openness
    from api.exports.stream import serving
    from api.middleware import write_error
    from telemetry_site.service import collect_garbage_rarely

    openness.server.is_on_loopback = openness.only_loopback(worker.sockets)
    # Exports have to know when the worker stops. Other workers end them with everything else.
    serving.ends_at = getattr(worker, "exports_end_at", serving.ends_at)
    # A broken request never reaches Django, but its answer has the API's shape too.
    util.write_error = write_error
    # The garbage collector need not look at what was loaded so far.
    gc.collect()
    gc.freeze()
    collect_garbage_rarely()


def worker_exit(server: Any, worker: Any) -> None:
    """Stops the collector inside the worker (memory storage), so that it commits and disconnects."""
    if (embedded := sys.modules.get("ingest.collector.embedded")) is not None:
        embedded.stop_embedded_collector()
