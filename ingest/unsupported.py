"""Which sensors GPUs lack, each said once."""

from __future__ import annotations

# GPUs and metrics that are remembered: as many as a large fleet has, some MB.
_MOST_REMEMBERED = 100_000


class Unsupported:
    """Remembers what a GPU does not support, and gives what is new."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        self._new: dict[str, list[str]] = {}

    def note(self, gpu_id: str, metric_name: str) -> None:
        """A reading says that this GPU has no such sensor."""
        if (gpu_id, metric_name) not in self._known and len(self._known) < _MOST_REMEMBERED:
            self._known.add((gpu_id, metric_name))
            self._new.setdefault(gpu_id, []).append(metric_name)

    def take(self) -> list[str]:
        """A line for each GPU of which there is something new."""
        new, self._new = self._new, {}
        return [f"{gpu_id}: not supported: {', '.join(names)}" for gpu_id, names in new.items()]
