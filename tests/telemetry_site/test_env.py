from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from telemetry_site import env
from telemetry_site.env import Address, Option, SettingError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5.0),
        ("10m", 600.0),
        ("24h", 86400.0),
        ("7d", 604800.0),
        ("1.5h", 5400.0),
        ("5 s", 5.0),
        ("1h30m", 5400.0),
        ("24h0m0s", 86400.0),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert env.duration()(text) == seconds


@pytest.mark.parametrize("text", ["5 parsecs", "5", "-5s", "", "s", "1_0s", "５s", "0s", "1e3s", "40000d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use"):
        env.duration()(text)


def test_zero_is_a_duration_only_where_it_means_something() -> None:
    assert env.duration(zero=True)("0") == 0.0
    assert env.duration(zero=True)("0h") == 0.0
    assert env.duration(zero=True)("0h0m0s") == 0.0
    with pytest.raises(ValueError, match="unit"):
        env.duration()("0")


def test_a_duration_under_its_minimum_says_the_minimum() -> None:
    with pytest.raises(ValueError, match="at least 1s"):
        env.duration(1.0)("999ms")


SIZE, NUMBER, SOME = env.size(0, 1 << 40), env.whole_number(1, 100), env.some_of("a", "b", "c")
WEB = env.web_url("http://host:8086")


@pytest.mark.parametrize(
    ("parse", "values"),
    [
        (
            SIZE,
            {
                "1048576": 1 << 20,
                "512KiB": 1 << 19,
                "64MiB": 1 << 26,
                "10G": 10 << 30,
                "1 mb": 1 << 20,
                "2.097152e+06": 1 << 21,
            },
        ),
        (NUMBER, {"1": 1, "100": 100, "2.0": 2, "5e+01": 50}),
        (env.rate, {"0": 0.0, "12.5": 12.5, "1e+06": 1e6}),
        (env.speed, {"1x": 1.0, "0.5": 0.5, "100x": 100.0, "0": 0.0}),
        (env.boolean, {"true": True, "YES": True, "1": True, "off": False, "No": False, "0": False}),
        (env.boolean_or_auto, {"auto": None, "AUTO": None, "true": True, "0": False}),
        (env.words, {" a, b ,,c": ["a", "b", "c"]}),
        (SOME, {"": (), "all": ("a", "b", "c"), "b, a,b": ("b", "a")}),
        (env.shard, {"": (0, 1), "1/1": (0, 1), "2/3": (1, 3)}),
        (env.start_offset, {"": None, "earliest": -2, "latest": -1, "0": 0, "42": 42, "3e6": 3_000_000}),
        (
            env.address,
            {
                ":9000": Address("127.0.0.1", 9000),  # without a host: the loopback
                "0.0.0.0:9000": Address("0.0.0.0", 9000),
                "localhost:0": Address("localhost", 0),
                "[::1]:9000": Address("::1", 9000),
                "broker-0.broker:9000": Address("broker-0.broker", 9000),
            },
        ),
        (env.no_address_or, {"": None, ":9100": Address("127.0.0.1", 9100)}),
        (
            env.request_rate,
            {
                "0": None,
                "10/s": env.RequestRate(10, 1.0),
                "600/m": env.RequestRate(600, 60.0),
                "5000/h": env.RequestRate(5000, 3600.0),
                "1/d": env.RequestRate(1, 86400.0),
            },
        ),
        (env.origin, {"http://[::1]:8080": "http://[::1]:8080", "https://a.example:443": "https://a.example"}),
        (env.origins, {"https://a.example, http://b:3000,": ["https://a.example", "http://b:3000"]}),
        (
            env.no_public_url_or,
            {
                "https://a.example/": "https://a.example",
                "": "",
                "https://A.example:8443/gpu/": "https://a.example:8443/gpu",
                "http://[::1]:80/a/b-c": "http://[::1]/a/b-c",
                "https://a.example:443": "https://a.example",
                "https://a.example:80/x": "https://a.example:80/x",
            },
        ),
        (WEB, {"http://influx:8086/": "http://influx:8086", "https://x.y/base/influx": "https://x.y/base/influx"}),
        (env.host, {"[::1]": "::1", "::1": "::1", "10.0.0.5": "10.0.0.5", "mq_1.svc.local.": "mq_1.svc.local."}),
    ],
)
def test_a_value_is_parsed(parse: Callable[[str], Any], values: dict[str, Any]) -> None:
    assert {text: parse(text) for text in values} == values
    assert [type(parse(text)) for text in values] == [type(value) for value in values.values()]


NO_ORIGINS = ("a.example", "*", "https://", "ftp://a", "https://a/b", "https://a b", "https://u@a", "https://A.example")


@pytest.mark.parametrize(
    ("parse", "reason", "texts"),
    [
        (SIZE, "use", ("", "1.5G", "-1", "1e-3", "2e999T", "64 parsecs", "2T")),
        (NUMBER, "use 1 to 100", ("abc", "1.5", "1e-1", "1e9999", "e5", "1e5", "1_0", "", "１", "0", "101", "9" * 30)),
        (env.rate, "readings per second", ("-1", "", "1e", "nan", "inf")),
        (env.speed, "use 1x", ("fast", "-1x", "x", "1xx", "")),
        (env.boolean, "true or false", ("maybe",)),
        (env.boolean_or_auto, "true, false or auto", ("maybe",)),
        (env.one_of("a", "b", "c"), "use a, b or c", ("d",)),
        (SOME, "'x', which is not known: use a, b, c, or all", ("a,x",)),
        (env.shard, "use i/n", ("0/3", "4/3", "1", "a/b", "1/0", "-1/2", "1/2/3")),
        (env.start_offset, "earliest, latest", ("-1", "soon", "1.5", "+3")),
        (env.name, "name", ("", "-x", "a b", "a/b", "x" * 129, "ä")),
        (env.address, "host:port", ("9000", ":70000", "host", "::1:9000", "a b:1", "http://x:1", "")),
        (env.request_rate, "10/s, 600/m", ("", "10", "0/s", "-1/s", "10/w", "1.5/s", "10 / s", "many")),
        (env.time_zone, "use UTC", ("", "Nowhere/City", "+25:00", "../etc/passwd", "+2")),
        (env.origins, "use scheme, host and port", NO_ORIGINS),
        (
            env.no_public_url_or,
            "use https://gpus.example.com",
            (
                "a.example",
                "*",
                "https://",
                "ftp://a",
                "https://a b",
                "https://u@a",
                "https://*.example.com",
                "https://a/b?c",
                "https://a/%2e%2e",
                "https://a/../b",
                "https://a//b",
                "https://a:0",
                "https://a:99999",
                "https://a:b",
            ),
        ),
        (
            WEB,
            "port is not a number from 1 to 65535",
            (
                "http://a:b",
                "http://a:0",
                "http://a:",
                "http://a:99999",
                "http://a:-1",
                "http://[::1]:x",
                "http://a:80:80",
            ),
        ),
        (
            WEB,
            "use http://host:8086",
            (
                "",
                "a:8086",
                "http://",
                "http:/a",
                "ftp://a",
                "http://[::1",
                "http://::1:8086x",
                "http://a b",
                "http://a\n",
                "http://.",
                "http://a..b",
                "http://a?x",
                "http://a#x",
                "http://u:p@a",
                "http:///x",
                "http://[fe80::g]:1",
            ),
        ),
        (
            env.host,
            "use a name or an address",
            (
                "",
                "a b",
                "[a]",
                "a/b",
                "http://a",
                "a:1",
                "[::1",
                "::1]",
                "[::1]:9000",
                "-a",
                "a..b",
                "a@b",
                "[]",
            ),
        ),
    ],
)
def test_another_value_is_refused_with_what_is_allowed(
    parse: Callable[[str], Any], reason: str, texts: tuple[str, ...]
) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=reason):
            parse(text)


