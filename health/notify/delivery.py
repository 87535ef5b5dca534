"""Sends messages by Apprise: one outlet for each channel. No text of an error, and no line of a log, has a part of a URL in it."""

from __future__ import annotations

import email.utils
import logging
import re
import threading
import time
from collections.abc import Hashable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import apprise
import requests
from apprise.manager_plugins import NotificationManager
from apprise.plugins.base import NotifyBase

from health.notify.channels import Channel
from health.notify.errors import ChannelError, DeliveryError
from health.notify.messages import ChannelMessage, MessageType
from health.notify.threads import quieten_libraries
from readings.text import printable

KEY_HEADER = "X-GPU-Telemetry-Key"
MOST_ERROR = 300
MOST_RETRY_AFTER = 6 * 3600.0
# Messages of which some recipients have one and others not yet.
_MOST_REMEMBERED = 100
_TYPES = {
    MessageType.CRITICAL: apprise.NotifyType.FAILURE,
    MessageType.WARNING: apprise.NotifyType.WARNING,
    MessageType.INFO: apprise.NotifyType.INFO,
    MessageType.RESOLVED: apprise.NotifyType.SUCCESS,
}
# What these say is wrong with a message, and not with the channel or the moment.
_REFUSALS = {400, 406, 409, 411, 413, 414, 415, 422, 431}
_WORD = re.compile(r"[^\s/?&=@:,;#+\[\]()]{3,}")


class ApprisePlug:
    """One channel's connection to its service. Raises ChannelError for a URL that Apprise does not understand."""

    def __init__(self, channel: Channel, number: int, public_url: str = "") -> None:
        self.channel = channel
        asset = apprise.AppriseAsset(
            app_id="GPU telemetry",
            app_desc="GPU fleet telemetry",
            app_url=public_url or "http://localhost",
            storage_mode=apprise.PersistentStoreMode.MEMORY,
            allow_templates=False,
            secure_logging=True,
            pgp_autogen=False,
            pem_autogen=False,
            http_redirects=False,
        )
        _quieten()
        plugin = apprise.Apprise.instantiate(channel.url, asset=asset)
        if plugin is None:
            scheme = channel.url.partition(":")[0]
            raise ChannelError(_not_understood(number, scheme))
        self._plugin: NotifyBase = plugin
        self._own_headers = dict(getattr(plugin, "headers", None) or {})
        self._delivered: dict[str, set[Hashable]] = {}
        if "overflow=" not in channel.url:
            # Short messages are cut, with the most important first, not refused or sent in many parts.
            plugin.overflow_mode = apprise.OverflowMode.TRUNCATE

    def send(self, message: ChannelMessage) -> None:
        """Send it, which takes as long as the service does. Raises DeliveryError.

        When some recipients refuse what others took, a further call tries these alone.
        """
        answers = _observe()
        done = self._delivered.setdefault(message.key, set())
        plugin: Any = self._plugin
        # Apprise asks these before it sends to each of several recipients.
        plugin.is_delivered = lambda key, per_message=False: (key, per_message) in done
        plugin.mark_delivered = lambda key, per_message=False: done.add((key, per_message))
        if isinstance(getattr(plugin, "headers", None), dict):
            plugin.headers = self._own_headers | _headers(message, is_mail=plugin.__class__.__name__ == "NotifyEmail")
        with _Heard() as heard:
            try:
                taken = plugin.notify(
                    body=message.body,
                    title=message.title,
                    notify_type=_TYPES[message.type],
                    body_format=apprise.NotifyFormat.TEXT,
                )
            except Exception as error:  # plugins raise what they like
                raise DeliveryError(f"the plugin failed: {type(error).__name__}") from None
        if taken:
            del self._delivered[message.key]
            return
        while len(self._delivered) > _MOST_REMEMBERED:
            del self._delivered[next(iter(self._delivered))]
        raise self._failure(answers, heard.lines)

    def _failure(self, answers: list[tuple[int, str]], lines: list[str]) -> DeliveryError:
        bad = [(status, wait) for status, wait in answers if not 200 <= status < 300]
        if bad:
            status, wait = bad[-1]
            phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
            text = f"the service answered {status} {phrase}".strip()
            return DeliveryError(text, _seconds(wait), is_refusal=status in _REFUSALS)
        text = " ".join(lines[-2:]) or "the service did not take it"
        return DeliveryError(self._without_secrets(text)[:MOST_ERROR])

    def _without_secrets(self, text: str) -> str:
        """The text without any word of the URL."""
        url = self.channel.url.partition("://")[2]
        words = {word for part in (url, unquote(url)) for word in _WORD.findall(part)}
        for word in sorted(words, key=len, reverse=True):
            text = text.replace(word, "***")
        return printable(text)


def open_plugs(channels: tuple[Channel, ...], public_url: str = "") -> list[ApprisePlug]:
    """A plug for each channel. Raises ChannelError for the first one that cannot be used."""
    return [ApprisePlug(channel, number, public_url) for number, channel in enumerate(channels, 1)]


def _headers(message: ChannelMessage, *, is_mail: bool) -> dict[str, str]:
    headers = {KEY_HEADER: message.key}
    if is_mail and message.thread:
        # Mail programs show what refers to one message as one conversation.
        headers["References"] = f"<{message.thread}@gpu-telemetry.invalid>"
    return headers


def _not_understood(number: int, scheme: str) -> str:
    if scheme in NotificationManager().schemas():  # type: ignore[no-untyped-call]
        return (
            f"NOTIFY_URLS: URL {number} is not as Apprise has those of {scheme}://: a part is missing or wrong;"
            f" see https://appriseit.com/services/ for its form"
        )
    return (
        f"NOTIFY_URLS: URL {number} is of a kind that Apprise does not know: use one of its services, as mailtos://, slack://,"
        " msteams://, pagerduty:// or jsons://"
    )


def _seconds(wait: str) -> float:
    """Retry-After, in seconds or as a date; 0 for none, or for one that cannot be read."""
    if wait.isascii() and wait.isdigit():
        return min(float(wait[:9]), MOST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(wait).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(0.0, moment - time.time()), MOST_RETRY_AFTER)


# What each sending thread was answered. Apprise says only whether it worked, so its requests are watched.
_observed = threading.local()
_unobserved_send = requests.Session.send


def _observing_send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    response: requests.Response = _unobserved_send(self, request, **options)
    answers: list[tuple[int, str]] | None = getattr(_observed, "answers", None)
    if answers is not None:
        answers.append((response.status_code, response.headers.get("Retry-After", "")))
    return response


def _observe() -> list[tuple[int, str]]:
    """The answers to this thread's requests from now on, (status, Retry-After)."""
    if requests.Session.send is not _observing_send:
        setattr(requests.Session, "send", _observing_send)  # noqa: B010 - an assignment is no method for the type checker
    _observed.answers = []
    answers: list[tuple[int, str]] = _observed.answers
    return answers


class _Heard(logging.Handler):
    """The warnings that Apprise logs in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self.lines) < 100:
            self.lines.append(record.getMessage())

    def __enter__(self) -> _Heard:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("apprise").removeHandler(self)


def _quieten() -> None:
    """Apprise's own lines go nowhere: what is worth saying the notifier says. The same for HTTP and mail libraries in sending threads."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    quieten_libraries()
