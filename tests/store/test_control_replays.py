"""What became of rejects: claimed by one, settled once, tried again when refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingester.store.control import ControlStore, ReplaySubject


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlStore]:
    with closing(ControlStore.open(tmp_path / "control.sqlite")) as store:
        yield store


def subject(number: int, line: int = 1, *, source: str = "shop") -> ReplaySubject:
    return ReplaySubject(
        key=(number, line), door="natero", source=source, reason="too_long", received_at=number
    )


def test_a_claim_is_unique_until_it_is_given_up(control: ControlStore) -> None:
    both = [subject(1), subject(2)]
    assert control.claim_replays(both, 100) == {(1, 1), (2, 1)}
    assert control.claim_replays([*both, subject(3)], 101) == {(3, 1)}
    assert sorted(control.open_replays()) == [100, 101]
    control.settle_replays({100: False, 101: True})
    assert control.open_replays() == []
    assert control.claim_replays([*both, subject(3)], 102) == {(1, 1), (2, 1)}
    control.settle_replays({100: True})  # late, and about nobody any more
    marks = control.replay_marks([(1, 1), (3, 1), (9, 9)])
    assert {key: (mark.state, mark.replay_number) for key, mark in marks.items()} == {
        (1, 1): ("claimed", 102),
        (3, 1): ("replayed", 101),
    }


def test_a_refusal_can_be_tried_again_and_changes_nothing_that_is_done(
    control: ControlStore,
) -> None:
    control.claim_replays([subject(1)], 100)
    control.settle_replays({100: True})
    control.note_refused_replays([(subject(n), "invalid_json", "no") for n in (1, 2)])
    control.note_refused_replays([(subject(2), "too_deep", "still no")])
    marks = control.replay_marks([(1, 1), (2, 1)])
    assert (marks[1, 1].state, marks[1, 1].refusal) == ("replayed", None)
    assert (marks[2, 1].state, marks[2, 1].refusal) == ("refused", "too_deep")
    assert control.claim_replays([subject(1), subject(2)], 101) == {(2, 1)}
    control.settle_replays({101: True})
    assert control.replay_marks([(2, 1)])[2, 1].refusal is None


def test_claims_at_once_never_share_a_line(control: ControlStore) -> None:
    subjects = [subject(number) for number in range(200)]
    claimed: list[set[tuple[int, int]]] = []
    threads = [
        threading.Thread(target=lambda n=n: claimed.append(control.claim_replays(subjects, n)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(len, claimed)) == 200
    assert set().union(*claimed) == {one.key for one in subjects}


def test_counts_are_of_replayed_ones_by_source_and_arrival(control: ControlStore) -> None:
    control.claim_replays([subject(1), subject(5), subject(6, source="other")], 100)
    assert control.replay_counts() == []
    control.settle_replays({100: True})
    control.claim_replays([subject(7)], 101)
    counts = {count.source: count.replayed for count in control.replay_counts()}
    assert counts == {"shop": 2, "other": 1}
    (count,) = control.replay_counts(source="shop", since_s=2, until_s=6)
    assert (count.door, count.reason, count.replayed) == ("natero", "too_long", 1)
    assert control.replay_counts(door="ingest") == []