@pytest.mark.parametrize(
    ("text", "hours"), [("UTC", 0.0), ("+02:00", 2.0), ("-07:30", -7.5), ("America/Los_Angeles", -7.0)]
)
def test_a_time_zone_is_a_name_or_an_offset(text: str, hours: float) -> None:
    offset = env.time_zone(text).utcoffset(datetime(2025, 7, 18))  # noqa: DTZ001 - a zone is asked with a naive time
    assert offset == timedelta(hours=hours)


def test_an_address_knows_whether_others_can_reach_it() -> None:
    hosts = ("127.0.0.1", "127.8.8.8", "::1", "localhost", "0.0.0.0", "::", "gpu-host")
    assert [Address(host, 1).is_loopback for host in hosts] == [True] * 4 + [False] * 3


def test_an_address_prints_as_it_is_written() -> None:
    assert [str(Address("::1", 9000)), str(Address("127.0.0.1", 9000))] == ["[::1]:9000", "127.0.0.1:9000"]


def _option(parse: Any = env.text, default: str = "", secret: bool = False) -> Option[Any]:
    return Option("SOME_NAME", default, parse, "help", ("site",), secret)


def test_an_option_comes_from_the_environment_else_from_its_default() -> None:
    option = _option(default="5")
    assert option.read({"SOME_NAME": "7"}) == "7"
    assert option.read({}) == "5"
    assert option.read({"SOME_NAME": ""}) == "5"


