from __future__ import annotations

import asyncio
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.client.client import BrokerClient, fetch_stats
from broker.errors import BrokerUnavailable, TlsUnusable
from broker.tls import client_context, server_context
from tests.broker.certificates import Authority
from tests.broker.harness import PRODUCER, offsets, plain_client, running_broker, take
from tests.broker.process import broker_process


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> tuple[str, str]:
    return authority.sign("server")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    client_context.cache_clear()


async def test_everything_goes_over_tls(tmp_path: Path, authority: Authority, files: tuple[str, str]) -> None:
    trusting = client_context(str(authority.ca))
    async with running_broker(tmp_path, tls=server_context(*files)) as broker:
        client = await BrokerClient.connect("localhost", broker.port, tls=trusting)
        published = [client.publish(b'"%b"' % (b"x" * 5000), producer=PRODUCER, sequence=n) for n in range(2000)]
        assert [answer.offset for answer in await asyncio.gather(*published)] == list(range(2000))
        assert await client.subscribe("c1") == 0
        assert offsets(await take(client, 2000)) == list(range(2000))
        await client.ack(1999)
        stats = await asyncio.to_thread(fetch_stats, "127.0.0.1", broker.port, tls=trusting)
        assert stats["subscribers"][0]["committed_offset"] == 1999
        await client.close()


async def test_a_broker_that_is_not_who_it_should_be_gets_nothing(
    tmp_path: Path, authority: Authority, files: tuple[str, str]
) -> None:
    (tmp_path / "other").mkdir()
    stranger = client_context(str(Authority(tmp_path / "other").ca))
    elsewhere = authority.sign("elsewhere", "DNS:broker.example")
    for certificate, context, reason in (
        (files, stranger, "not trusted"),
        (elsewhere, client_context(str(authority.ca)), "not trusted"),
        (files, client_context("system"), "not trusted"),
    ):
        async with running_broker(tmp_path / "log", tls=server_context(*certificate)) as broker:
            with pytest.raises(BrokerUnavailable, match=reason):
                await BrokerClient.connect("127.0.0.1", broker.port, tls=context)
            with pytest.raises(BrokerUnavailable, match=reason):
                await asyncio.to_thread(fetch_stats, "127.0.0.1", broker.port, tls=context)


async def test_a_plain_client_on_a_tls_port_is_hung_up_on(tmp_path: Path, files: tuple[str, str]) -> None:
    async with running_broker(tmp_path, tls=server_context(*files)) as broker:
        async with plain_client(broker.port) as client:
            client.send(type="publish", payload=1)
            assert await client.is_closed()
        with pytest.raises(BrokerUnavailable):
            await BrokerClient.connect("127.0.0.1", broker.port)
        assert broker.log.next_offset == 0


async def test_a_tls_client_on_a_plain_port_is_told_so(tmp_path: Path, authority: Authority) -> None:
    async with running_broker(tmp_path) as broker:
        with pytest.raises(BrokerUnavailable, match="TLS: WRONG_VERSION_NUMBER"):
            await BrokerClient.connect("127.0.0.1", broker.port, tls=client_context(str(authority.ca)))


async def test_who_says_nothing_in_the_handshake_is_hung_up_on(tmp_path: Path, files: tuple[str, str]) -> None:
    context = server_context(*files)
    async with running_broker(tmp_path, tls=context, hello_s=0.1) as broker, plain_client(broker.port) as client:
        assert await client.is_closed()


async def test_with_a_client_ca_only_its_clients_get_in(
    tmp_path: Path, authority: Authority, files: tuple[str, str]
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").sign("stranger")
    member = authority.sign("member")
    ca = str(authority.ca)
    async with running_broker(tmp_path / "log", tls=server_context(*files, ca)) as broker:
        client = await BrokerClient.connect("127.0.0.1", broker.port, tls=client_context(ca, *member))
        assert (await client.publish(b"1")).offset == 0
        await client.close()
        for context in (client_context(ca), client_context(ca, *stranger)):
            with pytest.raises(BrokerUnavailable):
                await BrokerClient.connect("127.0.0.1", broker.port, tls=context)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"cert": "", "key": "k"}, "BROKER_TLS_CERT is not set"),
        ({"cert": "c", "key": ""}, "BROKER_TLS_KEY is not set"),
        ({"cert": "/none.pem"}, "BROKER_TLS_CERT: cannot read /none.pem: No such file"),
        ({"key": "/none.key"}, "BROKER_TLS_KEY: cannot read /none.key"),
        ({"client_ca": "/none.pem"}, "BROKER_TLS_CA: cannot read"),
    ],
)
def test_files_that_do_not_work_are_named(files: tuple[str, str], arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TlsUnusable, match=text):
        server_context(**{"cert": files[0], "key": files[1]} | arguments)


def test_a_file_that_is_no_certificate(tmp_path: Path, authority: Authority, files: tuple[str, str]) -> None:
    junk = tmp_path / "junk"
    junk.write_text("junk")
    with pytest.raises(TlsUnusable, match=r"BROKER_TLS_CERT .* do not work"):
        server_context(str(junk), files[1])
    with pytest.raises(TlsUnusable, match="do not work: KEY_VALUES_MISMATCH"):
        server_context(files[0], authority.sign("another")[1])
    with pytest.raises(TlsUnusable, match=r"BROKER_TLS_CA .* does not work"):
        client_context(str(junk))
    assert client_context("") is None


def test_the_service_speaks_tls_on_both_ports(tmp_path: Path, authority: Authority, files: tuple[str, str]) -> None:
    ca = str(authority.ca)
    environment = {"BROKER_TLS_CERT": files[0], "BROKER_TLS_KEY": files[1], "BROKER_TLS_CA": ca}
    context = client_context(ca, *files)
    with broker_process(tmp_path, **environment) as broker:
        port, http_port = broker.wait_listening()
        assert fetch_stats("localhost", port, tls=context)["total_messages"] == 0
        with urllib.request.urlopen(f"https://localhost:{http_port}/health", context=client_context(ca)) as answer:
            assert answer.status == 200
        with pytest.raises(BrokerUnavailable):
            fetch_stats("localhost", port, tls=client_context(ca))
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"http://localhost:{http_port}/health")
    with broker_process(tmp_path, "--broker-tls-cert", files[0]) as broker:
        assert broker.wait_end() == 1
        assert "BROKER_TLS_KEY is not set" in broker.lines[-1]
    assert isinstance(context, ssl.SSLContext)
