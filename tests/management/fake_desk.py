"""A desk of rejects for the routes' tests: no store, no doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingester.messages import RejectReason, ReplayOutcome
from ingester.store.control import ControlStore, ReplaySubject
from ingester.store.reject_rows import (
    RejectCount,
    RejectFilter,
    RejectKey,
    RejectPage,
    StoredReject,
)

__all__ = ["FakeDesk", "stored"]


def stored(
    number: int, line: bytes = b"{", *, reason: RejectReason = "invalid_json"
) -> StoredReject:
    return StoredReject(
        request_number=number,
        line_number=1,
        received_at_us=1_700_000_000_000_000 + number,
        door="natero",
        source="shop",
        credential="source:1",
        reason=reason,
        field=None,
        column=None,
        detail="why",
        line=line,
        form=None,
    )


class FakeDesk:
    """Rejects 1 to `count`; a replay takes every one."""

    def __init__(self, control: ControlStore, count: int) -> None:
        self.control = control
        self.rejects = [stored(number) for number in range(1, count + 1)]
        self.can_replay = True
        self.filters: list[RejectFilter] = []
        self.edits: Mapping[str, bytes] = {}

    def page(
        self,
        wanted: RejectFilter,
        *,
        limit: int,
        after: RejectKey | None,
        oldest_first: bool = False,
    ) -> RejectPage:
        self.filters.append(wanted)
        ordered = self.rejects if oldest_first else self.rejects[::-1]
        if after is not None:
            keys = [reject.key for reject in ordered]
            ordered = ordered[keys.index(after) + 1 if after in keys else 0 :]
        return RejectPage(ordered[:limit], len(ordered) > limit)

    def find(self, keys: Sequence[RejectKey]) -> list[StoredReject]:
        known = {reject.key: reject for reject in self.rejects}
        return [known[key] for key in keys if key in known]

    def counts(self, wanted: RejectFilter) -> list[RejectCount]:
        self.filters.append(wanted)
        return [
            RejectCount(
                door="natero",
                source="shop",
                reason="invalid_json",
                kept=len(self.rejects),
                newest_at_us=1_700_000_000_000_000,
            )
        ]

    def replay(
        self,
        rejects: Sequence[StoredReject],
        edits: Mapping[str, bytes],
        *,
        dry_run: bool,
        actor: str,
    ) -> list[ReplayOutcome]:
        self.edits = edits
        if not dry_run:
            self.mark([reject.request_number for reject in rejects])
        told: Any = "accepted" if dry_run else "replayed"
        return [ReplayOutcome(id=reject.id, outcome=told) for reject in rejects]

    def mark(self, numbers: Sequence[int]) -> None:
        subjects = [
            ReplaySubject(
                key=(n, 1), door="natero", source="shop", reason="invalid_json", received_at=1.7e9
            )
            for n in numbers
        ]
        self.control.claim_replays(subjects, 500)
        self.control.settle_replays({500: True})
