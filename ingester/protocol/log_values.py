"""One JSON value as a log: its level, message and time (contract 3.2), read exactly.

Why it exists beside `logs.py`: that module reads whole chunks by columns and comes here for the
values it cannot vouch for. This is the reference: both ways must agree on every value (a test
compares them).

1. A property is found by its name exactly as written here, in the order of the contract; only if
   no such property is usable, by the same names ignoring case. Of other spellings that differ in
   case only, the one that first appears last counts; of duplicate keys the last.
2. A property is usable when it reads as a level, is a non-empty message, or is a time within
   bounds; null, "", [] and {} are no message. What is not usable is as good as absent.
3. `PRIORITY` in capitals, as syslog-ng and journald write it, is read after both.
4. A guess looks at every spelling: of the names present with something in them the most severe.

It refuses nothing: the text passed `json_text.json_fault` before.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from .json_text import LONG_BYTES_MIN, WHITE_SPACE, any_value, compact, object_fields
from .log_times import NO_TIME, read_time

__all__ = [
    "JSON_NAMES",
    "LEVELS",
    "LEVEL_CHARACTERS_MAX",
    "LEVEL_NAMES",
    "MESSAGE_NAMES",
    "NO_LEVEL",
    "TIME_NAMES",
    "LogNames",
    "LogRow",
    "LogShape",
    "RawObject",
    "find_level",
    "find_message",
    "find_time",
    "is_no_message",
    "level_code",
    "raw_objects",
    "read_log",
    "shape_of",
]

# By severity; a level is carried as its place in here.
LEVELS = (
    "trace",
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
NO_LEVEL = 255

LEVEL_NAMES = ("level", "severity")
MESSAGE_NAMES = ("message", "msg")
TIME_NAMES = ("timestamp", "time", "ts", "@timestamp", "date")
_SYSLOG_NAME = "PRIORITY"

_CODES = {name: code for code, name in enumerate(LEVELS)}
_INFO = _CODES["info"]
_TEXTS = _CODES | {
    alias: _CODES[name]
    for name, aliases in {
        "trace": ("verbose",),
        "debug": ("dbg",),
        "info": ("information", "informational"),
        "warning": ("warn",),
        "error": ("err",),
        "critical": ("crit", "fatal"),
        "emergency": ("emerg", "panic"),
    }.items()
    for alias in aliases
}
_SYSLOG = tuple(
    _CODES[name]
    for name in ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
)
# pino and bunyan: 10 trace … 60 fatal.
_TENS = tuple(_CODES[n] for n in ("trace", "debug", "info", "warning", "error", "critical"))
_GUESSES = {
    name: _CODES[level]
    for level, names in (
        ("emergency", ("emergency",)),
        ("alert", ("alert",)),
        ("critical", ("fatal", "critical")),
        ("error", ("error", "err", "exception")),
        ("warning", ("warn", "warning")),
        ("notice", ("notice",)),
        ("info", ("info",)),
        ("debug", ("debug",)),
    )
    for name in names
}
_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?")
# With blanks around it, as some formatters pad it.
LEVEL_CHARACTERS_MAX = 64
# Shapes remembered: what most senders send has few, and what has many is not worth remembering.
_SHAPES_MAX = 1024
_SHAPE_KEYS_MAX = 64

RawObject = dict[str, msgspec.Raw]

raw_objects = msgspec.json.Decoder(RawObject)


class LogNames:
    """Which properties may hold a level, a message, a time; the first usable one counts.

    `shapes` remembers, by the keys of an object, which of them matter.
    """

    def __init__(
        self, level: tuple[str, ...], message: tuple[str, ...], time: tuple[str, ...]
    ) -> None:
        self.level = level
        self.message = message
        self.time = time
        self.shapes: dict[tuple[str, ...], LogShape] = {}
        self._lower = {*level, *message, *time, *_GUESSES}

    def matter(self, key: str) -> bool:
        """Whether a property of that name may be looked at."""
        return key == _SYSLOG_NAME or key.lower() in self._lower


JSON_NAMES = LogNames(LEVEL_NAMES, MESSAGE_NAMES, TIME_NAMES)


class LogRow(Struct, gc=False):
    """What is read out of one log. `level` is a place in `LEVELS`."""

    level: int
    message: str
    time_us: int

    def __repr__(self) -> str:
        return f"LogRow({LEVELS[self.level]})"


class LogShape(Struct, frozen=True):
    """The keys of an object that may matter, in the order they are looked at."""

    level: tuple[str, ...]
    guess: tuple[tuple[str, int], ...]  # most severe first
    message: tuple[str, ...]
    time: tuple[str, ...]


def read_log(text: bytes, received_at_us: int, latest_us: int, names: LogNames) -> LogRow:
    """`text` is one JSON value, sound and without blanks around it.

    `received_at_us` is the time of a log that tells none; times after `latest_us` are no times.
    """
    if text[0] != 0x7B:
        message = any_value(text) if text[0] == 0x22 else compact(text)
        return LogRow(_INFO, message, received_at_us)
    if len(text) < LONG_BYTES_MIN:
        raw = raw_objects.decode(text)
    else:
        raw = object_fields(text, names.matter)
    shape = shape_of(raw, names)
    time_us = find_time(raw, shape, latest_us)
    return LogRow(
        find_level(raw, shape),
        find_message(raw, shape, text),
        received_at_us if time_us == NO_TIME else time_us,
    )


def shape_of(raw: RawObject, names: LogNames) -> LogShape:
    """Which keys of an object may matter."""
    if len(raw) > _SHAPE_KEYS_MAX:
        return _make_shape(raw, names)
    keys = tuple(raw)
    shape = names.shapes.get(keys)
    if shape is None:
        if len(names.shapes) >= _SHAPES_MAX:
            names.shapes.clear()
        shape = names.shapes[keys] = _make_shape(raw, names)
    return shape


def find_level(raw: RawObject, shape: LogShape) -> int:
    """The level an object names, else the guess."""
    for key in shape.level:
        level = level_code(any_value(raw[key]))
        if level != NO_LEVEL:
            return level
    for key, code in shape.guess:
        if _is_something(bytes(raw[key])):
            return code
    return _INFO


def find_message(raw: RawObject, shape: LogShape, text: bytes) -> str:
    """The message of an object, else the whole of it; `text` is the object as sent."""
    for key in shape.message:
        message = _message(raw[key])
        if message is not None:
            return message
    return compact(text)


def find_time(raw: RawObject, shape: LogShape, latest_us: int) -> int:
    """The time an object tells, else `NO_TIME`."""
    for key in shape.time:
        time_us = read_time(any_value(raw[key]), latest_us)
        if time_us != NO_TIME:
            return time_us
    return NO_TIME


def level_code(value: Any) -> int:
    """The level a `level` property names, or `NO_LEVEL`."""
    if isinstance(value, str):
        return _text_level(value) if len(value) <= LEVEL_CHARACTERS_MAX else NO_LEVEL
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NO_LEVEL
    return _number_level(value)


@lru_cache(maxsize=256)
def _text_level(text: str) -> int:
    text = text.strip().lower()
    if (code := _TEXTS.get(text)) is not None:
        return code
    return _number_level(float(text)) if _NUMBER.fullmatch(text) else NO_LEVEL


def _number_level(value: float) -> int:
    if 10 <= value <= 60:
        return _TENS[int(value) // 10 - 1]
    if 0 <= value <= 7 and value == int(value):
        return _SYSLOG[int(value)]
    return NO_LEVEL


def is_no_message(value: Any) -> bool:
    """Whether a `message` property is as good as absent."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def _message(raw: msgspec.Raw) -> str | None:
    text = bytes(raw)
    if text[0] == 0x22:
        return any_value(raw) or None
    packed = compact(text)
    return None if packed in ("null", "[]", "{}") else packed


def _is_something(text: bytes) -> bool:
    """Whether a value is neither null, false, zero nor empty."""
    first = text[0]
    if first in b"{[":
        return bool(text[1:-1].strip(WHITE_SPACE))
    if first == 0x22:
        return len(text) > 2
    if first in b"tfn":
        return first == 0x74
    return bool(any_value(text))


def _make_shape(raw: RawObject, names: LogNames) -> LogShape:
    lower = {key: key.lower() for key in raw}
    # The exact spelling is looked for by itself.
    folded = {low: key for key, low in lower.items() if key != low}
    guesses = [(key, _GUESSES[low]) for key, low in lower.items() if low in _GUESSES]
    level = _keys(raw, folded, names.level)
    return LogShape(
        (*level, _SYSLOG_NAME) if _SYSLOG_NAME in raw else level,
        tuple(sorted(guesses, key=lambda found: -found[1])),
        _keys(raw, folded, names.message),
        _keys(raw, folded, names.time),
    )


def _keys(raw: RawObject, folded: dict[str, str], names: tuple[str, ...]) -> tuple[str, ...]:
    exact = [name for name in names if name in raw]
    return (*exact, *(folded[name] for name in names if name in folded))
