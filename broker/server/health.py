"""Whether the broker can do its work: asked of the parts themselves, and of the disk by a probe on the writer thread."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from broker.server.server import BrokerServer

PROBE_KEPT_S = 5.0
PROBE_TIMEOUT_S = 2.0
STUCK_WRITE_S = 5.0
LATE_LOOP_S = 0.5


@dataclass(frozen=True, slots=True)
class HealthReport:
    """``unhealthy`` takes no messages now; ``degraded`` does, but something was lost or damaged before."""

    status: Literal["healthy", "degraded", "unhealthy"]
    reasons: tuple[str, ...]


class Health:
    """Answers /health. The probe's outcome is kept for a few seconds, so that probes cost the disk little."""

    def __init__(self, server: BrokerServer) -> None:
        self._server = server
        self._probed: list[str] = []
        self._probed_at = -PROBE_KEPT_S
        self._probe: asyncio.Task[list[str]] | None = None

    async def check(self) -> HealthReport:
        """The state now. Takes PROBE_TIMEOUT_S at most. Raises nothing."""
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
            # One at a time: a disk that does not answer must not gather probes.
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
        """Something happened that a new probe may show."""
        self._probed_at = -PROBE_KEPT_S

    def close(self) -> None:
        """Forget a probe that is under way."""
        if self._probe is not None:
            self._probe.cancel()
