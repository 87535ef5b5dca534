"""One log line when a partner goes away and one when it is back, however often it is tried meanwhile."""

from __future__ import annotations

import logging
import time

from broker.errors import BrokerUnavailable, ConnectionLost
from ingest.timestamps import spell_duration

logger = logging.getLogger(__name__)


class Outage:
    """The state of one partner (the broker, the store, the database) as told in the log."""

    def __init__(self, partner: str) -> None:
        self.partner = partner
        self._kind = ""
        self._text = ""
        self._since = 0.0

    @property
    def trouble(self) -> list[str]:
        """What is wrong and since when, as one text; none while all is well."""
        if not self._kind:
            return []
        return [f"{self.partner}: {self._text}, for {spell_duration(time.monotonic() - self._since)}"]

    def begin(self, error: Exception) -> None:
        """Say what is wrong, unless it is the same kind of trouble as before."""
        # A connection that breaks and one that cannot be made again are the same trouble.
        kind = "away" if isinstance(error, (BrokerUnavailable, ConnectionLost)) else type(error).__name__
        self._text = one_line(error)
        if not self._kind:
            self._since = time.monotonic()
        if kind != self._kind:
            self._kind = kind
            logger.warning(
                "%(partner)s: %(trouble)s: waiting, and going on when it is back",
                {"partner": self.partner, "trouble": self._text},
            )

    def end(self) -> None:
        """Say that the partner is back, if it was away."""
        if self._kind:
            self._kind = ""
            logger.info(
                "%(partner)s is back after %(duration)s",
                {"partner": self.partner, "duration": spell_duration(time.monotonic() - self._since)},
            )


def one_line(error: BaseException) -> str:
    """An error's text on one line; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
