"""Chunked bodies: RFC 9112 section 7.1, read strictly.

Strict where leniency lets two readers disagree about where a message ends: sizes of 1 to 16 hex
digits and nothing else, CRLF only, a data chunk closed by exactly CRLF. Extensions are skipped
(at most 256 bytes a line), trailers are read by the rules of header lines, bounded by the limits
of a head, and dropped.

1. Joined output and verdict depend on the bytes alone, not on how they were cut: a fault found
   behind good bytes is raised by the next call.
2. It holds no bytes: what it cannot use yet stays with the caller, at most one line.
"""

from __future__ import annotations

import re

from ingester.errors import MalformedRequest
from ingester.protocol.http1_head import FIELD_LINE, HeadLimits

__all__ = ["SIZE_LINE_BYTES_MAX", "ChunkedDecoder"]

# 16 hex digits, an extension, CRLF. Nothing we know of sends an extension at all.
SIZE_LINE_BYTES_MAX = 16 + 256 + 2

_match_size = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?").fullmatch
_match_trailer = re.compile(FIELD_LINE).fullmatch

_SIZE, _DATA, _DATA_END, _TRAILERS, _FINISHED = range(5)


class ChunkedDecoder:
    """One chunked body; `finished` once its last empty line was read."""

    __slots__ = (
        "_error",
        "_limits",
        "_remaining_bytes",
        "_state",
        "_trailer_bytes",
        "_trailer_count",
    )

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._state = _SIZE
        self._remaining_bytes = 0
        self._trailer_bytes = 0
        self._trailer_count = 0
        self._error: MalformedRequest | None = None

    @property
    def finished(self) -> bool:
        return self._state == _FINISHED

    def feed(self, data: bytes | bytearray, start: int, bytes_max: int) -> tuple[bytes, int]:
        """Decode from `start`; the body bytes found (≤ `bytes_max`) and where to go on."""
        if self._error is not None:
            raise self._error
        pieces: list[bytes | bytearray] = []
        room = bytes_max
        try:
            while room and self._state != _FINISHED:
                if self._state == _DATA:
                    piece = data[start : start + min(self._remaining_bytes, room)]
                    if not piece:
                        break
                    pieces.append(piece)
                    start += len(piece)
                    room -= len(piece)
                    self._remaining_bytes -= len(piece)
                    if self._remaining_bytes == 0:
                        self._state = _DATA_END
                elif (after := self._structure(data, start)) == start:
                    break
                else:
                    start = after
        except MalformedRequest as error:
            if not pieces:
                raise
            self._error = error
        return b"".join(pieces), start

    def _structure(self, data: bytes | bytearray, start: int) -> int:
        """Read one line between data; the position after it, or `start` when it is not whole."""
        if self._state == _SIZE:
            return self._size_line(data, start)
        if self._state == _TRAILERS:
            return self._trailer_line(data, start)
        end = data[start : start + 2]
        if end == b"\r\n":
            self._state = _SIZE
            return start + 2
        if len(end) == 2 or (end and end != b"\r"):
            raise MalformedRequest("a chunk is longer than its size")
        return start

    def _size_line(self, data: bytes | bytearray, start: int) -> int:
        end = data.find(b"\r\n", start, start + SIZE_LINE_BYTES_MAX)
        if end < 0:
            if len(data) - start >= SIZE_LINE_BYTES_MAX:
                raise MalformedRequest("a chunk size line is too long")
            return start
        match = _match_size(data, start, end)
        if match is None:
            raise MalformedRequest("malformed chunk size")
        self._remaining_bytes = int(match[1], 16)
        self._state = _DATA if self._remaining_bytes else _TRAILERS
        return end + 2

    def _trailer_line(self, data: bytes | bytearray, start: int) -> int:
        room = self._limits.head_bytes_max - self._trailer_bytes
        end = data.find(b"\r\n", start, start + room)
        if end < 0:
            if len(data) - start >= room:
                raise MalformedRequest("the trailers are too long", 431)
            return start
        self._trailer_bytes += end + 2 - start
        if end == start:
            self._state = _FINISHED
            return end + 2
        self._trailer_count += 1
        if self._trailer_count > self._limits.header_count_max:
            raise MalformedRequest("too many trailer lines", 431)
        if _match_trailer(data, start, end) is None:
            raise MalformedRequest("malformed trailer line")
        return end + 2
