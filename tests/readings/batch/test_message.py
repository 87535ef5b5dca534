from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings.batch import BatchError, DecodedBatch, decode, encode_block, encode_plain
from readings.blocks import BlockBuilder
from readings.checks import Refusals
from readings.labels import is_blank_identity
from readings.model import Gpu, Point, PointBlock
from readings.times import INT64_MAX

T = 1_752_871_354_000_000_000
UTIL, TEMP = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"
GPUS = [
    Gpu(uuid="GPU-1", hostname="node-1", gpu_id=0, device="nvidia0", model_name="H100", labels={"x": 'a "b" \\ \n é'}),
    Gpu(uuid="GPU-2", gpu_id=7, mig_id="3", mig_profile="1g.10gb", pod="p", namespace="n", container="c", share=True),
]
BLOCK = PointBlock(GPUS, [UTIL, TEMP], [(0, T, [5.0, None]), (1, T + 1, [0.1, 31.5])])


def encoded(block: PointBlock = BLOCK, **more: Any) -> bytes:
    return encode_block(
        block, **{"batch_id": "b1", "source": "streamer-1", "collected_at": "2025-07-18T20:42:34Z", **more}
    )


def decoded(**batch: Any) -> DecodedBatch:
    return decode(json.dumps(batch).encode())


def compact(**more: Any) -> dict[str, Any]:
    batch = {"gpus": [{"uuid": "GPU-1"}, {"uuid": "GPU-2"}], "metric_names": [UTIL, TEMP], "points": [[0, T, [1, 2]]]}
    return {**batch, **more}


def metric(**more: Any) -> dict[str, Any]:
    return {"timestamp": "2025-07-18T20:42:34Z", "metric_name": UTIL, "uuid": "GPU-1", "value": 5, **more}


def reasons(result: DecodedBatch) -> list[str]:
    return [refusal.reason for refusal in result.refusals]


def test_a_block_survives_the_wire() -> None:
    assert decode(encoded(refused={"blank": 3})) == DecodedBatch(BLOCK, Refusals(), "streamer-1", "b1", {"blank": 3})


def readings(block: PointBlock) -> list[tuple[Gpu, str, int, float]]:
    found = [
        (block.gpus[gpu], name, time_ns, value)
        for gpu, time_ns, values in block.points
        for name, value in zip(block.metric_names, values, strict=True)
        if value is not None
    ]
    return sorted(found, key=repr)


def plain(block: PointBlock, **more: Any) -> bytes:
    return encode_plain(block, batch_id="b1", source="s", collected_at="2025-07-18T20:42:34Z", **more)


def test_a_block_survives_in_the_plain_form() -> None:
    result = decode(plain(BLOCK, refused={"blank": 3}))
    assert readings(result.block) == readings(BLOCK)
    assert (result.refusals, result.source, result.batch_id, result.reported) == ([], "s", "b1", {"blank": 3})
    assert decode(plain(PointBlock([], [], []), refused={"blank": 1})).reported == {"blank": 1}


def test_the_plain_form_is_one_object_a_reading_and_shares_of_a_gpu_stay_points() -> None:
    whole = Gpu(uuid="GPU-2", gpu_id=7, hostname="n", mig_id="3", mig_profile="1g.10gb", pod="p", namespace="ns")
    points: list[Point] = [(0, T, [1.5, None]), (1, T, [None, 2.0]), (2, T + 500_000_000, [3.0, 4.0])]
    message = json.loads(plain(PointBlock([GPUS[0], GPUS[1], whole], [UTIL, TEMP], points)))
    of_whole = {
        "timestamp": "2025-07-18T20:42:34.5Z", "uuid": "GPU-2", "gpu_id": 7, "hostname": "n", "device": "", "model_name": "",
        "pod": "p", "namespace": "ns", "labels": {"GPU_I_ID": "3", "GPU_I_PROFILE": "1g.10gb"},
    }  # fmt: skip
    assert message["metrics"] == [
        {
            "timestamp": "2025-07-18T20:42:34Z", "metric_name": UTIL, "value": 1.5, "uuid": "GPU-1", "hostname": "node-1",
            "gpu_id": 0, "device": "nvidia0", "model_name": "H100", "labels": {"x": 'a "b" \\ \n é'},
        },
        {**of_whole, "metric_name": UTIL, "value": 3.0},
        {**of_whole, "metric_name": TEMP, "value": 4.0},
    ]  # fmt: skip
    assert message["points"] == [[0, T, [None, 2.0]]]
    assert [gpu["share"] for gpu in message["gpus"]] == [True]
    assert (
        not {"points", "gpus", "metric_names"} & json.loads(plain(PointBlock([whole], [UTIL], [(0, T, [1.0])]))).keys()
    )


_TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
_GPU = st.builds(
    Gpu,
    uuid=st.sampled_from(["GPU-1", "GPU-2"]),
    hostname=_TEXT,
    gpu_id=st.none() | st.integers(0, 8),
    device=st.just("") | _TEXT,
    mig_id=st.sampled_from(["", "1"]),
    pod=st.sampled_from(["", "a", "b"]),
    namespace=st.just("ns"),
    labels=st.dictionaries(st.sampled_from(["Zone", "rack", "DCGM_FI_DRIVER_VERSION"]), _TEXT, max_size=2),
)


@given(
    st.lists(
        st.tuples(
            _GPU, st.sampled_from([UTIL, TEMP, "MINE_A", "MINE_B"]), st.integers(T, T + 3), st.floats(0, 100, width=32)
        ),
        max_size=30,
    ),
    st.integers(1, 40),
)
def test_any_blocks_are_the_same_in_both_forms(found: list[tuple[Gpu, str, int, float]], size: int) -> None:
    builder = BlockBuilder()
    for gpu, name, time_ns, value in found:
        builder.add(gpu, name, time_ns, value)
    for block in builder.blocks(size):
        compact_form, plain_form = decode(encoded(block)), decode(plain(block))
        assert (compact_form.refusals, plain_form.refusals) == ([], [])
        assert readings(plain_form.block) == readings(compact_form.block)


def test_the_compact_form_is_as_documented() -> None:
    assert json.loads(encoded(PointBlock(GPUS[1:], [UTIL], [(0, T, [None])]), refused={"blank": 3})) == {
        "batch_id": "b1",
        "source": "streamer-1",
        "collected_at": "2025-07-18T20:42:34Z",
        "refused": {"blank": 3},
        "gpus": [
            {
                "uuid": "GPU-2",
                "gpu_id": 7,
                "mig_id": "3",
                "mig_profile": "1g.10gb",
                "container": "c",
                "pod": "p",
                "namespace": "n",
                "share": True,
            }
        ],
        "metric_names": [UTIL],
        "points": [[0, T, [None]]],
    }


def test_counts_of_refused_readings_can_be_sent_alone() -> None:
    result = decode(encoded(PointBlock([], [], []), refused={"blank": 3}))
    assert result.reported == {"blank": 3}
    assert result.block.points == []


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), max_size=20)
some_gpus = st.builds(
    Gpu,
    uuid=texts.filter(lambda text: not is_blank_identity(text)),
    hostname=texts,
    gpu_id=st.none() | st.integers(0, 2**31 - 1),
    device=texts,
    model_name=texts,
    mig_id=texts,
    mig_profile=texts,
    container=texts,
    pod=texts,
    namespace=texts,
    share=st.booleans(),
    labels=st.dictionaries(texts, texts, max_size=3),
)


@st.composite
def some_blocks(draw: st.DrawFn) -> PointBlock:
    # Entries of one GPU may contradict each other, which is refused: see test_repeats.py.
    gpus = draw(st.lists(some_gpus, min_size=1, max_size=3, unique_by=lambda gpu: gpu.id))
    names = draw(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), unique=True, max_size=4))
    values = st.lists(
        st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=len(names), max_size=len(names)
    )
    points = st.tuples(st.integers(0, len(gpus) - 1), st.integers(0, INT64_MAX), values)
    return PointBlock(gpus, names, draw(st.lists(points, max_size=5)))


@given(some_blocks(), st.dictionaries(texts, st.integers(0, INT64_MAX), max_size=3))
def test_any_block_survives_the_wire_bit_for_bit(block: PointBlock, refused: dict[str, int]) -> None:
    result = decode(encoded(block, refused=refused))
    assert result == DecodedBatch(block, Refusals(), "streamer-1", "b1", refused)
    assert msgspec.json.encode(result.block) == msgspec.json.encode(block)


def test_values_are_floats_also_where_the_wire_says_integers() -> None:
    result = decoded(**compact(), metrics=[metric(uuid="GPU-3", value=7)])
    assert [type(value) for _, _, values in result.block.points for value in values if value is not None] == [float] * 3


