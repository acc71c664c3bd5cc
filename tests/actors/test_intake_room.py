"""With every place taken: who has to make room for a newcomer, and who never does."""

from __future__ import annotations

import resource
from contextlib import AsyncExitStack

import pytest
import trio

from ingester import descriptors
from ingester.actors import connection, intake
from ingester.config import IntakeConfig
from ingester.doors.exchange import Request, Response
from tests.http_peer import Peer, Served, serving, shapes_handler, until

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
PLACES = 3


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds there takes a quarter here."""
    monkeypatch.setattr(connection, "SLOW_S_MIN", 0.25)
    monkeypatch.setattr(connection, "REST_S_MIN", 0.25)


def small(**changes: int) -> IntakeConfig:
    # The clock of the server ticks four times per shortest deadline, and at most 20 times a second.
    return IntakeConfig(**{"connections_max": PLACES, "keep_alive_seconds_max": 2, **changes})


async def many(served: Served, stack: AsyncExitStack, start: bytes) -> list[Peer]:
    """As many clients as there are places, each having sent `start`, in this order."""
    peers = []
    for number in range(PLACES):
        peer = await stack.enter_async_context(served.connected())
        if start:
            await peer.send(start)
        await until(lambda wanted=number + 1: open_count(served) == wanted)
        peers.append(peer)
    return peers


def open_count(served: Served) -> int:
    return served.server.statistics().connections_open


async def newcomer(served: Served) -> int:
    async with served.connected() as peer:
        return (await peer.ask(GET)).status


async def test_the_longest_silent_makes_room_at_once() -> None:
    async with serving(shapes_handler, small()) as served, AsyncExitStack() as stack:
        first, second, third = await many(served, stack, b"")
        assert await newcomer(served) == 200
        assert await first.is_closed()
        for peer in (second, third):
            assert (await peer.ask(GET)).status == 200
        statistics = served.server.statistics()
        assert (statistics.connections_ended, statistics.connections_refused) == (1, 0)


@pytest.mark.parametrize(
    "start",
    [
        b"POST /echo HTTP/1.1\r\nHo",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
    ids=["head", "body", "chunks"],
)
async def test_the_slow_make_room_with_408(start: bytes) -> None:
    async with serving(shapes_handler, small()) as served, AsyncExitStack() as stack:
        peers = await many(served, stack, start)
        with trio.fail_after(5):
            while await newcomer_quietly(served) != 200:  # noqa: ASYNC110 - not yet slow
                await trio.sleep(0.05)
        ended = [peer for peer in peers if await has_ended(peer)]
        assert len(ended) == 1
        assert served.server.statistics().connections_ended == 1


async def newcomer_quietly(served: Served) -> int:
    """A refused newcomer is answered before it asks."""
    async with served.connected() as peer:
        try:
            return (await peer.ask(GET)).status
        except (EOFError, trio.BrokenResourceError):
            return 0


async def has_ended(peer: Peer) -> bool:
    answer = None
    with trio.move_on_after(0.1):
        answer = await peer.answer()
    if answer is None:
        return False
    assert (answer.status, answer.closes) == (408, True)
    return True


async def test_a_sender_above_the_minimum_rate_keeps_its_place() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    async with serving(shapes_handler, small()) as served, AsyncExitStack() as stack:
        peers = await many(served, stack, head)
        for _ in range(10):
            for peer in peers:
                await peer.send(b"x" * 10_000)
            await trio.sleep(0.05)
            if _ % 3 == 0:
                assert await newcomer_quietly(served) in {0, 503}
        for peer in peers:
            assert len((await peer.answer()).body) == 100_000


async def test_who_waits_for_us_keeps_its_place() -> None:
    release = trio.Event()

    async def waiting(request: Request) -> Response:
        if request.head.path == "/wait":
            await release.wait()
        return Response(200)

    async with serving(waiting, small()) as served, AsyncExitStack() as stack:
        peers = await many(served, stack, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.sleep(0.6)
        assert await newcomer_quietly(served) in {0, 503}
        release.set()
        assert [(await peer.answer()).status for peer in peers] == [200] * PLACES


async def test_who_rests_makes_room_after_a_while_and_a_request_that_is_here_is_served() -> None:
    async with serving(shapes_handler, small()) as served, AsyncExitStack() as stack:
        peers = await many(served, stack, b"")
        for peer in peers:
            await peer.ask(GET)
        assert await newcomer_quietly(served) in {0, 503}
        await trio.sleep(0.6)
        assert await newcomer(served) == 200
        ended = peers[0]
        assert await ended.is_closed()
        for peer in peers[1:]:
            assert (await peer.ask(GET)).status == 200
        server = served.server
        one = next(iter(server._connections))
        peers[1].stream.socket._sock.send(GET)  # no scheduling point between the two
        one.make_room()
        assert (await peers[1].answer()).status == 200


async def test_the_silent_go_before_the_slow_and_these_before_those_who_rest() -> None:
    async with serving(shapes_handler, small()) as served, AsyncExitStack() as stack:
        resting, slow, silent = await many(served, stack, b"")
        await resting.ask(GET)
        await slow.send(b"GET /echo")
        await trio.sleep(0.6)
        for peer in (silent, slow, resting):
            assert await newcomer(served) == 200
            with trio.fail_after(2):
                if peer is slow:
                    assert (await peer.answer()).status == 408
                else:
                    assert await peer.is_closed()
            await until(lambda: open_count(served) < PLACES)
            # Its place is taken by one that must not go.
            busy = await stack.enter_async_context(served.connected())
            await busy.ask(GET)


async def test_room_is_made_for_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood looks at all connections once for every sixteenth of the places."""
    looks = 0
    original = intake.IntakeServer._make_room

    def counted(self: intake.IntakeServer) -> bool:
        nonlocal looks
        looks += 1
        return original(self)

    monkeypatch.setattr(intake.IntakeServer, "_make_room", counted)
    config = small(connections_max=64)
    async with serving(shapes_handler, config) as served, AsyncExitStack() as stack:
        for _ in range(256):
            await stack.enter_async_context(served.connected())
        await until(lambda: served.server.statistics().connections_accepted == 256)
        assert served.server.statistics().connections_open <= 64
        assert (256 - 64) // 4 <= looks <= (256 - 64) // 2
        assert await newcomer(served) == 200


