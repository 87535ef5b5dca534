"""Reads typed settings from the environment. Each parser takes text and raises ValueError with the allowed values."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from readings.text import hide_passwords
from readings.times import SECOND, parse_duration

T = TypeVar("T")

_WEB_PORTS = {"http": 80, "https": 443}

_SIZE = re.compile(r"(\d{1,512}(?:\.\d{1,512})?(?:e\+?\d{1,3})?)\s*([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d{1,512}(?:\.\d{1,512})?(?:e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class SettingError(Exception):
    """A setting has an invalid value. The text is one line and names the variable."""


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One setting: its environment name, default (as text), parser, help line and the groups of commands that take it.

    A secret can also come from a file, which ``NAME_FILE`` names (container platforms mount secrets as files). It has no
    flag, since every user of the machine sees the command line of every process. A secret that is a list may have several lines.
    """

    name: str
    default: str
    parse: Callable[[str], T]
    help: str
    groups: tuple[str, ...]
    secret: bool = False
    flag_name: str = ""
    many: bool = False  # a list; the flag takes several words

    @property
    def flag(self) -> str:
        """The flag: ``--batch-size`` for ``BATCH_SIZE``, or ``flag_name`` where it is given."""
        return "--" + (self.flag_name or self.name.lower().replace("_", "-"))

    @property
    def label(self) -> str:
        """How messages name the setting: ``BATCH_SIZE (--batch-size)``, a secret by its name alone."""
        return self.name if self.secret else f"{self.name} ({self.flag})"

    def text(self, environ: Mapping[str, str]) -> str:
        """Returns the unparsed value: from NAME, else from the file that NAME_FILE names, else the default.

        Leaves out the blanks around a secret: the line break at the end of a file or of ``$(cat file)`` is none of it.
        """
        value = environ.get(self.name, "")
        if not self.secret:
            return value or self.default
        path = "" if value else environ.get(f"{self.name}_FILE", "")
        try:
            value = Path(path).read_text(encoding="utf-8") if path else value
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"{self.name}_FILE: cannot read {path!r}: {error}") from error
        # A list may have a line for each of its words.
        value = " ".join(value.split()) if self.many else value.strip()
        if not value.isprintable():
            where = f"{self.name}_FILE: {path!r}" if path else f"{self.name}: the value"
            raise SettingError(f"{where} has a line break or another character that cannot be typed")
        return value or self.default

    def read(self, environ: Mapping[str, str] | None = None) -> T:
        """Returns the parsed value. An empty variable counts as unset. Raises SettingError."""
        text = self.text(os.environ if environ is None else environ)
        try:
            return self.parse(text)
        except ValueError as error:
            shown = "the value" if self.secret else repr(hide_passwords(text))
            raise SettingError(f"{self.label}: {shown} {error}") from None

    def is_given(self, environ: Mapping[str, str] | None = None) -> bool:
        """Whether the variable is set. Callers use it where a default must not override existing state."""
        environ = os.environ if environ is None else environ
        return bool(environ.get(self.name) or (self.secret and environ.get(f"{self.name}_FILE")))


def text(value: str) -> str:
    """Any text."""
    return value


def secret(minimum: int) -> Callable[[str], str]:
    """A secret of ``minimum`` characters at least, or empty."""

    def parse(value: str) -> str:
        if value and len(value) < minimum:
            raise ValueError(f"is too short: use at least {minimum} characters, as openssl rand -hex 24 makes them")
        return value

    return parse


def user_name(value: str) -> str:
    """A user name for HTTP, which ends at the first colon."""
    if ":" in value:
        raise ValueError("has a colon, which a user name cannot have: the password has a setting of its own")
    return value


