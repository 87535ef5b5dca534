from __future__ import annotations

from readings.batch import decode, encode_block
from readings.batch.repeats import without_repeats
from readings.model import Gpu, PointBlock
from tests.costs import cost_of

T = 1_752_871_354_000_000_000
NAMES = ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP"]


def test_of_two_entries_of_one_gpu_the_first_is_taken_and_the_other_refused() -> None:
    gpus = [Gpu(uuid="GPU-1", hostname="a"), Gpu(uuid="GPU-1", hostname="b"), Gpu(uuid="GPU-2")]
    block = PointBlock(
        gpus, NAMES, [(0, T, [1.0, 50.0]), (1, T, [2.0, 50.0]), (1, T + 1, [3.0, None]), (2, T, [4.0, 5.0])]
    )
    result = decode(encode_block(block, batch_id="b", source="s", collected_at="2025-07-18T20:42:34Z"))
    assert result.block.points == [
        (0, T, [1.0, 50.0]),
        (1, T, [None, 50.0]),
        (1, T + 1, [3.0, None]),
        (2, T, [4.0, 5.0]),
    ]
    assert result.refusals.counts == {"duplicate_row": 1}
    (refusal,) = result.refusals
    assert refusal.block == PointBlock([gpus[1]], NAMES[:1], [(0, T, [2.0])])


def test_parts_of_one_point_and_shares_of_pods_contradict_nothing() -> None:
    pods = [
        Gpu(uuid="GPU-1", pod=pod, share=share) for pod, share in (("", False), ("a", True), ("b", True), ("c", False))
    ]
    block = PointBlock(pods, NAMES, [(0, T, [1.0, None]), (1, T, [2.0, 3.0]), (2, T, [4.0, 5.0]), (3, T, [None, 6.0])])
    result, refusals = without_repeats(block)
    assert (result, refusals) == (block, [])


def test_a_batch_whose_gpus_have_one_entry_each_is_left_as_it_is() -> None:
    block = PointBlock(
        [Gpu(uuid="GPU-1"), Gpu(uuid="GPU-1", mig_id="3")], NAMES, [(0, T, [1.0, 2.0]), (1, T, [3.0, 4.0])]
    )
    assert without_repeats(block)[0] is block


def test_the_work_is_in_proportion_to_the_points_however_many_entries_a_gpu_has() -> None:
    def block(entries: int) -> PointBlock:
        gpus = [Gpu(uuid="GPU-1", hostname=f"h{number}") for number in range(entries)]
        return PointBlock(gpus, NAMES, [(number, T, [float(number), None]) for number in range(entries)])

    small, large = cost_of(without_repeats, [block(5_000), block(20_000)])
    assert large < 10 * small