def test_an_option_knows_whether_somebody_set_it() -> None:
    assert _option().is_given({"SOME_NAME": "x"})
    assert not _option().is_given({"SOME_NAME": ""})


def test_a_bad_value_is_one_line_that_names_the_variable_the_flag_and_what_is_allowed() -> None:
    with pytest.raises(SettingError) as caught:
        _option(env.whole_number(1, 5)).read({"SOME_NAME": "abc"})
    assert str(caught.value) == "SOME_NAME (--some-name): 'abc' is not a whole number: use 1 to 5"


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("hush\n")
    assert _option(secret=True).read({"SOME_NAME_FILE": str(path)}) == "hush"
    assert _option(secret=True).read({"SOME_NAME": "loud", "SOME_NAME_FILE": str(path)}) == "loud"


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="SOME_NAME_FILE: cannot read"):
        _option(secret=True).read({"SOME_NAME_FILE": str(tmp_path / "none")})


def test_the_blanks_around_a_secret_are_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("  hush \r\n")
    assert _option(secret=True).read({"SOME_NAME": "hush\n"}) == "hush"
    assert _option(secret=True).read({"SOME_NAME_FILE": str(path)}) == "hush"
    assert _option(secret=True).is_given({"SOME_NAME_FILE": str(path)})


@pytest.mark.parametrize("value", ["two\nlines", "a\x00b", "a\x1b[2J", "a\u202eb"])
def test_a_secret_with_a_line_break_in_it_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(SettingError, match=r"^SOME_NAME: the value has a line break") as caught:
        _option(secret=True).read({"SOME_NAME": value})
    assert "two" not in str(caught.value)


def test_a_short_secret_is_refused() -> None:
    parse = env.secret(16)
    assert parse("") == ""
    assert parse("a" * 16) == "a" * 16
    with pytest.raises(ValueError, match="at least 16 characters"):
        parse("a" * 15)


def test_a_user_name_with_a_colon_is_refused() -> None:
    assert env.user_name("prometheus") == "prometheus"
    with pytest.raises(ValueError, match="colon"):
        env.user_name("user:password")


def test_the_password_of_a_url_is_not_shown() -> None:
    with pytest.raises(SettingError) as caught:
        _option(env.one_of("x", "y")).read({"SOME_NAME": "http://user:hunter2@host/"})
    assert "http://***@host/" in str(caught.value)


def test_a_bad_secret_is_not_shown() -> None:
    with pytest.raises(SettingError) as caught:
        _option(env.whole_number(1, 5), secret=True).read({"SOME_NAME": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", []),
        ("http://a:9093/", ["http://a:9093"]),
        ("http://a:9093, https://u:p%40ss@b/path https://c", ["http://a:9093", "https://u:p%40ss@b/path", "https://c"]),
    ],
)
def test_urls_with_logins(given: str, found: list[str]) -> None:
    assert env.login_urls(given) == found


@pytest.mark.parametrize("given", ["a:9093", "ftp://a", "http://user@a", "http://a:0", "http://u:p@", "http://a?x=1"])
def test_a_url_of_a_server_that_is_none_is_named_by_its_number(given: str) -> None:
    with pytest.raises(ValueError, match="its number 2, which is not the address of a server"):
        env.login_urls(f"http://fine {given}")


@pytest.mark.parametrize("given", ["https://hc-ping.com/uuid", "http://user:pw@kuma:3001/api/push/x?status=up&msg=OK"])
def test_urls_to_ask_for(given: str) -> None:
    assert env.no_ping_url_or(given) == given
    assert env.no_ping_url_or("") == ""


@pytest.mark.parametrize("given", ["hc-ping.com/uuid", "ftp://a/b", "http:///x", "http://a/b c"])
def test_what_cannot_be_asked_for(given: str) -> None:
    with pytest.raises(ValueError, match="is not a URL to ask for"):
        env.no_ping_url_or(given)


def test_names_to_group_by() -> None:
    assert env.group_names("host, rule,rack/row") == ["host", "rule", "rack/row"]
    for wrong in ("", "a b", "1st", ",".join("abcdefghi")):
        with pytest.raises(ValueError, match="use host, rule, severity"):
            env.group_names(wrong)


def test_a_secret_list_may_have_a_line_for_each_word(tmp_path: Path) -> None:
    option = env.Option("WORDS", "", env.spaced_words, "words", (), secret=True, many=True)
    file = tmp_path / "words"
    file.write_text("one://a,b\n\n  two://c\n")
    assert option.read({"WORDS_FILE": str(file)}) == ["one://a,b", "two://c"]