def test_plain_readings_become_points_of_gpu_and_time() -> None:
    result = decoded(
        source="client",
        metrics=[
            metric(gpu_id=3, device="nvidia3", model_name="H100", hostname="node", container="c", pod="p", namespace="n"),
            metric(uuid="GPU-2", value=1.5),
            metric(
                metric_name=TEMP, gpu_id="3", device="nvidia3", model_name="H100", hostname="node", container="c", pod="p",
                namespace="n", value=40,
            ),
            metric(uuid="GPU-2", timestamp=T + 1, value=2.5),
        ],
    )  # fmt: skip
    gpu = Gpu(
        uuid="GPU-1",
        gpu_id=3,
        device="nvidia3",
        model_name="H100",
        hostname="node",
        container="c",
        pod="p",
        namespace="n",
    )
    assert result.refusals == []
    assert result.source == "client"
    assert result.block == PointBlock(
        [gpu, Gpu(uuid="GPU-2")], [UTIL, TEMP], [(0, T, [5.0, 40.0]), (1, T, [1.5, None]), (1, T + 1, [2.5, None])]
    )


def test_compact_and_plain_may_be_in_one_batch() -> None:
    batch = compact(metrics=[metric(uuid="GPU-3", metric_name="own"), metric(uuid="GPU-1", metric_name=TEMP)])
    result = decoded(**batch)
    assert result.block == PointBlock(
        [Gpu(uuid="GPU-1"), Gpu(uuid="GPU-2"), Gpu(uuid="GPU-3"), Gpu(uuid="GPU-1")],
        [UTIL, TEMP, "own"],
        [(0, T, [1.0, 2.0, None]), (2, T, [None, None, 5.0]), (3, T, [None, 5.0, None])],
    )


def test_unknown_fields_are_ignored_everywhere() -> None:
    batch = compact(metrics=[metric(extra=[1, {"a": 2}])], extra={"deep": [[[]]]})
    batch["gpus"][0]["extra"] = 5
    result = decoded(**batch)
    assert result.refusals == []
    assert result.block.count() == 3


@pytest.mark.parametrize("empty", [{"points": []}, {"metrics": []}, {"points": None, "metrics": []}, {"metrics": None}])
def test_a_batch_may_be_empty(empty: dict[str, Any]) -> None:
    assert decoded(**empty) == DecodedBatch(PointBlock([], [], []), Refusals(), "", "", {})


