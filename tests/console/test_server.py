"""The console door under hostile and ordinary connections, over real sockets."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from pathlib import Path

import pytest
import trio

from ingester.console.connection import ConsoleCounters, ConsoleLimits
from ingester.console.guard import Guard
from ingester.console.server import serve_console
from tests.console.fakes import (
    Console,
    ask,
    descriptors,
    eventually,
    read_answer,
    read_to_end,
    refusing_app,
    served,
    settled,
)

H2C = (
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: %s\r\n\r\n"
)
WEBSOCKET = (
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

# Each of the first six ended a stock server (reliability facts H1 and H2).
HOSTILE = {
    "h2c with malformed settings": (H2C % b"AAAA", 200),
    "h2c with settings that are no base64": (H2C % b"****", 200),
    "h2c with good settings": (H2C % b"AAMAAABkAAQAAP__", 200),
    "websocket with trailing bytes": (WEBSOCKET + b"\r\n\x81\x85trailing\xff\xff", 200),
    "websocket with a bad extension": (
        WEBSOCKET + b"Sec-WebSocket-Extensions: permessage-deflate; =;;\r\n\r\n",
        200,
    ),
    "websocket with a chunked body": (
        WEBSOCKET + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        200,
    ),
    "websocket": (WEBSOCKET + b"\r\n", 200),
    "http/2 by prior knowledge": (PREFACE, 505),
    "connect": (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "options *": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "absolute form with a broken address": (b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "another scheme": (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "no path": (b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "undecodable path": (b"GET /%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "broken host": (b"GET /healthz HTTP/1.1\r\nHost: [::1\r\n\r\n", None),
    "host with a path": (b"GET /healthz HTTP/1.1\r\nHost: a/b c\r\n\r\n", None),
    "host of high bytes": (b"GET /healthz HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n", None),
    "host with an empty label": (b"GET /healthz HTTP/1.1\r\nHost: a..b:80\r\n\r\n", 400),
    "host with a long label": (
        b"GET /healthz HTTP/1.1\r\nHost: " + b"a" * 64 + b".b\r\n\r\n",
        400,
    ),
    "two hosts": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two lengths": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        400,
    ),
    "length and chunked": (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "negative length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    "huge length": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        413,
    ),
    "gzip, chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "unknown version": (b"GET /healthz HTTP/3.7\r\nHost: a\r\n\r\n", 505),
    "long target": (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "long head": (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        431,
    ),
    "endless head": (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 600_000, 431),
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n", 400),
    "http/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "absolute form": (b"GET http://localhost:1/healthz?x HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    "absolute form without a path": (b"GET http://localhost HTTP/1.1\r\nHost: x\r\n\r\n", 303),
    "range and cookies": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nCookie: \xff=;;=a\r\nRange: bytes=9-1\r\n"
        b"If-None-Match: *\r\nContent-Type: multipart/form-data\r\n\r\n",
        200,
    ),
}


async def send_quietly(stream: trio.SocketStream, data: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError):  # answered before all was sent
        await stream.send_all(data)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_request_costs_its_connection_only(console: Console, name: str) -> None:
    data, status = HOSTILE[name]
    before = descriptors()
    async with await console.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(send_quietly, stream, data)
        with trio.fail_after(10):
            answer = await read_answer(stream)
        nursery.cancel_scope.cancel()
    assert answer.status == status or (status is None and answer.status < 500)
    assert (await console.get("/healthz")).status == 200
    assert console.counters.connection_faults_total == 0
    assert await settled(before) <= before


async def test_an_upgrade_request_keeps_its_connection(console: Console) -> None:
    async with await console.connect() as stream:
        for data in (WEBSOCKET + b"\r\n", H2C % b"AAAA"):
            await stream.send_all(data)
            assert (await read_answer(stream)).status == 200
        assert (await ask(stream, "GET", "/healthz")).status == 200


async def test_random_bytes_never_end_the_server(console: Console) -> None:
    randomness = random.Random(20240521)
    samples = [data for data, _ in HOSTILE.values() if len(data) < 20_000]
    before = descriptors()
    for _ in range(300):
        sample = bytearray(randomness.choice(samples))
        for _ in range(randomness.randint(0, 6)):
            place = randomness.randrange(len(sample))
            if randomness.random() < 0.5:
                sample[place] = randomness.randrange(256)
            else:
                del sample[place : place + randomness.randint(1, 4)]
        stream = await console.connect()
        await send_quietly(stream, bytes(sample))
        if randomness.random() < 0.5:
            with trio.move_on_after(0.02):
                await stream.receive_some()
        await stream.aclose()
    assert (await console.get("/healthz")).status == 200
    assert await settled(before + 1) <= before + 1


async def test_an_exception_in_a_connection_is_counted_and_contained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingester.console.connection import PlainH11

    original = PlainH11._create_stream

    async def fails(self: PlainH11, request: object) -> None:
        if b"boom" in request.target:  # type: ignore[attr-defined]
            raise RuntimeError("unexpected")
        await original(self, request)  # type: ignore[arg-type]

    monkeypatch.setattr(PlainH11, "_create_stream", fails)
    async with served(tmp_path) as console:
        before = descriptors()
        for _ in range(3):
            with pytest.raises(EOFError):
                await console.get("/boom")
        assert (await console.get("/healthz")).status == 200
        assert console.counters.connection_faults_total == 3
        assert await settled(before) <= before


async def test_an_application_that_raises_costs_one_answer(tmp_path: Path) -> None:
    async def app(scope: dict, receive: object, send: object) -> None:
        if scope["path"] == "/boom":
            raise RuntimeError("unexpected")
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    async with served(tmp_path, app=app) as console:
        assert (await console.get("/boom")).status == 500
        assert (await console.get("/")).status == 204


async def many_requests(console: Console, count: int) -> None:
    """Keep-alive, close, and aborts at every stage, in equal parts."""
    slots = trio.Semaphore(16)

    async def one(number: int) -> None:
        async with slots:
            stream = await console.connect()
            try:
                await exchange(stream, number % 8)
            except (trio.BrokenResourceError, EOFError):
                pass
            finally:
                await stream.aclose()

    async def exchange(stream: trio.SocketStream, kind: int) -> None:
        if kind < 2:
            for _ in range(4):
                assert (await ask(stream, "GET", "/healthz")).status == 200
        elif kind == 2:
            answer = await ask(stream, "GET", "/healthz", headers=["Connection: close"])
            assert answer.status == 200
            assert await read_to_end(stream) == b""
        elif kind == 3:
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        elif kind == 4:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHo")
        elif kind == 5:
            await stream.send_all(
                b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc"
            )
        elif kind == 6:
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            answer = await ask(stream, "POST", "/", b"x" * (ConsoleLimits().body_bytes_max + 1))
            assert answer.status == 413

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


async def test_descriptors_stay_flat(console: Console) -> None:
    await many_requests(console, 160)
    await eventually(lambda: not console.counters.connections_open, 10.0)
    before = descriptors()
    await many_requests(console, 2_000)
    assert await settled(before) <= before
    assert console.counters.connections_open == 0
    assert console.counters.connection_faults_total == 0
    assert (await console.get("/healthz")).status == 200


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_descriptors_stay_flat_over_ten_thousand_requests(console: Console) -> None:
    await many_requests(console, 160)
    await eventually(lambda: not console.counters.connections_open, 10.0)
    before = descriptors()
    await many_requests(console, 10_000)
    assert await settled(before) <= before
    assert console.counters.connections_open == 0


async def test_connection_close_closes_at_once(console: Console) -> None:
    async with await console.connect() as stream:
        await ask(stream, "GET", "/healthz", headers=["Connection: close"])
        with trio.fail_after(1):
            assert await read_to_end(stream) == b""


async def test_idle_and_slow_heads_end_after_the_keep_alive_time(tmp_path: Path) -> None:
    async with served(tmp_path, limits=ConsoleLimits(keep_alive_seconds=0.2)) as console:
        before = descriptors()
        idle = await console.connect()
        answered = await console.connect()
        slow = await console.connect()
        await ask(answered, "GET", "/healthz")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_to_end, idle)
                nursery.start_soon(read_to_end, answered)
                nursery.start_soon(drip, slow, b"GET /healthz HTTP/1.1\r\nX-Slow: yes\r\n")
        for stream in (idle, answered, slow):
            await stream.aclose()
        assert await settled(before) <= before


async def drip(stream: trio.SocketStream, data: bytes) -> None:
    """A byte at a time, until the other side closes."""
    try:
        for byte in data * 100:
            await stream.send_all(bytes([byte]))
            with trio.move_on_after(0.02):
                if not await stream.receive_some():
                    return
    except trio.BrokenResourceError:
        return


async def test_a_stalled_body_is_408_and_closed(tmp_path: Path) -> None:
    limits = ConsoleLimits(body_seconds_max=0.2)
    async with served(tmp_path, limits=limits) as console, await console.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        answer = await read_answer(stream)
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        await stream.send_eof()
        assert await read_to_end(stream) == b""


@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
async def test_a_body_over_the_limit_is_413_that_the_client_can_read(
    console: Console, framing: str
) -> None:
    heads = {
        "length": b"Content-Length: 900000\r\n\r\n",
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n",
        "expect": b"Content-Length: 900000\r\nExpect: 100-continue\r\n\r\n",
    }
    piece = b"1000\r\n" + b"a" * 4096 + b"\r\n" if framing == "chunked" else b"a" * 4096
    async with await console.connect() as stream, trio.open_nursery() as nursery:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\n" + heads[framing])
        nursery.start_soon(send_quietly, stream, piece * 200)
        answer = await read_answer(stream)
        if framing == "expect":
            assert answer.status == 100
            answer = await read_answer(stream)
        assert answer.status == 413
        assert f"{ConsoleLimits().body_bytes_max} bytes" in answer.document["error"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("control", [False, True])
async def test_a_client_that_sends_all_before_it_reads_sees_its_413(
    console: Console, control: bool
) -> None:
    size = 1_500_000 if control else 600_000
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    async with await (console.connect_control() if control else console.connect()) as stream:
        await stream.send_all(head)
        for _ in range(20):
            await stream.send_all(b"a" * (size // 20))
        assert (await read_answer(stream)).status == 413


async def test_a_refusal_does_not_wait_for_room_in_the_body_queue() -> None:
    """The reading task may hold the next step of the protocol behind a full queue."""
    bodies, queue = trio.open_memory_channel[dict[str, object]](0)
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        await bodies.send({"type": "http.request", "body": b"a", "more_body": True})
        sent.append(message)

    guard = Guard(
        refusing_app, listener="console", limits=ConsoleLimits(), counters=ConsoleCounters()
    )
    scope = {
        "type": "http",
        "http_version": "1.1",
        "raw_path": b"/",
        "path": "/",
        "query_string": b"",
        "headers": [(b"content-length", b"99999999")],
    }
    with trio.fail_after(5):
        await guard(scope, queue.receive, send)
    assert [message.get("status") for message in sent] == [413, None]


async def test_small_pieces_of_a_body_are_counted_together(console: Console) -> None:
    async with await console.connect_control() as stream:
        await stream.send_all(
            b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for byte in b'{"sql":"select"}':
            await stream.send_all(b"1\r\n" + bytes([byte]) + b"\r\n")
        await stream.send_all(b"0\r\n\r\n")
        assert (await read_answer(stream)).status == 200


async def test_pipelined_requests_are_answered_in_order(console: Console) -> None:
    async with await console.connect() as stream:
        await stream.send_all(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        data = await read_to_end(stream)
        assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"404", b"200"]


async def test_bytes_after_a_last_request_do_not_cut_its_answer(console: Console) -> None:
    data = (
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 23\r\n\r\n"
    )
    for _ in range(20):
        async with await console.connect_control() as stream:
            await stream.send_all(data + b'{"sql":"large 2000000"}' + b"\0garbage" * 20)
            answer = await read_answer(stream)
            assert answer.status == 200
            assert len(answer.document["rows"][0][0]) == 2_000_000


async def test_a_client_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    async with served(tmp_path, limits=ConsoleLimits(send_seconds_max=0.2)) as console:
        async with await console.connect_control() as stream:
            body = b'{"sql":"large 30000000"}'
            await stream.send_all(
                b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            await eventually(lambda: console.counters.connections_total)
            await eventually(lambda: not console.counters.connections_open, 10.0)
        assert (await console.get("/healthz")).status == 200


async def test_a_large_answer_arrives_whole(console: Console) -> None:
    answer = await console.control("POST", "/api/v1/query", {"sql": "large 5000000"})
    assert answer.document["rows"] == [["x" * 5_000_000]]


async def test_stop_finishes_the_open_request_and_closes_the_rest(console: Console) -> None:
    busy = await console.connect_control()
    idle = await console.connect()
    await ask(idle, "GET", "/healthz")
    fresh = await console.connect()
    await busy.send_all(
        b'POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{"sql":"wait"}'
    )
    await console.services.entered.wait()
    console.stop.set()
    with trio.fail_after(5):
        assert await read_to_end(idle) == b""
        assert await read_to_end(fresh) == b""
    with pytest.raises(OSError):
        await console.connect()
    assert not console.ended.is_set()
    console.services.gate.set()
    with trio.fail_after(5):
        answer = await read_answer(busy)
        assert answer.status == 200
        assert await read_to_end(busy) == b""
        await console.ended.wait()
    assert console.counters.connections_open == 0
    assert console.addresses.unix_path is not None
    assert not console.addresses.unix_path.exists()
    for stream in (busy, idle, fresh):
        await stream.aclose()


@pytest.mark.parametrize("sql", ["wait", "large 30000000"])
async def test_stop_cuts_what_outlives_the_drain_time(tmp_path: Path, sql: str) -> None:
    before = descriptors()
    async with served(tmp_path, limits=ConsoleLimits(drain_seconds_max=0.3)) as console:
        stream = await console.connect_control()
        body = b'{"sql":"%s"}' % sql.encode()
        await stream.send_all(
            b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        if sql == "wait":
            await console.services.entered.wait()
        else:
            await stream.receive_some(100)
        console.stop.set()
        with trio.fail_after(10):
            await console.ended.wait()
        assert console.counters.connections_open == 0
        await stream.aclose()
    assert descriptors() <= before + 1  # the event loop's own, made at its first use


async def test_cancelling_the_server_closes_everything(tmp_path: Path) -> None:
    before = descriptors()
    async with served(tmp_path) as console:
        stream = await console.connect()
        await ask(stream, "GET", "/healthz")
        with trio.CancelScope() as scope:
            scope.cancel()
            await serve_console(
                refusing_app,
                bind="127.0.0.1:0",
                unix_path=tmp_path / "other.sock",
                tls=None,
                stop=trio.Event(),
            )
        assert scope.cancelled_caught
        assert not (tmp_path / "other.sock").exists()
        await stream.aclose()
    assert descriptors() <= before + 1
