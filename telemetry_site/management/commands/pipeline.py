"""Run the whole pipeline on this machine: broker, collector, watch, web and streamer, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from inventory.queries import newest_reading
from readings.text import hide_passwords
from stores.base import StoreError
from stores.open import describe_store, get_store, reset_store
from telemetry_site.desktop import browser_on_enter, can_open_browser
from telemetry_site.env import Address
from telemetry_site.flags import ServiceCommand
from telemetry_site.options import FLUSH_INTERVAL, SIM_GPUS_PER_HOST, SIM_HOSTS
from telemetry_site.service import stop_signals
from telemetry_site.supervisor import Service, ServiceFailed, Supervisor, python

ADMIN_NAME = "admin"
DEMO_HISTORY = timedelta(hours=1)


class Command(ServiceCommand):
    """``manage.py pipeline``: what ``make run`` runs."""

    help = __doc__
    command_name = "pipeline"

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepares the database, runs the services and stops them in order."""
        broker, broker_http = (
            _free_or_given(settings.TCP_ADDR, "TCP_ADDR"),
            _free_or_given(settings.HTTP_ADDR, "HTTP_ADDR"),
        )
        web = _free_or_given(Address(settings.HOST, settings.PORT), "PORT")
        _check_store()
        call_command("migrate", verbosity=0, interactive=False)
        password = _make_admin()
        source = settings.SOURCE
        demo: dict[str, str] = {}
        if source == "csv" and not settings.CSV_PATH:
            source, demo = "simulate", _demo_settings()
        environ = {
            **demo,
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "TCP_ADDR": str(broker),
            "HTTP_ADDR": str(broker_http),
            "MQ_HOST": broker.reachable.host,
            "MQ_PORT": str(broker.port),
            "PORT": str(web.port),
            "SOURCE": source,
        }
        if not FLUSH_INTERVAL.is_given():
            environ["FLUSH_INTERVAL"] = "1s"  # a user is waiting for the first answers
        base = f"http://{web.reachable}"
        broker_url = f"{'https' if settings.BROKER_TLS_CERT else 'http'}://{broker_http.reachable}"
        # The streamer takes METRICS_ADDR, which is one address. The web service's /metrics has the others' figures.
        services = [
            Service("broker", python("runbroker"), ready_url=f"{broker_url}/health"),
            Service("watch", python("watch", "--metrics-addr=")),
            Service("web", python("serve"), ready_url=f"{base}/ready"),
            Service("streamer", python("stream"), may_end=True),
        ]
        if settings.STORAGE_TYPE != "memory":  # with memory storage the web process collects for itself
            services.insert(1, Service("collector", python("collect", "--metrics-addr=")))
        offers_browser = can_open_browser()
        lines = [
            "",
            f"  Dashboard  {base}/{'        press Enter to open it' if offers_browser else ''}",
            f"  API        {base}/api/v1/gpus",
            f"  Swagger    {base}/swagger/index.html",
            f"  Admin      {base}/admin/",
        ]
        if password:
            lines.append(
                f"             user {ADMIN_NAME}, password {password}  (shown this once; manage.py changepassword {ADMIN_NAME})"
            )
        if settings.API_AUTH_REQUIRED:
            lines.append("  Access     by login or token only (manage.py apitoken create NAME)")
        else:
            lines.append("  Access     open to all who can reach it (API_AUTH_REQUIRED=true closes it)")
        lines += [
            f"  Broker     {broker_url}/stats",
            f"  Source     {_described(source, environ)}",
            f"  Store      {describe_store()}",
            "",
            "  Ctrl-C stops everything.",
            "",
        ]
        if not asyncio.run(_run(services, environ, lines, f"{base}/" if offers_browser else "")):
            raise CommandError("a service did not end cleanly: see its lines above")


def _check_store() -> None:
    """Raises CommandError when InfluxDB cannot be used, before any service starts and waits for it."""
    if settings.STORAGE_TYPE != "influxdb":
        return
    try:
        get_store().ping()
    except StoreError as error:
        raise CommandError(str(error)) from error
    finally:
        reset_store()


def _demo_settings() -> dict[str, str]:
    """What the demo sets where the environment does not: a fleet that fills a page, with the past that the store lacks."""
    past = DEMO_HISTORY
    newest = newest_reading()
    if newest is not None and settings.STORAGE_TYPE != "memory":
        past = max(timedelta(0), min(past, timezone.now() - newest))
    if settings.RETENTION_PERIOD:
        past = min(past, timedelta(seconds=settings.RETENTION_PERIOD))
    return {
        "SIM_SCENARIO": "demo",
        "SIM_HOSTS": "8",
        "SIM_METRICS": "health",
        "SIM_HISTORY": f"{past // timedelta(seconds=1)}s",
        # A GPU that is gone shows within the first minute.
        "STALE_AFTER": f"{max(30.0, 6 * settings.SCRAPE_INTERVAL):g}s",
    }


async def _run(services: list[Service], environ: dict[str, str], banner: list[str], offered_url: str) -> bool:
    """Runs the services until a stop signal. Enter opens ``offered_url`` in a browser, unless it is empty."""
    supervisor = Supervisor(environ)
    stop = asyncio.Event()
    ok = True
    with stop_signals(stop), ExitStack() as offers:
        try:
            for service in services:
                if service.may_end:  # the last one: all others are ready
                    for line in banner:
                        supervisor.say(line)
                    if offered_url:
                        offers.enter_context(browser_on_enter(offered_url))
                if not stop.is_set():
                    await supervisor.start(service)
            await supervisor.wait(stop)
        except ServiceFailed as failure:
            supervisor.say(f"error: {failure}; stopping the others")
            ok = False
        clean = await supervisor.stop()
    supervisor.say("all services have stopped")
    return ok and clean


def _described(source: str, environ: Mapping[str, str]) -> str:
    """Describes the source for the banner, so that nobody takes synthetic readings for real ones."""
    if source == "simulate":
        hosts, gpus = SIM_HOSTS.read(environ), SIM_GPUS_PER_HOST.read(environ)
        return f"a SYNTHETIC fleet of {hosts} hosts with {gpus} GPUs each; CSV_PATH=capture.csv streams your own"
    return settings.CSV_PATH if source == "csv" else f"exporters: {hide_passwords(', '.join(settings.TARGETS))}"


def _free_or_given(address: Address, setting: str) -> Address:
    """Returns the address with its port, or a free one for port 0. Raises CommandError when the port is taken."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise CommandError(
                f"{setting}: cannot listen on {address}: {error.strerror}; set {setting} to another"
            ) from error
        return Address(address.host, int(probe.getsockname()[1]))


def _make_admin() -> str | None:
    """Creates the first admin user and returns its random password, or None when an admin exists already."""
    users = get_user_model()
    if users.objects.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.objects.create_superuser(ADMIN_NAME, "", password)
    return password
