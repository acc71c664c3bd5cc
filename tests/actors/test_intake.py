"""The intake server keeps its limits, survives its clients, and drains."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from ingester.actors.intake import IntakeServer
from ingester.actors.tls import Certificates
from ingester.config import IntakeConfig
from ingester.doors.exchange import Request, Response
from ingester.errors import ConfigError
from ingester.messages import RequestNumbers
from tests.http_peer import Served, quick_config, reset, serving, shapes_handler, until

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
PAIRS = Path(__file__).parent.parent / "data" / "tls"


def pair(name: str) -> Certificates:
    return Certificates(PAIRS / f"{name}.crt", PAIRS / f"{name}.key")


def trusting(name: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(PAIRS / f"{name}.crt"))


async def test_statistics_count_connections_answers_and_bytes() -> None:
    async with serving(shapes_handler) as served:
        async with served.connected() as peer:
            await peer.ask(GET)
            await peer.ask(b"GET /overloaded HTTP/1.1\r\nHost: a\r\n\r\n")
            statistics = served.server.statistics()
            assert statistics.connections_open == 1
        await until(lambda: served.server.statistics().connections_open == 0)
        async with served.connected() as peer:
            await peer.ask(b"bad\r\n\r\n")
        statistics = served.server.statistics()
        assert statistics.connections_accepted == 2
        assert statistics.requests == {("test", 200): 1, ("", 503): 1, ("http", 400): 1}
        assert statistics.received_bytes == len(GET) + 37 + 7
        assert statistics.sent_bytes > 300
        assert not statistics.draining


async def test_answer_carries_id_date_and_no_server_header() -> None:
    async def repeat(request: Request) -> Response:
        return Response(200, request_number=0xABC if request.head.path == "/repeat" else 0)

    async with serving(repeat) as served, served.connected() as peer:
        first = await peer.ask(GET)
        second = await peer.ask(GET)
        repeated = await peer.ask(b"GET /repeat HTTP/1.1\r\nHost: a\r\n\r\n")
        ids = [answer.headers[b"ingester-request-id"] for answer in (first, second, repeated)]
        assert ids[0] < ids[1]
        assert ids[2] == b"0000000000000abc"
        assert first.headers[b"date"].endswith(b" GMT")
        assert b"server" not in first.headers


@pytest.mark.parametrize("path", [b"/v1/a/b", b"/test/v1/a/b", b"/v1/" + b"a" * 9000], ids=len)
async def test_what_never_reaches_the_natero_door_is_answered_without_a_body_too(
    path: bytes,
) -> None:
    async def fault(request: Request) -> Response:
        raise ValueError

    async with serving(fault) as served:
        for line in (b"Host: a", b"Host: a\r\nHost: b", b"Expect: x\r\nHost: a", b"a: \x7f"):
            async with served.connected() as peer:
                answer = await peer.ask(b"POST %b HTTP/1.1\r\n%b\r\n\r\n" % (path, line))
            assert answer.status in {500, 400, 417, 414}
            assert (answer.body, b"content-type" in answer.headers) == (b"", False)


async def test_fault_in_a_handler_is_logged_without_message_or_target() -> None:
    with structlog.testing.capture_logs() as logged:
        async with serving(shapes_handler) as served, served.connected() as peer:
            answer = await peer.ask(b"GET /fault?key=secret HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.status == 500
            assert served.server.statistics().faults == 1
            assert (await peer.ask(GET)).status == 200
    assert [entry["event"] for entry in logged] == ["request_failed"]
    assert logged[0]["error"] == "RuntimeError"
    assert logged[0]["request_id"].encode() == answer.headers[b"ingester-request-id"]
    assert "secret" not in repr(logged)


async def test_error_raised_through_a_nursery_of_the_handler_is_answered_as_itself() -> None:
    async def nested(request: Request) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shapes_handler, request)
        raise AssertionError

    async with serving(nested) as served, served.connected() as peer:
        assert (await peer.ask(b"GET /early HTTP/1.1\r\nHost: a\r\n\r\n")).status == 413
        assert (await peer.ask(b"GET /fault HTTP/1.1\r\nHost: a\r\n\r\n")).status == 500


async def test_answer_with_a_line_break_in_a_header_is_never_sent() -> None:
    async def splitting(request: Request) -> Response:
        return Response(200, headers=((b"X", b"a\r\nSet-Cookie: b"),))

    with structlog.testing.capture_logs() as logged:
        async with serving(splitting) as served:
            async with served.connected() as peer:
                await peer.send(GET)
                assert await peer.is_closed()
            assert served.server.statistics().faults == 1
    assert [entry["event"] for entry in logged] == ["connection_failed"]


async def test_body_cannot_be_read_after_its_handler() -> None:
    kept: list[Request] = []

    async def keeping(request: Request) -> Response:
        kept.append(request)
        return Response(200)

    async with serving(keeping) as served, served.connected() as peer:
        await peer.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        assert kept[0].body.whole_nowait() is None
        with pytest.raises(AssertionError):
            await kept[0].body.receive()


async def test_body_received_to_its_end_stays_ended() -> None:
    async def reading(request: Request) -> Response:
        body = request.body
        assert await body.receive() == b"hi"
        assert body.whole_nowait() is None
        assert [await body.receive() for _ in range(3)] == [b""] * 3
        assert body.received_bytes == 2
        return Response(200)

    async with serving(reading) as served, served.connected() as peer:
        request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        for _ in range(2):
            assert (await peer.ask(request)).status == 200


async def test_waiting_handler_is_not_punished_for_its_sender() -> None:
    async def waiting(request: Request) -> Response:
        await trio.sleep(1.0)  # longer than the stall time; the socket is not read meanwhile
        while await request.body.receive():
            pass
        return Response(200)

    config = quick_config(stall_seconds_max=0.2, bytes_per_second_min=1000)
    async with serving(waiting, config) as served, served.connected() as peer:
        await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 9)
        await trio.sleep(0.1)
        await peer.send(b"x" * 199_991)
        assert (await peer.answer()).status == 200


async def test_socket_is_not_read_while_the_handler_does_not_ask() -> None:
    release = trio.Event()

    async def waiting(request: Request) -> Response:
        await release.wait()
        while await request.body.receive():
            pass
        return Response(200, b"%d" % request.body.received_bytes)

    size = 30_000_000
    async with (
        serving(waiting) as served,
        served.connected() as peer,
        trio.open_nursery() as nursery,
    ):
        await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        nursery.start_soon(peer.send, b"x" * size)
        await trio.sleep(0.2)
        assert served.server.statistics().received_bytes <= 65536
        release.set()
        assert (await peer.answer()).body == b"%d" % size


async def test_connection_over_the_limit_is_told_503() -> None:
    async with serving(shapes_handler, IntakeConfig(connections_max=2)) as served:
        async with served.connected() as first, served.connected() as second:
            assert (await first.ask(GET)).status == 200
            assert (await second.ask(GET)).status == 200
            for _ in range(40):
                async with served.connected() as third:
                    answer = await third.answer()
                    assert (answer.status, answer.closes) == (503, True)
                    assert answer.headers[b"retry-after"] == b"1"
            assert served.server.statistics().connections_refused == 40
        await until(lambda: served.server.statistics().connections_open == 0)
        async with served.connected() as peer:
            assert (await peer.ask(GET)).status == 200


async def test_many_refused_connections_do_not_linger() -> None:
    async with (
        serving(shapes_handler, IntakeConfig(connections_max=1)) as served,
        served.connected() as first,
    ):
        await first.ask(GET)
        streams = [await trio.open_tcp_stream("127.0.0.1", served.port) for _ in range(60)]
        await until(lambda: served.server.statistics().connections_refused == 60)
        for stream in streams:
            await stream.aclose()
        assert (await first.ask(GET)).status == 200


async def test_connections_of_one_address_are_limited_except_of_a_proxy() -> None:
    for trusted, status in (((), 503), (("127.0.0.0/8",), 200)):
        config = IntakeConfig(connections_per_address_max=1, trusted_proxies=trusted)
        async with serving(shapes_handler, config) as served, served.connected() as first:
            assert (await first.ask(GET)).status == 200
            async with served.connected() as second:
                await second.send(GET)
                assert (await second.answer()).status == status


async def test_client_address_comes_from_a_trusted_proxy_only() -> None:
    request = (
        b"GET /address HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9, 1.2.3.4\r\n"
        b"X-Forwarded-For: 10.0.0.7\r\n\r\n"
    )
    for trusted, expected in (
        ((), b"127.0.0.1"),
        (("192.168.0.0/16",), b"127.0.0.1"),
        (("127.0.0.1",), b"10.0.0.7"),
        (("127.0.0.1", "10.0.0.0/8"), b"1.2.3.4"),
    ):
        async with (
            serving(shapes_handler, IntakeConfig(trusted_proxies=trusted)) as served,
            served.connected() as peer,
        ):
            assert (await peer.ask(request)).body == expected


def test_bad_network_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        IntakeServer(
            shapes_handler, IntakeConfig(trusted_proxies=("10.0.0.0/99",)), RequestNumbers()
        )


async def test_listener_name_reaches_the_handler() -> None:
    async with serving(shapes_handler, listener="test") as served, served.connected() as peer:
        answer = await peer.ask(b"GET /listener HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.body == b"test"


async def test_allowed_origin_gets_preflight_and_headers() -> None:
    preflight = (
        b"OPTIONS /fault HTTP/1.1\r\nHost: a\r\nOrigin: %b\r\n"
        b"Access-Control-Request-Method: POST\r\n\r\n"
    )
    get = b"GET /echo HTTP/1.1\r\nHost: a\r\nOrigin: %b\r\n\r\n"
    allow = b"access-control-allow-origin"
    async with (
        serving(shapes_handler, IntakeConfig(cors_origins=("https://a.example",))) as served,
        served.connected() as peer,
    ):
        answer = await peer.ask(preflight % b"https://a.example")
        assert answer.status == 204
        assert answer.headers[allow] == b"https://a.example"
        assert b"POST" in answer.headers[b"access-control-allow-methods"]
        assert answer.headers[b"vary"] == b"Origin"
        assert answer.headers[b"ingester-accepted"] == b"0", "as every 2xx"
        answer = await peer.ask(get % b"https://a.example")
        assert answer.headers[allow] == b"https://a.example"
        answer = await peer.ask(get % b"https://b.example")
        assert allow not in answer.headers
        assert answer.headers[b"vary"] == b"Origin"
        assert (await peer.ask(preflight % b"https://b.example")).status == 500  # the handler's
        assert allow not in (await peer.ask(GET)).headers
    async with (
        serving(shapes_handler, IntakeConfig(cors_origins=("*",))) as served,
        served.connected() as peer,
    ):
        assert (await peer.ask(get % b"https://b.example")).headers[allow] == b"*"
    async with serving(shapes_handler) as served, served.connected() as peer:
        answer = await peer.ask(get % b"https://a.example")
        assert allow not in answer.headers
        assert b"vary" not in answer.headers
        served.server.take(IntakeConfig(cors_origins=("*",)))
        assert (await peer.ask(get % b"https://a.example")).headers[allow] == b"*", "read again"


async def test_drain_closes_idle_connections_and_finishes_open_requests() -> None:
    started, release = trio.Event(), trio.Event()

    async def waiting(request: Request) -> Response:
        if request.head.path == "/wait":
            started.set()
            await release.wait()
        return Response(200, b"done")

    async with serving(waiting) as served:
        async with served.connected() as idle, served.connected() as busy:
            await idle.ask(GET)
            await busy.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            await started.wait()
            served.server.drain()
            assert await idle.is_closed()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError, match="all attempts"):
                await trio.open_tcp_stream("127.0.0.1", served.port)
            with trio.move_on_after(0.05) as scope:
                await served.server.wait_drained()
            assert scope.cancelled_caught
            release.set()
            answer = await busy.answer()
            assert (answer.body, answer.closes) == (b"done", True)
            assert await busy.is_closed()
            await served.server.wait_drained()
        statistics = served.server.statistics()
        assert (statistics.connections_open, statistics.draining) == (0, True)


async def test_drain_answers_a_request_that_is_here_and_was_not_seen() -> None:
    async with serving(shapes_handler) as served, served.connected() as peer:
        await peer.ask(GET)
        peer.stream.socket._sock.send(GET)  # no scheduling point between the two
        served.server.drain()
        answer = await peer.answer()
        assert (answer.status, answer.closes) == (200, True)
        await served.server.wait_drained()


async def test_run_returns_when_drained() -> None:
    server = IntakeServer(shapes_handler, IntakeConfig(), RequestNumbers())
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, listeners)
            await trio.testing.wait_all_tasks_blocked()
            server.drain()
            await server.wait_drained()


async def test_drain_before_run_serves_nobody() -> None:
    server = IntakeServer(shapes_handler, IntakeConfig(), RequestNumbers())
    server.drain()
    with trio.fail_after(10):
        await server.run(await trio.open_tcp_listeners(0, host="127.0.0.1"))


async def test_cancelling_the_server_ends_requests_and_closes_sockets() -> None:
    entered = trio.Event()

    async def stuck(request: Request) -> Response:
        entered.set()
        await trio.sleep_forever()
        raise AssertionError

    async with serving(stuck) as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        await stream.send_all(GET)
        await entered.wait()
    async with stream:
        assert await stream.receive_some() == b""


class ExhaustedSocket:
    """A listening socket that runs out of descriptors a few times first."""

    def __init__(self, sock: Any, failures: list[int]) -> None:
        self._sock = sock
        self._failures = failures

    async def accept(self) -> Any:
        if self._failures:
            await trio.lowlevel.checkpoint()
            code = self._failures.pop()
            raise OSError(code, "from the test")
        return await self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def test_running_out_of_descriptors_slows_accepting_and_ends_nothing() -> None:
    failures = [errno.EMFILE, errno.EMFILE, errno.ECONNABORTED, errno.ENFILE]
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    listeners[0].socket = ExhaustedSocket(listeners[0].socket, failures)  # type: ignore[assignment]
    server = IntakeServer(shapes_handler, IntakeConfig(), RequestNumbers())
    with structlog.testing.capture_logs() as logged, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, listeners)
            async with Served(server, port).connected() as peer:
                assert (await peer.ask(GET)).status == 200
            nursery.cancel_scope.cancel()
    assert not failures
    assert [entry["event"] for entry in logged] == ["accept_exhausted"]


async def test_tls_serves_reloads_and_refuses_a_bad_pair(tmp_path: Path) -> None:
    def install(cert: str, key: str) -> None:
        (tmp_path / "c").write_bytes((PAIRS / cert).read_bytes())
        (tmp_path / "k").write_bytes((PAIRS / key).read_bytes())

    install("first.crt", "first.key")
    certificates = Certificates(tmp_path / "c", tmp_path / "k")
    async with serving(shapes_handler, tls=certificates) as served:
        body = b"z" * 300_000
        request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + body
        async with served.connected_tls(trusting("first")) as old:
            assert (await old.ask(request)).body == body
            install("first.crt", "second.key")
            with pytest.raises(ConfigError, match="tls_cert_file"):
                certificates.reload()
            async with served.connected_tls(trusting("first")) as peer:
                assert (await peer.ask(GET)).status == 200
            install("second.crt", "second.key")
            certificates.reload()
            async with served.connected_tls(trusting("second")) as peer:
                assert (await peer.ask(GET)).status == 200
            with pytest.raises(trio.BrokenResourceError):
                async with served.connected_tls(trusting("first")):
                    pass
            assert (await old.ask(GET)).status == 200
        assert served.server.statistics().faults == 0


async def test_tls_offers_http_1_1_only_and_no_old_version() -> None:
    async with serving(shapes_handler, tls=pair("first")) as served:
        context = trusting("first")
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with served.connected_tls(context) as peer:
            assert peer.stream.selected_alpn_protocol() == "http/1.1"
            assert (await peer.ask(GET)).status == 200
        assert pair("first").context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_plain_http_and_silence_on_a_tls_port_end_only_themselves() -> None:
    async with serving(shapes_handler, quick_config(), tls=pair("first")) as served:
        for data in (GET, b"\x16\x03", b"", b"\x00" * 1000):
            async with served.connected() as peer:
                await peer.send(data)
                try:
                    while await peer.stream.receive_some():
                        pass  # a TLS alert
                except trio.BrokenResourceError:
                    pass
        async with served.connected() as peer:
            reset(peer.stream)
        async with served.connected_tls(trusting("first")) as peer:
            assert (await peer.ask(GET)).status == 200
        assert served.server.statistics().faults == 0


@pytest.mark.parametrize(
    "start",
    [
        b"POST /echo HTTP/1.1\r\nHo",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
    ],
)
async def test_stall_over_tls_is_answered_408(start: bytes) -> None:
    async with (
        serving(shapes_handler, quick_config(), tls=pair("first")) as served,
        served.connected_tls(trusting("first")) as peer,
    ):
        answer = await peer.ask(start)
        assert (answer.status, answer.closes) == (408, True)


async def test_drain_closes_idle_tls_connections() -> None:
    async with serving(shapes_handler, tls=pair("first")) as served:
        async with served.connected_tls(trusting("first")) as peer:
            await peer.ask(GET)
            served.server.drain()
            assert await peer.is_closed()
        await served.server.wait_drained()


@pytest.mark.parametrize(
    ("cert", "key", "setting"),
    [
        ("absent.crt", "first.key", "tls_cert_file"),
        ("first.crt", "absent.key", "tls_key_file"),
        ("first.crt", "second.key", "tls_cert_file"),
        ("first.crt", "locked.key", "tls_cert_file"),
        ("first.key", "first.key", "tls_cert_file"),
    ],
)
def test_bad_pair_is_a_config_error(cert: str, key: str, setting: str) -> None:
    with pytest.raises(ConfigError, match=f"intake.{setting}"):
        Certificates(PAIRS / cert, PAIRS / key)
