"""One exchange with receivers that behave badly: bounded, and judged by the status."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import trustme

from ingester.delivery.addresses import parse_networks
from ingester.delivery.client import ANSWER_BYTES_MAX, Client, make_tls_context
from ingester.delivery.exchange import Exchange, Target
from ingester.delivery.settings import DestinationSettings
from tests.delivery.receivers import OK, Received, Receiver, answer, receiving

TLS = make_tls_context()
LOOPBACK = parse_networks(["127.0.0.0/8"])
BODY = b'{"id":"1"}'

Behaviour = Callable[[Receiver, Received, trio.abc.Stream], Awaitable[None]]


async def send(
    url: str, *, seconds_max: float = 5, tls: ssl.SSLContext = TLS, **more: object
) -> Exchange:
    target = Target(type="webhook", settings=DestinationSettings(url=url, **more))  # type: ignore[arg-type]
    async with Client(target, allow_networks=lambda: LOOPBACK, tls=tls) as client:
        return await client.send("msg_1", BODY, seconds_max=seconds_max)


async def met(behaviour: Behaviour, *, seconds_max: float = 5) -> Exchange:
    async with receiving(behaviour) as receiver:
        return await send(receiver.url, seconds_max=seconds_max)


def saying(*pieces: bytes, then_hang: bool = False) -> Behaviour:
    """These bytes, and then the connection is closed or kept open."""

    async def behave(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
        for piece in pieces:
            await stream.send_all(piece)
        if then_hang:
            await trio.sleep_forever()
        await stream.aclose()

    return behave


async def test_an_answer_is_told_with_its_headers_and_body() -> None:
    exchange = await met(answer(429, b"slow down", Retry_After="7"))
    assert (exchange.status, exchange.answer, exchange.error) == (429, b"slow down", None)
    assert exchange.headers["retry-after"] == "7"


async def test_a_receiver_that_hangs_costs_the_deadline() -> None:
    exchange = await met(saying(then_hang=True), seconds_max=0.2)
    assert (exchange.status, exchange.error) == (None, "no answer within 0.2 s")


async def test_a_receiver_that_drips_its_head_costs_the_deadline() -> None:
    exchange = await met(saying(b"HTTP/1.1 2", b"00", b" O", then_hang=True), seconds_max=0.2)
    assert exchange.status is None


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n5\r\nha"]
)
@pytest.mark.parametrize("then_hang", [False, True])
async def test_a_status_counts_though_the_body_never_ends(rest: bytes, then_hang: bool) -> None:
    exchange = await met(saying(b"HTTP/1.1 200 OK\r\n" + rest, then_hang=then_hang), seconds_max=1)
    assert (exchange.status, exchange.error) == (200, None)


async def test_of_a_huge_answer_little_is_read() -> None:
    sent = 0

    async def flood(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 65536)
            sent += 65536

    exchange = await met(flood)
    assert exchange.status == 200
    assert len(exchange.answer) == ANSWER_BYTES_MAX
    assert sent < 50_000_000


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 99999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA" * 20_000,
        b"\x00" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_a_failure_with_a_sentence(said: bytes) -> None:
    exchange = await met(saying(said))
    assert exchange.status is None
    assert exchange.error


async def test_a_closed_port_is_a_failure_with_a_sentence() -> None:
    async with receiving() as receiver:
        url = receiver.url
    exchange = await send(url)
    assert exchange.status is None
    assert exchange.error == "Connection refused"


async def test_a_connection_that_is_closed_after_an_answer_is_opened_again() -> None:
    async with receiving(saying(OK)) as receiver:
        target = Target(type="webhook", settings=DestinationSettings(url=receiver.url))
        async with Client(target, allow_networks=lambda: LOOPBACK, tls=TLS) as client:
            for _ in range(3):
                exchange = await client.send("msg", BODY, seconds_max=5)
                assert exchange.status == 200
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert receiver.connection_count == 3


async def test_tls_is_verified_against_the_name() -> None:
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusting = make_tls_context()
    authority.configure_trust(trusting)
    async with receiving(tls=served) as receiver:
        assert (await send(receiver.url, tls=trusting)).status == 200
        stranger = await send(receiver.url)
        assert stranger.status is None
        assert stranger.error is not None
        assert stranger.error.startswith("TLS: ")
    wrong_name = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(wrong_name)
    async with receiving(tls=wrong_name) as receiver:
        exchange = await send(receiver.url, tls=trusting)
        assert exchange.status is None
        assert "127.0.0.1" in str(exchange.error)
        assert receiver.received == []


async def test_https_to_a_receiver_without_tls_is_a_failure() -> None:
    async with receiving() as receiver:
        exchange = await send(receiver.url.replace("http:", "https:"), seconds_max=2)
        assert exchange.status is None
        assert exchange.error


async def test_headers_user_info_and_gzip_are_sent_and_shown_without_credentials() -> None:
    async with receiving() as receiver:
        url = receiver.url.replace("http://", "http://user:p%40ss@")
        exchange = await send(url, headers={"X-Team": "data", "Content-Type": "x/y"}, gzip=True)
        await send(receiver.url, headers={"Authorization": "Bearer hidden"})
    first, second = receiver.received
    assert first.headers["authorization"] == "Basic dXNlcjpwQHNz"
    assert (first.headers["x-team"], first.headers["content-type"]) == ("data", "application/json")
    assert first.headers["content-encoding"] == "gzip"
    assert gzip.decompress(first.body) == BODY
    assert (first.target, second.headers["authorization"]) == ("/hook", "Bearer hidden")
    assert ("Authorization", "REDACTED") in exchange.sent_headers
    assert "dXNlcjpwQHNz" not in str(exchange.sent_headers)


async def test_a_receiver_that_repeats_our_secrets_does_not_bring_them_into_the_log() -> None:
    async def echo(_receiver: Receiver, received: Received, stream: trio.abc.Stream) -> None:
        body = f"you sent {received.headers}".encode()
        head = f"HTTP/1.1 500 X\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)

    async with receiving(echo) as receiver:
        url = receiver.url.replace("http://", "http://user:pass@")
        exchange = await send(url, headers={"X-Api-Key": "hidden", "X-Team": "data"})
    assert b"hidden" not in exchange.answer
    assert b"dXNlcjpwYXNz" not in exchange.answer
    assert b"data" in exchange.answer


async def test_the_same_body_is_compressed_to_the_same_bytes() -> None:
    async with receiving() as receiver:
        for _ in range(2):
            await send(receiver.url, gzip=True)
    assert receiver.received[0].body == receiver.received[1].body