async def test_slow_senders_end_while_others_wait_for_memory() -> None:
    is_short = False
    start = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc"
    async with serving(shapes_handler, small()) as served, AsyncExitStack() as stack:
        served.server._is_short_of_memory = lambda: is_short
        peers = await many(served, stack, start)
        await trio.sleep(0.6)
        assert open_count(served) == PLACES
        is_short = True
        for peer in peers:
            assert (await peer.answer()).status == 408
        await until(lambda: open_count(served) == 0)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limit of descriptors, soft and hard; changes are appended."""
    found = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: found[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: found.append(pair))
    return found


def test_the_soft_limit_of_descriptors_is_raised_and_connections_have_half(
    limits: list[tuple[int, int]],
) -> None:
    assert descriptors.connections_allowed(4096) == 512
    assert descriptors.connections_allowed(100) == 100
    descriptors.raise_limit()
    assert limits[-1] == (4096, 4096)
    assert descriptors.connections_allowed(4096) == 2048
    for pair, wanted in [
        ((1024, 1_000_000_000), (65_536, 1_000_000_000)),
        ((1024, resource.RLIM_INFINITY), (65_536, resource.RLIM_INFINITY)),
        ((100_000, 200_000), (100_000, 200_000)),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY),) * 2,
    ]:
        limits.append(pair)
        descriptors.raise_limit()
        assert limits[-1] == wanted
    assert descriptors.connections_allowed(4096) == 4096
