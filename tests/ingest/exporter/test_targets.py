from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import SourceError
from ingest.exporter.targets import Target, Targets, parse_target
from ingest.shard import WHOLE, Shard


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://node-1:9400/metrics", Target("http://node-1:9400/metrics", "node-1")),
        ("http://node-1:9400", Target("http://node-1:9400/metrics", "node-1")),
        ("https://node-1/", Target("https://node-1/metrics", "node-1")),
        ("https://node-1/dcgm?gpu=1", Target("https://node-1/dcgm?gpu=1", "node-1")),
        ("node-1", Target("http://node-1:9400/metrics", "node-1")),
        ("node-1:80", Target("http://node-1:80/metrics", "node-1")),
        ("[::1]:80", Target("http://[::1]:80/metrics", "::1")),
        ("http://me:p%40s@node-1:9400/metrics", Target("http://node-1:9400/metrics", "node-1", "me", "p@s")),
    ],
)
def test_a_target_is_a_url_or_a_host(text: str, expected: Target) -> None:
    assert parse_target(text) == expected


NO_URLS = (
    "ftp://x/metrics", "http://", "http://x:port/", "http://x:0/", "http://x:99999", "http://[::1/metrics", "http://a b/",
)  # fmt: skip


@pytest.mark.parametrize("text", [*NO_URLS, ""])
def test_what_is_no_target_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="is not an exporter's URL: use http"):
        parse_target(text)


@pytest.mark.parametrize("text", NO_URLS)
async def test_a_url_that_is_none_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(SourceError, match=r"TARGETS \(--targets\): .* is not an exporter's URL: use http"):
        await urls(text)


async def urls(*items: str, shard: Shard = WHOLE) -> list[str]:
    return [target.url for target in await Targets(items, shard).resolve()]


async def test_files_list_targets_in_either_form(tmp_path: Path) -> None:
    plain = tmp_path / "targets.txt"
    plain.write_text("# the fleet\nhttp://a:1/metrics\n\nb  # a host\nhttp://a:1/metrics\n")
    assert await urls(str(plain), "http://c:2") == ["http://a:1/metrics", "http://b:9400/metrics", "http://c:2/metrics"]
    discovered = tmp_path / "sd.json"
    discovered.write_text('[{"targets": ["a:1", "b:2"], "labels": {"x": "y"}}, {"targets": ["c:3"]}]')
    assert await urls(str(discovered)) == [f"http://{each}/metrics" for each in ("a:1", "b:2", "c:3")]


async def test_a_name_with_many_addresses_is_many_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    def found(*addresses: str) -> Any:
        async def getaddrinfo(self: Any, host: str, port: int, **kinds: Any) -> list[Any]:
            if not addresses:
                raise socket.gaierror(-2, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        return getaddrinfo

    loop = type(asyncio.get_running_loop())
    monkeypatch.setattr(loop, "getaddrinfo", found("10.0.0.1", "10.0.0.2", "10.0.0.1", "::1"))
    assert await urls("exporters.svc:80") == ["http://10.0.0.1:80/metrics", "http://10.0.0.2:80/metrics"]
    monkeypatch.setattr(loop, "getaddrinfo", found("10.0.0.1"))
    assert await urls("node-1") == ["http://node-1:9400/metrics"]
    targets = Targets(["exporters.svc"])
    monkeypatch.setattr(loop, "getaddrinfo", found())
    assert await targets.resolve() == []  # no pods yet
    monkeypatch.setattr(loop, "getaddrinfo", found("::1", "::2"))
    known = await targets.resolve()
    assert [target.url for target in known] == ["http://[::1]:9400/metrics", "http://[::2]:9400/metrics"]
    monkeypatch.setattr(loop, "getaddrinfo", found())
    assert await targets.resolve() == known  # a name server that is away changes nothing


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("ftp://x\n", "not an exporter's URL"),
        ("[1]", "no list of targets"),
        ("[{", "Expecting"),
    ],
)
async def test_a_file_that_is_no_list_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "targets.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SourceError, match=said) as caught:
        await urls(str(path))
    assert str(caught.value).startswith("TARGETS (--targets): ")
    assert "\n" not in str(caught.value)


async def test_a_file_that_breaks_later_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "targets.txt"
    path.write_text("a\n")
    targets = Targets([str(path)])
    first = await targets.resolve()
    path.write_text("ftp://x\n")
    assert await targets.resolve() == first


async def test_no_targets_is_an_error() -> None:
    with pytest.raises(SourceError, match="no exporter given"):
        Targets([])


async def test_shards_take_each_target_once() -> None:
    names = [f"http://node-{number}:9400/metrics" for number in range(50)]
    parts = [await urls(*names, shard=Shard(number, 3)) for number in range(3)]
    assert sorted(url for part in parts for url in part) == sorted(names)
    assert all(parts)
