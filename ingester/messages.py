"""The nouns that travel between rooms: requests, sources, refused lines, outcomes.

Plain data, no behaviour that waits. `repr` of anything that holds a payload shows counts only,
so that neither an event nor a key can reach a log line by accident.
"""

from __future__ import annotations

import random
import time
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

__all__ = [
    "REJECT_REASONS",
    "SCOPES",
    "Credential",
    "CredentialKind",
    "ErrorBody",
    "LineReject",
    "QuotaErrorBody",
    "RejectReason",
    "ReplayOutcome",
    "ReplayResult",
    "RequestNumbers",
    "RequestRecord",
    "Scope",
    "Source",
    "log_url",
    "metric_url",
    "natero_url",
    "request_id_text",
]

RejectReason = Literal[
    "invalid_json",
    "invalid_utf8",
    "not_an_object",
    "several_values",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "too_long",
    "too_deep",
    "future_timestamp",
    "wrong_encoding",
]

# The closed list of contract 3.5; a metric label and a column value.
REJECT_REASONS: tuple[RejectReason, ...] = RejectReason.__args__  # type: ignore[attr-defined]


class LineReject(Struct, frozen=True, gc=False):
    """One refused line: where, why, and its bytes (cut at 64 KiB).

    `line_number` and `column` count from 1; `column` is 0 where no place in the line is meant.
    """

    line_number: int
    reason: RejectReason
    detail: str
    line: bytes
    field: str | None = None
    column: int = 0

    def __repr__(self) -> str:
        return f"LineReject(line {self.line_number}, {self.reason}, {len(self.line)} bytes)"


# What became of a reject that was to be replayed. `accepted`: a dry run, it would be replayed.
ReplayResult = Literal[
    "replayed",
    "accepted",
    "refused",
    "already_replayed",
    "under_way",
    "impossible",
    "failed",
    "unknown",
]


class ReplayOutcome(Struct, frozen=True, kw_only=True):
    """What became of one reject in a replay. `request_id` is the request it went into; `reason`,
    `field`, `column` and `detail` say why it did not.
    """

    id: str
    outcome: ReplayResult
    request_id: str | None = None
    reason: RejectReason | None = None
    field: str | None = None
    column: int | None = None
    detail: str | None = None


class Source(Struct, frozen=True, kw_only=True):
    """An event source as the doors see it. Keys are not part of it (they are looked up by hash).

    `requests_per_hour` 0 means no quota. `dedup_field` names the field of an event by which repeats
    within `dedup_hours` are left out. `map` tells where the columns of `events` are found in events
    of any shape: a JSON pointer or `=constant` by column, and `time_unit`.
    """

    source_id: int
    name: str
    lenient_session: bool = False
    requests_per_hour: int = 0
    dedup_field: str | None = None
    dedup_hours: int = 24
    map: dict[str, str] | None = None

    @property
    def credential(self) -> str:
        """Its name among the credentials of all doors."""
        return f"source:{self.source_id}"


Scope = Literal["ingest", "read", "admin"]
SCOPES: tuple[Scope, ...] = Scope.__args__  # type: ignore[attr-defined]

CredentialKind = Literal["token", "connection"]


class Credential(Struct, frozen=True, kw_only=True):
    """Whose bearer key a request carries: a token or a connection. The key is not part of it.

    `source` is the event source a token is bound to. `requests_per_hour` 0 means no quota.
    `expires_at` (epoch seconds) is when the key that was sent stops to work.
    """

    kind: CredentialKind
    id: str
    service: str = ""
    environment: str = ""
    scopes: frozenset[Scope] = frozenset()
    source: str | None = None
    project_id: str = ""
    requests_per_hour: int = 0
    expires_at: float | None = None

    @property
    def credential(self) -> str:
        """Its name among the credentials of all doors."""
        return self.id


class ErrorBody(Struct, frozen=True, kw_only=True):
    """What every refusal says, on all doors: one plain sentence. `field` and `column` (from 1) are
    there when one is meant.
    """

    error: str
    column: int | UnsetType = UNSET
    field: str | UnsetType = UNSET


class QuotaErrorBody(Struct, frozen=True, kw_only=True):
    """Over a quota: the sentence, and the seconds until the hour ends."""

    error: str
    retryAfter: int


class RequestRecord(Struct, frozen=True, kw_only=True):
    """What is kept of a request that was acknowledged: a row of `requests`.

    `bytes_in` as received, `bytes_raw` after decoding. `fingerprint` is a digest of the decoded
    body, kept with an `Idempotency-Key` to tell a repeat from another body. `deduplicated` counts
    lines left out as repeats by a field of theirs.
    """

    request_number: int
    received_at_us: int
    door: str
    source: str
    credential: str
    accepted: int
    rejected: int
    bytes_in: int
    bytes_raw: int
    encoding: str
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    deduplicated: int = 0


# 2024-01-01T00:00:00Z in microseconds: 51 bits of microseconds last until 2095.
_EPOCH_US = 1_704_067_200_000_000
_SPREAD_BITS = 12


class RequestNumbers:
    """Request numbers: strictly rising 63-bit integers, time in the high bits.

    Rows are named after them (`id` = number and line), so they must never repeat, also after a
    restart with the clock set back: the topology calls `advance` with the newest stored one.
    """

    def __init__(self) -> None:
        self._last = 0
        # Spread, not secrecy; the operating system's source costs a system call a number.
        self._random_bits = random.Random().getrandbits

    def next(self) -> int:
        elapsed_us = time.time_ns() // 1000 - _EPOCH_US
        number = (elapsed_us << _SPREAD_BITS) | self._random_bits(_SPREAD_BITS)
        if number <= self._last:
            number = self._last + 1
        self._last = number
        return number

    def advance(self, number: int) -> None:
        self._last = max(self._last, number)


def request_id_text(number: int) -> str:
    """The form clients see: 16 lower-case hex digits. The SQL views print the same form."""
    return f"{number:016x}"


def natero_url(base: str, auth_key: str, api_key: str) -> str:
    """The address a Natero client posts to; `base` is scheme, host and port."""
    return f"{base.rstrip('/')}/v1/{auth_key}/{api_key}"


def log_url(base: str) -> str:
    """The address logs are posted to."""
    return f"{base.rstrip('/')}/api/v1/webhook/event/log"


def metric_url(base: str) -> str:
    """The address metrics are posted to."""
    return f"{base.rstrip('/')}/api/webhooks/custom"
