"""Request reader: bytes of one HTTP/1.1 connection in, requests out.

Sans-IO. It frames messages itself: it holds the head until its empty line, lets `parse_head`
judge it, then counts the body out by slicing. So a request with `Upgrade` is an ordinary request
with its body, and the next pipelined head starts exactly behind it.

1. The events (with adjacent body pieces joined) depend on the bytes alone, never on the cuts.
2. Bounded: a head that is not whole holds at most `head_bytes_max`, or it is refused (431, or 414
   when its first line is to blame); while a body is read at most one framing line is held back.
   What the caller feeds at once comes on top; feed ≤ 256 KiB.
3. A fault is final: after a `MalformedRequest` every call raises it again.
4. A request whose connection ended inside it never completes.

It speaks neither HTTP/2 nor upgrades, and drops trailers.
"""

from __future__ import annotations

import enum
from typing import Final

from ingester.errors import MalformedRequest
from ingester.protocol.http1_answer import CONTINUE, response_bytes
from ingester.protocol.http1_chunked import ChunkedDecoder
from ingester.protocol.http1_head import (
    TOKEN_BYTES,
    HeadCache,
    HeadLimits,
    RequestHead,
    parse_head,
)

__all__ = [
    "CONTINUE",
    "END_OF_MESSAGE",
    "END_OF_STREAM",
    "NEED_DATA",
    "PIECE_BYTES_MAX",
    "HeadCache",
    "HeadLimits",
    "RequestHead",
    "RequestReader",
    "Signal",
    "response_bytes",
]

PIECE_BYTES_MAX = 256 * 1024

# RFC 9112 section 2.2 asks for at least one empty line to be ignored before a request line.
BLANK_LINES_MAX = 4


class Signal(enum.Enum):
    """What `next_event` returns besides heads and body pieces."""

    NEED_DATA = "need data"
    END_OF_MESSAGE = "end of message"
    END_OF_STREAM = "end of stream"


NEED_DATA: Final = Signal.NEED_DATA
END_OF_MESSAGE: Final = Signal.END_OF_MESSAGE
END_OF_STREAM: Final = Signal.END_OF_STREAM

_HEAD, _LENGTH, _CHUNKED, _END = range(4)

# Of a head that is refused: enough for the door it was meant for.
_PATH_BYTES_MAX = 256


