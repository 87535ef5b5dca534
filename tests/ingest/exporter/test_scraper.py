from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from ingest.errors import SourceError
from ingest.exporter.scraper import ScrapeConfig, Scraper, TargetStatus
from ingest.exporter.targets import Targets
from ingest.simulator.exporter import FakeConfig, fake_exporters
from ingest.simulator.fleet import FleetShape
from ingest.simulator.versions import GENERATIONS
from ingest.streamer.live import SourceBatch
from tests.ingest.wiring import until
from tests.ports import free_port

LINE = 'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1"} 5\n'
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """An exporter that answers what the handler says; gives its URL."""
    app = web.Application()
    app.router.add_get("/metrics", handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"http{'s' if tls else ''}://localhost:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()


def saying(text: str | bytes, **headers: str) -> Handler:
    body = text.encode() if isinstance(text, str) else text

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": "text/plain", **headers})

    return handle


async def scrape_once(*urls: str, **changes: object) -> tuple[list[SourceBatch], dict[str, TargetStatus]]:
    portions: list[SourceBatch] = []
    scraper = Scraper(ScrapeConfig(**{"timeout": 2.0, **changes}), Targets(urls))  # type: ignore[arg-type]
    await scraper.run(portions.append, asyncio.Event(), once=True)
    return portions, scraper.statuses


async def test_every_generation_is_scraped_and_told_apart_by_nothing() -> None:
    shape = FleetShape(hosts=len(GENERATIONS), gpus_per_host=2)
    async with fake_exporters(FakeConfig(shape=shape, port=0)) as exporters:
        assert [exporter.kind for exporter in exporters] == list(GENERATIONS)
        portions, statuses = await scrape_once(*[exporter.url for exporter in exporters])
    assert all(status.up and status.samples == 50 and status.duration_s > 0 for status in statuses.values())
    names = [{sample.metric_name for sample in portion.samples} for portion in portions]
    assert all(each == set(shape.metrics) for each in names)
    assert sum(portion.counts.total() for portion in portions) == 0


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (saying("<html>404</html>"), "not metrics text"),
        (saying("<html>", **{"Content-Type": "text/html"}), "answers text/html"),
        (saying(""), "the answer is empty"),
        (saying(LINE * 1000), "larger than 1000 bytes (SCRAPE_MAX_BYTES)"),
        (saying(gzip.compress(LINE.encode() * 1000), **{"Content-Encoding": "gzip"}), "larger than 1000 bytes"),
        (saying(b"\x1f\x8bnot gzip", **{"Content-Encoding": "gzip"}), "gzip"),
        (saying(bytes(range(256)) * 3), "is not metrics text"),
    ],
)
async def test_what_is_no_metrics_is_a_failed_scrape(handler: Handler, reason: str) -> None:
    async with serving(handler) as url:
        portions, statuses = await scrape_once(url, max_bytes=1000)
    assert portions == []
    assert (statuses[url].up, statuses[url].failures) == (False, 1)
    assert reason in statuses[url].reason


async def test_an_error_a_redirect_and_a_closed_port_are_failed_scrapes() -> None:
    async def broken(request: web.Request) -> web.Response:
        raise web.HTTPServiceUnavailable

    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound("/other")

    closed = f"http://127.0.0.1:{free_port()}/metrics"
    async with serving(broken) as first, serving(elsewhere) as second:
        _, statuses = await scrape_once(first, second, closed)
    assert "HTTP 503" in statuses[first].reason
    assert "HTTP 302" in statuses[second].reason
    assert statuses[closed].up is False


async def test_a_target_that_drips_is_cut_off_in_time() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        while True:
            await answer.write(b"#")
            await asyncio.sleep(0.02)

    async with serving(drip) as url:
        began = asyncio.get_running_loop().time()
        _, statuses = await scrape_once(url, timeout=0.3)
        assert asyncio.get_running_loop().time() - began < 2
    assert "no complete answer within 0.3 s" in statuses[url].reason


@pytest.mark.parametrize(
    ("user", "changes", "expected"),
    [
        ("", {"token": "hush"}, "Bearer hush"),
        ("", {"user": "me", "password": "p"}, "Basic " + base64.b64encode(b"me:p").decode()),
        ("you:q%40@", {"token": "hush"}, "Basic " + base64.b64encode(b"you:q@").decode()),
        ("", {}, None),
    ],
)
async def test_it_says_who_it_is(user: str, changes: dict[str, str], expected: str | None) -> None:
    seen: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(text=LINE)

    async with serving(handle) as url:
        _, statuses = await scrape_once(url.replace("//", f"//{user}"), **changes)
    assert seen == [expected]
    assert list(statuses) == [url]  # without the password


