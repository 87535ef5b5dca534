"""Windows from memory, with what has to be read from the store, are the windows of the raw readings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readings.model import Gpu, Point, PointBlock
from stores.memory import MemoryStore
from stores.rollups import memory
from stores.rollups.combining import combine
from stores.rollups.memory import MemoryWindow, WindowMemory
from stores.rollups.partials import together
from stores.rollups.raw import partials_from_raw
from stores.rollups.windows import STEP_NS, Tier
from tests.stores.rollups.reckoning import (
    ENERGY,
    MINUTE,
    NAMES,
    REPLAYS,
    SECOND,
    UNTIMED,
    UTIL,
    Cell,
    Given,
    gpu,
    held,
    reckoned,
)

HOUR = 60 * MINUTE
LONG_AGO = -HOUR


class Pipeline:
    """A collector that writes into a store and a memory, with a plain list of what is in the store."""

    def __init__(self, trusted_from_ns: int = LONG_AGO) -> None:
        self.store = MemoryStore()
        self.memory = WindowMemory(trusted_from_ns)
        self.there: dict[tuple[str, str, int], Given] = {}

    def write(self, blocks: Sequence[PointBlock], *, by_another: bool = False) -> None:
        """Store blocks; those of another process are not in this one's memory."""
        self.store.write(blocks)
        if not by_another:
            self.memory.add(blocks)
        for block in blocks:
            for index, time_ns, values in block.points:
                for name, value in zip(block.metric_names, values, strict=True):
                    of = block.gpus[index]
                    if value is not None and not of.share:
                        self.there[of.id, name, time_ns] = Given(of, name, time_ns, value)

    def rolled(self, tier: Tier, start_ns: int, *, settle: bool = False) -> dict[Cell, float]:
        """The statistics of a window as a roller makes it."""
        end_ns = start_ns + STEP_NS[tier]
        window = self.memory.window(tier, start_ns)
        if window is None:
            partials = partials_from_raw(self.store, start_ns, end_ns)
        else:
            partials = window.partials
            assert (partials.begins_ns, partials.ends_ns) == (start_ns, end_ns)
            if window.untrusted:
                raw = partials_from_raw(self.store, start_ns, end_ns, gpus=window.untrusted)
                partials = together([partials, raw])
                if settle:
                    self.memory.settle(window, raw)
        return held(combine(partials, tier, start_ns))

    def check(self, tier: Tier, start_ns: int, *, settle: bool = False) -> None:
        """A roller makes the window that the readings say."""
        expected = reckoned(self.there.values(), tier, start_ns)
        assert self.rolled(tier, start_ns, settle=settle) == pytest.approx(expected, rel=1e-12, abs=1e-12)

    def window(self, tier: Tier, start_ns: int) -> MemoryWindow:
        """A window that the memory has to have."""
        found = self.memory.window(tier, start_ns)
        assert found is not None
        return found


def block(of: Gpu | Sequence[Gpu], times: Iterable[int], name: str = UTIL, value: float = 1.0) -> PointBlock:
    """A block of one metric."""
    gpus = [of] if isinstance(of, Gpu) else list(of)
    return PointBlock(gpus, [name], [(place, time, [value]) for time in times for place in range(len(gpus))])


_GPUS = st.sampled_from(
    [
        gpu(uuid, mig_id, host, model="B" if uuid == "W" else "A")
        for uuid in "UVW"
        for mig_id in ("", "1")
        for host in (0, 1)
    ]
)
_VALUES = st.integers(0, 12).map(lambda number: number / 2)


