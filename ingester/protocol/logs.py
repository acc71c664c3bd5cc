"""Logs: bodies of the log and honest doors to rows with level, message and time (contract 3.2).

Why it looks like this: the properties named exactly as in the contract are all there is to most
logs, and are read a chunk at a time (`log_chunk`). A row for which that does not settle all three
(another case, a guess, a message that is no text) is read by `log_values`, which is the reference
for all of them.

1. The payload is kept as sent, without white space around it.
2. A log without a time of its own has the time of its arrival; what lies more than a day after
   that is no time. Both are fixed by `received_at_us`, so a replay gives the same rows.
3. On the log door any value is a log, and one bad line refuses the body. On the honest door only
   objects are, and a bad line is a reject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct

from ..errors import BodyTooLarge, MalformedBody
from ..messages import LineReject
from .body_decoder import BodyDecoder, BodyLimits, Spans, refused
from .chunk_shape import Array
from .form import FORM_NAMES, form_object, starts_like_json
from .json_text import WHITE_SPACE, JsonFault, is_truncated, json_fault, kind_of_text
from .log_chunk import LogReader, open_rows
from .log_columns import LogBatch
from .log_times import DAY_US, NO_TIME
from .log_values import (
    JSON_NAMES,
    NO_LEVEL,
    LogNames,
    LogRow,
    find_level,
    find_message,
    find_time,
    raw_objects,
    read_log,
    shape_of,
)

__all__ = [
    "HonestLogDecoder",
    "LogColumns",
    "LogDecoder",
    "LogDoorDecoder",
    "read_accepted_logs",
]


class LogColumns(Struct):
    """What was read out of some logs: see `LogBatch`."""

    levels: Array
    messages: list[str]
    times: Array

    def __repr__(self) -> str:
        return f"LogColumns({len(self.messages)} logs)"


class LogDecoder(BodyDecoder[LogRow, LogColumns, LogBatch]):
    """Reads logs; which bodies and values are taken is for the two doors below."""

    names: LogNames = JSON_NAMES
    received_at_us: int
    _reader: LogReader

    def read_text(self, text: bytes, line_number: int) -> LogRow | LineReject:
        fault = json_fault(text, self.limits.depth_max)
        value = text.strip(WHITE_SPACE)
        if fault is None and not self._takes_any_value and value[0] != 0x7B:
            kind = kind_of_text(value)
            advice = "; one object per line, without brackets" if kind == "an array" else ""
            fault = JsonFault("not_an_object", f"{kind}, not an object{advice}")
        if fault is not None:
            return refused(text, line_number, fault)
        return read_log(value, self.received_at_us, self._latest_us, self.names)

    def read_chunk(self, chunk: bytes, starts: Array, lengths: Array) -> LogColumns | None:
        logs = self._reader.decode(chunk, len(starts))
        if logs is None:
            return None
        levels = self._reader.levels(logs)
        messages = self._reader.messages(logs)
        times = self._reader.times(logs, self._latest_us)
        columns = LogColumns(levels, messages, times)
        places = open_rows(levels, messages, times)
        if places:
            self._settle(columns, places, chunk, starts, lengths)
        return columns

    def _settle(
        self, columns: LogColumns, places: list[int], chunk: bytes, starts: Array, lengths: Array
    ) -> None:
        """Read exactly what is still open of the rows at `places`."""
        levels, messages, times = columns.levels, columns.messages, columns.times
        firsts, sizes = starts[places].tolist(), lengths[places].tolist()
        texts = [chunk[first : first + size] for first, size in zip(firsts, sizes, strict=True)]
        raws = raw_objects.decode_lines(b"\n".join(texts))
        level_codes, times_us = levels[places].tolist(), times[places].tolist()
        for row, (place, text, raw) in enumerate(zip(places, texts, raws, strict=True)):
            shape = shape_of(raw, self.names)
            if level_codes[row] == NO_LEVEL:
                level_codes[row] = find_level(raw, shape)
            if not messages[place]:
                messages[place] = find_message(raw, shape, text)
            if times_us[row] == NO_TIME:
                time_us = find_time(raw, shape, self._latest_us) if shape.time else NO_TIME
                times_us[row] = self.received_at_us if time_us == NO_TIME else time_us
        levels[places] = level_codes
        times[places] = times_us

    def gather(self, rows: list[LogRow]) -> LogColumns:
        return LogColumns(
            np.array([row.level for row in rows], np.uint8),
            [row.message for row in rows],
            np.array([row.time_us for row in rows], np.int64),
        )

    def join(self, parts: list[LogColumns]) -> LogColumns:
        return LogColumns(
            np.concatenate([part.levels for part in parts]),
            [message for part in parts for message in part.messages],
            np.concatenate([part.times for part in parts]),
        )

    def make_batch(self, columns: LogColumns, data: bytes, spans: Spans) -> LogBatch:
        return LogBatch(
            columns.levels,
            columns.messages,
            columns.times,
            data,
            spans.starts,
            spans.lengths,
            spans.line_numbers,
        )

    @property
    def _latest_us(self) -> int:
        return self.received_at_us + DAY_US


class HonestLogDecoder(LogDecoder):
    """A body of `POST /ingest/{source}`: objects as lines, alone, or in one array.

    `is_form`: its type is `application/x-www-form-urlencoded`. A form is one line without `{`, `[`
    or `"` before it; anything longer is lines, as curl says form of everything.
    """

    def __init__(
        self,
        limits: BodyLimits,
        *,
        received_at_us: int,
        rejects_max: int,
        is_plain: bool,
        is_form: bool = False,
        keep_going: bool = True,
    ) -> None:
        super().__init__(limits, rejects_max=rejects_max, is_plain=is_plain, keep_going=keep_going)
        self.received_at_us = received_at_us
        self._reader = LogReader()
        # Held while it may be a form; then None.
        self._form: bytearray | None = bytearray() if is_form else None

    def feed(self, piece: bytes) -> list[LogBatch]:
        if self._form is None:
            return super().feed(piece)
        self._form += piece
        text = self._form.strip(WHITE_SPACE)
        if b"\n" in text or starts_like_json(text) or len(text) > self.limits.line_bytes_max:
            body, self._form = bytes(self._form), None
            return super().feed(body)
        return []

    def finish(self) -> Iterator[LogBatch | None]:
        if self._form is not None:
            body, self._form = bytes(self._form), None
            try:
                fields = None if is_truncated(body) is None else form_object(body)
            except MalformedBody:  # bytes that are not UTF-8: a reject says so
                fields = None
            if fields is not None:
                self.names = FORM_NAMES
            yield from super().feed(body if fields is None else fields)
        yield from super().finish()


class LogDoorDecoder(LogDecoder):
    """A body of the log door: raises MalformedBody or BodyTooLarge instead of rejecting a line.

    `is_form`: its type is `application/x-www-form-urlencoded`, which curl says of everything. What
    starts like JSON streams all the same; the rest is held whole, and read as a form if it is no
    JSON.
    """

    def __init__(
        self, limits: BodyLimits, *, received_at_us: int, is_plain: bool, is_form: bool = False
    ) -> None:
        super().__init__(
            limits, rejects_max=0, is_plain=is_plain, is_strict=True, takes_any_value=True
        )
        self.received_at_us = received_at_us
        self._reader = LogReader()
        # Held while it may be a form; then None.
        self._form: bytearray | None = bytearray() if is_form else None
        self._is_json: bool | None = None  # not known yet

    def feed(self, piece: bytes) -> list[LogBatch]:
        if self._form is None:
            return super().feed(piece)
        self._form += piece
        if self._is_json is None:
            self._is_json = starts_like_json(self._form)
        if self._is_json:
            body, self._form = bytes(self._form), None
            return super().feed(body)
        if len(self._form) > self.limits.value_bytes_max:
            at_most = self.limits.value_bytes_max
            raise BodyTooLarge(f"a form may have at most {at_most} bytes; send JSON lines instead")
        return []

    def finish(self) -> Iterator[LogBatch | None]:
        if self._form is not None:
            body, self._form = bytes(self._form), None
            fields = None if is_truncated(body) is None else form_object(body)
            if fields is None:
                yield from super().feed(body)
            else:
                self.names = FORM_NAMES
                yield from super().feed(fields)
        yield from super().finish()
        if not self.accepted_count:
            raise MalformedBody("the body is empty; send one JSON value, or one a line")


def read_accepted_logs(texts: Sequence[bytes], received_at_us: Sequence[int]) -> list[LogRow]:
    """`read_log` of each: sound objects, each on one line, with the time of its arrival."""
    reader = LogReader()
    logs = reader.decode(b"\n".join(texts), len(texts))
    if logs is None:  # a number that is too large for its type
        both = zip(texts, received_at_us, strict=True)
        return [read_log(text, at_us, at_us + DAY_US, JSON_NAMES) for text, at_us in both]
    levels = reader.levels(logs)
    messages = reader.messages(logs)
    # What is later than a day after the first may still be a time: it is looked at below.
    times = reader.times(logs, min(received_at_us) + DAY_US)
    rows = list(map(LogRow, levels.tolist(), messages, times.tolist()))
    for place in open_rows(levels, messages, times):
        at_us = received_at_us[place]
        rows[place] = read_log(texts[place], at_us, at_us + DAY_US, JSON_NAMES)
    return rows
