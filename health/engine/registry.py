"""Every GPU and MIG instance that readings were seen of, one row each, with what the rules need to know of it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from readings.model import Gpu

Ints = NDArray[np.int64]
Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]

_FIRST_ROWS = 64
# A step that is longer than the usual one by this factor is a gap.
GAP_STEPS = 3
# The usual step follows within these factors, so that one odd step, or one gap, hardly moves it.
_SLOWER, _FASTER = 1.25, 0.5
# A pod's part of a shared GPU that is not seen for so many steps is over.
_SHARE_STEPS = 3
# How many times of a clock that is ahead are remembered.
_MOST_AHEAD = 32
# Pods that share one GPU, at most: NVIDIA's MPS takes 60 clients.
MOST_SHARES = 64
# Where fewer GPUs than this have a further sample, the arrays cost more than the numbers one by one.
_FEW = 16


class KnownGpu(msgspec.Struct, frozen=True, omit_defaults=True):
    """A GPU or MIG instance as it was last described. ``source`` and ``live`` are those of its last readings."""

    id: str
    uuid: str
    hostname: str = ""
    slot: int | None = None
    model: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    mig_id: str = ""
    mig_profile: str = ""
    driver: str = ""
    source: str = ""
    live: bool = False


class Share(msgspec.Struct):
    """A pod that shares a GPU with others, and when it was last seen there."""

    namespace: str
    pod: str
    container: str
    last_ns: int


class Registry:
    """GPUs in the order in which they were first seen. ``gpus[row]`` is who, the arrays are what changes with each sample.

    ``first_ns`` is the first sample and ``last_ns`` the newest, 0 for none; ``heard_ns`` is when the newest arrived, and
    ``heard_before_ns`` when the one before it did; ``step_ns`` the usual time between
    samples, 0 while unknown; ``board`` the row of a MIG instance's board, and of any other GPU its own.
    """

    def __init__(self, most_gpus: int) -> None:
        self._most_gpus = most_gpus
        self.gpus: list[KnownGpu] = []
        self.row_of: dict[str, int] = {}
        # Rows in the order in which they came to the host. A set: a host may be said to have any number of GPUs.
        self.by_host: dict[str, dict[int, None]] = {}
        # Of each shared GPU its pods by (namespace, pod, container), the one that was seen last at the end.
        self.shares: dict[int, dict[tuple[str, str, str], Share]] = {}
        # Of GPUs whose clock is ahead: their own times, and which time each was taken for.
        self.ahead: dict[int, dict[int, int]] = {}
        # Rises when a description changes, so that what follows from the descriptions can be kept.
        self.changes = 0
        self._first = np.zeros(_FIRST_ROWS, np.int64)
        self._last = np.zeros(_FIRST_ROWS, np.int64)
        self._before = np.zeros(_FIRST_ROWS, np.int64)
        self._heard = np.zeros(_FIRST_ROWS, np.int64)
        self._heard_before = np.zeros(_FIRST_ROWS, np.int64)
        self._step = np.zeros(_FIRST_ROWS, np.int64)
        self._board = np.zeros(_FIRST_ROWS, np.int32)
        self._held = np.zeros(_FIRST_ROWS, np.bool_)

    def __len__(self) -> int:
        return len(self.gpus)

    @property
    def capacity(self) -> int:
        """How many rows there is room for: arrays by row elsewhere grow with it."""
        return len(self._last)

    @property
    def first_ns(self) -> Ints:
        """The first sample of each GPU."""
        return self._first[: len(self.gpus)]

    @property
    def last_ns(self) -> Ints:
        """The newest sample of each GPU."""
        return self._last[: len(self.gpus)]

    @property
    def before_ns(self) -> Ints:
        """The sample before the newest."""
        return self._before[: len(self.gpus)]

    @property
    def heard_ns(self) -> Ints:
        """When the newest sample of each GPU arrived; of a capture, its time."""
        return self._heard[: len(self.gpus)]

    @property
    def heard_before_ns(self) -> Ints:
        """The same of the sample before."""
        return self._heard_before[: len(self.gpus)]

    @property
    def step_ns(self) -> Ints:
        """The usual time between samples."""
        return self._step[: len(self.gpus)]

    @property
    def board(self) -> Rows:
        """The row of each one's board."""
        return self._board[: len(self.gpus)]

    @property
    def held(self) -> Mask:
        """Whether a pod has it, or pods share it."""
        return self._held[: len(self.gpus)]

    def row(self, gpu: Gpu, source: str, live: bool) -> int:
        """The row of this GPU, which takes the description; -1 for a new one where there are too many."""
        row = self.row_of.get(gpu.id)
        if row is None:
            return self._add(gpu, source, live)
        known = self.gpus[row]
        if (
            known.pod != gpu.pod
            or known.namespace != gpu.namespace
            or known.source != source
            or known.hostname != gpu.hostname
            or known.slot != gpu.gpu_id
            or known.container != gpu.container
            or known.live is not live
            or known.model != gpu.model_name
            or (known.driver != gpu.driver_version and gpu.driver_version)
        ):
            self._describe(row, known, gpu, source, live)
        return row

    def board_row(self, gpu: Gpu, source: str, live: bool) -> int:
        """The row of the board that a MIG instance is part of."""
        row = self.row_of.get(gpu.uuid)
        if row is not None and self.gpus[row].source == source and self.gpus[row].hostname == gpu.hostname:
            return row
        board = Gpu(
            uuid=gpu.uuid,
            hostname=gpu.hostname,
            gpu_id=gpu.gpu_id,
            device=gpu.device,
            model_name=gpu.model_name,
            labels=gpu.labels,
        )
        return self.row(board, source, live)

    def _add(self, gpu: Gpu, source: str, live: bool) -> int:
        if len(self.gpus) >= self._most_gpus:
            return -1
        row = len(self.gpus)
        board = self.board_row(gpu, source, live) if gpu.mig_id else row
        row = len(self.gpus)
        if row == self.capacity:
            self._grow(2 * row)
        self.row_of[gpu.id] = row
        self.gpus.append(
            KnownGpu(
                gpu.id,
                gpu.uuid,
                gpu.hostname,
                gpu.gpu_id,
                gpu.model_name,
                gpu.namespace,
                gpu.pod,
                gpu.container,
                gpu.mig_id,
                gpu.mig_profile,
                gpu.driver_version,
                source,
                live,
            )
        )
        self._board[row] = board if gpu.mig_id and board >= 0 else row
        self._held[row] = bool(gpu.pod)
        self.by_host.setdefault(gpu.hostname, {})[row] = None
        self.changes += 1
        return row

    def _describe(self, row: int, known: KnownGpu, gpu: Gpu, source: str, live: bool) -> None:
        if known.hostname != gpu.hostname:
            del self.by_host[known.hostname][row]
            if not self.by_host[known.hostname]:
                del self.by_host[known.hostname]
            self.by_host.setdefault(gpu.hostname, {})[row] = None
        self.gpus[row] = msgspec.structs.replace(
            known,
            hostname=gpu.hostname,
            slot=gpu.gpu_id,
            model=gpu.model_name,
            namespace=gpu.namespace,
            pod=gpu.pod,
            container=gpu.container,
            mig_profile=gpu.mig_profile or known.mig_profile,
            driver=gpu.driver_version or known.driver,
            source=source,
            live=live,
        )
        self._held[row] = bool(gpu.pod) or row in self.shares
        self.changes += 1

    def time_ahead(self, row: int, time_ns: int, now_ns: int) -> int:
        """What a time ahead of the clock is taken for: now, or if it came before, what it was then: so a repeat stays one."""
        times = self.ahead.setdefault(row, {})
        known = times.setdefault(time_ns, now_ns)
        while len(times) > _MOST_AHEAD:
            del times[next(iter(times))]
        return known

    def share(self, row: int, gpu: Gpu, time_ns: int) -> bool:
        """A pod shares the GPU of this row. Returns False for a further pod of a GPU that MOST_SHARES pods share."""
        shares = self.shares.setdefault(row, {})
        key = gpu.namespace, gpu.pod, gpu.container
        share = shares.pop(key, None)
        if share is None:
            if len(shares) >= MOST_SHARES:
                oldest = next(iter(shares))
                if shares[oldest].last_ns >= time_ns - self._share_ends_after(row):
                    return False
                del shares[oldest]
            share = Share(*key, time_ns)
        share.last_ns = max(share.last_ns, time_ns)
        shares[key] = share
        self._held[row] = True
        return True

    def _share_ends_after(self, row: int) -> int:
        return _SHARE_STEPS * max(int(self._step[row]), 1)

    def sample_all(self, rows: Rows, times_ns: Ints, heard_ns: int | None) -> None:
        """Note samples, each after the last of its GPU: by row, and those of a row in order of time.

        ``heard_ns`` is when they arrived; None: at their own times.
        """
        starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]])) if len(rows) else np.zeros(0, np.int64)
        counts = np.diff(starts, append=len(rows))
        number = 0
        while len(starts) > (_FEW if number else 0):
            at = starts + number
            self.sample(rows[at], times_ns[at])
            self.hear(rows[at], times_ns[at] if heard_ns is None else heard_ns)
            number += 1
            more = counts > number
            starts, counts = starts[more], counts[more]
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            self._sample_one(int(rows[start]), times_ns[start + number : start + count].tolist(), heard_ns)

    def _sample_one(self, row: int, times_ns: list[int], heard_ns: int | None) -> None:
        """What ``sample`` and ``hear`` do, for many samples of a GPU that has had one."""
        last, before, usual = int(self._last[row]), int(self._before[row]), int(self._step[row])
        heard, heard_before = int(self._heard[row]), int(self._heard_before[row])
        for time_ns in times_ns:
            step = time_ns - last
            usual = min(max(step, int(usual * _FASTER)), int(usual * _SLOWER)) if usual else step
            before, last = last, time_ns
            arrived = time_ns if heard_ns is None else heard_ns
            if arrived > heard:
                heard_before, heard = heard, arrived
            if row in self.shares:
                self._last[row], self._step[row] = last, usual
                self._end_shares([row])
        self._last[row], self._before[row], self._step[row] = last, before, usual
        self._heard[row], self._heard_before[row] = heard, heard_before

    def hear(self, rows: Rows, heard_ns: Ints | int) -> None:
        """Note when samples of these GPUs arrived. Each row at most once."""
        newer = heard_ns > self._heard[rows]
        self._heard_before[rows] = np.where(newer, self._heard[rows], self._heard_before[rows])
        self._heard[rows] = np.where(newer, heard_ns, self._heard[rows])

    def sample(self, rows: Rows, times_ns: Ints) -> None:
        """Note when these GPUs had samples. Each row at most once, with a time after its last."""
        last = self._last[rows]
        steps = times_ns - last
        usual = self._step[rows]
        followed = np.clip(steps, (usual * _FASTER).astype(np.int64), (usual * _SLOWER).astype(np.int64))
        self._step[rows] = np.where(last == 0, usual, np.where(usual == 0, steps, followed))
        self._first[rows] = np.where(last == 0, times_ns, self._first[rows])
        self._before[rows] = last
        self._last[rows] = times_ns
        if self.shares:
            self._end_shares(rows.tolist())

    def _end_shares(self, rows: Iterable[int]) -> None:
        for row in rows:
            shares = self.shares.get(row)
            if shares is None:
                continue
            oldest = int(self._last[row]) - self._share_ends_after(row)
            left = {key: share for key, share in shares.items() if share.last_ns >= oldest}
            if left:
                self.shares[row] = left
            else:
                del self.shares[row]
                self._held[row] = bool(self.gpus[row].pod)

    def _grow(self, rows: int) -> None:
        for name in ("_first", "_last", "_before", "_heard", "_heard_before", "_step", "_board", "_held"):
            old = getattr(self, name)
            new = np.zeros(rows, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def state(self) -> RegistryState:
        """Everything, for ``restore``."""
        return RegistryState(
            self.gpus,
            {row: list(shares.values()) for row, shares in self.shares.items()},
            self.first_ns.tobytes(),
            self.last_ns.tobytes(),
            self.before_ns.tobytes(),
            self.heard_ns.tobytes(),
            self.heard_before_ns.tobytes(),
            self.step_ns.tobytes(),
            self.board.tobytes(),
            self.held.tobytes(),
            self.ahead,
        )

    def restore(self, state: RegistryState) -> None:
        """Take over the state of another registry. Raises ValueError if it does not fit together."""
        count = len(state.gpus)
        self._grow(max(_FIRST_ROWS, 1 << count.bit_length()))
        self.gpus = list(state.gpus)
        self.row_of = {gpu.id: row for row, gpu in enumerate(self.gpus)}
        self.by_host = {}
        for row, gpu in enumerate(self.gpus):
            self.by_host.setdefault(gpu.hostname, {})[row] = None
        self.shares = {
            row: {(share.namespace, share.pod, share.container): share for share in shares[-MOST_SHARES:]}
            for row, shares in state.shares.items()
        }
        self.ahead = {row: dict(times) for row, times in state.ahead.items()}
        self._first[:count] = np.frombuffer(state.first_ns, np.int64)
        self._last[:count] = np.frombuffer(state.last_ns, np.int64)
        self._before[:count] = np.frombuffer(state.before_ns, np.int64)
        self._heard[:count] = np.frombuffer(state.heard_ns, np.int64)
        self._heard_before[:count] = np.frombuffer(state.heard_before_ns, np.int64)
        self._step[:count] = np.frombuffer(state.step_ns, np.int64)
        self._board[:count] = np.frombuffer(state.board, np.int32)
        self._held[:count] = np.frombuffer(state.held, np.bool_)


class RegistryState(msgspec.Struct):
    """The stored state of a Registry."""

    gpus: list[KnownGpu]
    shares: dict[int, list[Share]]
    first_ns: bytes
    last_ns: bytes
    before_ns: bytes
    heard_ns: bytes
    heard_before_ns: bytes
    step_ns: bytes
    board: bytes
    held: bytes
    ahead: dict[int, dict[int, int]] = {}
