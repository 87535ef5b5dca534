from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from telemetry_site import env
from telemetry_site.env import Address, Option, SettingError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5.0), ("10m", 600.0), ("24h", 86400.0), ("7d", 604800.0), ("1.5h", 5400.0), ("5 s", 5.0)],
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
    with pytest.raises(ValueError, match="unit"):
        env.duration()("0")


def test_a_duration_under_its_minimum_says_the_minimum() -> None:
    with pytest.raises(ValueError, match="at least 1s"):
        env.duration(1.0)("999ms")


@pytest.mark.parametrize(
    ("text", "number"),
    [("1048576", 1 << 20), ("512KiB", 1 << 19), ("64MiB", 1 << 26), ("10G", 10 << 30), ("1 mb", 1 << 20)],
)
def test_a_size_is_bytes_or_a_number_and_a_unit(text: str, number: int) -> None:
    assert env.size(0, 1 << 40)(text) == number


@pytest.mark.parametrize("text", ["", "1.5G", "-1", "64 parsecs", "2T"])
def test_what_is_no_size_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use"):
        env.size(0, 1 << 40)(text)


@pytest.mark.parametrize("text", ["abc", "1.0", "1_0", "", "１", "0", "101", "9" * 30])
def test_what_is_no_whole_number_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use 1 to 100"):
        env.whole_number(1, 100)(text)


def test_a_whole_number_may_be_either_bound() -> None:
    assert [env.whole_number(1, 100)(text) for text in ("1", "100")] == [1, 100]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9000", Address("127.0.0.1", 9000)),
        ("0.0.0.0:9000", Address("0.0.0.0", 9000)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:9000", Address("::1", 9000)),
        ("broker-0.broker:9000", Address("broker-0.broker", 9000)),
    ],
)
def test_an_address_without_a_host_is_the_loopback(text: str, address: Address) -> None:
    assert env.address(text) == address


@pytest.mark.parametrize("text", ["9000", ":70000", "host", "::1:9000", "a b:1", "http://x:1", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        env.address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("gpu-host", False),
    ],
)
def test_an_address_knows_whether_others_can_reach_it(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


def test_an_address_prints_as_it_is_written() -> None:
    assert [str(Address("::1", 9000)), str(Address("127.0.0.1", 9000))] == ["[::1]:9000", "127.0.0.1:9000"]


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("1", True), ("off", False), ("No", False), ("0", False)]
)
def test_a_boolean_is_a_yes_or_a_no(text: str, value: bool) -> None:
    assert env.boolean(text) is value


def test_what_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(ValueError, match="true or false"):
        env.boolean("maybe")


@pytest.mark.parametrize(("text", "offset"), [("", None), ("earliest", -2), ("latest", -1), ("0", 0), ("42", 42)])
def test_a_start_offset_is_a_word_or_a_number(text: str, offset: int | None) -> None:
    assert env.start_offset(text) == offset


@pytest.mark.parametrize("text", ["-1", "soon", "1.5", "+3"])
def test_what_is_no_start_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="earliest, latest"):
        env.start_offset(text)


@pytest.mark.parametrize("text", ["", "-x", "a b", "a/b", "x" * 129, "ä"])
def test_a_name_is_safe_in_file_names(text: str) -> None:
    with pytest.raises(ValueError, match="name"):
        env.name(text)


def test_a_list_drops_blanks() -> None:
    assert env.words(" a, b ,,c") == ["a", "b", "c"]


def test_a_rate_is_a_plain_number() -> None:
    assert [env.rate("0"), env.rate("12.5")] == [0.0, 12.5]
    with pytest.raises(ValueError, match="readings per second"):
        env.rate("-1")


def test_a_choice_names_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="use a, b or c"):
        env.one_of("a", "b", "c")("d")


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


def test_a_bad_secret_is_not_shown() -> None:
    with pytest.raises(SettingError) as caught:
        _option(env.whole_number(1, 5), secret=True).read({"SOME_NAME": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("text", "number"), [("1x", 1.0), ("0.5", 0.5), ("100x", 100.0), ("0", 0.0)])
def test_a_speed_is_a_factor(text: str, number: float) -> None:
    assert env.speed(text) == number


@pytest.mark.parametrize("text", ["fast", "-1x", "x", "1xx", ""])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use 1x"):
        env.speed(text)


def test_shards_are_numbered_from_1() -> None:
    assert env.shard("") == env.shard("1/1") == (0, 1)
    assert env.shard("2/3") == (1, 3)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use i/n"):
        env.shard(text)


@pytest.mark.parametrize(
    ("text", "hours"), [("UTC", 0.0), ("+02:00", 2.0), ("-07:30", -7.5), ("America/Los_Angeles", -7.0)]
)
def test_a_time_zone_is_a_name_or_an_offset(text: str, hours: float) -> None:
    offset = env.time_zone(text).utcoffset(datetime(2025, 7, 18))  # noqa: DTZ001 - a zone is asked with a naive time
    assert offset == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "Nowhere/City", "+25:00", "../etc/passwd", "+2"])
def test_what_is_no_time_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use UTC"):
        env.time_zone(text)


def test_some_of_a_few_words() -> None:
    parse = env.some_of("a", "b", "c")
    assert [parse(text) for text in ("", "all", "b, a,b")] == [(), ("a", "b", "c"), ("b", "a")]
    with pytest.raises(ValueError, match="'x', which is not known: use a, b, c, or all"):
        parse("a,x")


def test_an_address_may_be_left_out() -> None:
    assert env.no_address_or("") is None
    assert env.no_address_or(":9100") == Address("127.0.0.1", 9100)


def test_an_allowance_is_a_number_in_a_time() -> None:
    assert env.no_allowance_or("0") is None
    assert [env.no_allowance_or(text) for text in ("10/s", "600/m", "5000/h", "1/d")] == [
        env.Allowance(10, 1.0),
        env.Allowance(600, 60.0),
        env.Allowance(5000, 3600.0),
        env.Allowance(1, 86400.0),
    ]


@pytest.mark.parametrize("text", ["", "10", "0/s", "-1/s", "10/w", "1.5/s", "10 / s", "many"])
def test_what_is_no_allowance_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="10/s, 600/m"):
        env.no_allowance_or(text)


def test_a_boolean_may_be_left_to_the_surroundings() -> None:
    assert [env.boolean_or_auto(text) for text in ("auto", "AUTO", "true", "0")] == [None, None, True, False]
    with pytest.raises(ValueError, match="true, false or auto"):
        env.boolean_or_auto("maybe")


def test_an_origin_is_scheme_host_and_port() -> None:
    assert env.origins("https://a.example, http://b:3000,") == ["https://a.example", "http://b:3000"]
    assert env.no_origin_or("https://a.example/") == "https://a.example"
    assert env.no_origin_or("") == ""
    assert env.origin("http://[::1]:8080") == "http://[::1]:8080"


@pytest.mark.parametrize(
    "text", ["a.example", "*", "https://", "ftp://a", "https://a/b", "https://a b", "https://u@a", "https://A.example"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"use scheme, host and port"):
        env.origins(text)
    with pytest.raises(ValueError, match=r"use scheme, host and port"):
        env.no_origin_or(text)
