"""The guard at the socket: what is refused is never connected to."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import httpcore2
import pytest
import trio

from ingester.delivery.addresses import Network, parse_networks
from ingester.delivery.client import Client, make_tls_context
from ingester.delivery.exchange import Exchange, Target
from ingester.delivery.settings import DestinationSettings
from ingester.delivery.ssrf import Resolve, make_resolve
from tests.delivery.receivers import answer, receiving

TLS = make_tls_context()

# Every spelling of a place that must not be reached.
CORPUS = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://0/",
    "http://localhost/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[0:0:0:0:0:ffff:7f00:1]/",
    "http://[::]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://10.0.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1:8080/",
    "http://100.100.100.200/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://user@127.0.0.1/",
    "http://example.org@127.0.0.1/",
    "http://127.0.0.1:80@10.0.0.1/",
]


class Refusing(httpcore2.AsyncNetworkBackend):
    """Writes down where a connection is wanted, and refuses it."""

    def __init__(self) -> None:
        self.wanted: list[tuple[str, int]] = []

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> Any:
        self.wanted.append((host, port))
        raise httpcore2.ConnectError("not in this test")


async def send(
    url: str,
    *,
    network: httpcore2.AsyncNetworkBackend | None = None,
    resolve: Resolve | None = None,
    allow: Sequence[str] = (),
) -> Exchange:
    networks: tuple[Network, ...] = parse_networks(allow)
    target = Target(type="webhook", settings=DestinationSettings(url=url))
    client = Client(
        target, allow_networks=lambda: networks, tls=TLS, resolve=resolve, network=network
    )
    async with client:
        return await client.send("msg", b"{}", seconds_max=3)


@pytest.mark.parametrize("url", CORPUS)
async def test_no_connection_is_opened_to_what_is_not_public(url: str) -> None:
    network = Refusing()
    exchange = await send(url, network=network)
    assert network.wanted == []
    assert exchange.status is None
    assert exchange.error is not None
    assert "[delivery] allow_networks" in exchange.error


async def test_one_refused_answer_refuses_the_name() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["93.184.216.34", "10.0.0.1"]

    network = Refusing()
    exchange = await send("http://half.example/", network=network, resolve=resolve)
    assert network.wanted == []
    assert exchange.error is not None
    assert "10.0.0.1" in exchange.error


async def test_a_name_is_resolved_once_and_the_checked_address_connected_to() -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"]]

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return answers.pop(0)

    network = Refusing()
    await send("http://rebinding.example:8080/", network=network, resolve=resolve)
    assert network.wanted == [("93.184.216.34", 8080)]
    assert len(answers) == 1


async def test_every_checked_address_is_tried() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["93.184.216.34", "93.184.216.35"]

    network = Refusing()
    await send("https://two.example/", network=network, resolve=resolve)
    assert network.wanted == [("93.184.216.34", 443), ("93.184.216.35", 443)]


async def test_an_opened_network_is_connected_to_and_the_host_header_keeps_the_name() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        url = f"http://receiver.example:{port}/hook"
        exchange = await send(url, resolve=resolve, allow=["127.0.0.0/8"])
    assert exchange.status == 200
    assert receiver.received[0].headers["host"] == f"receiver.example:{port}"


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as secret:
        async with receiving(answer(301, Location=secret.url)) as receiver:
            exchange = await send(receiver.url, allow=["127.0.0.0/8"])
        assert exchange.status == 301
        assert secret.connection_count == 0


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        exchange = await send(receiver.url, allow=["127.0.0.0/8"])
        assert exchange.status == 200
        assert proxy.connection_count == 0


async def test_a_name_server_that_hangs_costs_the_time_of_one_exchange(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        await trio.sleep_forever()
        raise AssertionError

    target = Target(type="webhook", settings=DestinationSettings(url="http://slow.example/"))
    client = Client(target, allow_networks=lambda: (), tls=TLS, resolve=resolve)
    async with client:
        exchange = await client.send("msg", b"{}", seconds_max=0)
    assert exchange.error == "no answer within 0 s"


async def test_a_name_that_does_not_exist_is_a_failure_with_its_name() -> None:
    def fail(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    original = socket.getaddrinfo
    socket.getaddrinfo = fail  # type: ignore[assignment]
    try:
        with pytest.raises(httpcore2.ConnectError, match=r"nobody\.example: Name"):
            await make_resolve()("nobody.example", 443)
    finally:
        socket.getaddrinfo = original
