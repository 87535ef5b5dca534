"""dashboard.views.pipeline: what arrives, what was refused, and what the fleet does not send."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from dashboard.broker_watch import BrokerWatch
from dashboard.views import pipeline
from dashboard.views.pipeline import HOSTS_ON_A_PAGE, MOST_METRICS, StoreFigures, streamers
from health.rule_table import rules_now
from inventory.newest import newest_tables
from inventory.status import add_counts
from inventory.sync.memory import save_sightings
from inventory.sync.sightings import Origin, Sightings
from stores.base import Store, StoreStats, StoreUnavailable
from tests.api.broker_thread import broker_in_thread
from tests.dashboard.reading import html, part, text_of
from tests.inventory.building import POWER, SECOND, T0, TEMP, UTIL, block, gpu, save

pytestmark = pytest.mark.django_db
STARTED = datetime(2025, 7, 18, 20, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_broker(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.MQ_HOST, settings.MQ_PORT = "no-such-host.invalid", 1
    monkeypatch.setattr(pipeline, "watch", BrokerWatch())


def report(name: str = "c1", **refused: int) -> None:
    add_counts(name, started=STARTED, messages=5, readings_stored=70, refused=refused, committed_offset=4)


def test_the_broker_and_its_subscribers(client: Client, settings: Settings, tmp_path: Path) -> None:
    with broker_in_thread(tmp_path / "log", payloads=[b"{}"] * 5, fsync="never") as port:
        settings.MQ_HOST, settings.MQ_PORT = "127.0.0.1", port
        body = html(client, "/pipeline")
    assert "5, offsets 0 to 4" in part(body, "broker")
    assert "c1 connected 4 0" in part(body, "broker")
    assert "Lag 4 messages 1 subscriber, 1 connected" in part(body, "tiles")


def test_a_broker_that_is_away_is_said_with_what_is_known(client: Client) -> None:
    assert "Start it with make run" in part(html(client, "/pipeline"), "broker")
    report()
    body = html(client, "/pipeline")
    assert "The broker does not answer." in part(body, "broker")
    assert "the collectors last reported at" in part(body, "broker")
    assert "Lag n/a" in part(body, "tiles")
    assert "c1" in part(body, "collectors")


def test_a_store_that_is_away_leaves_the_rest(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise StoreUnavailable("connection refused")

    monkeypatch.setattr(pipeline, "get_store", away)
    report()
    text = part(html(client, "/pipeline"), "collectors")
    assert "The store does not answer. connection refused" in text
    assert "c1" in text


def test_reasons_are_told_in_words(client: Client) -> None:
    report(blank=2, out_of_range=7, bad_label=5, not_a_gpu=6)
    report("c2", blank=1, invented=3)
    text = part(html(client, "/pipeline"), "refused")
    assert text.index("out_of_range 7 a value that the metric cannot have") < text.index("blank 3 DCGM had no value")
    assert "invented 3 a streamer gave a reason that is not known here" in text
    assert "bad_label 5 a label or a column" in text
    assert "not_a_gpu 6 a row of a CPU" in text


def test_the_host_with_the_oldest_data_comes_first(client: Client) -> None:
    save(
        block(gpu("GPU-a", hostname="fresh"), 0, {UTIL: 1.0}),
        block(gpu("GPU-b", hostname="old"), -3600, {UTIL: 1.0}),
    )
    text = part(html(client, "/pipeline"), "hosts")
    assert text.index("old") < text.index("fresh")
    assert "1 h 2025-07-18 19:42:34 ▲ stale" in text
    assert "0 s 2025-07-18 20:42:34 reporting" in text


def test_streamers_and_when_they_last_sent(client: Client) -> None:
    for source, seconds, names in (("dc1", 60, "ab"), ("dc2", 0, "c")):
        sightings = Sightings()
        for slot, name in enumerate(names):
            of = gpu(f"GPU-{name}", hostname=f"host-{source}", gpu_id=slot)
            sightings.add(block(of, seconds, {UTIL: 1.0}), Origin(source))
        save_sightings(sightings)
    assert streamers(newest_tables()) == [("dc2", 1, T0), ("dc1", 2, T0 + 60 * SECOND)]
    assert re.search(r"dc2 .+ ago 1 dc1 .+ ago 2", part(html(client, "/pipeline"), "collectors"))


def test_rules_say_which_data_they_lack(client: Client) -> None:
    save(
        block(gpu("GPU-a"), 0, {UTIL: 1.0, POWER: 70.0, TEMP: 30.0}),
        block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 1.0, TEMP: 30.0, "DCGM_FI_DEV_NVLINK_GET_STATE:nvlink:0": 1.0}),
    )
    body = html(client, "/pipeline")
    rows = {
        row[0]: row[1:]
        for each in re.findall(r"<tr>(.*?)</tr>", body.split('id="rules"')[1].split("</table>")[0], re.DOTALL)
        if (row := [text_of(cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", each, re.DOTALL)])
    }
    assert rows["busy_but_cold"][1:] == ["1 of 2", "on the other GPUs"]
    assert rows["nvlink_inactive"][1] == "1 of 2"
    assert rows["xid_fatal"][1:] == ["none", "DCGM_FI_DEV_XID_ERRORS"]
    assert rows["recovery_action"][1:] == ["none", "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION"]
    complete = text_of(body.split("all data</summary>")[1].split("</details>")[0])
    assert all(
        (rule.name in rows) != (f"{rule.name} {text_of(rule.finds)}" in complete) for rule in rules_now().values()
    )
    assert "temp_high" in complete
    assert "gpu_missing" in complete
    assert "DCGM_FI_DEV_XID_ERRORS, gauge, XID error." in body or "DCGM_FI_DEV_XID_ERRORS, gauge, " in body


def test_lines_to_add_have_three_columns(client: Client) -> None:
    save(block(gpu(), 0, {UTIL: 1.0}))
    lines = html(client, "/pipeline").split('<code class="lines">')[1].split("</code>")[0].split("\n")
    assert lines
    assert all(re.fullmatch(r"DCGM_\w+, (gauge|counter), [^,]+\.", line) for line in lines)


def matrix(body: str) -> dict[str, list[tuple[str, str]]]:
    """By metric, the class and the text of each host's cell."""
    rows = re.findall(
        r"<tr><th scope=\"row\".*?>(.*?)</th>(.*?)</tr>", body.split('data-part="availability"')[1], re.DOTALL
    )
    return {name: re.findall(r'<td class="(full|some|none)">(.*?)</td>', cells) for name, cells in rows}


