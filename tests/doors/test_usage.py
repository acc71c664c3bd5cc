"""Usage counters: what is counted, handed over once, given back, and never holds a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingester.doors.usage import UsageCounters, masked_path
from tests.doors.rig import GOOD_LINE, open_rig
from tests.doors.test_shortcut import short


def test_counts_are_handed_over_once_and_given_back_whole() -> None:
    usage = UsageCounters()
    usage.count("tok_1", accepted=5, rejected=1, address="192.0.2.1")
    usage.count("tok_1", accepted=2)
    usage.refuse("tok_1", status=400, reason="why", address="192.0.2.2", path="/x")
    usage.refuse("", status=401, reason="who", address="192.0.2.3", path="/x")
    taken = usage.take_changes()
    assert not usage.is_changed
    (change,) = taken.changes
    assert (change.requests, change.accepted, change.rejected, change.refused) == (3, 7, 1, 1)
    assert change.last_address == "192.0.2.2"
    assert [note.credential for note in taken.refused] == ["tok_1", ""]
    usage.count("tok_1")
    usage.give_back(taken)
    again = usage.take_changes()
    assert again.changes[0].requests == 4
    assert again.refused == taken.refused


def test_notes_of_a_flood_are_bounded() -> None:
    usage = UsageCounters()
    for n in range(1000):
        usage.refuse("", status=401, reason="r" * 9999, address="a", path="/" + "x/" * n)
    notes = usage.take_changes().refused
    assert len(notes) == 100
    assert max(len(note.reason) + len(note.path) for note in notes) <= 400


@pytest.mark.parametrize(
    ("path", "masked"),
    [
        ("/v1/auth/api", "/v1/***/***"),
        ("/v1/auth/api/", "/v1/***/***/"),
        ("/test/v1/auth/api", "/test/v1/***/***"),
        ("/api/v1/webhook/event/log", "/api/v1/webhook/event/log"),
        ("/ingest/shop", "/ingest/shop"),
        ("/ingest/ingl_x", "/ingest/***"),
        ("/ingest/" + "k" * 28, "/ingest/***"),
    ],
)
def test_what_may_be_a_key_is_masked(path: str, masked: str) -> None:
    assert masked_path(path) == masked


async def test_the_natero_door_counts_by_source_on_both_ways(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        bad = b"not json\n" + GOOD_LINE
        await rig.ask(bad)
        await short(rig, bad)
        (change,) = rig.admission.usage.take_changes().changes
        assert change.credential == "source:1"
        assert (change.requests, change.accepted, change.rejected) == (2, 2, 2)
        assert change.last_address == "192.0.2.7"


async def test_the_natero_door_notes_why_it_refused(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.ask(b"junk", (b"content-encoding", b"gzip"))
        await rig.ask(b"{}", (b"idempotency-key", b"\xff"))
        await rig.ask(GOOD_LINE, (b"idempotency-key", b"k"))
        await rig.ask(b"{}", (b"idempotency-key", b"k"))
        rig.set_source(requests_per_hour=1)
        await rig.ask(GOOD_LINE)
        await rig.ask(GOOD_LINE)
        changes = rig.admission.usage.take_changes()
        notes = [(note.status, note.reason) for note in changes.refused]
        assert [status for status, _ in notes] == [400, 400, 400, 429]
        assert "128 visible" in notes[1][1]
        assert "another body" in notes[2][1]
        assert "over the quota" in notes[3][1]
        (change,) = changes.changes
        assert (change.requests, change.refused) == (6, 4)
