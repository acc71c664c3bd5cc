"""Event lines, good and bad, and a plain reading of contract 3.1 to hold the decoder against."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
from hypothesis import strategies as st

from ingester.messages import LineReject
from ingester.protocol.chunk_shape import Array, ChunkShape
from ingester.protocol.event_lines import EventRules
from ingester.protocol.events import EventBatch, EventDecoder
from ingester.protocol.inflate import Encoding
from ingester.protocol.requests import ENTRY_VERSION, JournalEntry

__all__ = [
    "GOOD",
    "Decoded",
    "LineByLine",
    "bodies",
    "decoded",
    "entry",
    "event_line",
    "is_utf8",
    "is_valid",
    "lines",
    "nested",
]

GOOD: dict[str, Any] = {
    "accountId": "acme",
    "userId": "u-1",
    "createdAt": 1_700_000_000_123,
    "action": "feature",
    "sessionId": "s-1",
}
SNAKE = {
    "accountId": "account_id",
    "userId": "user_id",
    "createdAt": "created_at",
    "sessionId": "session_id",
}


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def event_line(**changes: Any) -> bytes:
    """A valid event with `changes`; None drops a property."""
    event = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return json.dumps(event).encode()


def nested(depth: int, kind: bytes = b"[]") -> bytes:
    """A good event whose deepest bracket is the `depth`th."""
    opening = b'{"a":' if kind == b"{}" else b"["
    closing = b"}" if kind == b"{}" else b"]"
    inner = opening * (depth - 1) + b"1" + closing * (depth - 1) if depth > 1 else b"1"
    return event_line()[:-1] + b', "x": ' + inner + b"}"


def entry(
    body: bytes,
    *,
    rules: EventRules | None = None,
    number: int = 11,
    time_us: int = 13,
    source: str = "shop",
    encoding: Encoding = "identity",
    is_plain: bool = True,
    rejects_max: int = 10_000,
    key: str | None = None,
) -> JournalEntry:
    """What the journal holds of a request with `body`."""
    rules = rules or EventRules()
    return JournalEntry(
        version=ENTRY_VERSION,
        door="natero",
        source=source,
        credential="source:1",
        request_number=number,
        received_at_us=time_us,
        encoding=encoding,
        encoding_name=encoding,
        is_plain=is_plain,
        lenient_session=rules.lenient_session,
        line_bytes_max=rules.line_bytes_max,
        depth_max=rules.depth_max,
        rejects_max=rejects_max,
        idempotency_key=key,
        fingerprint=None if key is None else b"f" * 16,
        body=body,
    )


class Decoded(NamedTuple):
    """Everything a body came to."""

    accepted: list[tuple[int, bytes, tuple[object, ...]]]
    rejects: list[LineReject]
    reasons: dict[str, int]
    counts: tuple[int, int]


class _AllOdd(ChunkShape):
    """Sees no line that may be decoded together with another one."""

    def regular_lines(self, chunk: bytes) -> None:
        return None

    def lines(self, chunk: bytes) -> tuple[Array, Array, Array]:
        starts, lengths, is_odd = super().lines(chunk)
        return starts, lengths, np.ones_like(is_odd)


class LineByLine(EventDecoder):
    """The decoder without any shortcut."""

    def __init__(self, rules: EventRules, *, rejects_max: int, is_plain: bool) -> None:
        super().__init__(rules, rejects_max=rejects_max, is_plain=is_plain)
        self._shape = _AllOdd(rules.line_bytes_max, rules.depth_max)


def decoded(
    pieces: list[bytes],
    rules: EventRules | None = None,
    *,
    decoder: type[EventDecoder] = EventDecoder,
    is_plain: bool = True,
    rejects_max: int = 10_000,
) -> Decoded:
    one = decoder(rules or EventRules(), rejects_max=rejects_max, is_plain=is_plain)
    batches = [batch for piece in pieces for batch in one.feed(piece)]
    batches += one.finish()
    accepted = [row for batch in batches for row in rows_of(batch)]
    return Decoded(
        accepted, one.take_rejects(), dict(one.reasons), (one.accepted_count, one.rejected_count)
    )


def rows_of(batch: EventBatch) -> Iterator[tuple[int, bytes, tuple[object, ...]]]:
    for event, start, length, number in zip(
        batch.events, batch.starts, batch.lengths, batch.line_numbers, strict=True
    ):
        yield int(number), batch.data[start : start + length], msgspec.structs.astuple(event)


def is_valid(line: bytes, rules: EventRules) -> bool:
    """Contract 3.1 with the standard library's JSON; `line` has no line end."""
    if len(line) > rules.line_bytes_max:
        return False
    try:
        text = line.decode()
        event = json.loads(text, parse_constant=_refuse, parse_int=float, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        return False
    if not isinstance(event, _Object) or _depth(event) > rules.depth_max or _has_half_pair(text):
        return False
    for camel in GOOD:
        value = event.get(camel if camel in event else SNAKE.get(camel, camel))
        if camel == "createdAt":
            if not isinstance(value, float) or not 0 <= value < 253402300800000:
                return False
        elif camel == "sessionId" and rules.lenient_session and value in (None, ""):
            continue
        elif not isinstance(value, str) or not 1 <= len(value) <= 1024:
            return False
    return True


def _refuse(_: str) -> None:
    raise ValueError("not JSON")


class _Object(dict[str, Any]):
    """Knows how deep it was as sent: of duplicate keys all count."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.depth = 1 + max((_depth(value) for _, value in pairs), default=0)


def _depth(value: object) -> int:
    if isinstance(value, _Object):
        return value.depth
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _has_half_pair(text: str) -> bool:
    """Judged in the text, not in what came of it: of duplicate keys all must be storable."""
    escapes = re.sub(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\\\|\\[^u]", "", text)
    return re.search(r"\\u[dD][89a-fA-F]", escapes) is not None


_KEYS = [*GOOD, *SNAKE.values(), "x", "details", "\\u0061ction", "\\ud800", "\\ud83d\\ude00", ""]
_SCALARS = [
    b'"a"', b'""', b'"caf\xc3\xa9"', b'"\xf0\x9f\x98\x80"', b'"' + b"n" * 1024 + b'"',
    b'"' + b"n" * 1025 + b'"', b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\ude00\\ud83d"',
    b'"\\u0000"', b'"\\\\ud800"', b'"\\q"', b'"{[{["', b'"\\"[["', b'"\xff"', b'"\xed\xa0\x80"',
    b'"\xe2\x80\xa8"', b'"a\tb"', b'"open', b"1", b"0", b"-0", b"-1", b"1700000000123.9",
    b"253402300799999", b"253402300800000", b"1e3", b"1e400", b"-1e400", b"1e-400", b"9" * 400,
    b"1.", b".5", b"01", b"+1", b"true", b"false", b"null", b"nul", b"NaN", b"Infinity", b"[]",
    b"{}", b"[1, 2]", b"[1,]", b'{"a": 1}', b'{"a": 1,}', b"",
]  # fmt: skip
_NEST = [b"[" * n + b"]" * n for n in (2, 6, 7, 8, 9, 40)] + [
    b'{"a":' * n + b"1" + b"}" * n for n in (6, 7, 8)
]
_BLANKS = st.sampled_from([b"", b"", b"", b" ", b"\t", b"  \r"])


@st.composite
def _objects(draw: st.DrawFn) -> bytes:
    """An event with a few properties replaced, repeated or added: valid more often than not."""
    parts = []
    for camel, value in GOOD.items():
        key = draw(st.sampled_from([camel, camel, camel, SNAKE.get(camel, camel)]))
        parts.append((key.encode(), json.dumps(value).encode()))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        key = draw(st.sampled_from(_KEYS)).encode()
        value = draw(st.sampled_from(_SCALARS + _NEST))
        position = draw(st.integers(0, len(parts)))
        if draw(st.booleans()) and position < len(parts):
            parts[position] = (parts[position][0], value)
        else:
            parts.insert(position, (key, value))
    if draw(st.sampled_from([False] * 7 + [True])):
        parts.pop(draw(st.integers(0, len(parts) - 1)))
    space = draw(_BLANKS)
    return b"{" + b",".join(b'"%b":%b%b' % (k, space, v) for k, v in parts) + b"}"


_ODD = st.sampled_from([
    b"", b" ", b"\t \r", b"{", b"}", b"[", b"]", b"{}", b"{} {}", b"}{", b"x", b"\x00", b"1 2",
    b'"', b"\\", b"\xef\xbb\xbf{}", b"\xff\xfe{", b"[" * 30, b"{" * 30, b'{"a":"b}', b'{c"}',
    b'{"a":[', b'{"b":1}', b"]}", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"#" * 3000,
])  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """One line, without its end; a value over several lines comes out as several."""
    kind = draw(st.integers(0, 9))
    if kind <= 5:
        line = draw(_objects())
    elif kind == 6:
        line = draw(_ODD)
    elif kind == 7:
        line = draw(_objects()) + draw(st.sampled_from([b"", b" ", b",", b"]"])) + draw(_objects())
    elif kind == 8:
        line = b"[" + draw(_objects()) + b"]"
    else:
        whole = draw(_objects())
        cut = draw(st.integers(0, len(whole)))
        line = whole[:cut] + draw(st.sampled_from([b"\n", b"", b"\r\n"])) + whole[cut:]
    return draw(_BLANKS) + line + draw(_BLANKS)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A body, and the same in pieces."""
    parts = draw(st.lists(st.tuples(lines(), st.sampled_from([b"\n", b"\n", b"\r\n"])), max_size=8))
    body = b"".join(line + end for line, end in parts)
    if draw(st.booleans()):
        body = body.removesuffix(b"\n")
    if draw(st.sampled_from([False] * 9 + [True])):
        body = b"\xef\xbb\xbf" + body
    cuts = draw(st.lists(st.integers(0, len(body)), max_size=6))
    edges = sorted({0, len(body), *cuts})
    return body, [body[a:b] for a, b in pairwise(edges)]
