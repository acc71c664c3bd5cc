"""Events of a chunk in as few typed decodes as can be, around the lines that are at fault.

Why it exists: one typed decode of a chunk costs a tenth of one for each line, and a chunk of a
thousand lines often has one that is wrong. The decoder tells which value it failed at (`$[17]`) or
at which byte: the lines before it are decoded once more, it is looked at by itself
(`event_lines`), and the next decode begins behind it. So no line is decoded more than twice, and
one that `ChunkShape.lines` calls odd only by itself.

1. A decode is believed only if as many values come out as lines went in (`chunk_shape`).
2. Where the place of a fault is not told, or was not the place, each line is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType

from ..messages import LineReject
from .chunk_shape import Array, ChunkShape
from .event_lines import Event, EventRules, Millis, Name, Session, decode_line, strict_decoder
from .ndjson import BLANK

__all__ = ["EventRuns", "decode_accepted", "decode_chunk"]

_STRICT = EventRules()
# For lines that passed narrower ones.
_ACCEPTED = EventRules(line_bytes_max=1 << 62, depth_max=1 << 62, lenient_session=True)

_VALUE_AT_FAULT = re.compile(r"`\$\[(\d+)\]")
_BYTE_AT_FAULT = re.compile(r"\(byte (\d+)\)")


class _EitherSpelling(Struct, gc=False):
    accountId: Name | UnsetType = UNSET
    userId: Name | UnsetType = UNSET
    createdAt: Millis | UnsetType = UNSET
    action: Name | UnsetType = UNSET
    sessionId: Session | UnsetType | None = UNSET
    account_id: Name | UnsetType = UNSET
    user_id: Name | UnsetType = UNSET
    created_at: Millis | UnsetType = UNSET
    session_id: Session | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return "Event(…)"


_either = msgspec.json.Decoder(_EitherSpelling)


class EventRuns(Struct):
    """What was accepted of a chunk. `starts`, `lengths`: int32; `line_numbers`: int64. `line_count`
    is of all its lines.
    """

    events: list[Any]
    starts: Array
    lengths: Array
    line_numbers: Array
    line_count: int


class _Fault(Struct, frozen=True):
    """Where a decode failed: which value from 0, or which byte; neither is known of some."""

    value: int | None = None
    byte: int | None = None


def decode_accepted(chunk: bytes, lines: Sequence[bytes]) -> list[Any]:
    """The events of lines that were accepted before, `chunk` being all of them, LF behind each."""
    if not lines:
        return []
    for rules, is_either in ((_STRICT, False), (_STRICT, True), (_ACCEPTED, True)):
        found = _decode(chunk, len(lines), rules, is_either=is_either)
        if isinstance(found, list):
            return found
    events = [decode_line(line, 1, _ACCEPTED) for line in lines]
    assert not any(isinstance(event, LineReject) for event in events)
    return events


def decode_chunk(
    chunk: bytes,
    shape: ChunkShape,
    rules: EventRules,
    first_line_number: int,
    reject: Callable[[LineReject, int], None],
) -> EventRuns:
    """Every line of `chunk`, which ends with LF, accepted or rejected; blank ones are neither.
    `reject` is given a reason and the number of the line that it is for.
    """
    regular = shape.regular_lines(chunk)
    first: list[Any] | _Fault | None = None
    odd: list[int] = []
    if regular is None:
        starts, lengths, is_odd = shape.lines(chunk)
        odd = is_odd.nonzero()[0].tolist()
    else:
        starts, lengths = regular
        first = _decode(chunk, len(starts), rules, is_either=rules.lenient_session)
    count = len(starts)
    numbers = np.arange(first_line_number, first_line_number + count, dtype=np.int64)
    if isinstance(first, list):
        return EventRuns(first, starts, lengths, numbers, count)
    runs = _Runs(chunk, starts, lengths, rules, first_line_number, reject)
    low = 0
    for place in [*odd, count]:
        runs.take(low, place, first)
        if place < count:
            runs.look_at(place)
        low = place + 1
    kept = runs.is_accepted
    return EventRuns(
        runs.events,
        starts[kept].astype(np.int32),
        lengths[kept].astype(np.int32),
        numbers[kept],
        count,
    )


class _Runs:
    """Lines are taken in order. Where white space stands around an accepted one, `starts` and
    `lengths` are narrowed.
    """

    def __init__(
        self,
        chunk: bytes,
        starts: Array,
        lengths: Array,
        rules: EventRules,
        first_number: int,
        reject: Callable[[LineReject, int], None],
    ) -> None:
        self.events: list[Any] = []
        self.is_accepted = np.ones(len(starts), np.bool_)
        self._chunk = chunk
        self._view = memoryview(chunk)
        self._starts, self._lengths = starts, lengths
        # As sent: also the end of a run, and what a byte that is at fault is looked up in.
        self._bounds = np.append(starts, len(chunk))
        self._rules = rules
        self._first_number = first_number
        self._reject = reject
        self._refused: dict[bytes, LineReject] = {}

    def take(self, low: int, high: int, found: list[Any] | _Fault | None = None) -> None:
        """Lines of which none is odd; `found`: what a decode of them has come to."""
        is_either = self._rules.lenient_session
        while low < high:
            if found is None:
                found = self._decode(low, high, is_either=is_either)
            if isinstance(found, list):
                self.events += found
                return
            place = self._take_before(found, low, high, is_either=is_either)
            if place is None:
                for index in range(low, high):
                    self.look_at(index)
                return
            # The other spelling, and at once: probably all of them are spelt so.
            is_either = (self.look_at(place) and place == low) or is_either
            low, found = place + 1, None

    def look_at(self, index: int) -> bool:
        """One line by itself; whether it was accepted."""
        start, number = int(self._starts[index]), self._first_number + index
        line = self._chunk[start : start + int(self._lengths[index])]
        text = line.strip(BLANK)
        if not text:
            self.is_accepted[index] = False
            return False
        # A body of one bad line over and over is cheap to send and must be cheap to refuse.
        outcome: Any = self._refused.get(line) or decode_line(line, number, self._rules)
        if isinstance(outcome, LineReject):
            self._refused[line] = outcome
            self._reject(outcome, number)
            self.is_accepted[index] = False
            return False
        self.events.append(outcome)
        self._starts[index] = start + len(line) - len(line.lstrip(BLANK))
        self._lengths[index] = len(text)
        return True

    def _decode(self, low: int, high: int, *, is_either: bool) -> list[Any] | _Fault:
        span = self._view[self._bounds[low] : self._bounds[high]]
        return _decode(span, high - low, self._rules, is_either=is_either)

    def _take_before(self, fault: _Fault, low: int, high: int, *, is_either: bool) -> int | None:
        """Take what is before the line at fault; which one that is. None: it cannot be told."""
        if fault.value is not None:
            place = low + fault.value
        elif fault.byte is not None:
            at = int(self._bounds[low]) + fault.byte
            place = int(np.searchsorted(self._bounds, at, side="right")) - 1
        else:
            return None
        # An object that is not closed is found out at the line behind it.
        for candidate in (place, place - 1):
            if candidate == low:
                return low
            if low < candidate < high:
                before = self._decode(low, candidate, is_either=is_either)
                if isinstance(before, list):
                    self.events += before
                    return candidate
        return None


def _decode(
    chunk: bytes | memoryview, line_count: int, rules: EventRules, *, is_either: bool
) -> list[Any] | _Fault:
    """All lines in one decode. `is_either`: also in the other spelling, and for lenient rules."""
    if is_either:
        return _decode_either(chunk, line_count, rules)
    try:
        events: list[Any] = strict_decoder.decode_lines(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _fault_of(error)
    return events if len(events) == line_count else _Fault()


def _decode_either(
    chunk: bytes | memoryview, line_count: int, rules: EventRules
) -> list[Any] | _Fault:
    try:
        either = _either.decode_lines(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _fault_of(error)
    if len(either) != line_count:
        return _Fault()
    events: list[Any] = []
    for index, e in enumerate(either):
        account: Any = e.account_id if e.accountId is UNSET else e.accountId
        user: Any = e.user_id if e.userId is UNSET else e.userId
        created: Any = e.created_at if e.createdAt is UNSET else e.createdAt
        session: Any = e.session_id if e.sessionId is UNSET else e.sessionId
        action: Any = e.action
        if UNSET in (account, user, created, action):
            return _Fault(value=index)
        if session is UNSET or not session:
            if not rules.lenient_session:
                return _Fault(value=index)
            session = None
        events.append(Event(account, user, created, action, session))
    return events


def _fault_of(error: Exception) -> _Fault:
    message = str(error)
    if (match := _VALUE_AT_FAULT.search(message)) is not None:
        return _Fault(value=int(match[1]))
    if (match := _BYTE_AT_FAULT.search(message)) is not None:
        return _Fault(byte=int(match[1]))
    return _Fault()
