"""Logs of a whole chunk: one typed decode, then level, message and time by columns.

Why it exists: what most logs say under the names of the contract can be read of a thousand rows in
a few calls, of one row after the other it costs more than decoding. What these columns leave open
(`NO_LEVEL`, an empty message, `NO_TIME`) is for `log_values`, which is the reference: another case
of a name, a guess, a message that is no text.

Why the first of several is enough: a property that is absent, null or empty is no level, message
or time, so the first that is something decides, or leaves its row open.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, field

from .chunk_shape import Array
from .log_time_columns import read_times
from .log_times import NO_TIME
from .log_values import LEVEL_CHARACTERS_MAX, NO_LEVEL, level_code

__all__ = ["LogReader", "open_rows"]

_CODES_MAX = 1024


class _Log(Struct, gc=False):
    """The properties as named by the contract; anything else is skipped."""

    level: Any = None
    severity: Any = None
    message: str | None = None
    msg: str | None = None
    timestamp: Any = None
    time: Any = None
    ts: Any = None
    at_timestamp: Any = field(default=None, name="@timestamp")
    date: Any = None

    def __repr__(self) -> str:
        return "Log(…)"


class _AnyLog(_Log, gc=False):
    """The same where a message may be something else than text."""

    message: Any = None
    msg: Any = None

    def __repr__(self) -> str:
        return "Log(…)"


_text_decoder = msgspec.json.Decoder(_Log)
_any_decoder = msgspec.json.Decoder(_AnyLog)


class _Codes(dict[Any, int]):
    """`level_code` of values seen before. 0 and 1 stay out: False and True would find them."""

    def __missing__(self, value: Any) -> int:
        code = level_code(value)
        is_long = isinstance(value, str) and len(value) > LEVEL_CHARACTERS_MAX
        if not is_long and value not in (0, 1):
            if len(self) >= _CODES_MAX:
                self.clear()
            self[value] = code
        return code


_codes = _Codes()


class LogReader:
    """Of one body: where a message is no text once, it may be again."""

    def __init__(self) -> None:
        self._are_texts = True

    def decode(self, lines: bytes, count: int) -> list[Any] | None:
        """Decoded logs of `count` sound lines, or None if only a look at each can tell."""
        try:
            logs = self._decode(lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return logs if len(logs) == count else None

    def _decode(self, lines: bytes) -> list[Any]:
        if self._are_texts:
            try:
                return _text_decoder.decode_lines(lines)
            except msgspec.ValidationError:
                self._are_texts = False
        return _any_decoder.decode_lines(lines)

    def messages(self, logs: list[Any]) -> list[Any]:
        """Texts; where there is none yet, what is false."""
        if self._are_texts:
            return [log.message or log.msg for log in logs]
        return [_message(log) for log in logs]

    def levels(self, logs: list[Any]) -> Array:
        """uint8; `NO_LEVEL` where a level is to be looked for."""
        values = [
            log.severity if (level := log.level) is None else level  # 0 is a level
            for log in logs
        ]
        try:
            return np.fromiter(map(_codes.__getitem__, values), np.uint8, len(values))
        except TypeError:  # a list or an object
            return np.fromiter(map(level_code, values), np.uint8, len(values))

    def times(self, logs: list[Any], latest_us: int) -> Array:
        """int64; `NO_TIME` where a time is to be looked for."""
        values = [
            log.timestamp or log.time or log.ts or log.at_timestamp or log.date for log in logs
        ]
        return read_times(values, latest_us)


def open_rows(levels: Array, messages: list[Any], times: Array) -> list[int]:
    """Where something is left open."""
    is_open = (levels == NO_LEVEL) | (times == NO_TIME)
    if not all(messages):
        is_open |= ~np.fromiter(map(bool, messages), np.bool_, len(messages))
    found: list[int] = is_open.nonzero()[0].tolist()
    return found


def _message(log: Any) -> str | None:
    """The message if that is a text, or the other one if there is none."""
    found = log.message
    if found is None or found == "":
        found = log.msg
    return found if isinstance(found, str) else None
