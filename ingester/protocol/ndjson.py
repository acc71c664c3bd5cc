"""Line framing of a byte stream: pieces in, chunks of whole lines out.

Why it exists: a body arrives in pieces cut anywhere, and the decoder wants large chunks that hold
whole lines only (one call of the JSON decoder per chunk, not per line).

Invariants
1. Every chunk ends with a newline; the chunks and over-long lines, in order, are the whole body
   (a last line without a newline gets one, a byte-order mark at the start is dropped).
2. At most `line_bytes_max` plus one piece is ever buffered: a line known to be longer is skipped,
   keeping its first 64 KiB for the reject.
3. The output does not depend on how the input was cut, but for where chunks end.

It knows nothing of JSON, and treats only LF as a line end (RFC 8259 strings hold no raw LF; CR
before LF is white space to the decoder).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

__all__ = ["EXCERPT_BYTES_MAX", "LineFramer", "OverlongLine"]

# What is kept of a refused line (contract 3.5).
EXCERPT_BYTES_MAX = 64 * 1024

_BOM = b"\xef\xbb\xbf"


class OverlongLine(Struct, frozen=True):
    """A line over the limit: its first bytes and its whole length (without the line end)."""

    prefix: bytes
    byte_count: int

    def __repr__(self) -> str:
        return f"OverlongLine({self.byte_count} bytes)"


class LineFramer:
    """Cut one body into chunks of whole lines."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._carry = b""
        self._at_start = True
        self._skipped_prefix: bytes | None = None
        self._skipped_bytes = 0

    def feed(self, piece: bytes) -> Iterator[bytes | OverlongLine]:
        """Take the next piece; yield what is complete."""
        if self._at_start:
            piece = self._carry + piece
            self._carry = b""
            if len(piece) < len(_BOM) and _BOM.startswith(piece):
                self._carry = piece
                return
            self._at_start = False
            piece = piece.removeprefix(_BOM)
        if self._skipped_prefix is not None:
            line_end = piece.find(b"\n")
            if line_end < 0:
                self._skipped_bytes += len(piece)
                return
            self._skipped_bytes += line_end
            yield self._take_overlong()
            piece = piece[line_end + 1 :]
        line_end = piece.rfind(b"\n") + 1
        if line_end:
            yield self._carry + piece[:line_end] if self._carry else piece[:line_end]
            self._carry = piece[line_end:]
        else:
            self._carry += piece
        if len(self._carry) > self._line_bytes_max:
            self._skipped_prefix = self._carry[:EXCERPT_BYTES_MAX]
            self._skipped_bytes = len(self._carry)
            self._carry = b""

    def finish(self) -> Iterator[bytes | OverlongLine]:
        """The body has ended: yield the last line if it had no newline."""
        self._at_start = False
        if self._skipped_prefix is not None:
            yield self._take_overlong()
        elif self._carry:
            yield self._carry + b"\n"
        self._carry = b""

    def _take_overlong(self) -> OverlongLine:
        assert self._skipped_prefix is not None
        line = OverlongLine(self._skipped_prefix, self._skipped_bytes)
        self._skipped_prefix = None
        self._skipped_bytes = 0
        return line