@st.composite
def blocks(draw: st.DrawFn, minutes: int = 9) -> list[PointBlock]:
    """Blocks of a few points around one time, of any metrics."""
    made = []
    around = draw(st.integers(0, minutes * 60))
    for _ in range(draw(st.integers(1, 4))):
        names = draw(st.sampled_from([list(NAMES), [UTIL, ENERGY], [ENERGY], [UTIL, "new", ENERGY]]))
        gpus = draw(st.lists(_GPUS, min_size=1, max_size=4))
        times = st.integers(max(0, around // 10 - 5), around // 10).map(lambda time: time * 10 * SECOND)
        values = st.lists(st.one_of(st.none(), _VALUES, _VALUES), min_size=len(names), max_size=len(names))
        points = st.tuples(st.integers(0, len(gpus) - 1), times, values)
        made.append(PointBlock(gpus, names, draw(st.lists(points, max_size=6))))
    return made


@st.composite
def rising_blocks(draw: st.DrawFn, minutes: int = 9) -> list[list[PointBlock]]:
    """What a live fleet sends, flush by flush: all times rise. Now and then a flush comes again, or later than it should."""
    flushes: list[list[PointBlock]] = []
    gpus = draw(st.lists(_GPUS, min_size=1, max_size=4, unique_by=lambda each: each.id))
    for moment in range(0, minutes * 60, 20):
        there = [each for each in gpus if draw(st.integers(0, 9))] or gpus[:1]
        points: list[Point] = [
            (place, (moment + draw(st.integers(0, 3))) * SECOND, [draw(_VALUES) for _ in NAMES])
            for place in range(len(there))
        ]
        flushes.append([PointBlock(there, list(NAMES), points)])
    for _ in range(draw(st.integers(0, 3))):
        taken = draw(st.integers(0, len(flushes) - 1))
        flush = flushes[taken] if draw(st.booleans()) else flushes.pop(taken)
        flushes.insert(draw(st.integers(taken, len(flushes))), flush)
    return flushes


@pytest.fixture(params=[(3, 10, 4_000_000), (1, 2, 8)])
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long minutes are kept, and how much waits."""
    for name, value in zip(("_LATER", "_MOST", "_WAITING"), request.param, strict=True):
        monkeypatch.setattr(memory, name, value)


@pytest.mark.usefixtures("_sizes")
@settings(UNTIMED, max_examples=30)
@given(flushes=st.lists(blocks(), max_size=12), data=st.data())
def test_any_readings_in_any_order(flushes: list[list[PointBlock]], data: st.DataObject) -> None:
    pipeline = Pipeline()
    for flush in flushes:
        pipeline.write(flush)
        if data.draw(st.booleans()):
            pipeline.check("1m", data.draw(st.integers(0, 9)) * MINUTE, settle=data.draw(st.booleans()))
    for minute in range(10):
        pipeline.check("1m", minute * MINUTE, settle=True)
    pipeline.check("1h", 0)


@pytest.mark.usefixtures("_sizes")
@settings(UNTIMED, max_examples=30)
@given(flushes=rising_blocks(), data=st.data())
def test_a_live_fleet(flushes: list[list[PointBlock]], data: st.DataObject) -> None:
    pipeline = Pipeline()
    for number, flush in enumerate(flushes):
        pipeline.write(flush)
        if number % 3 == 2:
            minute = data.draw(st.integers(max(0, number // 3 - 3), number // 3))
            pipeline.check("1m", minute * MINUTE, settle=data.draw(st.booleans()))
    for minute in range(10):
        pipeline.check("1m", minute * MINUTE, settle=True)
    pipeline.check("1h", 0)


@pytest.mark.usefixtures("_sizes")
@settings(UNTIMED, max_examples=30)
@given(before=st.lists(blocks(4), max_size=4), after=st.lists(blocks(9), max_size=8))
def test_what_another_process_wrote_before(before: list[list[PointBlock]], after: list[list[PointBlock]]) -> None:
    touched = [time // MINUTE * MINUTE for flush in before for each in flush for _, time, _ in each.points]
    pipeline = Pipeline(max(touched, default=LONG_AGO))
    for flush in before:
        pipeline.write(flush, by_another=True)
    for flush in after:
        pipeline.write(flush)
    for minute in range(10):
        pipeline.check("1m", minute * MINUTE)
    pipeline.check("1h", 0)


FLEET = [gpu(f"U{number}", host=number // 2) for number in range(4)]


def live(
    pipeline: Pipeline, start: int, end: int, gpus: Sequence[Gpu] = FLEET, names: Sequence[str] = (UTIL, ENERGY)
) -> None:
    """Every GPU has a point each 20 s."""
    for second in range(start, end, 20):
        points: list[Point] = [(place, second * SECOND, [float(second)] * len(names)) for place in range(len(gpus))]
        pipeline.write([PointBlock(list(gpus), list(names), points)])


def gpus_in(window: MemoryWindow) -> set[str]:
    return {source.gpu for source in window.partials.sources}


def test_a_live_fleet_needs_nothing_from_the_store() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 300)
    assert pipeline.memory.window("1m", 0) is None  # let go
    for minute in (2, 3, 4):
        window = pipeline.window("1m", minute * MINUTE)
        assert gpus_in(window) == {each.id for each in FLEET}
        assert window.untrusted == frozenset()
        pipeline.check("1m", minute * MINUTE)


def test_counters_are_not_trusted_in_their_first_window() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 60)
    assert pipeline.window("1m", 0).untrusted == {each.id for each in FLEET}
    live(pipeline, 60, 120, [*FLEET, gpu("new")])
    assert pipeline.window("1m", MINUTE).untrusted == {"new"}
    pipeline.check("1m", MINUTE)


def test_an_hour_is_trusted_once_its_first_minute_was_read_from_the_store() -> None:
    for settle in (False, True):
        pipeline = Pipeline()
        for minute in range(62):
            live(pipeline, minute * 60, minute * 60 + 60)
            pipeline.check("1m", minute * MINUTE, settle=settle)
        assert pipeline.window("1h", 0).untrusted == (set() if settle else {each.id for each in FLEET})
        pipeline.check("1h", 0)
        assert pipeline.window("1h", HOUR).untrusted == set()
        pipeline.check("1h", HOUR)


def test_an_hour_can_be_asked_for_while_it_is_open() -> None:
    pipeline = Pipeline()
    live(pipeline, 3000, 3600 + 600)
    window = pipeline.window("1h", HOUR)
    assert (window.partials.begins_ns, window.partials.ends_ns) == (HOUR, 2 * HOUR)
    assert window.partials.count.max() == 30
    pipeline.check("1h", HOUR)


def test_windows_at_or_before_a_time_are_not_given() -> None:
    pipeline = Pipeline(MINUTE)
    live(pipeline, 0, 240)
    assert pipeline.memory.window("1m", MINUTE) is None
    assert pipeline.memory.window("1h", 0) is None
    # What was seen before that is no proof that nothing is missing.
    assert pipeline.window("1m", 2 * MINUTE).untrusted == {each.id for each in FLEET}
    assert pipeline.window("1m", 3 * MINUTE).untrusted == set()


def test_a_late_reading_is_read_from_the_store_with_what_follows() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 240)
    before = pipeline.window("1m", 2 * MINUTE)
    pipeline.write([block(FLEET[0], [130 * SECOND])])
    for minute, untrusted in ((1, set()), (2, {"U0"}), (3, {"U0"})):
        assert pipeline.window("1m", minute * MINUTE).untrusted == untrusted
        pipeline.check("1m", minute * MINUTE)
    assert pipeline.window("1m", 2 * MINUTE).version > before.version
    live(pipeline, 240, 300)
    assert pipeline.window("1m", 4 * MINUTE).untrusted == set()


def test_a_reading_of_a_minute_that_was_let_go_makes_its_hour_doubtful() -> None:
    pipeline = Pipeline()
    live(pipeline, 3000, 3600 + 600)
    pipeline.write([block(FLEET[1], [3610 * SECOND + 1], ENERGY, 7.0)])
    assert pipeline.window("1h", HOUR).untrusted == {"U1"}
    pipeline.check("1h", HOUR)
    pipeline.check("1m", HOUR)
    # The next reading of the counter counts from it.
    for minute in (68, 69):
        pipeline.check("1m", minute * MINUTE)


def test_the_newest_reading_again_changes_nothing() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 200)
    again = block(FLEET, [180 * SECOND], value=180.0)
    pipeline.write([again])
    assert pipeline.window("1m", 3 * MINUTE).untrusted == set()
    pipeline.write([block(FLEET[0], [180 * SECOND], value=181.0)])
    moved = gpu("U1", host=5)
    pipeline.write([block(moved, [180 * SECOND], value=180.0)])
    assert pipeline.window("1m", 3 * MINUTE).untrusted == {"U0", "U1"}
    pipeline.check("1m", 3 * MINUTE)


def test_the_newest_reading_may_be_corrected() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 180)
    pipeline.write([block(FLEET[0], [160 * SECOND], ENERGY, 500.0)])
    pipeline.check("1m", 2 * MINUTE)
    live(pipeline, 180, 300)
    for minute, untrusted in ((3, {"U0"}), (4, set())):
        assert pipeline.window("1m", minute * MINUTE).untrusted == untrusted
        pipeline.check("1m", minute * MINUTE)


def test_what_a_counter_counts_from_may_be_distrusted() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 180)
    pipeline.memory.add([block(FLEET[0], [170 * SECOND], ENERGY, 500.0)])
    pipeline.memory.distrust("U0", 170 * SECOND)
    live(pipeline, 180, 300)
    for minute, untrusted in ((2, {"U0"}), (3, {"U0"}), (4, set())):
        assert pipeline.window("1m", minute * MINUTE).untrusted == untrusted
        pipeline.check("1m", minute * MINUTE)


def test_points_may_come_in_parts() -> None:
    pipeline = Pipeline()
    for second in range(0, 180, 10):
        for name in (UTIL, ENERGY, REPLAYS):
            pipeline.write([block(FLEET, [second * SECOND], name, float(second))])
    assert pipeline.window("1m", 2 * MINUTE).untrusted == set()
    pipeline.check("1m", 2 * MINUTE)


def test_a_flush_of_several_minutes_may_have_them_metric_by_metric() -> None:
    """As that of a capture, whose rows of other metrics are a second later."""
    pipeline = Pipeline()
    for begin in range(0, 360, 120):
        seconds = range(begin, begin + 120, 10)
        later = [(second + 1) * SECOND for second in seconds]
        pipeline.write(
            [block(FLEET, [second * SECOND for second in seconds]), block(FLEET, later, ENERGY, float(begin))]
        )
        for minute in range(max(1, begin // 60), begin // 60 + 2):
            assert pipeline.window("1m", minute * MINUTE).untrusted == set()
            pipeline.check("1m", minute * MINUTE)


def test_a_part_of_a_point_may_be_late_for_the_next_minute() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 120, names=(UTIL, REPLAYS))
    pipeline.write([block(FLEET, [130 * SECOND])])
    # Of this metric it is the newest, and the next minute's first reading counts from it.
    pipeline.write([block(FLEET[0], [110 * SECOND], REPLAYS, 500.0)])
    pipeline.write([block(FLEET, [150 * SECOND], REPLAYS, 900.0)])
    assert pipeline.window("1m", 2 * MINUTE).untrusted == {"U0"}
    for minute in (1, 2):
        pipeline.check("1m", minute * MINUTE)


def test_a_counter_that_is_new_may_count_from_what_is_in_the_store() -> None:
    pipeline = Pipeline(-MINUTE)
    pipeline.write([block(FLEET, [-30 * SECOND], REPLAYS, 5.0)], by_another=True)
    live(pipeline, 0, 120)
    pipeline.write([block(FLEET[2], [121 * SECOND], REPLAYS, 9.0)])
    live(pipeline, 140, 180)
    assert pipeline.window("1m", 2 * MINUTE).untrusted == {"U2"}
    pipeline.check("1m", 2 * MINUTE)


def test_a_minute_that_changed_meanwhile_is_not_settled() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 60)
    window = pipeline.window("1m", 0)
    raw = partials_from_raw(pipeline.store, 0, MINUTE)
    pipeline.write([block(FLEET[3], [59 * SECOND])])
    pipeline.memory.settle(window, raw)
    assert pipeline.window("1m", 0).untrusted == {each.id for each in FLEET}
    pipeline.memory.settle(pipeline.window("1m", 0), partials_from_raw(pipeline.store, 0, MINUTE))
    assert pipeline.window("1m", 0).untrusted == set()
    pipeline.check("1m", 0)
    pipeline.write([block(FLEET[3], [59 * SECOND + 1])])
    assert pipeline.window("1m", 0).untrusted == {"U3"}
    pipeline.check("1m", 0)


def test_what_the_store_did_not_take_is_not_trusted() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 200)
    pipeline.memory.distrust("U2", 125 * SECOND)
    pipeline.memory.distrust("stranger", 185 * SECOND)
    assert pipeline.window("1m", MINUTE).untrusted == set()
    assert pipeline.window("1m", 2 * MINUTE).untrusted == {"U2"}
    assert pipeline.window("1m", 3 * MINUTE).untrusted == {"U2", "stranger"}
    pipeline.check("1m", 2 * MINUTE)


def test_what_is_no_reading_is_left_out() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 60)
    share = Gpu(uuid="U0", hostname="host-0", share=True, pod="train", namespace="ml")
    pipeline.write([block(share, [61 * SECOND])])
    pipeline.memory.add(
        [
            block(FLEET, [62 * SECOND], value=float("inf")),
            block(FLEET, [1 << 70]),
            block(FLEET, [63 * SECOND], "\ud800"),
            block(gpu("\ud800"), [63 * SECOND]),
            PointBlock(FLEET, [UTIL, "other"], [(0, 64 * SECOND, [None, None])]),
            PointBlock(FLEET, [UTIL], []),
            PointBlock([], [], []),
        ]
    )
    live(pipeline, 80, 120)
    window = pipeline.window("1m", MINUTE)
    assert (window.untrusted, gpus_in(window)) == (frozenset(), {each.id for each in FLEET})
    pipeline.check("1m", MINUTE)


def test_a_metric_that_a_block_has_twice_has_the_later_value() -> None:
    pipeline = Pipeline()
    live(pipeline, 0, 60)
    points: list[Point] = [(0, 70 * SECOND, [1.0, 2.0]), (1, 70 * SECOND, [3.0, None])]
    pipeline.write([PointBlock(FLEET, [UTIL, UTIL], points)])
    pipeline.check("1m", MINUTE)


def test_a_clock_that_is_ahead_does_not_push_the_fleet_out() -> None:
    pipeline = Pipeline()
    ahead = gpu("ahead", host=9)
    for minute in range(10):
        live(pipeline, minute * 60, minute * 60 + 60)
        live(pipeline, minute * 60 + 300, minute * 60 + 360, [ahead])
        if minute:
            assert pipeline.window("1m", minute * MINUTE).untrusted <= {"ahead"}
            pipeline.check("1m", minute * MINUTE)


def test_odd_times_fill_nothing() -> None:
    pipeline = Pipeline()
    for number in range(2000):
        pipeline.memory.add([block(FLEET, [(number * 7919 % 100_003) * HOUR])])
    assert len(pipeline.memory._minutes) <= memory._MOST
    assert len(pipeline.memory._hours) <= memory._MOST + 2


def test_what_is_late_stays_late_after_a_reading_that_contradicts_the_newest() -> None:
    pipeline = Pipeline()
    of = gpu("U")
    pipeline.write([PointBlock([of], [UTIL, ENERGY], [(0, 40 * SECOND, [5.0, 3.0])])])
    pipeline.write([PointBlock([of], [UTIL], [(0, 40 * SECOND, [6.0])])])
    pipeline.write([block(of, [30 * SECOND], ENERGY, 6.0)])
    pipeline.write([block(of, [200 * SECOND], ENERGY, 4.0)])
    for minute in range(4):
        pipeline.check("1m", minute * MINUTE)
    pipeline.check("1h", 0)
