"""When a delivery is tried again, read out of the answer and the number of attempts.

1. 2xx is success. 410 says that nobody wants this any more. 400 and 422 of incident.io are final:
   the same body would be refused again. Everything else is tried again, redirects included.
2. The wait is that of the schedule, ± 20 % so that what failed together does not come together, or
   what the answer asks for (`Retry-After`, or the date in an incident.io body) when that is longer,
   24 h at most. Nothing is tried sooner than it was asked for.
3. After the twelfth attempt, some 76 hours after the first, it is given up and kept (dead letter).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec
from msgspec import Struct

__all__ = [
    "ATTEMPTS_MAX",
    "RETRY_AFTER_SECONDS_MAX",
    "WAITS_S",
    "Delivered",
    "Final",
    "Gone",
    "Outcome",
    "Retry",
    "judged",
    "maybe_retry_after_s",
]

# Before each attempt, counted from the end of the one before (contract section 7).
WAITS_S = (0, 5, 30, 120, 600, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
ATTEMPTS_MAX = len(WAITS_S)
RETRY_AFTER_SECONDS_MAX = 86_400.0

_JITTER = 0.2

_FAULTS_SHOWN_MAX = 5
_FAULT_CHARACTERS_MAX = 200

# The receiver asks everyone to slow down, not this delivery alone.
_SLOW_DOWN = frozenset({429, 503})


class Delivered(Struct, frozen=True):
    """The receiver has it."""


class Retry(Struct, frozen=True):
    """Again after so long. `pause_s`: the destination takes nothing else before either."""

    after_s: float
    pause_s: float = 0.0


class Final(Struct, frozen=True):
    """Never again by itself."""

    reason: str


class Gone(Struct, frozen=True):
    """The receiver is no more: its destination is disabled."""


Outcome = Delivered | Retry | Final | Gone


class _RateLimit(Struct):
    retry_after: str | float | None = None


class _FaultSource(Struct):
    field: str = ""


class _Fault(Struct):
    message: str = ""
    source: _FaultSource | None = None


class _RefusalBody(Struct):
    """incident.io's body of a 422 or 429; what is not used is left out."""

    rate_limit: _RateLimit | None = None
    errors: list[_Fault] = []


def judged(
    status: int | None,
    headers: Mapping[str, str],
    body: bytes,
    *,
    attempt: int,
    is_incident_io: bool,
    now_s: float,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Outcome:
    """What follows from the answer to the attempt of that number (from 1). `status` None: there
    was none. Names of headers in lower case.
    """
    if status is not None and 200 <= status < 300:
        return Delivered()
    if status == 410:
        return Gone()
    if is_incident_io and status in (400, 422):
        return Final(f"incident.io would refuse it again{_faults_text(body)}")
    if attempt >= ATTEMPTS_MAX:
        return Final(f"given up after {attempt} attempts")
    wait_s = WAITS_S[attempt] * uniform(1 - _JITTER, 1 + _JITTER)
    asked_s = maybe_retry_after_s(headers.get("retry-after"), now_s)
    if asked_s is None and is_incident_io and status == 429:
        asked_s = _maybe_body_retry_s(body, now_s)
    if asked_s is None:
        return Retry(wait_s)
    return Retry(max(wait_s, asked_s), pause_s=asked_s if status in _SLOW_DOWN else 0.0)


def maybe_retry_after_s(value: str | None, now_s: float) -> float | None:
    """Seconds from now; of a number or a date (RFC 9110 10.2.3; RFC 3339 too). None for garbage."""
    if value is None or len(value) > 100:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), RETRY_AFTER_SECONDS_MAX)
    at = _maybe_date(value)
    if at is None:
        return None
    return min(max(0.0, at.timestamp() - now_s), RETRY_AFTER_SECONDS_MAX)


def _maybe_date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _maybe_body_retry_s(body: bytes, now_s: float) -> float | None:
    """incident.io: `{"rate_limit": {"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}}`."""
    limit = _refusal(body).rate_limit
    if limit is None or limit.retry_after is None:
        return None
    if isinstance(limit.retry_after, float):
        return min(max(0.0, limit.retry_after), RETRY_AFTER_SECONDS_MAX)
    return maybe_retry_after_s(limit.retry_after, now_s)


def _faults_text(body: bytes) -> str:
    """What incident.io has against an event: `: title is required`, "" when it does not say."""
    faults = []
    for fault in _refusal(body).errors[:_FAULTS_SHOWN_MAX]:
        field = "" if fault.source is None else fault.source.field
        faults.append(" ".join(filter(None, (field, fault.message)))[:_FAULT_CHARACTERS_MAX])
    return f": {'; '.join(faults)}" if any(faults) else ""


def _refusal(body: bytes) -> _RefusalBody:
    try:
        return msgspec.json.decode(body, type=_RefusalBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _RefusalBody()
