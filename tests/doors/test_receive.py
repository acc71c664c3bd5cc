"""Lanes by size, and a budget that comes back however a request ends."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ingester.doors.natero import _asked
from ingester.doors.receive import AdmittedRequest, receive_body
from ingester.errors import (
    BodyTooLarge,
    ClientGone,
    MalformedBody,
    Overloaded,
    RequestStalled,
    StoreFailed,
)
from ingester.messages import RequestRecord

from .rig import GOOD_LINE, Body, Rig, head_of, open_rig, packed

SMALL = 2000


def asked(rig: Rig, body: Body, coding: str = "identity", **head: Any) -> AdmittedRequest:
    made = head_of(headers=[(b"content-encoding", coding.encode())], **head)
    return _asked(rig.request(body, made), rig.source, None)


def lines(size: int) -> bytes:
    """A body of `size` bytes: blank lines and one event."""
    return b"\n" * (size - len(GOOD_LINE)) + GOOD_LINE


def cut(body: bytes, step: int = 700) -> list[bytes]:
    return [body[start : start + step] for start in range(0, len(body), step)]


LANES = [
    # (how it comes, coding, received, decoded, lane)
    ("whole", "identity", SMALL, SMALL, "small"),
    ("whole", "identity", SMALL + 1, SMALL + 1, "bulk"),
    ("length", "identity", SMALL, SMALL, "small"),
    ("length", "identity", SMALL + 1, SMALL + 1, "bulk"),
    ("chunked", "identity", SMALL, SMALL, "small"),
    ("chunked", "identity", SMALL + 1, SMALL + 1, "bulk"),
    *(
        (how, "gzip", None, decoded, lane)
        for how in ("whole", "length", "chunked")
        for decoded, lane in [(SMALL, "small"), (SMALL + 1, "bulk"), (50 * SMALL, "bulk")]
    ),
]


@pytest.mark.parametrize(("how", "coding", "received", "decoded", "lane"), LANES)
async def test_the_lane_is_chosen_by_received_and_decoded_size(
    tmp_path: Path, how: str, coding: str, received: int | None, decoded: int, lane: str
) -> None:
    sent = lines(decoded) if coding == "identity" else packed(decoded)
    assert received in (None, len(sent))
    body = Body(*cut(sent), whole=how == "whole")
    length = None if how == "chunked" else len(sent)
    async with open_rig(tmp_path, small_body_bytes_max=SMALL) as rig:
        record, sequence = await receive_body(
            asked(rig, body, coding, content_length=length), rig.admission
        )
        assert bool(sequence) == (lane == "small")
        assert [entry.body for entry in rig.journalled] == ([sent] if lane == "small" else [])
        assert rig.uploaded == ([sent] if lane == "bulk" else [])
        assert (record.accepted, record.rejected) == (1, 0)
        assert (record.bytes_in, record.bytes_raw) == (len(sent), decoded)
        assert record.encoding == coding
        assert rig.admission.accepted_count == 1
        assert rig.budget_used == 0


async def test_a_compressed_body_over_the_received_bound_is_bulk_whatever_it_holds(
    tmp_path: Path,
) -> None:
    sent = b"".join(gzip.compress(b"\n", mtime=0) for _ in range(SMALL // 20))
    assert len(sent) > SMALL
    for length in (len(sent), None):
        async with open_rig(tmp_path, small_body_bytes_max=SMALL) as rig:
            body = Body(*cut(sent))
            await receive_body(asked(rig, body, "gzip", content_length=length), rig.admission)
            assert rig.uploaded == [sent]


@pytest.mark.parametrize("size", [10, 64 * 1024, 64 * 1024 + 1, 300_000])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_bodies_decoded_in_place_and_in_a_thread_come_to_the_same(
    tmp_path: Path, coding: str, size: int
) -> None:
    raw = (GOOD_LINE + b"\nbad\n") * (size // len(GOOD_LINE) + 1)
    sent = raw if coding == "identity" else gzip.compress(raw, 0)
    async with open_rig(tmp_path) as rig:
        record, _ = await receive_body(asked(rig, Body(sent, whole=True), coding), rig.admission)
        assert (record.accepted, record.rejected) == (raw.count(b"\n") // 2, raw.count(b"\n") // 2)


@pytest.mark.parametrize("whole", [True, False])
async def test_an_empty_body_is_a_request_without_lines(tmp_path: Path, whole: bool) -> None:
    async with open_rig(tmp_path) as rig:
        record, sequence = await receive_body(asked(rig, Body(whole=whole)), rig.admission)
        assert (record.accepted, record.rejected, sequence) == (0, 0, 1)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
async def test_a_broken_body_is_refused_in_both_lanes(tmp_path: Path, coding: str) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=SMALL) as rig:
        for size in (0, 10, SMALL + 1):
            with pytest.raises(MalformedBody):
                await receive_body(asked(rig, Body(b"x" * size, whole=True), coding), rig.admission)
        assert not rig.journalled
        assert not rig.uploaded
        assert rig.admission.accepted_count == 0


@pytest.mark.parametrize(
    ("coding", "length", "expected"),
    [
        ("identity", 500, 1000),
        ("gzip", 500, 500 + SMALL),
        ("identity", None, 2 * SMALL),
        ("gzip", None, 2 * SMALL),
        ("identity", SMALL, 2 * SMALL),
        ("identity", SMALL + 1, 0),
    ],
)
async def test_the_budget_covers_a_body_received_and_decoded(
    tmp_path: Path, coding: str, length: int | None, expected: int
) -> None:
    async with (
        open_rig(tmp_path, small_body_bytes_max=SMALL) as rig,
        trio.open_nursery() as nursery,
    ):
        request = asked(rig, Body(b"\n", hold=trio.Event()), coding, content_length=length)
        nursery.start_soon(receive_body, request, rig.admission)
        await wait_all_tasks_blocked()
        assert rig.budget_used == expected
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_whole", [True, False])
async def test_who_waits_for_memory_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    """A wait without an end would hold a place among the connections for as long."""
    monkeypatch.setattr("ingester.doors.receive.BUDGET_SECONDS_MAX", 0.05)
    async with open_rig(tmp_path) as rig:
        budget = rig.admission.whole_budget if is_whole else rig.admission.budget
        assert budget.reserve_nowait(budget.total_bytes)
        body = Body(GOOD_LINE, whole=is_whole)
        request = asked(rig, body, content_length=len(GOOD_LINE))
        with pytest.raises(Overloaded, match="memory"):
            await receive_body(request, rig.admission)
        assert not budget.is_waited_for
        budget.release(budget.total_bytes)


async def test_bytes_read_before_the_lane_was_known_stay_within_the_budget(tmp_path: Path) -> None:
    """While no worker is free; the half for the decoded body goes back at once."""
    async with open_rig(tmp_path, workers=0, small_body_bytes_max=SMALL) as rig:
        async with trio.open_nursery() as nursery:
            body = Body(*cut(lines(SMALL + 1)))
            nursery.start_soon(receive_body, asked(rig, body), rig.admission)
            await wait_all_tasks_blocked()
            assert rig.budget_used == SMALL + 1
            sent = packed(SMALL + 1)
            for body in (Body(sent, whole=True), Body(sent)):
                before = rig.budget_used
                nursery.start_soon(receive_body, asked(rig, body, "gzip"), rig.admission)
                await wait_all_tasks_blocked()
                assert rig.budget_used == before + len(sent)
            before = rig.budget_used
            request = asked(rig, Body(b"\n"), content_length=SMALL + 1)
            nursery.start_soon(receive_body, request, rig.admission)
            await wait_all_tasks_blocked()
            assert rig.budget_used == before, "nothing was read, nothing is held"
            nursery.cancel_scope.cancel()
        assert rig.budget_used == 0


async def test_without_room_in_the_budget_nothing_is_read(tmp_path: Path) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=SMALL, body_budget_bytes=2 * SMALL) as rig:
        rig.take_budgets()
        body = Body(GOOD_LINE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_body, asked(rig, body), rig.admission)
            await wait_all_tasks_blocked()
            assert body.received_bytes == 0
            rig.give_back_budgets()
        assert len(rig.journalled) == 1


async def test_slow_senders_leave_room_for_those_who_have_sent_all(tmp_path: Path) -> None:
    async with (
        open_rig(tmp_path, small_body_bytes_max=SMALL, body_budget_bytes=8 * SMALL) as rig,
        trio.open_nursery() as nursery,
    ):
        for _ in range(20):
            slow = asked(rig, Body(b"\n", hold=trio.Event()))
            nursery.start_soon(receive_body, slow, rig.admission)
        await wait_all_tasks_blocked()
        assert rig.admission.budget.statistics()["waiting"] == 17
        await receive_body(asked(rig, Body(GOOD_LINE, whole=True)), rig.admission)
        assert len(rig.journalled) == 1
        nursery.cancel_scope.cancel()


async def test_a_body_that_wants_more_than_the_whole_budget_gets_all_of_it(tmp_path: Path) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=SMALL, body_budget_bytes=SMALL) as rig:
        for body in (Body(lines(SMALL), whole=True), Body(lines(SMALL))):
            await receive_body(asked(rig, body), rig.admission)
        assert len(rig.journalled) == 2


@pytest.mark.parametrize(
    "error",
    [ClientGone("x"), RequestStalled("x"), BodyTooLarge("x"), RuntimeError("a fault of ours")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("size", [10, SMALL + 700])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_ends_badly_gives_everything_back(
    tmp_path: Path, error: Exception, size: int, announced: bool
) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=SMALL) as rig:
        body = Body(*cut(lines(SMALL + 700)[:size]), error=error)
        length = SMALL + 1400 if size > SMALL else SMALL
        request = asked(rig, body, content_length=length if announced else None)
        with pytest.raises(type(error)):
            await receive_body(request, rig.admission)
        assert rig.budget_used == 0
        assert not rig.journalled
        assert not rig.uploaded
        await wait_all_tasks_blocked()
        assert rig.cut_uploads == (size > SMALL)


@pytest.mark.parametrize(
    "refusal", [Overloaded("full"), BodyTooLarge("x"), StoreFailed("x"), MalformedBody("x")]
)
async def test_a_worker_that_refuses_while_the_body_comes_is_heard_at_once(
    tmp_path: Path, refusal: Exception
) -> None:
    """The rest of the body is not waited for: the sender may have gigabytes left."""
    never = trio.Event()
    async with open_rig(tmp_path, small_body_bytes_max=SMALL) as rig:
        rig.bulk_refusal = refusal  # type: ignore[assignment]
        body = Body(*cut(lines(SMALL * 9)), hold=never)
        with pytest.raises(type(refusal)), trio.fail_after(5):
            await receive_body(asked(rig, body, content_length=SMALL * 9), rig.admission)
        assert body.received_bytes < SMALL * 9


async def test_a_failed_journal_is_overloaded(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.journal_failure = "no space"
        with pytest.raises(Overloaded, match="no space"):
            await receive_body(asked(rig, Body(GOOD_LINE, whole=True)), rig.admission)
        assert rig.admission.accepted_count == 0
        assert rig.gate.backlog_bytes == 0


def _stages() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(stage, rig options, body and head): where a request can be waiting."""
    never = trio.Event()
    big = lines(SMALL + 1)
    return [
        ("for the budget", {"body_budget_bytes": SMALL}, {"whole": [GOOD_LINE]}),
        ("for the budget", {"body_budget_bytes": SMALL}, {"pieces": [GOOD_LINE]}),
        ("for the body", {}, {"pieces": [b"\n"], "hold": never}),
        ("for the journal", {"journal": False}, {"whole": [GOOD_LINE]}),
        ("for the journal", {"journal": False}, {"pieces": [GOOD_LINE]}),
        ("for a worker", {"workers": 0}, {"whole": [big]}),
        ("for a worker", {"workers": 0}, {"pieces": [big]}),
        ("for a worker", {"workers": 0}, {"pieces": [packed(SMALL + 1)], "coding": "gzip"}),
        ("for a worker", {"workers": 0}, {"pieces": [big], "length": len(big)}),
        ("for the body", {}, {"pieces": [big], "hold": never}),
        ("for the body", {}, {"pieces": [big], "hold": never, "length": len(big) + 1}),
    ]


