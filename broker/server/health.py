"""Whether the broker can do its work, from its own state and from a probe of the disk on the writer thread."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal

from broker.server.state import BrokerState

PROBE_KEPT_S = 5.0
PROBE_TIMEOUT_S = 2.0
STUCK_WRITE_S = 5.0
LATE_LOOP_S = 0.5


@dataclass(frozen=True, slots=True)
class HealthReport:
    """``unhealthy``: takes no messages now. ``degraded``: takes messages, but something was lost or damaged before."""

    status: Literal["healthy", "degraded", "unhealthy"]
    reasons: tuple[str, ...]


class Health:
    """Answers /health. Probes the disk every few seconds at most, so that probes cost it little."""

    def __init__(self, server: BrokerState[Any]) -> None:
        self._server = server
        self._probed: list[str] = []
        self._probed_at = -PROBE_KEPT_S
        self._probe: asyncio.Task[list[str]] | None = None

    async def check(self) -> HealthReport:
        """Returns the current state within PROBE_TIMEOUT_S. Raises nothing."""
        server = self._server
        reasons = []
        if server.stopping:
            reasons.append("the broker is stopping")
        elif server.failed.done():
            reasons.append(f"the log failed: {server.failed.result()}")
        else:
            if server.loop_lag > LATE_LOOP_S:
                reasons.append(f"the broker is {server.loop_lag * 1000:.0f} ms late")
            if (waits := server.committer.waits_for()) > STUCK_WRITE_S:
                reasons.append(f"a write has waited {waits:.0f} s for the disk")
            reasons += await self._probe_disk()
        if reasons:
            return HealthReport("unhealthy", tuple(reasons))
        degraded = tuple(server.log.degraded)
        return HealthReport("degraded" if degraded else "healthy", degraded)

    async def _probe_disk(self) -> list[str]:
        if time.monotonic() - self._probed_at < PROBE_KEPT_S:
            return self._probed
        if self._probe is None:
            # One at a time: probes must not pile up on a disk that does not answer.
            self._probe = asyncio.create_task(self._server.writer.call(self._server.log.probe), name="broker-probe")
        done, _ = await asyncio.wait([self._probe], timeout=PROBE_TIMEOUT_S)
        if not done:
            return [f"the disk has not answered a probe within {PROBE_TIMEOUT_S:g} s"]
        task, self._probe = self._probe, None
        if task is not None:
            error = task.exception()
            self._probed = task.result() if error is None else [f"the disk probe failed: {error}"]
            self._probed_at = time.monotonic()
        return self._probed

    def forget_probe(self) -> None:
        """Probe again at the next check: something changed."""
        self._probed_at = -PROBE_KEPT_S

    def close(self) -> None:
        """Cancel a running probe."""
        if self._probe is not None:
            self._probe.cancel()
