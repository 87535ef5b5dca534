"""What can be wrong with notifications. No text has a URL in it, since those have secrets."""

from __future__ import annotations


class ChannelError(Exception):
    """NOTIFY_URLS cannot be used. One line that names the URL by its number, and what is allowed."""


class DeliveryError(Exception):
    """A message did not get through.

    ``retry_after``: the seconds that the receiver asks to wait, 0 if it does not say. ``is_refusal``: it does not take this message,
    and may take others.
    """

    def __init__(self, text: str, retry_after: float = 0.0, *, is_refusal: bool = False) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        self.is_refusal = is_refusal