def name(value: str) -> str:
    """A short identifier that is safe in file names, tags and logs."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", value, re.ASCII):
        raise ValueError("is not a name: use up to 128 letters, digits, dots, dashes and underscores")
    return value


def words(value: str) -> list[str]:
    """A comma-separated list."""
    return [word.strip() for word in value.split(",") if word.strip()]


def spaced_words(value: str) -> list[str]:
    """A list with blanks between its words, which may have commas in them."""
    return value.split()


def group_names(value: str) -> list[str]:
    """A comma-separated list of what events have in common: names of fields and of tags. At least one, at most eight."""
    names = words(value)
    wrong = [each for each in names if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._/-]{0,62}", each, re.ASCII)]
    if wrong or not 1 <= len(names) <= 8:
        found = f"has {wrong[0]!r}, which is no name" if wrong else "is not one to eight names"
        raise ValueError(f"{found}: use host, rule, severity, model, namespace or a tag's name, as host,rule or rack")
    return names


def boolean(value: str) -> bool:
    """true/false, yes/no, on/off, 1/0."""
    lowered = value.lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError("is not a boolean: use true or false")


def whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    """A whole number between two bounds, both allowed."""

    def parse(value: str) -> int:
        number = _whole(value)
        if number is None:
            raise ValueError(f"is not a whole number: use {minimum} to {maximum}")
        if not minimum <= number <= maximum:
            raise ValueError(f"is out of range: use {minimum} to {maximum}")
        return number

    return parse


def _whole(value: str) -> int | None:
    """The whole number that the text is, also as 1e6 or 2.0; None for any other text.

    Templates of YAML files print large numbers with an exponent.
    """
    if not _NUMBER.fullmatch(value):
        return None
    number = Decimal(value)
    if number != number.to_integral_value():
        return None
    return int(number)


def rate(value: str) -> float:
    """Readings per second; 0 means as fast as possible."""
    if not _NUMBER.fullmatch(value) or value.startswith("-"):
        raise ValueError("is not a rate: use readings per second, as 500, or 0 for as fast as possible")
    return min(float(value), sys.float_info.max)


@dataclass(frozen=True, slots=True)
class RequestRate:
    """A rate limit: ``count`` requests in ``seconds``."""

    count: int
    seconds: float


_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def request_rate(value: str) -> RequestRate | None:
    """A rate limit, as 10/s, 600/m, 5000/h or 100000/d; 0 means no limit."""
    if value == "0":
        return None
    match = re.fullmatch(r"(\d{1,9})/(s|m|h|d)", value, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise ValueError("is not a rate limit: use a number and a unit, as 10/s, 600/m or 5000/h, or 0 for no limit")
    return RequestRate(int(match[1]), _PERIODS[match[2]])


def boolean_or_auto(value: str) -> bool | None:
    """A boolean, or ``auto``, which becomes None."""
    if value.lower() == "auto":
        return None
    try:
        return boolean(value)
    except ValueError:
        raise ValueError("is not a boolean: use true, false or auto") from None


def origin(value: str) -> str:
    """A web origin: scheme, host and, where it is not the default, port."""
    try:
        parts = _web_address(value)
        if parts.path or value != value.lower():
            raise ValueError("it has more than scheme, host and port")
    except ValueError as error:
        raise ValueError(
            f"has {hide_passwords(value)!r}, which is not an origin ({error}): use scheme, host and port, as https://example.com, in lower case"
        ) from None
    return _origin_of(parts)


def origins(value: str) -> list[str]:
    """A comma-separated list of origins."""
    return [origin(word) for word in words(value)]


def no_public_url_or(value: str) -> str:
    """A web address with a host and maybe a path, without a slash at its end; or empty."""
    if not value:
        return ""
    address = value.rstrip("/")
    try:
        parts = _web_address(address)
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", parts.path, re.ASCII) or {".", ".."} & set(parts.path.split("/")):
            raise ValueError("its path has other characters than letters, digits and -._~")
    except ValueError as error:
        raise ValueError(
            f"is not a public address ({error}): use https://gpus.example.com or https://example.com/gpu"
        ) from None
    return f"{_origin_of(parts)}{parts.path}"


def web_url(example: str) -> Callable[[str], str]:
    """An http or https URL of a server, as ``example``, without a slash at its end."""

    def parse(value: str) -> str:
        try:
            _web_address(value)
        except ValueError as error:
            raise ValueError(f"is not the address of a server ({error}): use {example}") from None
        return value.rstrip("/")

    return parse


def login_urls(value: str) -> list[str]:
    """http or https URLs of servers with blanks or commas between them, each maybe with user:password@, without a slash at their end."""
    found = []
    for number, word in enumerate(words(",".join(value.split())), 1):
        scheme, slashes, rest = word.partition("//")
        login, _, place = rest.rpartition("@")
        try:
            if not slashes or (login and ":" not in login):
                raise ValueError(
                    "its login is not user:password" if slashes else "it does not begin with http:// or https://"
                )
            _web_address(f"{scheme}//{place}")
        except ValueError as error:
            raise ValueError(
                f"has a URL, its number {number}, which is not the address of a server ({error}): use http://host:9093 or"
                " https://user:password@host, with % and two hex digits for signs in the password"
            ) from None
        found.append(word.rstrip("/"))
    return found


def no_ping_url_or(value: str) -> str:
    """An http or https URL with any path and query, or empty."""
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        _web_address(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        if not value.isprintable() or " " in value:
            raise ValueError("it has a blank or a character that cannot be shown")
    except ValueError as error:
        raise ValueError(f"is not a URL to ask for ({error}): use https://hc-ping.com/…") from None
    return value


def _origin_of(parts: SplitResult) -> str:
    """Scheme, host and port as browsers write them: in lower case, without a port that is the scheme's own."""
    own = f":{_WEB_PORTS[parts.scheme]}"
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(own)}"


