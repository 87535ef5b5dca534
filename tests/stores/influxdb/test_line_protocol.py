from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings.model import PointBlock
from stores.base import ReadingsQuery
from stores.influxdb import InfluxStore
from stores.influxdb.line_protocol import (
    FIRST_NS,
    LAST_NS,
    RESERVED,
    LineBuilder,
    LinePoint,
    LineSource,
    Unwritable,
    decode_name,
    encode_name,
    escape,
    quote_string,
    readings_of,
    render,
)
from tests.influxd import Influxd
from tests.stores.making import START, ask, gpu, one, several


def points_of(blocks: Sequence[PointBlock]) -> list[LinePoint]:
    return [point for table in LineBuilder().tables(blocks) for point in table.points()]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXTS)
def test_a_name_comes_back_from_its_encoding(text: str) -> None:
    encoded = encode_name(text)
    assert encoded
    assert "\n" not in encoded
    assert "\\" not in encoded
    assert decode_name(encoded) == text


@given(TEXTS, TEXTS)
def test_two_names_never_share_an_encoding(one_name: str, other: str) -> None:
    assert (encode_name(one_name) == encode_name(other)) == (one_name == other)


@pytest.mark.parametrize("text", ["NVIDIA H100", "a,b=c", "100%", "node-7.local", "日本語", 'say "x"', "%zz"])
def test_a_usual_name_stands_on_the_server_as_it_is(text: str) -> None:
    assert encode_name(text) == text


def test_what_line_protocol_cannot_carry_is_written_as_its_code() -> None:
    assert encode_name("a\nb\\") == "a%0Ab%5C"
    assert encode_name("%41") == "%2541"
    assert encode_name("") == "%"


def test_escaping_follows_the_protocol() -> None:
    assert escape("a b,c=d") == r"a\ b\,c\=d"
    assert quote_string('say "x" \\ y') == r'"say \"x\" \\ y"'


def test_a_point_is_one_line() -> None:
    of = gpu(3, container="main", pod="job 1", namespace="ml")
    tables = LineBuilder().tables([one(of, START, U=12.0, T=0.1)])
    assert render(tables).decode() == (
        "gpu,device=nvidia3,gpu_id=3,hostname=host-000,model=NVIDIA\\ H100\\ 80GB\\ HBM3,uuid=GPU-0003 "
        'U=12.0,T=0.1,container="main",namespace="ml",pod="job 1" 1752871354000000000'
    )


def test_a_gpu_without_a_pod_has_no_field_for_it() -> None:
    tables = LineBuilder().tables([one(gpu(3, container="", pod="", namespace=""), START, U=12.0)])
    assert render(tables).decode().partition(" U=")[2] == "12.0 1752871354000000000"


def test_a_gpu_without_a_pod_is_found_by_that(influx_store: InfluxStore) -> None:
    influx_store.write([one(gpu(1), START, U=1.0), one(gpu(2, namespace="ml", pod="job"), START, U=2.0)])
    found = influx_store.page(ReadingsQuery(pods=("",), namespaces=("", "other")))
    assert found.values == [1.0]


def test_a_share_is_told_apart_by_its_pod() -> None:
    of = gpu(3, container="main", pod="job", namespace="ml", share=True, gpu_id=None)
    assert render(LineBuilder().tables([one(of, START, U=1.0)])).decode() == (
        "gpu_share,container=main,namespace=ml,pod=job,uuid=GPU-0003 "
        'U=1.0,device="nvidia3",gpu_id="",hostname="host-000",model="NVIDIA H100 80GB HBM3" 1752871354000000000'
    )


def test_readings_of_one_gpu_and_time_are_merged_across_blocks_and_the_later_value_stays() -> None:
    blocks = [one(gpu(), START, a=1.0, b=2.0), one(gpu(1), START, a=5.0), one(gpu(pod="x"), START, b=3.0, c=4.0)]
    found = {point[0].gpu.uuid: point for point in points_of(blocks)}
    readings = {uuid: readings_of(point) for uuid, point in found.items()}
    assert readings == {"GPU-0000": {"a": 1.0, "b": 3.0, "c": 4.0}, "GPU-0001": {"a": 5.0}}
    assert found["GPU-0000"][0].gpu.pod == "x"


def test_a_name_told_twice_in_a_block_is_one_field() -> None:
    (point,) = points_of([PointBlock([gpu()], ["a", "a"], [(0, START, [1.0, 2.0])])])
    assert readings_of(point) == {"a": 2.0}


@st.composite
def any_blocks(draw: st.DrawFn) -> list[PointBlock]:
    """Blocks with gaps, whose GPUs, times and names may come again."""
    blocks = []
    for _ in range(draw(st.integers(0, 4))):
        names = draw(st.lists(st.sampled_from("abcdefghij"), max_size=10, unique=draw(st.booleans())))
        values = st.lists(
            st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=len(names), max_size=len(names)
        )
        times = st.one_of(st.integers(FIRST_NS, LAST_NS), st.integers(START, START + 2))
        gpus = [gpu(draw(st.integers(0, 2)), share=draw(st.booleans()), model_name="H100") for _ in range(2)]
        blocks.append(PointBlock(gpus, names, draw(st.lists(st.tuples(st.integers(0, 1), times, values), max_size=5))))
    return blocks


