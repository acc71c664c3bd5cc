"""One JSON text, looked at exactly: what the store's JSON type would refuse in it, and its compact
form.

Why it exists: the log, metric and honest doors keep a payload as sent, so everything DuckDB's JSON
refuses for a whole batch at once has to be refused here for one value: bytes that are not UTF-8,
nesting beyond `depth_max`, half of a surrogate pair, and what is no JSON (RFC 8259).

1. A text with several faults is refused for the first of: UTF-8, depth, surrogates, grammar.
2. Every step is linear in the text: it may be megabytes, and made to hurt.

It judges grammar and bytes only, never what the value means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from ..messages import RejectReason
from .event_lines import BACKSLASH, lone_surrogate_at
from .ndjson import BLANK

__all__ = [
    "LONG_BYTES_MIN",
    "WHITE_SPACE",
    "JsonFault",
    "any_value",
    "array_elements",
    "compact",
    "grammar_fault",
    "is_truncated",
    "json_fault",
    "kind_of",
    "kind_of_text",
    "object_fields",
    "text_fault",
]

# White space of RFC 8259.
WHITE_SPACE = BLANK + b"\n"

_BYTE_POSITION = re.compile(r"\(byte (\d+)\)")
# A string (to the end of the text, if nothing closes it) or a bracket. Possessive: giving back what
# an open string matched would cost its length for every quote in it.
_NESTING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
# Escapes in a row, so that the halves of a pair stay together.
_ESCAPES = re.compile(rb"(?:\\(?:u[0-9a-fA-F]{4}|[^u]))+")
_SEPARATOR = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{,]|[\]}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_COMMA, _QUOTE = 0x2C, 0x22
_BEFORE_VALUE = WHITE_SPACE + b":"
# No name that matters is longer, all of it spelled as escapes.
_NAME_BYTES_MAX = 128
_BETWEEN = WHITE_SPACE + b","
# The decoder spends about 64 bytes on each element it has cut.
_ELEMENT_BYTES_MIN = 16
# A text as long as this is looked at by blocks, and not in one call that holds the interpreter
# lock: of 16 MiB made to hurt, one call may take seconds and half a gigabyte.
LONG_BYTES_MIN = 256 * 1024
_BLOCK_BYTES = 256 * 1024
_KINDS = {
    0x22: "a string",
    0x5B: "an array",
    0x7B: "an object",
    0x74: "a boolean",
    0x66: "a boolean",
    0x6E: "null",
}

_raw_value = msgspec.json.Decoder(msgspec.Raw)
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_any_value = msgspec.json.Decoder()
_string = msgspec.json.Decoder(str)
_encoder = msgspec.json.Encoder()


class JsonFault(Struct, frozen=True):
    """Why a text is refused. `column` counts bytes from 1; 0 where no place is meant."""

    reason: RejectReason
    detail: str
    column: int = 0


def text_fault(text: bytes, depth_max: int) -> JsonFault | None:
    """What is wrong with the bytes, whether or not they are JSON."""
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            detail = f"byte 0x{text[error.start]:02x} is not UTF-8"
            return JsonFault("invalid_utf8", detail, error.start + 1)
    if len(text) > depth_max and text.count(b"{") + text.count(b"[") > depth_max:
        column = _too_deep_at(text, depth_max)
        if column:
            return JsonFault("too_deep", f"more than {depth_max} levels of nesting", column)
    column = lone_surrogate_at(text)
    if column:
        return JsonFault("invalid_utf8", "half of a surrogate pair in an escape", column)
    return None


def json_fault(text: bytes, depth_max: int) -> JsonFault | None:
    """Why `text` is not one JSON value the store can hold; None if it is."""
    fault = text_fault(text, depth_max)
    return _fault_of_grammar(text) if fault is None else fault


def grammar_fault(text: bytes) -> JsonFault | None:
    """Why `text` is not one JSON value by grammar alone (see `is_truncated`)."""
    return _fault_of_grammar(_without_halves(text))


def _fault_of_grammar(text: bytes) -> JsonFault | None:
    """Of a text without half surrogates."""
    try:
        _raw_value.decode(text)
    except RecursionError:
        return JsonFault("too_deep", "too many levels of nesting")
    except msgspec.DecodeError as error:
        return _grammar_fault(text, str(error))
    return None


def is_truncated(text: bytes) -> bool | None:
    """Whether `text` could go on to be one JSON value; None if it is one already.

    Only grammar counts here: bytes that are not UTF-8 and half surrogates are passed over.
    """
    try:
        _raw_value.decode(_without_halves(text))
    except RecursionError:
        return False
    except msgspec.DecodeError as error:
        return "truncated" in str(error)
    return None


def array_elements(text: bytes) -> Iterator[bytes]:
    """The elements of an array as sent; `text` has no blanks around it, and `is_truncated` none.

    Elements much smaller than an object of the decoder are cut out one by one instead.
    """
    if text.count(b",") * _ELEMENT_BYTES_MIN > len(text):
        yield from _cut_elements(text)
        return
    start = 1
    for raw in _raw_list.decode(_without_halves(text)):
        length = len(memoryview(raw))
        while text[start] in _BETWEEN:
            start += 1
        yield text[start : start + length]
        start += length


def object_fields(text: bytes, wanted: Callable[[str], bool]) -> dict[str, msgspec.Raw]:
    """The properties of an object that are `wanted` by name, in order of first appearance; of equal
    names the last. `text` passed `json_fault`.

    For long texts: a decoder would hold all of them, and a million are half a gigabyte.
    """
    found: dict[str, msgspec.Raw] = {}
    for name, value in _cut_fields(text):
        if len(name) <= _NAME_BYTES_MAX and wanted(key := _string.decode(name)):
            found[key] = msgspec.Raw(value)
    return found


def any_value(raw: msgspec.Raw | bytes) -> Any:
    """The value of a text whose grammar was checked; a number beyond any double is infinite."""
    try:
        return _any_value.decode(raw)
    except msgspec.DecodeError:
        return float("inf")


def compact(text: bytes) -> str:
    """The value as sent without blanks, its strings escaping only what JSON demands.

    Order of keys, duplicates and the spelling of numbers stay. `text` passed `json_fault`.
    """
    packed = msgspec.json.format(text, indent=-1)
    if BACKSLASH in packed and (b"\\u" in packed or b"\\/" in packed):
        packed = _with_escapes_as_needed(packed)
    return packed.decode()


def kind_of(value: object) -> str:
    """How a decoded value is called in a sentence."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "an array" if isinstance(value, list) else "an object"