def _web_address(value: str) -> SplitResult:
    """The parts of an http or https URL of a server. Raises ValueError that says what is wrong, without the URL."""
    if not value.isprintable() or " " in value:
        raise ValueError("it has a blank or a character that cannot be shown")
    try:
        parts = urlsplit(value)
    except ValueError:
        raise ValueError("its host is no name and no address") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("it does not begin with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("it has a user name or password, which are settings of their own")
    if parts.query or parts.fragment or value.endswith(("?", "#")):
        raise ValueError("it has more than scheme, host, port and path")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("its port is not a number from 1 to 65535")
    host(parts.hostname or "")
    return parts


def host(value: str) -> str:
    """A host name or an IP address; an IPv6 address also in brackets, which are taken off."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if ":" in bare:
        try:
            ipaddress.IPv6Address(bare)
            return bare
        except ValueError:
            raise ValueError(
                "is not a host: use a name or an address without a port, as localhost, 10.0.0.5 or ::1"
            ) from None
    if bare != value or not re.fullmatch(r"[^\W_](?:[\w.-]*\w)?\.?", bare) or ".." in bare:
        raise ValueError("is not a host: use a name or an address, as localhost, 10.0.0.5 or ::1")
    return bare


def speed(value: str) -> float:
    """A multiple of the capture's own pace: 1x, 10x, 0.5; 0 means as fast as possible."""
    if not re.fullmatch(r"\d+(\.\d+)?x?", value, re.ASCII):
        raise ValueError(
            "is not a speed: use 1x for the capture's own pace, 10x for ten times that, 0 for as fast as possible"
        )
    return float(value.rstrip("x"))


def shard(value: str) -> tuple[int, int]:
    """``i/n``, the i-th of n parts, becomes (i - 1, n). Empty means the whole, (0, 1)."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", value or "1/1", re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("is not a shard: use i/n with i from 1 to n, as 1/3")
    return int(match[1]) - 1, int(match[2])


def time_zone(value: str) -> tzinfo:
    """A zone of the IANA database, as Europe/Berlin, or an offset, as +02:00."""
    match = re.fullmatch(r"([+-])(\d{2}):(\d{2})", value, re.ASCII)
    if match is not None and int(match[2]) < 24 and int(match[3]) < 60:
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(value)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError("is not a time zone: use UTC, a name as Europe/Berlin, or an offset as +02:00") from None


def some_of(*allowed: str, besides: str = "") -> Callable[[str], tuple[str, ...]]:
    """A comma-separated choice of words; ``all`` chooses every one, empty chooses none. Words with ``besides`` in them pass as they are."""

    def parse(value: str) -> tuple[str, ...]:
        chosen = allowed if value == "all" else tuple(dict.fromkeys(words(value)))
        unknown = [word for word in chosen if word not in allowed and not (besides and besides in word)]
        if unknown:
            raise ValueError(f"has {unknown[0]!r}, which is not known: use {', '.join(allowed)}, or all")
        return chosen

    return parse


def duration(minimum: float = 0.0, *, zero: bool = False) -> Callable[[str], float]:
    """Seconds, written 500ms, 5s, 10m, 24h, 7d or 1h30m. ``zero`` allows 0, with a unit or without."""

    def parse(value: str) -> float:
        if zero and value == "0":
            return 0.0
        seconds = parse_duration(re.sub(r"\s+(?=(?:ms|[smhd])$)", "", value)) / SECOND
        if zero and seconds == 0:
            return 0.0
        if seconds < minimum or seconds <= 0:
            raise ValueError(f"is too short: use at least {minimum:g}s")
        if seconds > 100 * 365 * 86400:
            raise ValueError("is too long: use at most 36500d")
        return seconds

    return parse


def size(minimum: int, maximum: int) -> Callable[[str], int]:
    """Bytes, written 1048576, 512KiB, 64MiB or 10GiB (K, M, G and T are powers of 1024)."""

    def parse(value: str) -> int:
        match = _SIZE.fullmatch(value)
        count = _whole(match[1]) if match else None
        if match is None or count is None:
            raise ValueError("is not a size: use whole bytes, or a whole number and a unit, as 512KiB, 64MiB or 10GiB")
        number = count * _BYTES[match[2].lower()]
        if not minimum <= number <= maximum:
            raise ValueError(f"is out of range: use {minimum} to {maximum} bytes")
        return number

    return parse


def one_of(*allowed: str) -> Callable[[str], str]:
    """A choice of one word."""

    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"is not known: use {', '.join(allowed[:-1])} or {allowed[-1]}")
        return value

    return parse


def start_offset(value: str) -> int | None:
    """earliest (-2), latest (-1), an offset, or empty: after the last commit, else earliest."""
    if value == "":
        return None
    if value in {"earliest", "latest"}:
        return -2 if value == "earliest" else -1
    offset = _whole(value) if value[:1].isdigit() else None
    if offset is None or offset >= 10**18:
        raise ValueError("is not an offset: use earliest, latest or a whole number from 0")
    return offset


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes a free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def reachable(self) -> Address:
        """The address to connect to: the loopback, where a service listens on any interface."""
        return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host), self.port)  # noqa: S104

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def nothing_or(parse: Callable[[str], str]) -> Callable[[str], str]:
    """What ``parse`` takes, or empty."""
    return lambda value: parse(value) if value else ""


def no_address_or(value: str) -> Address | None:
    """An address, or None for an empty value."""
    return address(value) if value else None


def address(value: str) -> Address:
    """host:port, [ipv6]:port or :port. Without a host it means the loopback, so that no port is exposed by accident."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]*)):(\d{1,5})", value, re.ASCII)
    if match is None or int(match[3]) > 65535:
        raise ValueError("is not an address: use host:port, as 127.0.0.1:9000 or :9000")
    return Address(match[1] or match[2] or "127.0.0.1", int(match[3]))
