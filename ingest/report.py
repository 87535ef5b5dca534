"""What a streamer has done so far, for its log and its /metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ingest.timestamps import spell_duration


@dataclass(slots=True)
class Report:
    """Readings by what became of them. ``behind_s``: how old the oldest reading is that the broker has not answered."""

    read: int = 0
    sent: int = 0
    batches: int = 0
    waiting: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    behind_s: float = 0.0

    def line(self) -> str:
        """All of it on one line."""
        parts = [f"{self.read} readings read", f"{self.sent} sent and answered in {self.batches} batches"]
        if self.refused:
            parts.append("refused: " + self.reasons())
        if self.waiting:
            parts.append(f"{self.waiting} batches waiting, {spell_duration(self.behind_s)} behind")
        return "; ".join(parts)

    def reasons(self) -> str:
        """The refused, by reason."""
        return ", ".join(f"{reason} {count}" for reason, count in sorted(self.refused.items()))
