"""A body that is one JSON value, or lines of them: told apart as it streams in.

Why it exists: the log and honest doors take one value (pretty-printed or not), an array, or NDJSON
under the same address. Only a body that is one value has to be held whole; lines go on in chunks.

What a body is, whatever the cuts: one value, if the whole of it is JSON; else lines. That is known
1. at the first line that is not blank, if no value starts with it, or if it is a value and anything
   but blanks follows;
2. else as soon as what has arrived is no longer the start of a value (looked at again when twice as
   much has arrived: the cost stays linear);
3. else at the end.

At most `value_bytes_max` are held; a body that is longer and may still be one value raises
BodyTooLarge. A byte-order mark at the start belongs to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from ..errors import BodyTooLarge
from .json_text import WHITE_SPACE, is_truncated
from .ndjson import LineFramer, OverlongLine

__all__ = ["BOM", "ValueFramer", "WholeValue"]

BOM = b"\xef\xbb\xbf"
_PIECE_BYTES = 256 * 1024
_NOT_BLANK = re.compile(rb"[^ \t\r\n]")


class WholeValue(Struct, frozen=True):
    """A body that is one JSON value, without blanks around it. Its grammar was checked, but not
    what `json_text.text_fault` looks at. `line_number` is where it starts.
    """

    text: bytes
    line_number: int

    def __repr__(self) -> str:
        return f"WholeValue({len(self.text)} bytes)"


class ValueFramer:
    """Cut one body into chunks of whole lines, or hand it out as one value at the end."""

    def __init__(self, line_bytes_max: int, value_bytes_max: int) -> None:
        self._value_bytes_max = value_bytes_max
        self._lines = LineFramer(line_bytes_max)
        # Held until it is known what the body is; then None.
        self._held: bytearray | None = bytearray()
        self._seen_bytes = 0  # what was looked for is not before here
        self._text_start = -1  # of the first line that is not blank
        self._look_again_bytes = 0  # 0: that line is not complete
        self._is_value = False  # that line is one
        # What looked like the start of a value when the first line was complete, and was none.
        self.broken_value: WholeValue | None = None

    @property
    def is_lines(self) -> bool:
        """Whether the body is known to be lines."""
        return self._held is None

    def feed(self, piece: bytes) -> Iterator[bytes | OverlongLine]:
        """Take the next piece; yield what is complete. Exhaust it before the next call."""
        if self._held is None:
            yield from self._lines.feed(piece)
            return
        held = self._held
        # No more than this is looked at, whatever the cuts.
        room = self._value_bytes_max + 1 - len(held)
        held += piece[:room]
        if not self._seen_bytes:
            if len(held) < len(BOM) and BOM.startswith(held):
                return
            self._seen_bytes = len(BOM) * held.startswith(BOM)
        if self._is_known_to_be_lines(held):
            self._held = None
            yield from self._as_lines(bytes(held) + piece[room:])
        elif len(held) > self._value_bytes_max:
            raise BodyTooLarge(
                f"a body that is one JSON value may have at most {self._value_bytes_max} bytes; "
                "split it into several requests, or send one value per line"
            )

    def finish(self) -> Iterator[bytes | OverlongLine | WholeValue]:
        """The body has ended."""
        if self._held is not None:
            held, self._held = bytes(self._held).removeprefix(BOM), None
            text = held.strip(WHITE_SPACE)
            if not text:
                return
            before = held[: len(held) - len(held.lstrip(WHITE_SPACE))]
            value = WholeValue(text, before.count(b"\n") + 1)
            if is_truncated(text) is None:
                yield value
                return
            if self._look_again_bytes:
                self.broken_value = value
            yield from self._as_lines(held)
        yield from self._lines.finish()

    def _as_lines(self, held: bytes) -> Iterator[bytes | OverlongLine]:
        """What was held, in chunks as if it had come in pieces."""
        for start in range(0, len(held), _PIECE_BYTES):
            yield from self._lines.feed(held[start : start + _PIECE_BYTES])

    def _is_known_to_be_lines(self, held: bytearray) -> bool:
        if self._is_value:
            return self._find_text(held) >= 0
        if not self._look_again_bytes:
            if self._text_start < 0:
                self._text_start = self._find_text(held)
                if self._text_start < 0:
                    return False
            line_end = held.find(b"\n", self._seen_bytes) + 1
            self._seen_bytes = line_end or len(held)
            if not line_end:
                return False
            truncated = is_truncated(bytes(held[self._text_start : line_end]))
            if truncated is None:
                self._is_value = True
                return self._find_text(held) >= 0
            if not truncated:
                return True
            self._look_again_bytes = 1
        if len(held) < self._look_again_bytes and len(held) <= self._value_bytes_max:
            return False
        self._look_again_bytes = 2 * len(held)
        # Up to a line end: what is cut inside a number or a word would not look like a start.
        start = bytes(held[self._text_start : held.rfind(b"\n") + 1])
        if is_truncated(start) is not False:
            return False
        self.broken_value = WholeValue(start, held.count(b"\n", 0, self._text_start) + 1)
        return True

    def _find_text(self, held: bytearray) -> int:
        """Where the first byte that is not blank stands that was not seen yet, or -1."""
        found = _NOT_BLANK.search(held, self._seen_bytes)
        self._seen_bytes = found.start() if found else len(held)
        return self._seen_bytes if found else -1