def kind_of_text(text: bytes) -> str:
    """The same for a JSON text without blanks before it."""
    return _KINDS.get(text[0], "a number")


def _cut_elements(text: bytes) -> Iterator[bytes]:
    depth, start = 0, 1
    for match in _SEPARATOR.finditer(text):
        byte = text[match.start()]
        if byte in b"[{":
            depth += 1
            continue
        if byte in b"]}":
            depth -= 1
        if depth == 0 or (byte == _COMMA and depth == 1):
            element = text[start : match.start()].strip(WHITE_SPACE)
            start = match.end()
            if element:  # of an empty array there is one cut, and nothing in it
                yield element


def _cut_fields(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names with their quotes, and values."""
    depth, name, start = 0, b"", 0
    for match in _SEPARATOR.finditer(text):
        byte = text[match.start()]
        if byte == _QUOTE:
            if depth == 1 and not name:
                name, start = match[0], match.end()
            continue
        if byte in b"[{":
            depth += 1
            continue
        if byte in b"]}":
            depth -= 1
        if name and (depth == 0 or (byte == _COMMA and depth == 1)):
            yield name, text[start : match.start()].lstrip(_BEFORE_VALUE).rstrip(WHITE_SPACE)
            name = b""


def _without_halves(text: bytes) -> bytes:
    """`text`, or one of the same length and grammar if half a surrogate pair is in it.

    Releases of the decoder differ in what they say of those, and none of them reads on.
    """
    return _SURROGATE.sub(rb"\\u0041", text) if lone_surrogate_at(text) else text


def _with_escapes_as_needed(text: bytes) -> bytes:
    if len(text) < LONG_BYTES_MIN:
        return _ESCAPES.sub(_as_needed, text)
    spelled = bytearray()
    start = 0
    for match in _ESCAPES.finditer(text):
        spelled += text[start : match.start()]
        spelled += _as_needed(match)
        start = match.end()
    spelled += text[start:]
    return bytes(spelled)


def _as_needed(match: re.Match[bytes]) -> bytes:
    return _encoder.encode(_string.decode(b'"%b"' % match[0]))[1:-1]


def _too_deep_at(text: bytes, depth_max: int) -> int:
    """The column (from 1) of the first bracket beyond `depth_max`, or 0. Strings do not count."""
    if len(text) >= LONG_BYTES_MIN and not _may_be_too_deep(text, depth_max):
        return 0
    depth = 0
    for match in _NESTING.finditer(text):
        byte = text[match.start()]
        if byte in b"[{":
            depth += 1
            if depth > depth_max:
                return match.start() + 1
        elif byte in b"]}":
            depth -= 1
    return 0


def _may_be_too_deep(text: bytes, depth_max: int) -> bool:
    """The same by columns, a hundredth of the time; certain of a text that is JSON."""
    # Same length, and no quote left that does not begin or end a string.
    octets = np.frombuffer(text.replace(b"\\\\", b"__").replace(b'\\"', b"__"), np.uint8)
    depth = 0
    is_inside = False
    for start in range(0, len(octets), _BLOCK_BYTES):
        block = octets[start : start + _BLOCK_BYTES]
        quotes = np.bitwise_xor.accumulate(block == 0x22) ^ is_inside
        is_inside = bool(quotes[-1])
        brackets = block & 0xDF  # 0x5B `[` and `{`, 0x5D `]` and `}`
        steps = (brackets == 0x5B).view(np.int8) - (brackets == 0x5D).view(np.int8)
        steps[quotes] = 0
        depths = np.cumsum(steps, dtype=np.int32)
        if depth + int(depths.max()) > depth_max:
            return True
        depth += int(depths[-1])
    return False


def _grammar_fault(text: bytes, message: str) -> JsonFault:
    match = _BYTE_POSITION.search(message)
    column = int(match[1]) + 1 if match else 0
    detail = _BYTE_POSITION.sub("", message).removeprefix("JSON is malformed:").strip()
    if "trailing characters" in message:
        # The decoder has stepped over the first of them.
        column -= 1
        if _starts_with_value(text[column - 1 :]):
            return JsonFault("several_values", "a second value behind the first", column)
    elif "truncated" in message:
        detail, column = "the text ends inside the value", len(text) + 1
    return JsonFault("invalid_json", detail, column)


def _starts_with_value(text: bytes) -> bool:
    try:
        _raw_value.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return "trailing characters" in str(error)
    return True
