"""One body of the log or honest door: pieces in, batches of rows and rejects out.

Why it exists: logs, and events of the honest door, differ in what they read out of a value, not in
how a body is cut into values. `BodyDecoder` does the cutting and the counting; its subclasses read
a regular chunk in one call (`read_chunk`) or one text exactly (`read_text`), and both ways must
agree on every text.

1. A body is one value or lines (`value_framer`). Of one value that is an array, each element is a
   row, numbered from 1; `takes_any_value` says that only an array of nothing but objects is.
2. Every line or element is accepted or rejected. With `is_strict` the first reject raises instead:
   BodyTooLarge for a line that is too long, else MalformedBody, naming line and column.
3. A chunk that cannot be read in one call is halved until the lines at fault are few; where many
   are, each is looked at instead.
4. An array is held whole (at most `value_bytes_max`), but its rows are made in batches of
   `_BATCH_BYTES`: `finish` is an iterator. It yields None where that much was looked at and gave
   no rows, so that the caller's turn can end: sixteen megabytes of rejects take seconds.
5. `feed` looks at no more than a piece and `_FEED_BYTES`: of what was held until it turned out to
   be lines, the rest is left to the next calls.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

import numpy as np
from msgspec import Struct, structs

from ..errors import BodyTooLarge, MalformedBody
from ..messages import LineReject, RejectReason
from .chunk_shape import Array, ChunkShape
from .event_lines import GZIP_HEAD, ZSTD_HEAD, wrong_encoding
from .json_text import JsonFault, array_elements, grammar_fault
from .ndjson import BLANK, EXCERPT_BYTES_MAX, OverlongLine
from .value_framer import ValueFramer, WholeValue

__all__ = ["BodyDecoder", "BodyLimits", "Spans", "refused"]

# Below this halving costs more than looking at each line.
_SPAN_BYTES = 8 * 1024
# One line in so many refused: the next chunk is not halved.
_DIRTY_SHARE = 32
_BATCH_BYTES = 256 * 1024
# What an element costs beside its bytes, in bytes: groups of small ones end sooner.
_ELEMENT_COST_BYTES = 16
_FEED_BYTES = 1024 * 1024
# What is as large as this and gives no rows ends a turn.
_QUIET_BYTES_MAX = 64 * 1024
# Looked at without decoding them.
_ELEMENTS_PER_TURN = 16_384

Row = TypeVar("Row")
Columns = TypeVar("Columns")
Batch = TypeVar("Batch")


class BodyLimits(Struct, frozen=True):
    """What the configuration allows."""

    line_bytes_max: int = 1024 * 1024
    value_bytes_max: int = 16 * 1024 * 1024
    depth_max: int = 128


class Spans(Struct):
    """Where accepted texts lie in a chunk, and their numbers within the body."""

    starts: Array
    lengths: Array
    line_numbers: Array


class BodyDecoder(Generic[Row, Columns, Batch]):
    """One instance a body; used by one thread at a time. After an error it is of no more use.

    `rejects` holds at most `rejects_max` of them; `rejected_count` counts all. Without `keep_going`
    nothing is looked at after the first reject (`is_stopped`).
    """

    # Below this a look at each line costs less than what is done once a chunk.
    chunk_bytes_min = 6 * 1024

    def __init__(
        self,
        limits: BodyLimits,
        *,
        rejects_max: int,
        is_plain: bool,
        is_strict: bool = False,
        takes_any_value: bool = False,
        keep_going: bool = True,
    ) -> None:
        self.limits = limits
        self.accepted_count = 0
        self.rejected_count = 0
        self.reasons: Counter[RejectReason] = Counter()
        self.rejects: list[LineReject] = []
        self._rejects_left = rejects_max
        self._is_strict = is_strict
        self._takes_any_value = takes_any_value
        self._keep_going = keep_going
        self._framer = ValueFramer(limits.line_bytes_max, limits.value_bytes_max)
        self._shape = ChunkShape(limits.line_bytes_max, limits.depth_max)
        self._line_number = 1
        self._unit = "line"
        # Bytes of the start still to be seen before the body is known not to be compressed.
        self._head: bytes | None = b"" if is_plain else None
        # The first bytes of a body that is compressed and did not say so.
        self._compressed: bytearray | None = None
        # Whether halving was of no use for the last chunk that could not be taken whole.
        self._is_mostly_refused = False
        # What is still to be looked at: parts the framer has begun to give out, pieces behind them.
        self._parts: Iterator[bytes | OverlongLine] = iter(())
        self._waiting: deque[bytes] = deque()

    @abstractmethod
    def read_chunk(self, chunk: bytes, starts: Array, lengths: Array) -> Columns | None:
        """All lines of a regular chunk, or None if only a look at each can tell."""

    @abstractmethod
    def read_text(self, text: bytes, line_number: int) -> Row | LineReject:
        """One text; blanks around it count for columns only."""

    @abstractmethod
    def gather(self, rows: list[Row]) -> Columns:
        """Rows read one by one."""

    @abstractmethod
    def join(self, parts: list[Columns]) -> Columns:
        """Several as one; at least one."""

    @abstractmethod
    def make_batch(self, columns: Columns, data: bytes, spans: Spans) -> Batch:
        """What leaves the decoder; never empty."""

    @property
    def element_bytes_max(self) -> int:
        """How large an element of an array may be: as large as the body."""
        return self.limits.value_bytes_max

    @property
    def is_stopped(self) -> bool:
        """Whether the rest of the body no longer matters."""
        return not self._keep_going and self.rejected_count > 0

    def feed(self, piece: bytes) -> list[Batch]:
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
        self._waiting.append(piece)
        batches: list[Batch] = []
        left_bytes = _FEED_BYTES + len(piece)
        while left_bytes > 0 and (part := self._next_part()) is not None:
            left_bytes -= len(part.prefix) if isinstance(part, OverlongLine) else len(part)
            self._refuse_broken_value()
            if not self.is_stopped:
                batches += self._decode(part)
        return batches

    def _next_part(self) -> bytes | OverlongLine | None:
        """What is complete next of the pieces that have come, or None."""
        while (part := next(self._parts, None)) is None and self._waiting:
            self._parts = self._framer.feed(self._waiting.popleft())
        return part

    def _last_parts(self) -> Iterator[bytes | OverlongLine | WholeValue]:
        while (part := self._next_part()) is not None:
            yield part
        yield from self._framer.finish()

    def finish(self) -> Iterator[Batch | None]:
        """The body has ended. Exhaust it: rows are made and counted as it goes."""
        if self._head:
            head, self._head = self._head, None
            if head.startswith(GZIP_HEAD):
                self._compressed = bytearray(head)
            else:
                yield from self.feed(head)
        if self._compressed is not None:
            self._reject(wrong_encoding(bytes(self._compressed)))
            return
        for part in self._last_parts():
            self._refuse_broken_value()
            if self.is_stopped:
                return
            if isinstance(part, WholeValue):
                yield from self._decode_value(part)
            else:
                is_small = isinstance(part, OverlongLine) or len(part) < _QUIET_BYTES_MAX
                yield from self._decode(part) if is_small else _or_none(self._decode(part))

    def take_rejects(self) -> list[LineReject]:
        """The rejects kept since the last call: a long upload stores them as it goes."""
        rejects, self.rejects = self.rejects, []
        return rejects

    def _refuse_broken_value(self) -> None:
        """A value over several lines with a fault in the seventh is not at fault in the first."""
        broken = self._framer.broken_value
        if self._is_strict and broken is not None:
            fault = grammar_fault(broken.text)
            assert fault is not None
            if fault.reason == "several_values" and b"\n" in broken.text[: fault.column].rstrip():
                # What follows may be sound: it is the first value that is no line.
                fault = JsonFault("several_values", "a value before others stands on one line", 0)
            self._reject(_placed(broken, refused(broken.text, broken.line_number, fault)))

    def _decode_value(self, value: WholeValue) -> Iterator[Batch | None]:
        text = value.text
        is_array = yield from self._is_array(text)
        if is_array:
            self._shape.line_bytes_max = self.element_bytes_max
            self._line_number = 1
            self._unit = "element"
            for group in _groups(array_elements(text)):
                if self.is_stopped:
                    return
                part = b"\n".join(group) + b"\n"
                rows = self._decode_texts(group) if b"\n" in text else self._decode(part)
                is_small = len(group) * _ELEMENT_COST_BYTES + len(part) < _QUIET_BYTES_MAX
                yield from rows if is_small else _or_none(rows)
            return
        self._line_number = value.line_number
        outcome = self.read_text(text, value.line_number)
        if isinstance(outcome, LineReject):
            self._reject(_placed(value, outcome))
        else:
            yield self._batch_of([outcome], [text], [value.line_number])

    def _is_array(self, text: bytes) -> Generator[None, None, bool]:
        """Whether the value stands for its elements; looks at all of them by turns."""
        if text[0] != 0x5B:
            return False
        if not self._takes_any_value:
            return True
        count = 0
        for count, element in enumerate(array_elements(text), 1):
            if element[0] != 0x7B:
                return False
            if count % _ELEMENTS_PER_TURN == 0:
                yield None
        return count > 0

    def _decode_texts(self, texts: list[bytes]) -> Iterator[Batch]:
        """Texts that may hold line ends, one by one."""
        rows: list[Row] = []
        kept: list[bytes] = []
        numbers: list[int] = []
        for number, text in enumerate(texts, self._line_number):
            outcome = self.read_text(text, number)
            if isinstance(outcome, LineReject):
                self._reject(outcome)
            else:
                rows.append(outcome)
                kept.append(text)
                numbers.append(number)
        self._line_number += len(texts)
        if rows:
            yield self._batch_of(rows, kept, numbers)

    def _batch_of(self, rows: list[Row], texts: list[bytes], numbers: list[int]) -> Batch:
        self.accepted_count += len(rows)
        lengths = np.fromiter(map(len, texts), np.int32, len(texts))
        starts = np.zeros(len(texts), np.int32)
        np.cumsum(lengths[:-1], out=starts[1:])
        spans = Spans(starts, lengths, np.array(numbers, np.int64))
        return self.make_batch(self.gather(rows), b"".join(texts), spans)

    def _decode(self, part: bytes | OverlongLine | WholeValue) -> Iterator[Batch]:
        assert not isinstance(part, WholeValue)
        if isinstance(part, OverlongLine):
            number, self._line_number = self._line_number, self._line_number + 1
            if not part.is_blank:
                self._reject(self._too_long(part.prefix, part.byte_count, number))
            return
        if len(part) < self.chunk_bytes_min:
            found = self._decode_by_line(part, 0)
        elif (regular := self._decode_regular(part, 0)) is not None:
            found = regular
        else:
            first_line_number, rejected_before = self._line_number, self.rejected_count
            found = self._joined(list(self._decode_span(part, 0)))
            line_count = self._line_number - first_line_number
            refused_count = self.rejected_count - rejected_before
            self._is_mostly_refused = refused_count * _DIRTY_SHARE > line_count
        columns, spans = found
        if len(spans.starts):
            self.accepted_count += len(spans.starts)
            yield self.make_batch(columns, part, spans)

    def _decode_span(self, span: bytes, offset: int) -> Iterator[tuple[Columns, Spans]]:
        """A part of a chunk that cannot be taken whole: halve it until the lines at fault are few.

        One bad line in a chunk costs two decodes of it this way instead of one for every line.
        """
        middle = span.find(b"\n", len(span) // 2) + 1
        if self._is_mostly_refused or len(span) <= _SPAN_BYTES or middle == len(span):
            yield self._decode_by_line(span, offset)
            return
        for half, half_offset in ((span[:middle], offset), (span[middle:], offset + middle)):
            found = self._decode_regular(half, half_offset)
            if found is None:
                yield from self._decode_span(half, half_offset)
            else:
                yield found

    def _decode_regular(self, chunk: bytes, offset: int) -> tuple[Columns, Spans] | None:
        """One decode for all lines, or None if only a look at each line can tell."""
        lines = self._shape.regular_lines(chunk)
        if lines is None:
            return None
        starts, lengths = lines
        columns = self.read_chunk(chunk, starts, lengths)
        if columns is None:
            return None
        numbers = np.arange(self._line_number, self._line_number + len(starts), dtype=np.int64)
        self._line_number += len(starts)
        return columns, Spans(starts + np.int32(offset), lengths, numbers)

    def _decode_by_line(self, span: bytes, offset: int) -> tuple[Columns, Spans]:
        """Look at each line. Blank lines are passed over."""
        rows: list[Row] = []
        starts: list[int] = []
        lengths: list[int] = []
        numbers: list[int] = []
        known: dict[bytes, LineReject] = {}
        start = offset
        for raw in span.split(b"\n")[:-1]:
            number, line_start = self._line_number, start
            self._line_number += 1
            start += len(raw) + 1
            line = raw.removesuffix(b"\r")
            text = line.strip(BLANK)
            if not text or self.is_stopped:
                continue
            # A body of one bad line over and over is cheap to send and must be cheap to refuse.
            if (seen := known.get(line)) is not None:
                self._reject(seen, number)
                continue
            if len(line) > self._shape.line_bytes_max:
                outcome: Row | LineReject = self._too_long(line, len(line), number)
            else:
                outcome = self.read_text(line, number)
            if isinstance(outcome, LineReject):
                self._reject(outcome)
                known[line] = outcome
            else:
                rows.append(outcome)
                starts.append(line_start + len(line) - len(line.lstrip(BLANK)))
                lengths.append(len(text))
                numbers.append(number)
        spans = Spans(
            np.array(starts, np.int32), np.array(lengths, np.int32), np.array(numbers, np.int64)
        )
        return self.gather(rows), spans

    def _joined(self, parts: list[tuple[Columns, Spans]]) -> tuple[Columns, Spans]:
        if len(parts) == 1:
            return parts[0]
        spans = Spans(
            np.concatenate([part.starts for _, part in parts]),
            np.concatenate([part.lengths for _, part in parts]),
            np.concatenate([part.line_numbers for _, part in parts]),
        )
        return self.join([columns for columns, _ in parts]), spans

    def _too_long(self, prefix: bytes, byte_count: int, line_number: int) -> LineReject:
        detail = f"{byte_count} bytes, at most {self._shape.line_bytes_max} are taken"
        return LineReject(line_number, "too_long", detail, prefix[:EXCERPT_BYTES_MAX])

    def _reject(self, reject: LineReject, line_number: int = 0) -> None:
        if self._is_strict:
            raise _refusal(reject, self._unit)
        self.rejected_count += 1
        self.reasons[reject.reason] += 1
        if self._rejects_left:
            self._rejects_left -= 1
            if line_number:
                reject = structs.replace(reject, line_number=line_number)
            self.rejects.append(reject)


def refused(
    text: bytes, line_number: int, fault: JsonFault, field: str | None = None
) -> LineReject:
    """A fault in a text as the reject of its line."""
    kept = text[:EXCERPT_BYTES_MAX]
    return LineReject(line_number, fault.reason, fault.detail, kept, field, fault.column)


def _placed(value: WholeValue, reject: LineReject) -> LineReject:
    """A fault in a value that may span lines: its line and the column within that."""
    if not reject.column:
        return reject
    text, offset = value.text, reject.column - 1
    line_number = value.line_number + text.count(b"\n", 0, offset)
    column = offset - text.rfind(b"\n", 0, offset)
    return structs.replace(reject, line_number=line_number, column=column)


def _refusal(reject: LineReject, unit: str) -> BodyTooLarge | MalformedBody:
    """What a request is refused with for the sake of one line."""
    if reject.reason == "wrong_encoding":
        return MalformedBody(reject.detail)
    place = f"{unit} {reject.line_number}"
    if reject.reason == "too_long":
        return BodyTooLarge(f"{place}: {reject.detail}; split the value, or send it as the body")
    if reject.column:
        place += f", column {reject.column}"
    return MalformedBody(f"{place}: {reject.detail}")


def _or_none(batches: Iterator[Batch]) -> Iterator[Batch | None]:
    """`batches`, or None if there are none."""
    is_empty = True
    for batch in batches:
        is_empty = False
        yield batch
    if is_empty:
        yield None


def _groups(elements: Iterator[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for element in elements:
        group.append(element)
        size += len(element) + _ELEMENT_COST_BYTES
        if size >= _BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