class RequestReader:
    """One connection's requests in order. `cache` may be shared between connections."""

    __slots__ = (
        "_blank_line_count",
        "_cache",
        "_chunks",
        "_data",
        "_decoded",
        "_ended",
        "_error",
        "_limits",
        "_remaining_bytes",
        "_scanned",
        "_start",
        "_state",
    )

    def __init__(self, limits: HeadLimits, cache: HeadCache | None = None) -> None:
        self._limits = limits
        self._cache = HeadCache(0) if cache is None else cache
        self._data: bytes | bytearray = b""
        self._start = 0  # what is before it was used
        self._scanned = 0  # what is before it holds no end of a head
        self._state = _HEAD
        self._remaining_bytes = 0
        self._chunks = ChunkedDecoder(limits)
        self._decoded = b""  # chunked body decoded ahead by `take_whole`
        self._blank_line_count = 0
        self._ended = False
        self._error: MalformedRequest | None = None

    @property
    def between_messages(self) -> bool:
        """The last message was read to its end, and no head is out."""
        return self._state == _HEAD

    @property
    def has_buffered(self) -> bool:
        """Bytes wait that no event was made of yet."""
        return self._start < len(self._data)

    @property
    def remaining_bytes(self) -> int | None:
        """Body bytes still to be returned; None when only the chunks will tell."""
        if self._state == _CHUNKED:
            return None
        return self._remaining_bytes if self._state == _LENGTH else 0

    def path_ahead(self) -> str:
        """The path that a head begins with which was refused or is not whole; "" when not there."""
        line = bytes(self._data[self._start : self._start + _PATH_BYTES_MAX]).partition(b"\r\n")[0]
        return line.partition(b" ")[2].partition(b" ")[0].partition(b"?")[0].decode("latin-1")

    def receive_data(self, data: bytes) -> None:
        """Take bytes off the wire, in order."""
        held = self._data
        start = self._start
        if start == len(held):
            self._data = data
            self._scanned = 0
        else:
            # Only a head or a framing line that is not whole comes here: amortised by bytearray.
            if not isinstance(held, bytearray):
                held = bytearray(held)
            if start:
                del held[:start]
            held += data
            self._data = held
            self._scanned = max(self._scanned - start, 0)
        self._start = 0

    def receive_eof(self) -> None:
        """The peer will send nothing more."""
        self._ended = True

    def next_event(self) -> RequestHead | bytes | Signal:
        """The next head, body piece (≤ 64 KiB) or signal. Raises `MalformedRequest`."""
        if self._error is not None:
            raise self._error
        try:
            if self._state == _HEAD:
                return self._next_head()
            if self._state == _LENGTH:
                return self._next_piece()
            if self._state == _CHUNKED:
                return self._next_chunks()
        except MalformedRequest as error:
            self._error = error
            raise
        self._state = _HEAD
        return END_OF_MESSAGE

    def take_whole(self, bytes_max: int = 0) -> bytes | None:
        """What is left of the body and its end, when all of it is here and ≤ `bytes_max`.

        0 means any size. None changes nothing that `next_event` would show; never raises.
        """
        if self._state == _LENGTH:
            size = self._remaining_bytes
            end = self._start + size
            if end > len(self._data) or (bytes_max and size > bytes_max):
                return None
            body = self._data[self._start : end]
            self._start = end
            self._state = _HEAD
            return body if isinstance(body, bytes) else bytes(body)
        if self._state == _END:
            self._state = _HEAD
            return b""
        if self._state == _CHUNKED and self._error is None:
            return self._take_whole_chunks(bytes_max)
        return None

    def discard_buffered(self) -> bool:
        """Drop what is here of the body; whether its end was reached. Never raises."""
        try:
            while self._state != _HEAD:
                if self.next_event() is NEED_DATA:
                    return False
        except MalformedRequest:
            return False
        return True

    def _next_head(self) -> RequestHead | Signal:
        data = self._data
        start = self._start
        while data.startswith(b"\r\n", start):
            self._blank_line_count += 1
            if self._blank_line_count > BLANK_LINES_MAX:
                raise MalformedRequest("empty lines instead of a request")
            self._start = start = start + 2
        end = data.find(
            b"\r\n\r\n", max(start, self._scanned - 3), start + self._limits.head_bytes_max
        )
        if end < 0:
            return self._head_not_whole(data, start)
        end += 4
        raw = data[start:end]
        if not isinstance(raw, bytes):
            raw = bytes(raw)
        head = self._cache.get(raw)
        if head is None:
            head = parse_head(raw, self._limits)
            self._cache.put(raw, head)
        self._start = self._scanned = end
        self._blank_line_count = 0
        if head.content_length:
            self._remaining_bytes = head.content_length
            self._state = _LENGTH
        elif head.chunked:
            self._chunks = ChunkedDecoder(self._limits)
            self._state = _CHUNKED
        else:
            self._state = _END
        return head

    def _head_not_whole(self, data: bytes | bytearray, start: int) -> Signal:
        """Refuse early what can no longer become a head; else wait for more."""
        held_bytes = len(data) - start
        if held_bytes == 0:
            self._data = b""  # an idle connection holds nothing
            self._start = self._scanned = 0
            return END_OF_STREAM if self._ended else NEED_DATA
        if data[start] not in TOKEN_BYTES and not (held_bytes == 1 and data[start] == 0x0D):
            raise MalformedRequest("malformed request line")
        bytes_max = self._limits.head_bytes_max
        window_end = start + bytes_max
        scanned = max(start, self._scanned)
        if data.count(b"\n", scanned, window_end) != data.count(
            b"\r\n", max(start, scanned - 1), window_end
        ):
            raise MalformedRequest("a line ends in LF without CR")
        if held_bytes >= bytes_max:
            line = bytes(data[start:window_end]).partition(b"\r\n")[0]
            target = line.partition(b" ")[2].partition(b" ")[0]
            if len(target) > self._limits.target_bytes_max:
                raise MalformedRequest("the request target is too long", 414)
            raise MalformedRequest("the request head is too large", 431)
        self._scanned = len(data)
        return self._need_data()

    def _need_data(self) -> Signal:
        if self._ended:
            raise MalformedRequest("the connection ended inside a request")
        return NEED_DATA

    def _next_piece(self) -> bytes | Signal:
        data = self._data
        start = self._start
        piece = data[start : start + min(self._remaining_bytes, PIECE_BYTES_MAX)]
        if not piece:
            return self._need_data()
        self._start = start + len(piece)
        self._remaining_bytes -= len(piece)
        if self._remaining_bytes == 0:
            self._state = _END
        return piece if isinstance(piece, bytes) else bytes(piece)

    def _next_chunks(self) -> bytes | Signal:
        if piece := self._decoded[:PIECE_BYTES_MAX]:
            self._decoded = self._decoded[PIECE_BYTES_MAX:]
            return piece
        piece, self._start = self._chunks.feed(self._data, self._start, PIECE_BYTES_MAX)
        if piece:
            return piece
        if self._chunks.finished:
            self._state = _HEAD
            return END_OF_MESSAGE
        return self._need_data()

    def _take_whole_chunks(self, bytes_max: int) -> bytes | None:
        decoded = [self._decoded]
        try:
            while not self._chunks.finished:
                piece, self._start = self._chunks.feed(self._data, self._start, PIECE_BYTES_MAX)
                if not piece:
                    break
                decoded.append(piece)
        except MalformedRequest:
            pass  # the decoder stays where it is: `next_event` raises it behind the good bytes
        body = b"".join(decoded)
        if self._chunks.finished and not (bytes_max and len(body) > bytes_max):
            self._decoded = b""
            self._state = _HEAD
            return body
        self._decoded = body
        return None
