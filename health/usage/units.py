"""What the usage meter remembers of each unit: a board, a MIG instance, or the run of a pod that shares a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from health.usage.packing import FREE, Ints

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_FIRST_UNITS = 64


class MeterUnits:
    """One entry a unit in each array. ``metrics`` is how many metrics are remembered."""

    def __init__(self, metrics: int) -> None:
        self.ids: list[str] = []  # empty for the run of a pod that shares a GPU
        self.number_of: dict[str, int] = {}
        self.board = np.zeros(_FIRST_UNITS, np.int64)  # the board that it is, or is part of
        self.is_shared = np.zeros(_FIRST_UNITS, np.bool_)  # a board that is, or was, cut or shared
        self.first = np.zeros(_FIRST_UNITS, np.int64)  # first sample
        self.last = np.zeros(_FIRST_UNITS, np.int64)  # last sample that is worked out
        self.newest = np.zeros(_FIRST_UNITS, np.int64)  # newest sample that came
        self.step = np.zeros(_FIRST_UNITS, np.int64)
        self.holder = np.full(_FIRST_UNITS, FREE, np.int64)  # of the newest description
        self.place = np.zeros(_FIRST_UNITS, np.int64)
        self.last_holder = np.full(_FIRST_UNITS, FREE, np.int64)  # of ``last``
        self.last_place = np.zeros(_FIRST_UNITS, np.int64)
        self.estimated = np.zeros((2, _FIRST_UNITS), np.int64)  # mJ and ns since the energy counter was read
        self.values = np.full((metrics, _FIRST_UNITS), np.nan)  # the newest readings, up to ``last``
        self.value_times = np.zeros((metrics, _FIRST_UNITS), np.int64)
        self.run = np.zeros((2, _FIRST_UNITS), np.int64)  # ns of the idle run so far, by threshold
        self.run_holder = np.full(_FIRST_UNITS, FREE, np.int64)
        self.spare: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, gpu_id: str) -> int:
        """The number of this GPU or MIG instance, which is new if need be."""
        unit = self.number_of.get(gpu_id)
        if unit is None:
            unit = self.number_of[gpu_id] = self._new(gpu_id)
        return unit

    def add_run(self) -> int:
        """A unit for the run of a pod that shares a GPU."""
        return self.spare.pop() if self.spare else self._new("")

    def drop_run(self, unit: int) -> None:
        """The pod is gone: the unit may serve another."""
        self.run[:, unit] = 0
        self.run_holder[unit] = FREE
        self.spare.append(unit)

    def boards(self) -> Ints:
        """The boards that had a sample."""
        count = len(self)
        return np.flatnonzero((self.first[:count] > 0) & (self.board[:count] == np.arange(count)))

    def renumber_holders(self, new: Ints) -> None:
        """Holder ``h`` is ``new[h]`` from now on."""
        for array in (self.holder, self.last_holder, self.run_holder):
            array[:] = new[array]

    def state(self) -> dict[str, bytes]:
        """The arrays, for ``restore``."""
        return {name: np.ascontiguousarray(getattr(self, name)[..., : len(self)]).tobytes() for name in _ARRAYS}

    def restore(self, ids: list[str], spare: list[int], state: Mapping[str, bytes]) -> None:
        """Take over ``ids``, ``spare`` and arrays. Raises KeyError or ValueError if they do not fit together."""
        count = len(ids)
        self.ids, self.spare = ids, spare
        self.number_of = {gpu_id: unit for unit, gpu_id in enumerate(ids) if gpu_id}
        self._grow(max(_FIRST_UNITS, 1 << count.bit_length()))
        for name in _ARRAYS:
            array = getattr(self, name)
            array[..., :count] = np.frombuffer(state[name], array.dtype).reshape(*array.shape[:-1], count)

    def _new(self, gpu_id: str) -> int:
        unit = len(self.ids)
        self.ids.append(gpu_id)
        if unit == len(self.first):
            self._grow(2 * unit)
        self.board[unit] = unit
        return unit

    def _grow(self, units: int) -> None:
        for name in _ARRAYS:
            old = getattr(self, name)
            new = np.full((*old.shape[:-1], units), _EMPTY.get(name, 0), old.dtype)
            new[..., : old.shape[-1]] = old
            setattr(self, name, new)


_ARRAYS = (
    *("board", "is_shared", "first", "last", "newest", "step", "holder", "place", "last_holder", "last_place"),
    *("estimated", "values", "value_times", "run", "run_holder"),
)
_EMPTY: dict[str, Any] = {"holder": FREE, "last_holder": FREE, "run_holder": FREE, "values": np.nan}
