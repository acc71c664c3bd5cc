"""Where the lines of a chunk are, and whether one decode of the whole chunk can be trusted.

Why it exists: `decode_lines` of msgspec is one call for a chunk, but it is not bound to lines, and
what it skips it does not look at. A chunk is regular when every line starts with `{` and ends with
`}`, none is too long or too deep, all of it is UTF-8 and no surrogate stands alone. `}` LF `{`
cannot occur inside one JSON value, so no value of a regular chunk spans lines, and then equal
counts leave one value per line.

It may call a regular chunk irregular, never the other way round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from .event_lines import BACKSLASH, lone_surrogate_at

__all__ = ["Array", "ChunkShape"]

_LF, _CR, _OPEN, _CLOSE, _U = 10, 13, 0x7B, 0x7D, 0x75
# Flags of 64 bytes are one 64-bit word of packed bits.
_WORD = 64

Array = np.ndarray[Any, Any]


class ChunkShape:
    """Looks at chunks that end with LF. Keeps its arrays: fresh ones cost page faults."""

    def __init__(self, line_bytes_max: int, depth_max: int) -> None:
        self.line_bytes_max = line_bytes_max
        self.depth_max = depth_max
        self._mask = np.empty(0, np.bool_)
        self._bytes = np.empty(0, np.uint8)

    def regular_lines(self, chunk: bytes) -> tuple[Array, Array] | None:
        """Starts and lengths (without line ends) of the lines of a regular chunk, else None."""
        octets = np.frombuffer(chunk, np.uint8)
        starts, ends = self._line_bounds(octets)
        if (octets[starts] != _OPEN).any() or (octets[ends - 1] != _CLOSE).any():
            return None
        lengths = ends - starts
        longest = int(lengths.max())
        if longest > self.line_bytes_max:
            return None
        if self._maybe_too_deep(self._open_brackets(octets), longest):
            return None
        if not self._is_clean(chunk, octets):
            return None
        return starts.astype(np.int32), lengths.astype(np.int32)

    def lines(self, chunk: bytes) -> tuple[Array, Array, Array]:
        """Of any chunk: starts and lengths (int64, without line ends) of its lines, and which are
        odd. Without those, all that lie between two of them are regular.
        """
        octets = np.frombuffer(chunk, np.uint8)
        starts, ends = self._line_bounds(octets)
        lengths = ends - starts
        is_odd = (octets[starts] != _OPEN) | (octets[ends - 1] != _CLOSE)
        is_odd |= lengths > self.line_bytes_max
        is_open = self._open_brackets(octets)
        if self._maybe_too_deep(is_open, int(lengths.max())):
            counts = np.add.reduceat(is_open[: len(octets)], starts, dtype=np.int64)
            is_odd |= counts > self.depth_max
        if not self._is_clean(chunk, octets):
            for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
                is_odd[index] |= not _is_clean_line(chunk[start:end])
        return starts, lengths, is_odd

    def _line_bounds(self, octets: Array) -> tuple[Array, Array]:
        """Where lines start and end, CR and LF left out. Makes room for the other masks."""
        size = len(octets)
        if len(self._mask) < size + _WORD:
            self._mask = np.empty(size + size // 4 + _WORD, np.bool_)
            self._bytes = np.empty(size + size // 4, np.uint8)
        ends = np.equal(octets, _LF, out=self._mask[:size]).nonzero()[0]
        starts = np.empty(len(ends), np.int64)
        starts[0] = 0
        np.add(ends[:-1], 1, out=starts[1:])
        # Of an empty first line this looks at the last byte, which is LF.
        return starts, ends - (octets[ends - 1] == _CR)

    def _open_brackets(self, octets: Array) -> Array:
        """True where a byte is `{` or `[`, False behind the end, up to a whole word."""
        size = len(octets)
        brackets = np.bitwise_and(octets, 0xDF, out=self._bytes[:size])
        np.equal(brackets, 0x5B, out=self._mask[:size])  # 0x5B `[`, 0x7B `{`
        padded = self._mask[: size + -size % _WORD]
        padded[size:] = False
        return padded

    def _maybe_too_deep(self, is_open: Array, longest: int) -> bool:
        """Whether some line may hold more than `depth_max` opening brackets.

        `is_open`: True where a byte is `{` or `[`, in strings too. Counted by words of 64 bytes: a
        line lies within `longest // 64 + 2` of them.
        """
        counts = np.bitwise_count(np.packbits(is_open).view(np.uint64))
        totals = np.cumsum(counts, dtype=np.int64)
        words = longest // _WORD + 2
        if len(totals) <= words:
            return int(totals[-1]) > self.depth_max
        return int(totals[words - 1]) > self.depth_max or bool(
            ((totals[words:] - totals[:-words]) > self.depth_max).any()
        )

    def _is_clean(self, chunk: bytes, octets: Array) -> bool:
        """UTF-8 throughout, and no surrogate escape that would have to be looked at closely."""
        if not chunk.isascii() and not _is_utf8(octets):
            return False
        if BACKSLASH not in chunk:
            return True
        # A regular expression takes longer for the same bytes than all of the above.
        is_escape = np.equal(octets[:-1], BACKSLASH, out=self._mask[: len(octets) - 1])
        is_unicode = np.equal(octets[1:], _U, out=self._bytes.view(np.bool_)[: len(octets) - 1])
        if not np.logical_and(is_escape, is_unicode, out=is_escape).any():
            return True
        # Emoji written as escapes by an ASCII-only encoder are pairs, and fine.
        return not lone_surrogate_at(chunk)


def _is_clean_line(line: bytes) -> bool:
    """The same of one line, for which the arrays would cost ten times as much."""
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError:
            return False
    return BACKSLASH not in line or not lone_surrogate_at(line)


def _is_utf8(octets: Array) -> bool:
    """Without a text made of them, which costs a copy and its memory."""
    bounds = np.array([0, len(octets)], np.int32)
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(octets)]
    try:
        pa.Array.from_buffers(pa.string(), 1, buffers).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
