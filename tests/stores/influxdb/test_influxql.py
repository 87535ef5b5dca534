from __future__ import annotations

import random

import pytest

from stores.base import ReadingsQuery
from stores.influxdb import InfluxStore
from stores.influxdb.influxql import (
    Conditions,
    conditions_of,
    quote_identifier,
    select_each,
    select_points,
    show_fields,
)
from stores.influxdb.line_protocol import FIRST_NS, GPU, LAST_NS, SHARE
from tests.stores.making import START, ask, fleet, gpu, keys, one


def test_an_identifier_cannot_end_its_quotes() -> None:
    assert quote_identifier('a"b\\c\nd') == r'"a\"b\\c\nd"'


def test_values_are_bound_and_never_in_the_statement() -> None:
    query = ReadingsQuery(gpus=("GPU'; DROP",), hostnames=("h' OR 1=1",), pods=("p",), metric_names=("m",))
    conditions = conditions_of(query)
    conditions.between(5, 7)
    statement = select_points(query.metric_names, conditions, newest_first=True, limit=3)
    assert "DROP" not in statement
    assert "1=1" not in statement
    assert set(conditions.params.values()) == {"GPU'; DROP", "", "h' OR 1=1", "p", 5, 7}
    assert statement.startswith('SELECT "m", "container", "namespace", "pod", ')
    assert statement.endswith(" ORDER BY time DESC LIMIT 3")


def test_a_gpu_with_a_colon_may_be_a_mig_instance() -> None:
    conditions = Conditions()
    conditions.gpus(("GPU-1:2",))
    assert list(conditions.params.values()) == ["GPU-1:2", "", "GPU-1", "2"]


@pytest.mark.parametrize(
    ("start", "end", "impossible"),
    [
        (None, None, False), (5, 5, True), (6, 5, True), (LAST_NS + 1, None, True), (None, FIRST_NS, True),
        (-(1 << 70), 1 << 70, False), (LAST_NS, None, False),
    ],
)  # fmt: skip
def test_a_range_that_holds_nothing_is_not_asked_for(start: int | None, end: int | None, impossible: bool) -> None:
    conditions = Conditions()
    conditions.between(start, end)
    assert conditions.impossible == impossible


def test_what_cannot_be_there_is_not_asked_for() -> None:
    for query in (
        ReadingsQuery(gpus=("\ud800",)), ReadingsQuery(pods=("\ud800",)), ReadingsQuery(metric_names=("pod", "time")),
    ):  # fmt: skip
        assert conditions_of(query).impossible


def test_statements_over_all_series() -> None:
    counting = select_each("count", GPU, ["a", 'b"'], Conditions(), by=("uuid",))
    assert counting == r'SELECT count("a"), count("b\"") FROM "gpu" GROUP BY "uuid"'
    assert show_fields(SHARE) == 'SHOW FIELD KEYS FROM "gpu_share"'


_INJECTIONS = [
    "'", '"', "\\", '\\"', "\\'", "`", ";", "--", "/*", "*/", "\n", "$p0", "$", ")", "(", " OR 1=1", " OR '1'='1",
    "; DROP SERIES FROM gpu", '"; DROP MEASUREMENT "gpu"; --', "' OR uuid =~ /.*/ OR uuid='", '" = \'\' OR "x',
    "/.*/", "=~", " INTO gpu", "FROM secret", "\x00", "%00", "now()", "*", "::field", "é", "😀",
]  # fmt: skip


def test_no_text_gets_out_of_its_place_in_a_statement(influx_store: InfluxStore) -> None:
    influx_store.write([fleet([gpu(1), gpu(2)], START, ["a", "b"])])
    whole = ask(influx_store)
    chance = random.Random(9)
    for _ in range(250):
        text = "".join(chance.choices(_INJECTIONS, k=chance.randint(1, 4)))
        for query in (
            {"gpus": (text,)}, {"hostnames": (text,)}, {"models": (text,)}, {"pods": (text,)}, {"namespaces": (text,)},
            {"metric_names": (text,)},
        ):  # fmt: skip
            assert ask(influx_store, **query) == []
        assert influx_store.metric_names(text) == []
        # Beside names that are there, it takes nothing away and adds nothing.
        assert keys(ask(influx_store, metric_names=("a", text))) == [key for key in keys(whole) if key[2] == "a"]
    assert ask(influx_store) == whole


def test_a_metric_with_a_hostile_name_is_written_and_found_by_it(influx_store: InfluxStore) -> None:
    for number, text in enumerate(_INJECTIONS):
        influx_store.write([one(gpu(1), START + number, **{text: 1.0})])
        assert [row.time_ns for row in ask(influx_store, metric_names=(text,))] == [START + number]
    assert influx_store.metric_names() == sorted(_INJECTIONS)
