"""The client's own book of what was sent and answered, and the comparison with the store.

Why: only the client knows what was acknowledged. Every answer is written to a file outside the
data folder and fsynced before the client goes on, so the book never knows less than the client.

The claims checked by `reconcile`
1. An acknowledged request is stored exactly once and whole: every row, every reject, every byte.
2. A refused request is not stored at all.
3. An unanswered request is stored at most once, and then whole.
4. Nothing is stored that was never sent.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.system.client import Answer

__all__ = ["Ledger", "Sent", "Stored", "Verdict", "reconcile"]

Outcome = Literal["unanswered", "acknowledged", "refused"]


@dataclass(slots=True)
class Sent:
    """One request: its batch id stands in every line's accountId, the row in sessionId."""

    batch: str
    kind: str
    row_count: int
    reject_count: int
    row_bytes: int
    key: str | None = None
    body: bytes = field(default=b"", repr=False)  # kept for requests that will be repeated
    encoding: str | None = None
    outcome: Outcome = "unanswered"
    status: int = 0
    request_id: str = ""


@dataclass(slots=True)
class Stored:
    """What the store holds of one batch."""

    row_count: int = 0
    distinct_row_count: int = 0
    row_bytes: int = 0
    reject_count: int = 0
    distinct_reject_count: int = 0


@dataclass(slots=True)
class Verdict:
    """The outcome of a comparison; `problems` is empty when every claim holds."""

    acknowledged_requests: int = 0
    acknowledged_rows: int = 0
    stored_rows: int = 0
    stored_rejects: int = 0
    lost_rows: int = 0
    duplicated_rows: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        self.acknowledged_requests += other.acknowledged_requests
        self.acknowledged_rows += other.acknowledged_rows
        self.stored_rows += other.stored_rows
        self.stored_rejects += other.stored_rejects
        self.lost_rows += other.lost_rows
        self.duplicated_rows += other.duplicated_rows
        self.problems += other.problems


class Ledger:
    """Append-only JSON lines; safe for many threads."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()
        self.requests: list[Sent] = []

    def close(self) -> None:
        os.close(self._descriptor)

    def sending(self, request: Sent) -> None:
        """Before the first byte: from here on the request may be stored."""
        with self._lock:
            self.requests.append(request)
        self._write({"sent": request.batch, "rows": request.row_count})

    def answered(self, request: Sent, answer: Answer) -> None:
        """After the last byte of the answer. Returns when the book is safe on disk."""
        request.status = answer.status
        request.outcome = "acknowledged" if 200 <= answer.status < 300 else "refused"
        request.request_id = answer.headers.get("ingester-request-id", "")
        self._write({"batch": request.batch, "status": answer.status, "id": request.request_id})
        os.fsync(self._descriptor)

    def take(self) -> list[Sent]:
        """The requests since the last call."""
        with self._lock:
            taken, self.requests = self.requests, []
        return taken

    def _write(self, entry: Mapping[str, object]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        assert os.write(self._descriptor, line) == len(line)


def reconcile(requests: Iterable[Sent], stored: Mapping[str, Stored]) -> Verdict:
    """Compare the book with the store, both of one round."""
    verdict = Verdict()
    left = dict(stored)
    for request in requests:
        found = left.pop(request.batch, Stored())
        verdict.stored_rows += found.row_count
        verdict.stored_rejects += found.reject_count
        verdict.duplicated_rows += found.row_count - found.distinct_row_count
        if request.outcome == "acknowledged":
            verdict.acknowledged_requests += 1
            verdict.acknowledged_rows += request.row_count
            verdict.lost_rows += max(0, request.row_count - found.distinct_row_count)
        problem = _problem(request, found)
        if problem:
            verdict.problems.append(f"{request.batch} ({request.kind}): {problem}")
    for batch, found in left.items():
        verdict.problems.append(f"{batch}: stored but never sent: {found}")
    return verdict


def _problem(request: Sent, found: Stored) -> str | None:
    whole = Stored(
        request.row_count,
        request.row_count,
        request.row_bytes,
        request.reject_count,
        request.reject_count,
    )
    nothing = Stored()
    match request.outcome:
        case "acknowledged" if found != whole:
            return f"acknowledged as {whole}, stored as {found}"
        case "refused" if found != nothing:
            return f"refused with {request.status}, yet stored: {found}"
        case "unanswered" if found not in (whole, nothing):
            return f"unanswered and stored in part or twice: sent {whole}, stored {found}"
    return None
