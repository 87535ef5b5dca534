"""A view for conditions with arrays as they are: what the engine gives, without an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from health.rules.conditions import Floats, Masks
from readings.catalogue import canonical_name

NAN = float("nan")


class PlainView:
    """Values by metric (any spelling); the other quantities likewise, by function."""

    def __init__(
        self,
        values: Mapping[str, Sequence[float]],
        *,
        settings: Mapping[str, float | Sequence[float]] | None = None,
        held: Sequence[bool] = (),
        **functions: Mapping[str, Sequence[float]],
    ) -> None:
        self._values = {canonical_name(name): np.array(column, np.float64) for name, column in values.items()}
        self._functions = {
            function: {canonical_name(name): np.array(column, np.float64) for name, column in columns.items()}
            for function, columns in functions.items()
        }
        self._settings = settings or {}
        self._held = np.array(held, np.bool_)
        self.windows: list[tuple[str, float]] = []

    def value(self, metric: str) -> Floats:
        return self._values[metric]

    def lowest(self, metric: str) -> Floats:
        return self._functions["lowest"][metric]

    def increase(self, metric: str) -> Floats:
        return self._functions["increase"][metric]

    def seconds(self, metric: str) -> Floats:
        return self._functions["seconds"][metric]

    def windowed(self, metric: str, window_s: float) -> Floats:
        self.windows.append((metric, window_s))
        return self._functions["windowed"][metric]

    def setting(self, name: str) -> Floats | float:
        number = self._settings[name]
        return number if isinstance(number, float | int) else np.array(number, np.float64)

    def held(self) -> Masks:
        return self._held

    def model_median(self, metric: str) -> Floats:
        return self._functions["model_median"][metric]

    def model_p90(self, metric: str) -> Floats:
        return self._functions["model_p90"][metric]

    def age(self, metric: str) -> Floats:
        return self._functions["age"][metric]
