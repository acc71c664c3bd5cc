"""One line of product events, looked at exactly: an event, or the reason against it.

Why it exists beside `events.py`: that module decodes whole chunks and comes here for the lines of
a chunk it cannot vouch for. This is the reference: both ways must agree on every line (a test
compares them). The rules are contract 3.1, the reasons the closed list of contract 3.5.

1. Acceptance is decided on the last of duplicate keys, and on the camelCase spelling where both
   are present.
2. A property that is not a column is only checked as far as the store's JSON type would refuse it:
   grammar, UTF-8, depth, lone surrogate escapes. Numbers of any size pass.
3. A line with several faults is refused for the first of: length, UTF-8, depth, surrogate escapes,
   grammar, kind of value, the properties in the order of `Event`.
4. Every step is linear in the line: it may be a megabyte, and made to hurt.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ..messages import LineReject, RejectReason
from .ndjson import BLANK, EXCERPT_BYTES_MAX

__all__ = [
    "BACKSLASH",
    "CREATED_AT_MS_END",
    "GZIP_HEAD",
    "ZSTD_HEAD",
    "Event",
    "EventRules",
    "Millis",
    "Name",
    "Session",
    "decode_line",
    "lone_surrogate_at",
    "strict_decoder",
    "too_long",
    "wrong_encoding",
]

CREATED_AT_MS_END = 253_402_300_800_000  # 10000-01-01T00:00:00Z
NAME_CHARACTERS_MAX = 1024
BACKSLASH = 0x5C  # one number, because `bytes` looks for it seven times faster than for b"\\"
GZIP_HEAD = b"\x1f\x8b"
ZSTD_HEAD = b"\x28\xb5\x2f\xfd"

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
Session = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
Millis = Annotated[float, Meta(ge=0, lt=CREATED_AT_MS_END)]

# A lone surrogate needs one of these; a hit is then looked at closely.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_BYTE_POSITION = re.compile(r"\(byte (\d+)\)")
_grammar = msgspec.json.Decoder(msgspec.Raw)
# A string (to the end of the line, if nothing closes it) or a bracket. Possessive: giving back what
# an open string matched would cost its length for every quote in it.
_NESTING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_KINDS = {b'"': "a string", b"[": "an array", b"t": "a boolean", b"f": "a boolean", b"n": "null"}

_MISSING: tuple[RejectReason, str] = ("missing_field", "is missing")
_SPELLINGS = (
    ("accountId", "account_id"),
    ("userId", "user_id"),
    ("createdAt", "created_at"),
    ("action", "action"),
    ("sessionId", "session_id"),
)


class EventRules(Struct, frozen=True):
    """What a source and the configuration allow."""

    line_bytes_max: int = 1024 * 1024
    depth_max: int = 128
    lenient_session: bool = False


class Event(Struct, gc=False):
    """The columns of one event. `sessionId` is None only under `lenient_session`."""

    accountId: Name
    userId: Name
    createdAt: Millis
    action: Name
    sessionId: Name | None

    def __repr__(self) -> str:
        return "Event(…)"


class _Strict(Struct, gc=False):
    accountId: Name
    userId: Name
    createdAt: Millis
    action: Name
    sessionId: Name

    def __repr__(self) -> str:
        return "Event(…)"


strict_decoder = msgspec.json.Decoder(_Strict)
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_value = msgspec.json.Decoder(msgspec.Raw)
_any_value = msgspec.json.Decoder()


def decode_line(line: bytes, line_number: int, rules: EventRules) -> Any | LineReject:
    """One line without its line end, not blank: an `Event`-shaped struct, or the reason against it.

    Columns and the kept bytes are those of the line as sent, white space around it included.
    """
    if len(line) > rules.line_bytes_max:
        return too_long(line, len(line), line_number, rules)
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return _refuse(
                line,
                line_number,
                "invalid_utf8",
                f"byte 0x{line[error.start]:02x} is not UTF-8",
                column=error.start + 1,
            )
    if line.count(b"{") + line.count(b"[") > rules.depth_max:
        column = _too_deep_at(line, rules.depth_max)
        if column:
            detail = f"more than {rules.depth_max} levels of nesting"
            return _refuse(line, line_number, "too_deep", detail, column=column)
    if not rules.lenient_session:
        try:
            event = strict_decoder.decode(line)
        except (msgspec.DecodeError, RecursionError):
            pass
        else:
            # Releases of msgspec differ in whether they see escapes in what they skip.
            column = lone_surrogate_at(line)
            return event if not column else _refuse_surrogate(line, line_number, column)
    return _decode_closely(line, line_number, rules)


def _too_deep_at(line: bytes, depth_max: int) -> int:
    """The column (from 1) of the first bracket beyond `depth_max`, or 0. Strings do not count."""
    depth = 0
    for match in _NESTING.finditer(line):
        byte = line[match.start()]
        if byte in b"[{":
            depth += 1
            if depth > depth_max:
                return match.start() + 1
        elif byte in b"]}":
            depth -= 1
    return 0


def lone_surrogate_at(text: bytes) -> int:
    """The column (from 1) of the first surrogate escape without its other half, or 0."""
    if BACKSLASH not in text or _SURROGATE.search(text) is None:
        return 0
    high_end = -1  # where the low half must start
    high_start = 0
    for match in _ESCAPE.finditer(text):
        code = int(match[1], 16) if match[1] else 0
        is_low = 0xDC00 <= code < 0xE000
        if high_end >= 0:
            if not is_low or match.start() != high_end:
                return high_start + 1
            high_end = -1
        elif is_low:
            return match.start() + 1
        elif 0xD800 <= code < 0xDC00:
            high_start, high_end = match.span()
    return high_start + 1 if high_end >= 0 else 0


def _decode_closely(line: bytes, line_number: int, rules: EventRules) -> Event | LineReject:
    """The slow, exact way: which property is wrong, and why."""
    column = lone_surrogate_at(line)
    if column:
        return _refuse_surrogate(line, line_number, column)
    try:
        raw = _raw_object.decode(line)
    except RecursionError:
        return _refuse(line, line_number, "too_deep", "too many levels of nesting")
    except msgspec.ValidationError:
        return _not_an_object(line, line_number)
    except msgspec.DecodeError as error:
        return _not_json(line, line_number, str(error))
    values: list[Any] = []
    value: Any
    for camel, snake in _SPELLINGS:
        field = camel if camel in raw else snake
        given = raw.get(field)
        optional = rules.lenient_session and camel == "sessionId"
        check = _check_created_at if camel == "createdAt" else _check_name
        value = None if given is None else _any_value_of(given)
        if optional and value in (None, ""):
            values.append(None)
            continue
        fault = _MISSING if given is None else check(value)
        if fault is not None:
            reason, text = fault
            return _refuse(line, line_number, reason, f"{camel} {text}", field=camel)
        values.append(value)
    account, user, created, action, session = values
    return Event(account, user, float(created), action, session)


def _any_value_of(raw: msgspec.Raw) -> Any:
    try:
        return _any_value.decode(raw)
    except msgspec.DecodeError:
        # The grammar was checked before; what is left is a number no double can hold.
        return float("inf")


def _check_name(value: object) -> tuple[RejectReason, str] | None:
    if not isinstance(value, str):
        return "wrong_type", f"must be a string, got {_kind(value)}"
    if not value:
        return "missing_field", "is empty"
    if len(value) > NAME_CHARACTERS_MAX:
        return "too_long", f"has {len(value)} characters, at most {NAME_CHARACTERS_MAX} are taken"
    return None


def _check_created_at(value: object) -> tuple[RejectReason, str] | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "wrong_type", f"must be a number, got {_kind(value)}"
    if not 0 <= value < CREATED_AT_MS_END:
        return "out_of_range", f"must be epoch milliseconds from 0 to {CREATED_AT_MS_END - 1}"
    return None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "an array" if isinstance(value, list) else "an object"


def _not_an_object(line: bytes, line_number: int) -> LineReject:
    """Reached when the first value is of another kind; whether it is JSON was not seen yet."""
    try:
        _raw_value.decode(line)
    except RecursionError:
        return _refuse(line, line_number, "too_deep", "too many levels of nesting")
    except msgspec.DecodeError as error:
        return _not_json(line, line_number, str(error))
    kind = _KINDS.get(line.lstrip(BLANK)[:1], "a number")
    advice = "; one event per line, without brackets" if kind == "an array" else ""
    detail = f"{kind}, not an object{advice}"
    return _refuse(line, line_number, "not_an_object", detail)


def _not_json(line: bytes, line_number: int, message: str) -> LineReject:
    if "invalid character" in message:
        message = _exact(line, message)
    match = _BYTE_POSITION.search(message)
    column = int(match[1]) + 1 if match else 0
    detail = _BYTE_POSITION.sub("", message).removeprefix("JSON is malformed:").strip()
    if "trailing characters" in message:
        # The decoder has stepped over the first of them.
        column -= 1
        if _starts_with_value(line[column - 1 :]):
            detail = "a second value on the line; one event per line"
            return _refuse(line, line_number, "several_values", detail, column=column)
    elif "truncated" in message:
        detail, column = "the line ends inside the value", len(line) + 1
    return _refuse(line, line_number, "invalid_json", detail, column=column)


def _exact(line: bytes, message: str) -> str:
    """The typed decoder looks at four letters at once and names the place behind them."""
    try:
        _grammar.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        return str(error) if "invalid character" in str(error) else message
    return message


def _starts_with_value(text: bytes) -> bool:
    try:
        _raw_value.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return "trailing characters" in str(error)
    return True


def _refuse_surrogate(line: bytes, line_number: int, column: int) -> LineReject:
    detail = "half of a surrogate pair in an escape"
    return _refuse(line, line_number, "invalid_utf8", detail, column=column)


def too_long(prefix: bytes, byte_count: int, line_number: int, rules: EventRules) -> LineReject:
    detail = f"{byte_count} bytes, at most {rules.line_bytes_max} are taken"
    return _refuse(prefix, line_number, "too_long", detail)


def wrong_encoding(head: bytes) -> LineReject:
    name = "gzip" if head.startswith(GZIP_HEAD) else "zstd"
    detail = f"the body looks like {name}; send it with Content-Encoding: {name}"
    return _refuse(head, 1, "wrong_encoding", detail)


def _refuse(
    line: bytes,
    line_number: int,
    reason: RejectReason,
    detail: str,
    *,
    field: str | None = None,
    column: int = 0,
) -> LineReject:
    kept = line[:EXCERPT_BYTES_MAX]
    return LineReject(line_number, reason, detail, kept, field, column)
