"""The gates of both lanes: groups settle once, the backlog adds up, cut uploads are seen as cut."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ingester.doors.bulk_lane import PIECES_CAPACITY, BulkLane, BulkUpload, open_pieces
from ingester.doors.small_lane import JournalGate, JournalGroup, JournalledGroup
from ingester.errors import ClientGone, IngesterError, Overloaded
from ingester.protocol.event_lines import EventRules
from ingester.protocol.events import EventDecoder
from ingester.protocol.forms import Origin, row_target
from ingester.protocol.inflate import InflateLimits, make_inflater
from ingester.protocol.requests import SmallRequest, decode_body, entry_to_bytes

from ..protocol.lines import entry
from .rig import GOOD_LINE, Body


def small(raw: bytes = GOOD_LINE) -> SmallRequest:
    return decode_body(entry(raw), raw)


class Appending:
    """A task that appends and keeps what came of it."""

    def __init__(self, gate: JournalGate) -> None:
        self.gate = gate
        self.sequence: int | None = None
        self.error: Overloaded | None = None
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        request = small()
        with self.scope:
            try:
                self.sequence = await self.gate.append(entry_to_bytes(request.entry), request)
            except Overloaded as error:
                self.error = error


async def append(gate: JournalGate, nursery: trio.Nursery, count: int) -> list[Appending]:
    tasks = [Appending(gate) for _ in range(count)]
    for task in tasks:
        nursery.start_soon(task.run)
        await wait_all_tasks_blocked()
    return tasks


async def take(gate: JournalGate) -> JournalGroup:
    with trio.fail_after(1):
        group = await gate.take()
    assert group is not None
    return group


async def test_what_gathers_is_one_group_in_order() -> None:
    gate = JournalGate(backlog_bytes_max=1 << 30)
    async with trio.open_nursery() as nursery:
        tasks = await append(gate, nursery, 3)
        group = await take(gate)
        late = await append(gate, nursery, 1)
        assert len(group.payloads) == len(group.requests) == 3
        group.first_seq = 7
        group.done.set()
        await wait_all_tasks_blocked()
        assert [task.sequence for task in tasks] == [7, 8, 9]
        assert late[0].sequence is None
        group = await take(gate)
        group.first_seq = 10
        group.done.set()
    assert late[0].sequence == 10


async def test_a_failed_group_refuses_everyone_in_it() -> None:
    gate = JournalGate(backlog_bytes_max=1 << 30)
    async with trio.open_nursery() as nursery:
        tasks = await append(gate, nursery, 2)
        group = await take(gate)
        group.failure = "disk gone"
        group.done.set()
    for task in tasks:
        assert task.error is not None
        assert (str(task.error), task.error.retry_after_s) == ("disk gone", 2)


async def test_one_who_leaves_stays_in_the_group() -> None:
    gate = JournalGate(backlog_bytes_max=1 << 30)
    async with trio.open_nursery() as nursery:
        tasks = await append(gate, nursery, 3)
        tasks[1].scope.cancel()
        await wait_all_tasks_blocked()
        group = await take(gate)
        assert len(group.payloads) == 3
        group.first_seq = 1
        group.done.set()
    assert [task.sequence for task in tasks] == [1, None, 3]


async def test_the_backlog_rises_with_requests_and_falls_when_they_are_stored() -> None:
    gate = JournalGate(backlog_bytes_max=1)
    assert not gate.is_full
    async with trio.open_nursery() as nursery:
        await append(gate, nursery, 2)
        assert gate.is_full
        group = await take(gate)
        assert group.byte_count == gate.backlog_bytes > 2 * len(GOOD_LINE)
        group.done.set()
        await append(gate, nursery, 1)
        gate.applied(group.byte_count)
        second = await take(gate)
        assert gate.backlog_bytes == second.byte_count
        gate.applied(second.byte_count)
        assert gate.backlog_bytes == 0
        assert not gate.is_full
        second.done.set()


async def test_a_closed_gate_gives_what_waits_and_then_nothing() -> None:
    gate = JournalGate(backlog_bytes_max=1 << 30)
    async with trio.open_nursery() as nursery:
        await append(gate, nursery, 1)
        gate.close()
        group = await take(gate)
        group.done.set()
        assert await gate.take() is None
    assert await gate.take() is None


async def test_closing_wakes_the_actor() -> None:
    gate = JournalGate(backlog_bytes_max=1 << 30)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.take)
            await wait_all_tasks_blocked()
            gate.close()


async def test_no_request_is_left_behind_by_a_fast_actor() -> None:
    gate = JournalGate(backlog_bytes_max=1 << 30)
    taken = 0

    async def actor() -> None:
        nonlocal taken
        while (group := await gate.take()) is not None:
            taken += len(group.payloads)
            group.done.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor)
            async with trio.open_nursery() as senders:
                for number in range(200):
                    senders.start_soon(Appending(gate).run)
                    if number % 7 == 0:
                        await trio.lowlevel.checkpoint()
            gate.close()
    assert taken == 200
    assert gate.statistics()["groups_total"] == 0  # the real actor counts


def test_repr_shows_counts() -> None:
    assert repr(JournalledGroup(5, [small()], 1, 1)) == "JournalledGroup(1 requests from 5)"


def upload() -> tuple[BulkUpload, trio.MemorySendChannel[bytes]]:
    send, receive = open_pieces()
    limits = InflateLimits(output_bytes_max=0, ratio_max=1000)
    origin = Origin("natero", "shop", "source:1")
    made = BulkUpload(
        request_number=0xABC,
        received_at_us=1,
        origin=origin,
        encoding_name="identity",
        content_length=None,
        inflater=make_inflater("identity", limits),
        decoder=EventDecoder(EventRules(), rejects_max=1, is_plain=True),
        target=row_target(origin),
        digest=None,
        pieces=receive,
        idempotency_key=None,
        done=trio.Event(),
    )
    return made, send


async def read_all(made: BulkUpload) -> list[bytes]:
    return [piece async for piece in made.pieces]


@pytest.fixture
def lane() -> tuple[BulkLane, trio.MemoryReceiveChannel[BulkUpload]]:
    send, receive = trio.open_memory_channel[BulkUpload](0)
    return BulkLane(send), receive


async def test_an_upload_is_pumped_prefix_first_and_ends_with_an_empty_piece(lane: Any) -> None:
    bulk, uploads = lane
    made, send = upload()
    record: Any = decode_body(entry(b""), b"").record()
    pieces: list[bytes] = []

    async def worker() -> None:
        taken = await uploads.receive()
        assert taken is made
        pieces.extend(await read_all(taken))
        taken.outcome = record
        taken.done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        assert await bulk.send(made, send, [b"1", b"2"], Body(*b"3 4 5 6 7".split())) is record
    assert pieces == [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b""]
    assert repr(made) == "BulkUpload(0000000000000abc)"


async def test_nothing_is_read_before_a_worker_takes_the_upload_and_little_ahead_of_it(
    lane: Any,
) -> None:
    bulk, uploads = lane
    made, send = upload()
    body = Body(*[b"x"] * 50)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bulk.send, made, send, [b"p"], body)
        await wait_all_tasks_blocked()
        assert body.received_bytes == 0
        await uploads.receive()
        await wait_all_tasks_blocked()
        assert body.received_bytes == PIECES_CAPACITY
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [ClientGone("gone"), Overloaded("full")])
async def test_a_body_that_ends_badly_is_rolled_back_before_anyone_is_told(
    lane: Any, error: IngesterError
) -> None:
    bulk, uploads = lane
    made, send = upload()
    course: list[object] = []

    async def worker() -> None:
        taken = await uploads.receive()
        course.append(await read_all(taken))
        await wait_all_tasks_blocked()
        course.append("rolled back")
        taken.outcome = ClientGone("cut")
        taken.done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        with pytest.raises(type(error)) as caught:
            await bulk.send(made, send, [], Body(b"1", error=error))
        course.append("told")
    assert caught.value is error
    assert course == [[b"1"], "rolled back", "told"], "no empty piece: the body is not whole"


async def test_a_refusal_in_the_middle_is_raised_and_the_rest_not_read(lane: Any) -> None:
    bulk, uploads = lane
    made, send = upload()
    refusal = Overloaded("disk")
    body = Body(*[b"x"] * 50)

    async def worker() -> None:
        taken = await uploads.receive()
        await taken.pieces.receive()
        taken.outcome = refusal
        taken.pieces.close()
        taken.done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        with pytest.raises(Overloaded) as caught:
            await bulk.send(made, send, [], body)
    assert caught.value is refusal
    assert body.received_bytes <= PIECES_CAPACITY + 2


async def test_a_cancelled_sender_looks_like_a_cut_body(lane: Any) -> None:
    bulk, uploads = lane
    made, send = upload()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bulk.send, made, send, [b"p"], Body(b"x", hold=trio.Event()))
        taken = await uploads.receive()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await read_all(taken) == [b"p", b"x"]