def test_the_matrix_of_hosts_and_metrics(client: Client) -> None:
    save(
        block(gpu("GPU-a", hostname="n1"), 0, {UTIL: 1.0, TEMP: 30.0}),
        block(gpu("GPU-b", hostname="n1", gpu_id=1), 0, {UTIL: 1.0}),
        block(gpu("GPU-c", hostname="n2"), 0, {UTIL: 1.0}),
        block(gpu("GPU-d", hostname="n3"), -3600, {UTIL: 1.0}),
    )
    assert matrix(html(client, "/pipeline")) == {
        TEMP: [("some", "1"), ("none", "0"), ("none", "–")],
        UTIL: [("full", "2"), ("full", "1"), ("none", "–")],
    }
    assert list(matrix(html(client, "/pipeline?gaps=1"))) == [TEMP]
    assert matrix(html(client, "/pipeline?host=N2")) == {TEMP: [("none", "0")], UTIL: [("full", "1")]}
    assert "No host has “zz” in its name." in html(client, "/pipeline?host=zz")


def test_a_flood_of_metrics_leaves_room_for_those_that_people_know(client: Client) -> None:
    flood = {f"A_METRIC_OF_NOBODY_{number}": 1.0 for number in range(MOST_METRICS + 50)}
    save(block(gpu(), 0, {UTIL: 1.0} | flood), block(gpu("GPU-b", gpu_id=1), 0, {UTIL: 1.0}))
    body = html(client, "/pipeline")
    found = matrix(body)
    assert (len(found), UTIL in found) == (MOST_METRICS, True)
    assert "51 more metrics are not shown." in part(body, "availability")


def test_many_hosts_are_paged(client: Client) -> None:
    count = HOSTS_ON_A_PAGE + 3
    save(*(block(gpu(f"GPU-{n}", hostname=f"n-{n:03d}"), 0, {UTIL: 1.0}) for n in range(count)))
    assert len(matrix(html(client, "/pipeline"))[UTIL]) == HOSTS_ON_A_PAGE
    second = html(client, "/pipeline?page=2&gaps=")
    assert len(matrix(second)[UTIL]) == 3
    assert "page 2 of 2" in second
    assert "page 2 of 2" in html(client, "/pipeline?page=99")
    assert "page 1 of 2" in html(client, "/pipeline?page=x")


def test_without_gpus_the_page_teaches(client: Client) -> None:
    body = html(client, "/pipeline")
    assert "manage.py stream --source dcgm" in body
    assert "Once GPUs report" in body


def test_queries_do_not_grow_with_the_fleet(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    save(*(block(gpu(f"GPU-{n}", hostname=f"n-{n:03d}"), 0, {UTIL: 1.0}) for n in range(50)))
    with django_assert_max_num_queries(12):
        html(client, "/pipeline")


def test_the_store_is_asked_again_when_its_figures_are_old(
    store: Store, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    asked: list[StoreStats] = []
    stats = store.stats

    def counted() -> StoreStats:
        asked.append(stats())
        return asked[-1]

    monkeypatch.setattr(store, "stats", counted)
    figures = StoreFigures()
    settings.STORE_SECONDS = 60.0
    assert figures.of(store) == figures.of(store)
    assert len(asked) == 1
    settings.STORE_SECONDS = 0.0
    figures.of(store)
    assert len(asked) == 2
