"""Product events: NDJSON lines to validated rows, every line accepted or refused with a reason.

Why it looks like this (measured, 1 M events of 341 bytes, one core): one typed decode per chunk
costs 0.30 s, far less than one per line. So a chunk is decoded in one call, and only a chunk that
fails, or might not be one value per line, is looked at closely. Both ways give the same answer for
every line (tests compare them).

What makes a line valid is contract 3.1: one JSON object; `accountId`, `userId`, `action`,
`sessionId` non-empty strings of at most 1,024 characters; `createdAt` a number, epoch ms,
0 ≤ x < 253402300800000. snake_case spellings are the same properties, camelCase wins; of duplicate
keys the last one counts.

Invariants
1. `decode_lines` of msgspec is not bound to lines (two values on one line, or one value over two
   lines, both pass). A chunk is taken whole only if it is regular (`chunk_shape`), and as many
   values as lines come out.
2. Properties the struct does not name are skipped by the decoder unseen: UTF-8, nesting depth and
   lone surrogate escapes are checked for the whole line, because the JSON type of the store
   refuses them later, for a whole batch at once.
3. The line is kept as sent (without white space around it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType, structs

from ..messages import LineReject, RejectReason
from .chunk_shape import ChunkShape
from .event_lines import (
    GZIP_HEAD,
    ZSTD_HEAD,
    Event,
    EventRules,
    Millis,
    Name,
    Session,
    decode_line,
    strict_decoder,
    too_long,
    wrong_encoding,
)
from .ndjson import BLANK, EXCERPT_BYTES_MAX, LineFramer, OverlongLine

__all__ = ["EventBatch", "EventDecoder", "decode_accepted"]

# Below this halving costs more than looking at each line (some 20 events).
_SPAN_BYTES = 8 * 1024
# One line in so many refused: the next chunk is not halved.
_DIRTY_SHARE = 32

_STRICT = EventRules()
# For lines that passed narrower ones.
_ACCEPTED = EventRules(line_bytes_max=1 << 62, depth_max=1 << 62, lenient_session=True)


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


class EventBatch(Struct):
    """Accepted events of one chunk. `data[starts[i]:starts[i] + lengths[i]]` is line i as sent.

    `starts`, `lengths`: int32 arrays; `line_numbers`: int64, from 1 within the body.
    """

    events: list[Any]
    data: bytes
    starts: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]
    line_numbers: np.ndarray[Any, Any]

    def __repr__(self) -> str:
        return f"EventBatch({len(self.events)} events, {len(self.data)} bytes)"


class _Rows(Struct):
    """Accepted lines of a part of a chunk; `starts` count from the start of the chunk."""

    events: list[Any]
    starts: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]
    line_numbers: np.ndarray[Any, Any]


class EventDecoder:
    """Decode one body: bytes in (already inflated), batches and rejects out.

    `rejects` holds at most `rejects_max` of them; `rejected_count` counts all. One instance a
    body; used by one thread at a time.
    """

    def __init__(self, rules: EventRules, *, rejects_max: int, is_plain: bool) -> None:
        self.rules = rules
        self.accepted_count = 0
        self.rejected_count = 0
        self.reasons: Counter[RejectReason] = Counter()
        self.rejects: list[LineReject] = []
        self._rejects_left = rejects_max
        self._framer = LineFramer(rules.line_bytes_max)
        self._line_number = 1
        # Bytes of the start still to be seen before the body is known not to be compressed.
        self._head: bytes | None = b"" if is_plain else None
        # The first bytes of a body that is compressed and did not say so.
        self._compressed: bytearray | None = None
        # Whether halving was of no use for the last chunk that could not be taken whole.
        self._is_mostly_refused = False
        self._shape = ChunkShape(rules.line_bytes_max, rules.depth_max)

    def feed(self, piece: bytes) -> list[EventBatch]:
        """Take the next piece of the body."""
        if self._head is not None:
            self._head += piece
            if len(self._head) < len(ZSTD_HEAD):
                return []
            piece, self._head = self._head, None
            if piece.startswith((GZIP_HEAD, ZSTD_HEAD)):
                self._compressed = bytearray()
        if self._compressed is not None:
            self._compressed += piece[: EXCERPT_BYTES_MAX - len(self._compressed)]
            return []
        return [b for part in self._framer.feed(piece) if (b := self._decode(part)) is not None]

    def finish(self) -> list[EventBatch]:
        """The body has ended."""
        batches: list[EventBatch] = []
        if self._head:
            head, self._head = self._head, None
            if head.startswith(GZIP_HEAD):
                self._compressed = bytearray(head)
            else:
                batches = self.feed(head)
        if self._compressed is not None:
            self._reject(wrong_encoding(bytes(self._compressed)))
            return []
        parts = self._framer.finish()
        return batches + [b for part in parts if (b := self._decode(part)) is not None]

    def _decode(self, part: bytes | OverlongLine) -> EventBatch | None:
        if isinstance(part, OverlongLine):
            if not part.is_blank:
                self._reject(too_long(part.prefix, part.byte_count, self._line_number, self.rules))
            self._line_number += 1
            return None
        rows = self._decode_regular(part, 0)
        if rows is None:
            first_line_number, rejected_before = self._line_number, self.rejected_count
            rows = _joined(self._decode_span(part, 0))
            line_count = self._line_number - first_line_number
            refused_count = self.rejected_count - rejected_before
            self._is_mostly_refused = refused_count * _DIRTY_SHARE > line_count
        if not rows.events:
            return None
        self.accepted_count += len(rows.events)
        return EventBatch(rows.events, part, rows.starts, rows.lengths, rows.line_numbers)

    def _decode_span(self, span: bytes, offset: int) -> list[_Rows]:
        """A part of a chunk that cannot be taken whole: halve it until the lines at fault are few.

        One bad line in a chunk costs two decodes of it this way instead of one for every line.
        Where many lines are refused halving finds nothing to take, and each is looked at instead.
        """
        middle = span.find(b"\n", len(span) // 2) + 1
        if self._is_mostly_refused or len(span) <= _SPAN_BYTES or middle == len(span):
            return [self._decode_by_line(span, offset)]
        found: list[_Rows] = []
        for half, half_offset in ((span[:middle], offset), (span[middle:], offset + middle)):
            rows = self._decode_regular(half, half_offset)
            found += self._decode_span(half, half_offset) if rows is None else [rows]
        return found

    def _decode_regular(self, chunk: bytes, offset: int) -> _Rows | None:
        """One typed decode for all lines, or None if only a look at each line can tell."""
        lines = self._shape.regular_lines(chunk)
        if lines is None:
            return None
        starts, lengths = lines
        events = _decode_typed(chunk, len(starts), self.rules)
        if events is None:
            return None
        numbers = np.arange(self._line_number, self._line_number + len(starts), dtype=np.int64)
        self._line_number += len(starts)
        return _Rows(events, starts + np.int32(offset), lengths, numbers)

    def _decode_by_line(self, span: bytes, offset: int) -> _Rows:
        """Look at each line. Blank lines are passed over."""
        events: list[Any] = []
        starts: list[int] = []
        lengths: list[int] = []
        numbers: list[int] = []
        refused: dict[bytes, LineReject] = {}
        start = offset
        for raw in span.split(b"\n")[:-1]:
            number, line_start = self._line_number, start
            self._line_number += 1
            start += len(raw) + 1
            line = raw.removesuffix(b"\r")
            text = line.strip(BLANK)
            if not text:
                continue
            # A body of one bad line over and over is cheap to send and must be cheap to refuse.
            if (known := refused.get(line)) is not None:
                self._reject(known, number)
                continue
            outcome = decode_line(line, number, self.rules)
            if isinstance(outcome, LineReject):
                self._reject(outcome)
                refused[line] = outcome
            else:
                events.append(outcome)
                starts.append(line_start + len(line) - len(line.lstrip(BLANK)))
                lengths.append(len(text))
                numbers.append(number)
        return _Rows(
            events,
            np.array(starts, dtype=np.int32),
            np.array(lengths, dtype=np.int32),
            np.array(numbers, dtype=np.int64),
        )

    def _reject(self, reject: LineReject, line_number: int = 0) -> None:
        self.rejected_count += 1
        self.reasons[reject.reason] += 1
        if self._rejects_left:
            self._rejects_left -= 1
            if line_number:
                reject = structs.replace(reject, line_number=line_number)
            self.rejects.append(reject)

    def take_rejects(self) -> list[LineReject]:
        """The rejects kept since the last call: a long upload stores them as it goes."""
        rejects, self.rejects = self.rejects, []
        return rejects


def _joined(parts: list[_Rows]) -> _Rows:
    if len(parts) == 1:
        return parts[0]
    return _Rows(
        [event for part in parts for event in part.events],
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.line_numbers for part in parts]),
    )


def decode_accepted(chunk: bytes, lines: Sequence[bytes]) -> list[Any]:
    """The events of lines that were accepted before, `chunk` being all of them, LF behind each."""
    if not lines:
        return []
    events = _decode_typed(chunk, len(lines), _STRICT)
    if events is None:
        events = _decode_typed(chunk, len(lines), _ACCEPTED)
    if events is None:
        events = [decode_line(line, 1, _ACCEPTED) for line in lines]
        assert not any(isinstance(event, LineReject) for event in events)
    return events


def _decode_typed(chunk: bytes, line_count: int, rules: EventRules) -> list[Any] | None:
    events: list[Any]
    if not rules.lenient_session:
        try:
            events = strict_decoder.decode_lines(chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return events if len(events) == line_count else None
    try:
        either = _either.decode_lines(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(either) != line_count:
        return None
    events = []
    for e in either:
        account: Any = e.account_id if e.accountId is UNSET else e.accountId
        user: Any = e.user_id if e.userId is UNSET else e.userId
        created: Any = e.created_at if e.createdAt is UNSET else e.createdAt
        session: Any = e.session_id if e.sessionId is UNSET else e.sessionId
        action: Any = e.action
        if UNSET in (account, user, created, action):
            return None
        if session is UNSET or not session:
            if not rules.lenient_session:
                return None
            session = None
        events.append(Event(account, user, created, action, session))
    return events
