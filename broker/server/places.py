"""Places: how many connections may be open, and which one goes when somebody else needs its place.

A connection that has not asked for anything yet is *unproven*. It keeps its place only as long as nobody else needs it: the oldest one
of the address that has the most of them goes first. So connections that are opened and left cannot lock out clients.
"""

from __future__ import annotations

from collections.abc import Callable


class Guest:
    """One connection's place. ``leave`` ends the connection; it is set as soon as there is one to end."""

    __slots__ = ("address", "leave", "proven")

    def __init__(self, address: str) -> None:
        self.address = address
        self.proven = False
        self.leave: Callable[[], None] = _nothing


class ConnectionPlaces:
    """The places of one listener: ``most`` in all, of them ``most_unproven`` for connections that have asked for nothing."""

    def __init__(self, most: int, most_unproven: int) -> None:
        self.most = most
        self.most_unproven = most_unproven
        self.moved_on = 0  # unproven connections that lost their place
        self._guests: set[Guest] = set()
        # By address, oldest first.
        self._unproven: dict[str, dict[Guest, None]] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def take(self, address: str) -> Guest | None:
        """Returns a place, for which an unproven connection may have to leave. None: all are taken by proven ones."""
        unproven = sum(map(len, self._unproven.values()))
        if len(self._guests) >= self.most or unproven >= self.most_unproven:
            if not unproven:
                return None
            crowd = max(self._unproven.values(), key=len)
            oldest = next(iter(crowd))
            self.free(oldest)
            self.moved_on += 1
            oldest.leave()
        guest = Guest(address)
        self._guests.add(guest)
        self._unproven.setdefault(address, {})[guest] = None
        return guest

    def prove(self, guest: Guest) -> None:
        """The connection has asked for something: it keeps its place."""
        if not guest.proven and guest in self._guests:
            guest.proven = True
            self._forget_unproven(guest)

    def free(self, guest: Guest) -> None:
        """The connection is gone. Idempotent."""
        if guest in self._guests:
            self._guests.discard(guest)
            if not guest.proven:
                self._forget_unproven(guest)

    def _forget_unproven(self, guest: Guest) -> None:
        crowd = self._unproven[guest.address]
        del crowd[guest]
        if not crowd:
            del self._unproven[guest.address]


def _nothing() -> None:
    """There is no connection to end yet."""
