"""The short path: what it takes, what it leaves to the task, and that answers stay in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from ingester.config import IntakeConfig
from ingester.doors.exchange import Answer, Request, Response, Take
from ingester.protocol.http1 import RequestHead
from tests.http_peer import Peer, quick_config, reset, serving, shapes_handler, until

BODY = b'{"n":1}'
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n" + BODY
SHORT = Response(200, headers=((b"Way", b"short"),), door="short")


class Lane:
    """A shortcut that answers when it is told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, bytes, Answer]] = []
        self.takes: Callable[[RequestHead], bool] = lambda head: True
        self.fault: Exception | None = None

    def __call__(self, head: RequestHead) -> Take | None:
        return self.take if self.takes(head) else None

    def take(self, number: int, address: str, body: bytes, answer: Answer) -> None:
        assert address == "127.0.0.1"
        if self.fault is not None:
            raise self.fault
        self.taken.append((number, body, answer))

    async def settle(self, response: Response = SHORT) -> None:
        """Answer what has been taken, waiting for one if need be."""
        await until(lambda: bool(self.taken))
        taken, self.taken = self.taken, []
        for _, _, answer in taken:
            answer(response)


async def known(peer: Peer) -> None:
    """The first request of a head takes the long way; from then on the head is known."""
    answer = await peer.ask(POST)
    assert (answer.status, answer.body) == (200, BODY)


async def test_a_request_under_a_known_head_is_answered_by_the_shortcut() -> None:
    lane = Lane()
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        for _ in range(3):
            await peer.send(POST)
            await until(lambda: bool(lane.taken))
            (number, body, _), *rest = lane.taken
            assert (body, rest) == (BODY, [])
            await lane.settle()
            answer = await peer.answer()
            assert (answer.status, answer.headers[b"way"], answer.body) == (200, b"short", b"")
            assert answer.headers[b"ingester-request-id"] == b"%016x" % number
            assert b"date" in answer.headers
        statistics = served.server.statistics()
        assert statistics.requests == {("test", 200): 1, ("short", 200): 3}
        assert statistics.received_bytes == 4 * len(POST)


async def test_what_is_not_one_whole_request_takes_the_long_way() -> None:
    lane = Lane()
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        await peer.send(POST[:-3])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await peer.send(POST[-3:])
        assert (await peer.answer()).body == BODY
        await peer.send(POST + POST)
        assert [(await peer.answer()).body for _ in range(2)] == [BODY, BODY]
        await peer.send(POST[:20])
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await peer.ask(POST[20:])).body == BODY
        assert not lane.taken


async def test_what_the_shortcut_does_not_take_is_the_handlers() -> None:
    lane = Lane()
    lane.takes = lambda head: False
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        await known(peer)


async def test_both_ways_alternate_on_one_connection() -> None:
    lane = Lane()
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        for _ in range(4):
            lane.takes = lambda head: False
            await known(peer)
            lane.takes = lambda head: True
            await peer.send(POST)
            await lane.settle()
            assert (await peer.answer()).headers[b"way"] == b"short"


async def test_what_comes_while_one_is_in_flight_is_answered_after_it() -> None:
    lane = Lane()
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        await peer.send(POST)
        await until(lambda: bool(lane.taken))
        await peer.send(POST)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(lane.taken) == 1
        await lane.settle(Response(200, b"first"))
        assert (await peer.answer()).body == b"first"
        await lane.settle(Response(200, b"second"))
        assert (await peer.answer()).body == b"second"


async def test_an_unknown_head_behind_one_in_flight_takes_the_long_way() -> None:
    lane = Lane()
    other = POST.replace(b"Host: a", b"Host: b")
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        await peer.send(POST)
        await until(lambda: bool(lane.taken))
        await peer.send(other)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await lane.settle(Response(200, b"first"))
        assert [(await peer.answer()).body for _ in range(2)] == [b"first", BODY]


async def test_a_fault_of_the_shortcut_is_a_500_and_the_connection_goes_on() -> None:
    lane = Lane()
    lane.fault = RuntimeError("secret")
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        answer = await peer.ask(POST)
        assert (answer.status, answer.body) == (500, b'{"error":"internal error"}')
        lane.fault = None
        await peer.send(POST)
        await lane.settle()
        assert (await peer.answer()).status == 200
        assert served.server.statistics().faults == 1


async def test_drain_answers_what_is_in_flight_and_closes() -> None:
    lane = Lane()
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        await peer.send(POST)
        await until(lambda: bool(lane.taken))
        served.server.drain()
        await lane.settle()
        answer = await peer.answer()
        assert (answer.headers[b"way"], answer.closes) == (b"short", True)
        assert await peer.is_closed()
        await served.server.wait_drained()


async def test_an_answer_may_end_the_connection() -> None:
    lane = Lane()
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        await peer.send(POST)
        await lane.settle(Response(200, close=True))
        assert (await peer.answer()).closes
        assert await peer.is_closed()


async def test_an_answer_the_kernel_does_not_take_at_once_is_sent_whole() -> None:
    lane = Lane()
    body = bytes(range(256)) * 65536  # 16 MiB
    async with serving(shapes_handler, shortcut=lane) as served, served.connected() as peer:
        await known(peer)
        await peer.send(POST)
        await lane.settle(Response(200, body))
        assert (await peer.answer()).body == body
        await peer.send(POST)
        await lane.settle()
        assert (await peer.answer()).headers[b"way"] == b"short"


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_client_that_leaves_while_its_request_is_in_flight(how: str) -> None:
    lane = Lane()
    async with serving(shapes_handler, shortcut=lane) as served:
        async with served.connected() as peer:
            await known(peer)
            await peer.send(POST)
            await until(lambda: bool(lane.taken))
            if how == "reset":
                reset(peer.stream)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await lane.settle()
        await until(lambda: served.server.statistics().connections_open == 0)


async def test_no_deadline_runs_while_a_request_is_in_flight_but_one_does_afterwards() -> None:
    lane = Lane()
    async with (
        serving(shapes_handler, quick_config(), shortcut=lane) as served,
        served.connected() as peer,
    ):
        await known(peer)
        await peer.send(POST)
        await until(lambda: bool(lane.taken))
        await trio.sleep(1.2)  # more than the stall time, the idle time and two ticks
        await lane.settle()
        assert (await peer.answer()).status == 200
        assert await peer.is_closed()


async def test_a_cancelled_connection_hears_no_answer() -> None:
    lane = Lane()
    async with serving(shapes_handler, shortcut=lane) as served:
        peer_context = served.connected()
        peer = await peer_context.__aenter__()
        await known(peer)
        await peer.send(POST)
        await until(lambda: bool(lane.taken))
    await lane.settle()
    assert await peer.is_closed()
    await peer_context.__aexit__(None, None, None)


async def test_cors_and_other_listeners_leave_everything_to_the_handler() -> None:
    async def handler(request: Request) -> Response:
        return await shapes_handler(request)

    lane = Lane()
    config = IntakeConfig(cors_origins=("https://a.example",))
    async with (
        serving(handler, config, shortcut=lane) as served,
        served.connected() as peer,
    ):
        await known(peer)
        await known(peer)
    async with (
        serving(handler, shortcut=lane, listener="test") as served,
        served.connected() as peer,
    ):
        await known(peer)
        await known(peer)