@given(any_blocks())
def test_lines_have_every_reading_once(blocks: list[PointBlock]) -> None:
    expected: dict[tuple[tuple[str, ...], int], dict[str, float]] = {}
    count = 0
    for block in blocks:
        for index, time_ns, values in block.points:
            present = [
                (name, value) for name, value in zip(block.metric_names, values, strict=True) if value is not None
            ]
            count += len(present)
            if present:
                key = LineSource.of(block.gpus[index]).key
                expected.setdefault((key, time_ns), {}).update(present)
    lines = LineBuilder()
    tables = lines.tables(blocks)
    assert lines.readings == count
    points = [point for table in tables for point in table.points()]
    found = {
        (source.key, time_ns): dict(zip(shape.names, values, strict=True)) for source, time_ns, shape, values in points
    }
    assert found == expected
    assert len(points) == len(expected)
    written = [line.rsplit(" ", 2) for line in render(tables).decode().split("\n") if line]
    assert sorted(int(time_ns) for _, _, time_ns in written) == sorted(time_ns for _, time_ns in expected)
    texts = [
        {name: value for name, _, value in (part.partition("=") for part in fields.split(","))}
        for _, fields, _ in written
    ]
    for text, point in zip(texts, points, strict=True):
        readings = readings_of(point)
        assert {name: float(text[name]) for name in readings} == readings


def test_a_point_without_readings_does_no_harm() -> None:
    odd = gpu(gpu_id=LAST_NS + 1)
    blocks = [
        PointBlock(
            [gpu(), odd],
            ["a", "b"],
            [(0, START, [1.0, None]), (1, START, [None, None]), (0, LAST_NS + 1, [None, None])],
        ),
        PointBlock([odd], ["time"], [(0, START, [None])]),
        PointBlock([odd], [], [(0, START, [])]),
    ]
    assert [readings_of(point) for point in points_of(blocks)] == [{"a": 1.0}]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_names_that_are_tags_or_fields_of_ours_are_no_metrics(name: str) -> None:
    with pytest.raises(Unwritable):
        LineBuilder().tables([one(gpu(), START, **{name: 1.0})])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", 10**400])
def test_a_value_that_is_no_finite_number_is_found(value: Any) -> None:
    for values in ({"a": 1.0, "b": value}, {"a": None, "b": value}):
        with pytest.raises(Unwritable):
            LineBuilder().tables([one(gpu(), START, **values)])


@pytest.mark.parametrize("time_ns", [FIRST_NS - 1, LAST_NS + 1])
def test_a_time_that_the_server_keeps_for_itself_is_found(time_ns: int) -> None:
    with pytest.raises(Unwritable):
        LineBuilder().tables([several(gpu(), [(time_ns, 1.0)])])


def test_text_that_is_not_unicode_is_found() -> None:
    with pytest.raises(Unwritable):
        render(LineBuilder().tables([one(gpu(hostname="\ud800"), START, a=1.0)]))


# The worst of what can be in a name, more often than chance would have it.
_PIECES = [
    " ", ",", "=", '"', "'", "\\", "\n", "\r", "\t", "\x00", "\x7f", "%", "%0A", "%5C", "#", "$", ";", "--", "/*", "é",
    "日", "😀", "\u2028", "\ufeff", "\uffff", "a", "Z", "0", "_", ".", "{", "}", "`", "true", "1i", "gpu,", " 5\n", "\\\\",
]  # fmt: skip


def test_any_text_anywhere_is_read_back_from_the_server(influx_store: InfluxStore) -> None:
    chance = random.Random(4)
    texts = ["".join(chance.choices(_PIECES, k=chance.randint(1, 8))) for _ in range(1500)]
    expected = {}
    blocks = []
    for number in range(0, len(texts), 7):
        uuid, host, device, model, container, pod, namespace = (texts + texts)[number : number + 7]
        of = gpu(uuid=f"{number}{uuid}", hostname=host, device=device, model_name=model, gpu_id=None)
        of = gpu(
            uuid=f"{number}{uuid}", hostname=host, device=device, model_name=model, container=container, pod=pod,
            namespace=namespace, gpu_id=None,
        )  # fmt: skip
        metric = texts[-1 - number % len(texts)]
        metric = metric if metric not in RESERVED else "metric"
        blocks.append(PointBlock([of], [metric], [(0, START + number, [float(number)])]))
        expected[of.uuid] = (metric, host, device, model, container, pod, namespace)
    result = influx_store.write(blocks)
    assert result.refused == ()
    found = {
        row.uuid: (
            row.metric_name, row.hostname, row.device, row.model_name, row.container, row.pod, row.namespace,
        )
        for row in ask(influx_store, limit=10_000)
    }  # fmt: skip
    assert found == expected


def test_a_hundred_pod_restarts_on_one_gpu_make_one_series(influxd: Influxd, influx_store: InfluxStore) -> None:
    for number in range(100):
        influx_store.write([one(gpu(pod=f"train-{number}", container="main"), START + number, U=1.0)])
    assert len(influxd.query(influx_store.config.bucket, "SHOW SERIES")) == 1
    assert len({row.pod for row in ask(influx_store)}) == 100


def test_whole_points_make_one_field_for_each_metric(influxd: Influxd, influx_store: InfluxStore) -> None:
    of_pod = gpu(container="main", namespace="ml", pod="job")
    influx_store.write([one(gpu(mig_id="3"), START, U=1.0), one(gpu(), START, T=1.0), one(of_pod, START + 1, T=1.0)])
    bucket = influx_store.config.bucket
    assert influxd.query(bucket, "SHOW MEASUREMENTS") == [["gpu"]]
    assert sorted(row[0] for row in influxd.query(bucket, "SHOW TAG KEYS")) == [
        "device", "gpu_id", "hostname", "mig_id", "model", "uuid",
    ]  # fmt: skip
    assert sorted(map(tuple, influxd.query(bucket, "SHOW FIELD KEYS"))) == [
        ("T", "float"), ("U", "float"), ("container", "string"), ("namespace", "string"), ("pod", "string"),
    ]  # fmt: skip
