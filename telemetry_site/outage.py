"""Log lines about partners that go away and come back."""

from __future__ import annotations

import logging
import time

from broker.errors import BrokerUnavailable, ConnectionLost
from readings.times import spell_duration

logger = logging.getLogger(__name__)


class Outage:
    """Logs when a partner (broker, store, database) goes away and comes back: one line each."""

    def __init__(self, partner: str) -> None:
        self.partner = partner
        self._kind = ""
        self._text = ""
        self._since = 0.0

    @property
    def trouble(self) -> list[str]:
        """One text with the error and its duration; empty while the partner is there."""
        if not self._kind:
            return []
        return [f"{self.partner}: {self._text}, for {spell_duration(time.monotonic() - self._since)}"]

    def begin(self, error: Exception) -> None:
        """Log the error, unless the last one was of the same kind."""
        # A broken connection and one that cannot be made are the same trouble.
        kind = "away" if isinstance(error, (BrokerUnavailable, ConnectionLost)) else type(error).__name__
        self._text = one_line(error)
        if not self._kind:
            self._since = time.monotonic()
        if kind != self._kind:
            self._kind = kind
            logger.warning(
                "%(partner)s: %(trouble)s: waiting until it is back",
                {"partner": self.partner, "trouble": self._text},
            )

    def end(self) -> None:
        """Log that the partner is back, if it was away."""
        if self._kind:
            self._kind = ""
            logger.info(
                "%(partner)s is back after %(duration)s",
                {"partner": self.partner, "duration": spell_duration(time.monotonic() - self._since)},
            )


def one_line(error: BaseException) -> str:
    """An error's text on one line, or the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
