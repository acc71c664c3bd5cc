"""Bodies of the log and honest doors, and plainly what each comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ingester.errors import BodyTooLarge, MalformedBody
from ingester.messages import LineReject
from ingester.protocol.body_decoder import BodyLimits
from ingester.protocol.log_columns import LogBatch
from ingester.protocol.log_values import LEVELS
from ingester.protocol.logs import HonestLogDecoder, LogDecoder, LogDoorDecoder

from .plain_logs import Log, Pairs, json_values, log_of, parsed

__all__ = [
    "NOW_US",
    "TIGHT",
    "Decoded",
    "bodies",
    "by_text",
    "depth",
    "has_half",
    "honest",
    "log_door",
    "naive_honest",
    "naive_log_door",
    "rows_of",
]

NOW_US = 1_795_262_400_000_000
TIGHT = BodyLimits(line_bytes_max=300, value_bytes_max=1500, depth_max=6)
BLANKS = b" \t\r\n"

Row = tuple[int, bytes, Log]


class Decoded(NamedTuple):
    """Everything a body came to; `error` stands alone."""

    rows: list[Row]
    rejects: list[LineReject]
    error: str | None = None


def by_text(decoder: type[LogDecoder]) -> type[Any]:
    """The same decoder without its shortcut for whole chunks."""
    return type("ByText", (decoder,), {"read_chunk": lambda *_: None})


def rows_of(batch: LogBatch | None) -> Iterator[Row]:
    if batch is None:  # a turn ended
        return
    for level, message, time_us, start, length, number in zip(
        batch.levels,
        batch.messages,
        batch.times,
        batch.starts,
        batch.lengths,
        batch.line_numbers,
        strict=True,
    ):
        text = batch.data[start : start + length]
        yield int(number), text, Log(LEVELS[level], message, int(time_us))


def honest(
    pieces: list[bytes],
    limits: BodyLimits = TIGHT,
    *,
    decoder: type[HonestLogDecoder] = HonestLogDecoder,
    is_plain: bool = True,
    rejects_max: int = 10_000,
) -> Decoded:
    one = decoder(limits, received_at_us=NOW_US, rejects_max=rejects_max, is_plain=is_plain)
    return _decoded(one, pieces)


def log_door(
    pieces: list[bytes],
    limits: BodyLimits = TIGHT,
    *,
    decoder: type[LogDoorDecoder] = LogDoorDecoder,
    is_plain: bool = True,
    is_form: bool = False,
) -> Decoded:
    one = decoder(limits, received_at_us=NOW_US, is_plain=is_plain, is_form=is_form)
    return _decoded(one, pieces)


def _decoded(one: LogDecoder, pieces: list[bytes]) -> Decoded:
    one.chunk_bytes_min = 0  # or nothing so small would be read by chunk
    try:
        batches = [batch for piece in pieces for batch in one.feed(piece)]
        batches += one.finish()
    except (MalformedBody, BodyTooLarge) as error:
        return Decoded([], [], f"{error.status_hint} {error}")
    rows = [row for batch in batches for row in rows_of(batch)]
    assert (
        len(rows)
        == one.accepted_count
        == sum(batch.row_count for batch in batches if batch is not None)
    )
    assert sum(one.reasons.values()) == one.rejected_count
    return Decoded(rows, one.take_rejects())


def is_sound(text: bytes, limits: BodyLimits) -> bool:
    """Whether the store can hold it: JSON, UTF-8, no half surrogate, not too deep."""
    try:
        value = parsed(text)
        json.dumps(text.decode()).encode()
    except (ValueError, RecursionError):
        return False
    return depth(value) <= limits.depth_max and not has_half(value)


def depth(value: object) -> int:
    if isinstance(value, Pairs):
        return 1 + max((depth(v) for _, v in value), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def has_half(value: object) -> bool:
    if isinstance(value, Pairs):
        return any(has_half(part) for pair in value for part in pair)
    if isinstance(value, list):
        return any(map(has_half, value))
    return isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)


def _whole(body: bytes) -> Any:
    """The one value a body is by grammar alone, or None."""
    try:
        return [parsed(body.decode("utf-8", "replace").encode())]
    except ValueError:
        return None


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    for number, raw in enumerate(body.split(b"\n"), 1):
        line = raw.removesuffix(b"\r")
        if line.strip(BLANKS):
            yield number, line


def _first_number(body: bytes) -> int:
    return body[: len(body) - len(body.lstrip(BLANKS))].count(b"\n") + 1


def naive_log_door(body: bytes, elements: list[bytes] | None, limits: BodyLimits) -> Any:
    """Rows, or the number of the line at fault (0: none in particular)."""
    text = body.strip(BLANKS)
    if not text:
        return 0
    if _whole(text):
        if not is_sound(text, limits) and not (elements and text[:1] == b"["):
            return _first_number(body)
        value = _whole(text)[0]
        is_split = type(value) is list and value and all(isinstance(v, Pairs) for v in value)
        if not is_split:
            if not is_sound(text, limits):
                return 0
            return [(_first_number(body), text, log_of(parsed(text), NOW_US))]
        assert elements is not None
        for number, element in enumerate(elements, 1):
            if not is_sound(element, limits):
                return number
        return [(n, e, log_of(parsed(e), NOW_US)) for n, e in enumerate(elements, 1)]
    rows = []
    for number, line in _lines(body):
        if len(line) > limits.line_bytes_max or not is_sound(line, limits):
            return number
        rows.append((number, line.strip(BLANKS), log_of(parsed(line), NOW_US)))
    return rows


def naive_honest(
    body: bytes, elements: list[bytes] | None, limits: BodyLimits
) -> tuple[list[Row], list[int]]:
    """Rows, and the numbers of what is refused."""
    text = body.strip(BLANKS)
    if text and _whole(text):
        if text[:1] == b"[":
            assert elements is not None
            parts = list(enumerate(elements, 1))
        else:
            parts = [(_first_number(body), text)]
        longest = limits.value_bytes_max
    else:
        parts = list(_lines(body))
        longest = limits.line_bytes_max
    rows, refused = [], []
    for number, part in parts:
        inner = part.strip(BLANKS)
        is_object = is_sound(part, limits) and inner[:1] == b"{"
        if is_object and len(part) <= longest:
            rows.append((number, inner, log_of(parsed(inner), NOW_US)))
        else:
            refused.append(number)
    return rows, refused


_ODD = st.sampled_from([
    b"", b" ", b"{", b"}", b"[", b"]", b"x", b"{} {}", b"}{", b"1 2", b'"', b'"\\ud800"',
    b"[[[[[[1]]]]]]",
    b"[[[[[[[1]]]]]]]", b'{"a":"\xff"}', b'{"a":"\\udc00"}', b'{"a" 1}', b'{"a":[', b'{"b":1}]}',
    b"nul",
    b'"' + b"y" * 400 + b'"', b'{"message":"' + b"z" * 290 + b'"}', b'{"level":"\\ud83d\\ude00"}',
])  # fmt: skip
_EDGES = st.sampled_from([b"", b"", b"", b" ", b"\n", b"\r\n", b"\n \n"])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, list[bytes], list[bytes] | None]:
    """A body, the same in pieces, and the elements if it was made as an array."""
    kind = draw(st.integers(0, 9))
    elements: list[bytes] | None = None
    if kind <= 4:
        line = st.one_of(json_values(objects_only=draw(st.booleans())), _ODD)
        ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n"])
        parts = draw(st.lists(st.tuples(json_values() | line, ends), max_size=6))
        body = b"".join(text + end for text, end in parts)
        if draw(st.booleans()):
            body = body.removesuffix(b"\n")
    elif kind <= 7:
        objects = draw(st.lists(json_values(objects_only=True), max_size=4))
        extra = [b"1", b"[]", b'{"a":"\\ud800"}', b'{"a":"\xff"}', b"[[[[[[1]]]]]]", b'"a,]"']
        elements = objects + draw(st.lists(st.sampled_from(extra), max_size=1))
        blank = draw(_EDGES)
        body = b"[" + (blank + b"," + blank).join(elements) + blank + b"]"
    else:
        text = draw(json_values())
        at = draw(st.integers(0, len(text)))
        body = text[:at] + draw(_EDGES) + text[at:]
    body = draw(_EDGES) + body + draw(_EDGES)
    if body.strip(BLANKS)[:1] == b"[" and elements is None:
        elements = _elements(body.strip(BLANKS))
    cuts = draw(st.lists(st.integers(0, len(body)), max_size=6))
    edges = sorted({0, len(body), *cuts})
    return body, [body[a:b] for a, b in pairwise(edges)], elements


def _elements(text: bytes) -> list[bytes] | None:
    """Of the few arrays that were not made as one; each element as its own text."""
    simple = {
        b"[]": [],
        b"[ ]": [],
        b"[0]": [b"0"],
        b"[1, {}]": [b"1", b"{}"],
        b"[ [ ] ]": [b"[ ]"],
    }
    return simple.get(text)