async def test_tls_is_checked_against_the_given_authority(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(  # noqa: ASYNC221 - some milliseconds, and nothing else to do
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with serving(saying(LINE), context) as url:
        portions, _ = await scrape_once(url, ca_file=str(cert))
        assert len(portions) == 1
        _, statuses = await scrape_once(url)
        assert "certificate" in statuses[url].reason.lower()
    with pytest.raises(SourceError, match="SCRAPE_TLS_CA"):
        await scrape_once(url, ca_file=str(tmp_path / "none.pem"))


async def test_hanging_and_bad_targets_delay_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stop = asyncio.Event()
    given: list[SourceBatch] = []
    shape = FleetShape(hosts=40, gpus_per_host=1)
    async with fake_exporters(FakeConfig(shape=shape, port=0, hanging=4, garbage=4)) as exporters:
        scraper = Scraper(ScrapeConfig(interval=0.3, timeout=5.0), Targets([each.url for each in exporters]))
        task = asyncio.create_task(scraper.run(given.append, stop, once=False))
        await until(lambda: len(given) >= 36 * 4 - 16)
        stop.set()
        await task
    good = {each.url for each in exporters if each.kind in GENERATIONS}
    counts = {url: sum(portion.origin == url for portion in given) for url in good}
    assert min(counts.values()) >= 2
    for url in good:  # none of them had a hole
        times = [portion.samples[0].time_ns for portion in given if portion.origin == url]
        assert max((b - a for a, b in pairwise(times)), default=0) < 2e9
    assert {scraper.statuses[each.url].up for each in exporters if each.kind == "garbage"} == {False}
    assert caplog.text.count(" is down: ") == 4  # said once each


async def test_a_target_that_comes_back_is_up_again_and_its_bad_lines_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    answers = iter(["", LINE + "bad line here\n", LINE + "bad line here\n"])

    async def handle(request: web.Request) -> web.Response:
        text = next(answers, None)
        if text is None:
            stop.set()
        return web.Response(text=LINE if text is None else text)

    stop = asyncio.Event()
    given: list[SourceBatch] = []
    async with serving(handle) as url:
        scraper = Scraper(ScrapeConfig(interval=0.05), Targets([url]))
        await scraper.run(given.append, stop, once=False)
    assert [len(portion.refused) for portion in given[:2]] == [1, 0]
    assert [portion.counts["bad_field"] for portion in given[:2]] == [1, 1]
    assert "is down: the answer is empty" in caplog.text
    assert "is up again" in caplog.text


async def test_targets_that_come_and_go_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.exporter.scraper.RESOLVE_SECONDS", 0.05)
    listed = tmp_path / "targets.txt"
    stop = asyncio.Event()
    given: list[SourceBatch] = []
    async with serving(saying(LINE)) as first, serving(saying(LINE)) as second:
        listed.write_text(first)
        scraper = Scraper(ScrapeConfig(interval=0.05), Targets([str(listed)]))
        task = asyncio.create_task(scraper.run(given.append, stop, once=False))
        await until(lambda: bool(given))
        listed.write_text(second)
        await until(lambda: {portion.origin for portion in given} == {first, second})
        await until(lambda: list(scraper.statuses) == [second])
        stop.set()
        await task


async def test_an_exporter_without_one_gpu_is_said_once_and_when_it_has_some_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    empty = "# HELP DCGM_FI_DEV_GPU_UTIL x\n# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n"
    answers = iter([LINE, empty, empty, LINE, LINE])
    stop = asyncio.Event()
    seen: list[int] = []

    async def handle(request: web.Request) -> web.Response:
        seen.extend(status.gpus for status in scraper.statuses.values())
        text = next(answers, None)
        if text is None:
            stop.set()
        return web.Response(text=text or LINE)

    async with serving(handle) as url:
        scraper = Scraper(ScrapeConfig(interval=0.05), Targets([url]))
        await scraper.run(lambda _: None, stop, once=False)
    assert seen[:6] == [0, 1, 0, 0, 1, 1]
    assert caplog.text.count("answers without one GPU") == 1
    assert caplog.text.count("has 1 GPUs again") == 1


async def test_what_a_model_lacks_is_passed_over_and_said_once_per_gpu(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = [f'DCGM_FI_DEV_MEMORY_TEMP{{gpu="{n}",UUID="GPU-{n}",modelName="Tesla T4"}} 0\n' for n in range(2)]
    stop = asyncio.Event()
    given: list[SourceBatch] = []

    def take(batch: SourceBatch) -> None:
        given.append(batch)
        if len(given) == 3:
            stop.set()

    async with serving(saying(LINE + "".join(lines))) as url:
        await Scraper(ScrapeConfig(interval=0.05), Targets([url])).run(take, stop, once=False)
    assert {sample.metric_name for batch in given for sample in batch.samples} == {"DCGM_FI_DEV_GPU_UTIL"}
    assert [batch.counts for batch in given] == [{"not_supported": 2}] * 3
    assert all(not batch.refused for batch in given)
    assert caplog.text.count("not supported: DCGM_FI_DEV_MEMORY_TEMP") == 2


async def test_lines_that_stay_bad_are_letters_once_however_many_others_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingest.exporter.scraper._MOST_REMEMBERED", 30)
    stop = asyncio.Event()
    given: list[SourceBatch] = []
    pages = itertools.count()

    async def handle(request: web.Request) -> web.Response:
        page = next(pages)
        lines = [f'DCGM_x{{gpu="0",UUID="GPU-1",lane="{n}"}} NaN' for n in range(10)]
        lines += [f'DCGM_x{{gpu="0",UUID="GPU-1",pod="{page}-{n}"}} NaN' for n in range(5)]
        return web.Response(text=LINE + "\n".join(lines))

    def take(batch: SourceBatch) -> None:
        given.append(batch)
        if len(given) == 20:
            stop.set()

    async with serving(handle) as url:
        await Scraper(ScrapeConfig(interval=0.02), Targets([url])).run(take, stop, once=False)
    assert [len(batch.refused) for batch in given[:20]] == [15] + [5] * 19
    assert {batch.counts["non_finite"] for batch in given} == {15}