def test_names_of_older_exporters_are_folded() -> None:
    result = decoded(**compact(metric_names=["dcgm_gpu_utilization", TEMP + " "]))
    assert result.block.metric_names == [UTIL, TEMP]


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "truncated"),
        (b"5", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b"[]", "Expected `object`"),
        (b"{}", "neither points nor metrics"),
        (b'{"message":"hello"}', "neither points nor metrics"),
        (b'{"points":[[0,1,[1]]', "truncated"),
        (b'{"points":{}}', r"Expected `array.*`, got `object` - at `\$\.points`"),
        (b'{"metrics":"x"}', r"\$\.metrics"),
        (b'{"points":[],"gpus":5}', r"\$\.gpus"),
        (b'{"points":[],"source":5}', r"\$\.source"),
        (b'{"points":[],"source":"%s"}' % (b"x" * 256), r"length <= 255 - at `\$\.source`"),
        (b'{"points":[],"source":"a\\u0000"}', "control character"),
        (b'{"points":[],"refused":{"a\\u0000":1}}', "control character"),
        (b'{"points":[],"refused":{"blank":-1}}', r"\$\.refused"),
        (b'{"points":[],"metric_names":["a",5]}', r"\$\.metric_names\[1\]"),
        (b'{"points":[],"metric_names":["a","a"]}', r"a is there twice - at `\$\.metric_names`"),
        (b'{"points":[],"metric_names":["dcgm_gpu_temp","DCGM_FI_DEV_GPU_TEMP"]}', "GPU_TEMP is there twice"),
        (b'{"points":[],"metric_names":[" "]}', "metric_name is empty"),
        (b'{"points":[],"metric_names":["%s"]}' % (b"m" * 256), "over 255 characters"),
        (b'{"points":[],"metric_names":["a\\u0000"]}', "control character"),
        (b'{"points":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion"),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_an_error_that_says_where(payload: bytes, text: str) -> None:
    with pytest.raises(BatchError, match=text) as caught:
        decode(payload)
    assert str(caught.value).startswith("bad batch: ")
    assert "\n" not in str(caught.value)


def test_readings_that_share_nothing_do_not_make_a_huge_table() -> None:
    strangers = [metric(uuid=f"GPU-{n}", metric_name=f"m{n}") for n in range(3000)]
    with pytest.raises(BatchError, match="too many metric names"):
        decoded(metrics=strangers)
    names = [f"c{n}" for n in range(3000)]
    table = {"gpus": [{"uuid": "GPU-1"}], "metric_names": names, "points": [[0, T, [1, *[None] * 2999]]]}
    with pytest.raises(BatchError, match="too many metric names"):
        decoded(**table, metrics=[metric(uuid=f"GPU-{n}") for n in range(300)])
    assert decoded(**table, metrics=[metric()]).block.count() == 2


def test_of_readings_that_make_many_blocks_no_more_are_made_than_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    blocks = BlockBuilder.blocks

    def counted(self: BlockBuilder, batch_size: int) -> Iterator[PointBlock]:
        nonlocal made
        for block in blocks(self, batch_size):
            made += 1
            yield block

    monkeypatch.setattr(BlockBuilder, "blocks", counted)
    with pytest.raises(BatchError, match="too many metric names"):
        decoded(metrics=[metric(uuid=f"GPU-{n}", metric_name=f"m{n}") for n in range(9000)])
    assert made == 2


@given(st.binary(max_size=60))
def test_any_bytes_are_a_batch_or_a_batch_error(payload: bytes) -> None:
    try:
        result = decode(payload)
    except BatchError:
        return
    consistent(result.block)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["uuid", "value", "labels", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
fields = st.sampled_from(["gpus", "metric_names", "points", "metrics", "refused", "source", "x"])


@given(st.dictionaries(fields, json_values | st.lists(json_values, max_size=3), max_size=5))
def test_any_json_is_a_batch_or_a_batch_error(batch: dict[str, Any]) -> None:
    try:
        result = decode(msgspec.json.encode(batch))
    except BatchError:
        return
    consistent(result.block)


@given(st.data())
def test_any_damage_to_a_batch_is_seen_or_leaves_a_consistent_block(data: st.DataObject) -> None:
    payload = bytearray(json.dumps(compact(metrics=[metric(labels={"a": "b"}), metric(timestamp=T)])).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        result = decode(bytes(payload))
    except BatchError:
        return
    consistent(result.block)


def consistent(block: PointBlock) -> None:
    assert len(set(block.metric_names)) == len(block.metric_names)
    assert all(gpu.uuid for gpu in block.gpus)
    for index, time_ns, values in block.points:
        assert 0 <= index < len(block.gpus)
        assert 0 <= time_ns <= INT64_MAX
        assert len(values) == len(block.metric_names)
        assert all(value is None or type(value) is float for value in values)


@pytest.mark.parametrize("bad", ["a\nb", "a\x1b[2J", "a\x85b", "a\u202eb", "a\u2066b", "a\u2028b"])
def test_a_name_that_could_forge_what_people_see_is_left_out_and_that_is_told(bad: str) -> None:
    """Of a GPU in a compact batch; the reading itself is kept."""
    gpu = Gpu(uuid="GPU-1", hostname=bad, pod="p", labels={"note": "two\nlines"})
    decoded = decode(
        encode_block(PointBlock([gpu], [UTIL], [(0, T, [1.0])]), batch_id="b", source="s", collected_at="")
    )
    assert decoded.block.gpus == [Gpu(uuid="GPU-1", pod="p", labels={"note": "two\nlines"})]
    assert decoded.block.points == [(0, T, [1.0])]
    assert decoded.remarks == {"bad_label": 1}


@pytest.mark.parametrize("bad", ["GPU-\n1", "GPU-\u202e1"])
def test_an_identity_that_could_forge_what_people_see_is_refused(bad: str) -> None:
    payload = encode_block(
        PointBlock([Gpu(uuid=bad)], [UTIL], [(0, T, [1.0])]), batch_id="b", source="s", collected_at=""
    )
    assert [refusal.reason for refusal in decode(payload).refusals] == ["bad_field"]


@pytest.mark.parametrize(
    ("said", "live"),
    [({}, False), ({"live": True}, True), ({"live": False}, False), ({"live": "true"}, False), ({"live": 1}, False)],
)
def test_only_true_means_live_and_nothing_there_spoils_a_batch(said: dict[str, Any], live: bool) -> None:
    batch = decoded(**compact(**said))
    assert (batch.live, len(batch.block.points)) == (live, 1)
    assert decoded(metrics=[metric(**{"value": [1]})], **said).live is live  # taken apart


def test_both_forms_tell_that_they_are_live_and_say_nothing_else_of_it() -> None:
    for encode in (encode_block, encode_plain):
        assert decode(encode(BLOCK, batch_id="b", source="s", collected_at="", live=True)).live
        assert b"live" not in encode(BLOCK, batch_id="b", source="s", collected_at="")
