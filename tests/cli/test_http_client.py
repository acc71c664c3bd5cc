"""The client's connection: early answers, silence, keep-alive, what is not HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from ingester.cli.http_client import (
    Connection,
    ConnectionFailed,
    Target,
    parse_target,
)

Serve = Callable[[trio.SocketStream], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nIngester-Accepted: 3\r\nContent-Length: 2\r\n\r\nhi"


@asynccontextmanager
async def listening(serve: Serve) -> Any:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield Target(tls=False, host="127.0.0.1", port=port, path="/v1/a/b")
        nursery.cancel_scope.cancel()


async def read_request(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        received = await stream.receive_some()
        if not received:
            return b""
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += await stream.receive_some()
    return head + b"\r\n\r\n" + body


async def test_requests_share_a_connection_and_report_what_is_sent() -> None:
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        while await read_request(stream):
            await stream.send_all(OK)

    async with listening(serve) as target:
        connection = Connection(target, silence_seconds=5)
        sent: list[int] = []
        for _ in range(3):
            answer = await connection.post([b"x" * 300_000, b"y"], [("A", "b")], sent=sent.append)
            assert (answer.status, answer.body) == (200, b"hi")
            assert answer.headers["ingester-accepted"] == "3"
        await connection.aclose()
    assert connections == 1
    assert sent[:3] == [262_144, 300_000, 300_001]


async def test_an_early_answer_is_heard_while_the_body_is_still_going_out() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()

    async with listening(serve) as target:
        connection = Connection(target, silence_seconds=30)
        answer = await connection.post([b"x" * 50_000_000], [])
        assert answer.status == 413
        await connection.aclose()


async def test_a_kept_connection_closed_by_the_server_is_opened_again() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(OK)
        await stream.aclose()

    async with listening(serve) as target:
        connection = Connection(target, silence_seconds=5)
        for _ in range(3):
            assert (await connection.post([b"x"], [])).status == 200
        await connection.aclose()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "not HTTP"),
    ],
)
async def test_what_is_no_answer_is_a_failed_connection(answer: bytes, words: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await read_request(stream)
        if answer:
            await stream.send_all(answer)
        await stream.aclose()

    async with listening(serve) as target:
        connection = Connection(target, silence_seconds=5)
        with pytest.raises(ConnectionFailed, match=words) as caught:
            await connection.post([b"x"], [])
        assert caught.value.reached


async def test_an_answer_without_length_or_in_chunks_is_read_and_bounded() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            await stream.send_all(b"2000\r\n" + b"e" * 0x2000 + b"\r\n")
        await stream.send_all(b"0\r\n\r\n")

    async with listening(serve) as target:
        connection = Connection(target, silence_seconds=5)
        answer = await connection.post([b"x"], [])
        assert answer.status == 500
        assert len(answer.body) == 65_536
        await connection.aclose()


async def test_silence_ends_the_request() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with listening(serve) as target:
        connection = Connection(target, silence_seconds=0.05)
        with pytest.raises(ConnectionFailed, match="nothing moved"):
            await connection.post([b"x"], [])


async def test_tls_with_a_plain_server_fails_as_a_sentence() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(serve) as target:
        secure = Target(tls=True, host=target.host, port=target.port, path="/")
        connection = Connection(secure, tls=ssl.create_default_context(), silence_seconds=5)
        with pytest.raises(ConnectionFailed, match="TLS with https://127") as caught:
            await connection.post([b"x"], [])
        assert not caught.value.final


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/v1/a/b", ("http://h", "/v1/a/b")),
        ("https://h:8443?wait=query", ("https://h:8443", "/?wait=query")),
        ("http://[::1]:80/x", ("http://[::1]", "/x")),
        ("h/v1", None),
        ("http://", None),
        ("http://u:p@h/", None),
        ("http://h:x/", None),
        ("http://h/ä", None),
    ],
)
def test_targets(url: str, expected: tuple[str, str] | None) -> None:
    target = parse_target(url)
    assert (target and (target.origin, target.path)) == expected
    assert target is None or target.path.strip("/") not in repr(target) or target.path == "/"