@pytest.mark.parametrize("number", range(11))
async def test_a_request_cancelled_wherever_it_waits_gives_everything_back(
    tmp_path: Path, number: int
) -> None:
    stage, options, what = _stages()[number]
    body = Body(
        *what.get("whole", what.get("pieces", ())), whole="whole" in what, hold=what.get("hold")
    )
    async with open_rig(tmp_path, small_body_bytes_max=SMALL, **options) as rig:
        taken = rig.take_budgets() if stage == "for the budget" else 0
        request = asked(
            rig, body, what.get("coding", "identity"), content_length=what.get("length")
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_body, request, rig.admission)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert rig.budget_used == taken
        if taken:
            rig.give_back_budgets()
        assert [budget.statistics()["waiting"] for budget in rig.budgets] == [0, 0]
        await wait_all_tasks_blocked()
        assert not rig.journalled
        assert not rig.uploaded
        # The doors work on.
        if options.get("workers", 1) and options.get("journal", True):
            fine = asked(rig, Body(GOOD_LINE, whole=True))
            record, _ = await receive_body(fine, rig.admission)
            assert isinstance(record, RequestRecord)


async def test_a_cancelled_request_in_the_journal_is_stored_and_its_neighbours_answered(
    tmp_path: Path,
) -> None:
    async with open_rig(tmp_path) as rig:
        rig.journal_holds = trio.Event()
        scopes = [trio.CancelScope() for _ in range(3)]
        records = []

        async def send(scope: trio.CancelScope) -> None:
            with scope:
                records.append(
                    await receive_body(asked(rig, Body(GOOD_LINE, whole=True)), rig.admission)
                )

        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(send, scope)
            await wait_all_tasks_blocked()
            scopes[1].cancel()
            await wait_all_tasks_blocked()
            rig.journal_holds.set()
        assert len(records) == 2
        assert len(rig.journalled) == 3
        assert len({sequence for _, sequence in records}) == 2
