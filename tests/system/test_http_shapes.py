"""Every HTTP shape gets its answer and never shifts the next request, over real sockets."""

from __future__ import annotations

import gc
import os

import pytest
import trio

from ingester.config import IntakeConfig
from ingester.doors.exchange import Request, Response
from tests.http_peer import Peer, Served, quick_config, reset, serving, shapes_handler, until

NEXT = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nnext"


def post(path: bytes, *headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = [b"POST " + path + b" HTTP/" + version, b"Host: a", *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def still_works(peer: Peer) -> None:
    answer = await peer.ask(NEXT)
    assert (answer.status, answer.body) == (200, b"next")


async def in_order(served: Served, data: bytes, expected: list[tuple[int, bytes]]) -> None:
    """Send data and NEXT whole, then byte by byte, then in two halves; same answers each time."""
    whole = data + NEXT
    for pieces in (
        [whole],
        [whole[i : i + 1] for i in range(len(whole))],
        [whole[: len(data) // 2], whole[len(data) // 2 :]],
    ):
        async with served.connected() as peer:
            for piece in pieces:
                await peer.send(piece)
            answers = [await peer.answer() for _ in range(len(expected) + 1)]
            assert [(a.status, a.body) for a in answers] == [*expected, (200, b"next")]


@pytest.mark.parametrize(
    "data",
    [
        post(b"/echo", b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings",
             b"HTTP2-Settings: AAAA", b"Content-Length: 5", body=b"hello"),
        post(b"/echo", b"Upgrade: websocket", b"Connection: Upgrade",
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13",
             b"Content-Length: 5", body=b"hello"),
        post(b"/echo", b"Upgrade: websocket", b"Connection: Upgrade",
             b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        post(b"/echo", b"Transfer-Encoding: chunked", b"Trailer: X-Sum",
             body=b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 99\r\n\r\n"),
        post(b"/echo", b"Transfer-Encoding: Chunked",
             body=b"2\r\nhe\r\n03;x=1\r\nllo\r\n0\r\n\r\n"),
        post(b"http://other/echo", b"Content-Length: 5", body=b"hello"),
        b"\r\n" + post(b"/echo", b"Content-Length: 5", body=b"hello"),
        post(b"/echo", b"Content-Length: 5", b"Connection: keep-alive", version=b"1.0",
             body=b"hello"),
    ],
)  # fmt: skip
async def test_body_is_read_and_the_next_request_answered(data: bytes) -> None:
    async with serving(shapes_handler) as served:
        await in_order(served, data, [(200, b"hello")])


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (505, b"GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
        (505, b"GET /\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (400, b"GET / HTTP/1.1\n\n"),
        (400, post(b"/echo", b"Host: b")),
        (400, b"POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
        (400, post(b"/echo", b"Content-Length: 5", b"Transfer-Encoding: chunked")),
        (400, post(b"/echo", b"Transfer-Encoding: chunked", b"Content-Length: 5")),
        (400, post(b"/echo", b"Content-Length: 5", b"Content-Length: 6")),
        (400, post(b"/echo", b"Content-Length: +3", body=b"abc")),
        (400, post(b"/echo", b"Content-Length: -1")),
        (400, post(b"/echo", b"Transfer-Encoding: chunked", version=b"1.0")),
        (400, post(b"/echo", b"Transfer-Encoding: gzip")),
        (400, post(b"/echo", b"Transfer-Encoding: identity")),
        (400, post(b"/echo", b"Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
        (400, post(b"/echo", b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
        (501, post(b"/echo", b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
        (400, post(b"/echo", b"Transfer-Encoding: chunked", body=b"zz\r\n")),
        (400, post(b"/echo", b"Transfer-Encoding: chunked", body=b"1\r\nxyz")),
        (417, post(b"/echo", b"Expect: 200-maybe", b"Content-Length: 4")),
    ],
)
async def test_refusal_is_answered_and_ends_the_connection(status: int, data: bytes) -> None:
    async with serving(shapes_handler) as served:
        for tail in (b"", NEXT):
            async with served.connected() as peer:
                answer = await peer.ask(data + tail)
                assert answer.status == status
                assert answer.closes
                assert b"error" in answer.body
                assert len(answer.headers[b"ingester-request-id"]) == 16
                assert await peer.is_closed()
        async with served.connected() as peer:
            await still_works(peer)


@pytest.mark.parametrize(
    ("status", "start"),
    [(431, b"POST /echo HTTP/1.1\r\nHost: a\r\nX: "), (414, b"GET /")],
)
async def test_giant_head_is_refused_without_being_held(status: int, start: bytes) -> None:
    config = IntakeConfig(head_bytes_max=4096, target_bytes_max=1024)
    async with serving(shapes_handler, config) as served:
        async with served.connected() as peer, trio.open_nursery() as nursery:

            async def pour() -> None:
                await peer.send(start)
                for _ in range(80):  # 5 MB
                    await peer.send(b"a" * 65536)

            nursery.start_soon(pour)
            answer = await peer.answer()
            assert answer.status == status
            assert answer.closes
            # Refused on the bound, before the rest was read.
            assert served.server.statistics().received_bytes <= 4096 + 2 * 65536
        async with served.connected() as peer:
            await still_works(peer)


async def test_too_many_headers_are_refused() -> None:
    async with (
        serving(shapes_handler, IntakeConfig(header_count_max=5)) as served,
        served.connected() as peer,
    ):
        answer = await peer.ask(post(b"/echo", *[b"X: y"] * 5))
        assert (answer.status, answer.closes) == (431, True)


async def test_slow_head_is_answered_408_and_closed() -> None:
    async with serving(shapes_handler, quick_config()) as served:
        async with served.connected() as peer:
            status = 0
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    try:
                        for byte in b"POST /echo HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000:
                            await peer.send(bytes([byte]))
                            await trio.sleep(0.05)
                    except trio.BrokenResourceError:
                        pass

                nursery.start_soon(drip)
                answer = await peer.answer()
                status = answer.status
                assert answer.closes
                nursery.cancel_scope.cancel()
            assert status == 408
        assert served.server.statistics().stalls == 1


async def test_client_that_says_nothing_is_closed_silently() -> None:
    async with serving(shapes_handler, quick_config()) as served:
        async with served.connected() as peer:
            assert await peer.is_closed()
        assert served.server.statistics().stalls == 0


async def test_idle_keep_alive_connection_is_closed_silently() -> None:
    async with serving(shapes_handler, quick_config()) as served, served.connected() as peer:
        await still_works(peer)
        assert await peer.is_closed()


@pytest.mark.parametrize(
    "start",
    [
        post(b"/echo", b"Content-Length: 100", body=b"abc"),
        post(b"/echo", b"Transfer-Encoding: chunked", body=b"5\r\nab"),
    ],
)
async def test_stalled_body_is_answered_408_and_closed(start: bytes) -> None:
    async with serving(shapes_handler, quick_config()) as served:
        async with served.connected() as peer:
            answer = await peer.ask(start)
            assert (answer.status, answer.closes) == (408, True)
        assert served.server.statistics().stalls == 1


async def test_body_below_the_minimum_rate_is_answered_408() -> None:
    async with (
        serving(shapes_handler, quick_config(bytes_per_second_min=1000)) as served,
        served.connected() as peer,
        trio.open_nursery() as nursery,
    ):

        async def drip() -> None:
            try:
                while True:
                    await peer.send(b"x")
                    await trio.sleep(0.05)
            except trio.BrokenResourceError:
                pass

        await peer.send(post(b"/echo", b"Content-Length: 1000"))
        nursery.start_soon(drip)
        answer = await peer.answer()
        assert (answer.status, answer.closes) == (408, True)
        nursery.cancel_scope.cancel()


async def test_slow_body_above_the_minimum_rate_is_read() -> None:
    async with (
        serving(shapes_handler, quick_config(bytes_per_second_min=10)) as served,
        served.connected() as peer,
    ):
        await peer.send(post(b"/echo", b"Content-Length: 40"))
        for _ in range(20):
            await peer.send(b"xx")
            await trio.sleep(0.05)
        assert (await peer.answer()).body == b"x" * 40


async def test_hundred_pipelined_requests_are_answered_in_order() -> None:
    requests = [
        post(b"/echo", b"Content-Length: %d" % len(str(n)), body=b"%d" % n) for n in range(100)
    ]
    async with serving(shapes_handler) as served:
        for pieces in ([b"".join(requests)], requests):
            async with served.connected() as peer:
                for piece in pieces:
                    await peer.send(piece)
                for number in range(100):
                    assert (await peer.answer()).body == b"%d" % number
        assert served.server.statistics().requests == {("test", 200): 200}


async def test_continue_is_sent_when_the_handler_wants_the_body() -> None:
    async with serving(shapes_handler) as served, served.connected() as peer:
        for framing, body in (
            (b"Content-Length: 5", b"hello"),
            (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ):
            answer = await peer.ask(post(b"/echo", b"Expect: 100-continue", framing))
            assert answer.status == 100
            answer = await peer.ask(body)
            assert (answer.status, answer.body) == (200, b"hello")
            assert not answer.closes


async def test_continue_is_not_sent_when_the_body_is_here_already() -> None:
    async with serving(shapes_handler) as served, served.connected() as peer:
        request = post(b"/echo", b"Expect: 100-continue", b"Content-Length: 5", body=b"hello")
        assert (await peer.ask(request)).status == 200
        await still_works(peer)


@pytest.mark.parametrize(("path", "status"), [(b"/early", 413), (b"/unread", 200)])
async def test_continue_is_not_sent_when_the_handler_answers_first(
    path: bytes, status: int
) -> None:
    async with serving(shapes_handler) as served, served.connected() as peer:
        request = post(path, b"Expect: 100-continue", b"Content-Length: 5000000")
        answer = await peer.ask(request)
        assert (answer.status, answer.closes) == (status, True)
        assert await peer.is_closed()


@pytest.mark.parametrize("size", [0, 5, 60_000])
async def test_small_unread_rest_is_read_away_and_the_connection_kept(size: int) -> None:
    async with serving(shapes_handler) as served:
        for path, status in ((b"/unread", 200), (b"/early", 413), (b"/overloaded", 503)):
            async with served.connected() as peer:
                for _ in range(2):
                    await peer.send(post(path, b"Content-Length: %d" % size, body=b"z" * size))
                    answer = await peer.answer()
                    assert (answer.status, answer.closes) == (status, False)
                await still_works(peer)


async def test_large_upload_gets_its_early_answer_instead_of_a_reset() -> None:
    async with serving(shapes_handler) as served:
        for path in (b"/early", b"/echo-too-large"):
            async with served.connected() as peer:
                # A client that only looks for the answer when everything is sent.
                size = 4_000_000 if path == b"/early" else 20 * 1024**3
                await peer.send(post(path, b"Content-Length: %d" % size))
                for _ in range(60):
                    await peer.send(b"z" * 65536)
                answer = await peer.answer()
                assert (answer.status, answer.closes) == (413, True)
                assert b"split" in answer.body


async def test_announced_size_over_the_limit_is_refused_before_any_body_byte() -> None:
    async with serving(shapes_handler, IntakeConfig(body_bytes_max=1000)) as served:
        async with served.connected() as peer:
            answer = await peer.ask(
                post(b"/echo", b"Expect: 100-continue", b"Content-Length: 1001")
            )
            assert (answer.status, answer.closes) == (413, True)
        async with served.connected() as peer:
            request = post(b"/echo", b"Content-Length: 1000", body=b"z" * 1000)
            assert (await peer.ask(request)).status == 200


async def test_chunked_body_over_the_limit_is_refused() -> None:
    async with serving(shapes_handler, IntakeConfig(body_bytes_max=1000)) as served:
        for chunks in (b"3e9\r\n" + b"z" * 1001, b"1f4\r\n" + b"z" * 500 + b"\r\nfff\r\n" + b"zz"):
            async with served.connected() as peer:
                await peer.send(post(b"/echo", b"Transfer-Encoding: chunked", body=chunks))
                if chunks.startswith(b"1f4"):
                    await peer.send(b"z" * 1000)
                else:
                    await peer.send(b"\r\n0\r\n\r\n")
                assert (await peer.answer()).status == 413


async def test_body_of_unknown_or_large_size_arrives_whole() -> None:
    body = os.urandom(3_000_000)
    chunks = [body[i : i + 70_001] for i in range(0, len(body), 70_001)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    async with (
        serving(shapes_handler) as served,
        served.connected() as peer,
        trio.open_nursery() as nursery,
    ):
        for data in (
            post(b"/echo", b"Content-Length: %d" % len(body), body=body),
            post(b"/echo", b"Transfer-Encoding: chunked", body=framed),
        ):
            nursery.start_soon(peer.send, data)
            assert (await peer.answer()).body == body


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (post(b"/echo", b"Content-Length: 2", body=b"ok"), 200, b"ok"),
        (post(b"/empty"), 204, b""),
        (post(b"/overloaded"), 503, b'{"error":"full"}'),
        (post(b"/fault"), 500, b'{"error":"internal error"}'),
        (post(b"/early"), 413, b'{"error":"too large; split it"}'),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, b""),
        (b"FOO /echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, b""),
    ],
)
async def test_connection_is_reused_after_each_legal_answer(
    data: bytes, status: int, body: bytes
) -> None:
    async with serving(shapes_handler) as served:
        async with served.connected() as peer:
            for _ in range(3):
                answer = await peer.ask(data)
                assert (answer.status, answer.body, answer.closes) == (status, body, False)
                assert b"date" in answer.headers
            await still_works(peer)
        assert served.server.statistics().connections_accepted == 1


async def test_head_answer_carries_the_length_and_no_body() -> None:
    async with serving(shapes_handler) as served, served.connected() as peer:
        await peer.send(b"HEAD /unread HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await peer.answer(to_head=True)
        assert answer.headers[b"content-length"] == b"6"
        await still_works(peer)


@pytest.mark.parametrize(
    ("request_bytes", "closes"),
    [
        (post(b"/echo", b"Connection: close"), True),
        (post(b"/echo", version=b"1.0"), True),
        (post(b"/close"), True),
        (post(b"/echo", b"Connection: keep-alive", version=b"1.0"), False),
    ],
)
async def test_connection_ends_when_either_side_wants_it(
    request_bytes: bytes, closes: bool
) -> None:
    async with serving(shapes_handler) as served, served.connected() as peer:
        answer = await peer.ask(request_bytes)
        assert answer.closes is closes
        if closes:
            assert await peer.is_closed()
        else:
            assert answer.headers[b"connection"] == b"keep-alive"
            await still_works(peer)


async def test_half_closed_client_gets_its_answer() -> None:
    async with serving(shapes_handler) as served, served.connected() as peer:
        await peer.send(NEXT + NEXT)
        await peer.stream.send_eof()
        assert (await peer.answer()).body == b"next"
        assert (await peer.answer()).body == b"next"
        assert await peer.is_closed()


@pytest.mark.parametrize("abrupt", [True, False])
async def test_client_gone_inside_a_body_is_closed_silently(abrupt: bool) -> None:
    async with serving(shapes_handler) as served:
        async with served.connected() as peer:
            await peer.send(post(b"/echo", b"Content-Length: 100", body=b"abc"))
            await trio.sleep(0.05)
            if abrupt:
                reset(peer.stream)
                await peer.stream.aclose()
            else:
                await peer.stream.send_eof()
                assert await peer.is_closed()
        async with served.connected() as peer:
            await still_works(peer)
        await until(lambda: served.server.statistics().gone > 0)
        assert served.server.statistics().requests == {("test", 200): 1}


async def test_client_that_does_not_read_its_answer_is_dropped() -> None:
    async def large(request: Request) -> Response:
        return Response(200, b"x" * 50_000_000)

    async with serving(large, quick_config()) as served, served.connected() as peer:
        await peer.send(post(b"/"))
        await until(lambda: served.server.statistics().stalls > 0)
        await until(lambda: served.server.statistics().connections_open == 0)


async def test_descriptors_are_back_after_a_thousand_connections() -> None:
    def open_count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    async with serving(shapes_handler, quick_config()) as served:
        async with served.connected() as peer:
            await still_works(peer)
        await until(lambda: served.server.statistics().connections_open == 0)
        before = open_count()
        for number in range(1000):
            async with served.connected() as peer:
                match number % 5:
                    case 0:
                        await still_works(peer)
                    case 1:
                        await peer.send(b"POST /echo HT")
                    case 2:
                        assert (await peer.ask(b"bad\r\n\r\n")).status == 400
                    case 3:
                        await peer.send(post(b"/echo", b"Content-Length: 10", body=b"abc"))
                        reset(peer.stream)
                    case 4:
                        request = post(b"/echo", b"Connection: close")
                        assert (await peer.ask(request)).status == 200
        await until(lambda: served.server.statistics().connections_open == 0)
        assert open_count() <= before
        statistics = served.server.statistics()
        assert statistics.connections_accepted == 1001
        assert statistics.faults == 0
