"""Line framing of a byte stream: pieces in, chunks of whole lines out.

Why it exists: a body arrives in pieces cut anywhere, and the decoder wants large chunks that hold
whole lines only (one call of the JSON decoder per chunk, not per line).

Invariants
1. Every chunk ends with a newline; the chunks and over-long lines, in order, are the whole body
   (a last line without a newline gets one, a byte-order mark at the start is dropped).
2. At most `line_bytes_max` plus one piece is ever buffered: a line known to be longer is skipped,
   keeping its first 64 KiB for the reject.
3. The output does not depend on how the input was cut, but for where chunks end, and for whether
   an over-long line is skipped here or handed out in a chunk: the decoder refuses it there in the
   same words. A line's length counts without its LF or CRLF.

It knows nothing of JSON, and treats only LF as a line end (RFC 8259 strings hold no raw LF; CR
before LF is white space to the decoder).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

__all__ = ["BLANK", "EXCERPT_BYTES_MAX", "LineFramer", "OverlongLine"]

# What is kept of a refused line (contract 3.5).
EXCERPT_BYTES_MAX = 64 * 1024

# White space of RFC 8259 but for LF, which ends lines.
BLANK = b" \t\r"

_BOM = b"\xef\xbb\xbf"


class OverlongLine(Struct, frozen=True):
    """A line over the limit: its first bytes and its whole length (without the line end)."""

    prefix: bytes
    byte_count: int
    is_blank: bool

    def __repr__(self) -> str:
        return f"OverlongLine({self.byte_count} bytes)"


class LineFramer:
    """Cut one body into chunks of whole lines."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._carry = bytearray()
        self._at_start = True
        self._overlong: _Overlong | None = None

    def feed(self, piece: bytes) -> Iterator[bytes | OverlongLine]:
        """Take the next piece; yield what is complete. Exhaust it before the next call."""
        if self._at_start:
            piece = bytes(self._carry) + piece
            self._carry.clear()
            if len(piece) < len(_BOM) and _BOM.startswith(piece):
                self._carry += piece
                return
            self._at_start = False
            piece = piece.removeprefix(_BOM)
        if self._overlong is not None:
            line_end = piece.find(b"\n")
            if line_end < 0:
                self._overlong.add(piece)
                return
            self._overlong.add(piece[:line_end])
            yield self._overlong.line()
            self._overlong = None
            piece = piece[line_end + 1 :]
        line_end = piece.rfind(b"\n") + 1
        if line_end:
            if self._carry:
                yield b"".join((self._carry, memoryview(piece)[:line_end]))
                self._carry.clear()
            else:
                yield piece[:line_end]
            piece = piece[line_end:]
        self._carry += piece
        # One more than the limit may be the CR of a line end.
        if len(self._carry) > self._line_bytes_max + 1:
            self._overlong = _Overlong()
            self._overlong.add(self._carry)
            self._carry.clear()

    def finish(self) -> Iterator[bytes | OverlongLine]:
        """The body has ended: yield the last line if it had no newline."""
        self._at_start = False
        if self._overlong is not None:
            yield self._overlong.line()
            self._overlong = None
        elif self._carry:
            yield bytes(self._carry) + b"\n"
            self._carry.clear()


class _Overlong:
    """A line being skipped."""

    def __init__(self) -> None:
        self._prefix = bytearray()
        self._byte_count = 0
        self._is_blank = True
        self._ends_with_cr = False

    def add(self, part: bytes | bytearray) -> None:
        if not part:
            return
        self._prefix += part[: EXCERPT_BYTES_MAX - len(self._prefix)]
        self._byte_count += len(part)
        self._is_blank = self._is_blank and not part.strip(BLANK)
        self._ends_with_cr = part.endswith(b"\r")

    def line(self) -> OverlongLine:
        byte_count = self._byte_count - self._ends_with_cr
        return OverlongLine(bytes(self._prefix[:byte_count]), byte_count, self._is_blank)
