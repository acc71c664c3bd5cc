"""Replays: which rejects went through a door again, and what became of them.

A line must reach the store at most once, whatever ends the process and whoever else replays it. So
a reject is *claimed* for a request, durably and by one only, before that request is journalled;
afterwards the claim becomes `replayed`, or is given up when the request failed. A claim that a
crash left open is settled by a look for its request in the store: the number is the claim's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from ingester.store.control.file import ControlFile

__all__ = ["ReplayCount", "ReplayMark", "ReplaySubject", "Replays"]

ReplayState = Literal["claimed", "replayed", "refused"]

_TARGETS_SHOWN_MAX = 200


class ReplaySubject(Struct, frozen=True, kw_only=True):
    """The reject that a mark is about; `reason` is why it was rejected first."""

    key: tuple[int, int]
    door: str
    source: str
    reason: str
    received_at: float


class ReplayMark(Struct, frozen=True, kw_only=True):
    """What became of a reject. `refusal` and `detail` are those of the last refused replay."""

    state: ReplayState
    time: float
    replay_number: int | None
    refusal: str | None
    detail: str | None


class ReplayCount(Struct, frozen=True, kw_only=True):
    """How many of one door, source and reason were replayed."""

    door: str
    source: str
    reason: str
    replayed: int


class Replays(ControlFile):
    """The part of the control store that keeps what became of rejects."""

    def claim_replays(
        self, subjects: Sequence[ReplaySubject], replay_number: int
    ) -> set[tuple[int, int]]:
        """Claim for one request what nobody has claimed or replayed; the keys of those."""
        now_s = time.time()
        claimed = set()
        with self._transaction() as connection:
            for one in subjects:
                cursor = connection.execute(
                    "INSERT INTO replays VALUES (?, ?, 'claimed', ?, ?, ?, ?, ?, ?, NULL, NULL)"
                    " ON CONFLICT DO UPDATE SET state = 'claimed', time = excluded.time,"
                    " replay_number = excluded.replay_number WHERE state = 'refused'",
                    (
                        *one.key,
                        now_s,
                        replay_number,
                        one.door,
                        one.source,
                        one.reason,
                        one.received_at,
                    ),
                )
                if cursor.rowcount:
                    claimed.add(one.key)
        return claimed

    def settle_replays(self, outcomes: Mapping[int, bool]) -> None:
        """Whether each of these requests was stored, for the rejects claimed for it. Repeating it
        does no harm.
        """
        now_s = time.time()
        with self._transaction() as connection:
            for replay_number, is_stored in outcomes.items():
                if is_stored:
                    connection.execute(
                        "UPDATE replays SET state = 'replayed', time = ?, refusal = NULL,"
                        " detail = NULL WHERE replay_number = ? AND state = 'claimed'",
                        (now_s, replay_number),
                    )
                else:
                    connection.execute(
                        "DELETE FROM replays WHERE replay_number = ? AND state = 'claimed'",
                        (replay_number,),
                    )

    def open_replays(self) -> list[int]:
        """Requests for which rejects are claimed."""
        with self._reading() as connection:
            return [
                number
                for (number,) in connection.execute(
                    "SELECT DISTINCT replay_number FROM replays WHERE state = 'claimed'"
                )
            ]

    def note_refused_replays(
        self, refused: Iterable[tuple[ReplaySubject, str | None, str]]
    ) -> None:
        """Reason and detail of replays that came to nothing; they may be tried again."""
        now_s = time.time()
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO replays VALUES (?, ?, 'refused', ?, NULL, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET time = excluded.time, refusal = excluded.refusal,"
                " detail = excluded.detail WHERE state = 'refused'",
                [
                    (*one.key, now_s, one.door, one.source, one.reason, one.received_at, why, how)
                    for one, why, how in refused
                ],
            )

    def replay_marks(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], ReplayMark]:
        """What became of these rejects; those that nobody tried are left out."""
        marks = {}
        with self._reading() as connection:
            for key in keys:
                row = connection.execute(
                    "SELECT state, time, replay_number, refusal, detail FROM replays"
                    " WHERE request_number = ? AND line_number = ?",
                    key,
                ).fetchone()
                if row is not None:
                    marks[key] = ReplayMark(
                        state=row[0],
                        time=row[1],
                        replay_number=row[2],
                        refusal=row[3],
                        detail=row[4],
                    )
        return marks

    def replay_counts(
        self,
        *,
        door: str | None = None,
        source: str | None = None,
        since_s: float | None = None,
        until_s: float | None = None,
    ) -> list[ReplayCount]:
        """Replayed rejects by door, source and first reason; the times are those of arrival."""
        with self._reading() as connection:
            return [
                ReplayCount(door=row[0], source=row[1], reason=row[2], replayed=row[3])
                for row in connection.execute(
                    "SELECT door, source, reason, count(*) FROM replays WHERE state = 'replayed'"
                    " AND (?1 IS NULL OR door = ?1) AND (?2 IS NULL OR source = ?2)"
                    " AND (?3 IS NULL OR received_at >= ?3) AND (?4 IS NULL OR received_at < ?4)"
                    " GROUP BY door, source, reason",
                    (door, source, since_s, until_s),
                )
            ]

    def audit_replay(
        self, *, sources: Iterable[str], replayed: int, refused: int, edited: int, actor: str
    ) -> None:
        """An entry of the audit list."""
        target = ", ".join(sorted(set(sources)))[:_TARGETS_SHOWN_MAX]
        counts = {"replayed": replayed, "refused": refused, "edited": edited}
        with self._transaction() as connection:
            self._note(connection, actor, "rejects replayed", target, **counts)
