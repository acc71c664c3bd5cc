"""A plain-socket HTTP/1.1 client that can misbehave.

Why not a library: the fault tests must send cut, dribbled and half-finished requests, must see
exactly the bytes of an answer, and must know the difference between "refused" and "unanswered".

Invariants
1. `Answer` exists only when a whole response was read; anything else raises `NoAnswer`.
2. While a body is being sent the socket is watched, so an early refusal is not missed.
3. One `Connection` is used by one thread; it reconnects by itself after the peer closed.
"""

from __future__ import annotations

import gzip
import json
import select
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import zstandard

__all__ = ["Answer", "Connection", "NoAnswer", "chunk_frames", "compress", "event_line"]

_PIECE_BYTES = 64 * 1024


class NoAnswer(Exception):
    """The connection ended, or time ran out, before a whole answer was read."""


@dataclass(frozen=True)
class Answer:
    """One whole response. Header names are lower-case; repeated ones are joined by ", "."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def request_id(self) -> str:
        return self.headers["ingester-request-id"]

    @property
    def accepted(self) -> int:
        return int(self.headers["ingester-accepted"])

    @property
    def rejected(self) -> int:
        return int(self.headers["ingester-rejected"])

    @property
    def counts(self) -> tuple[int, int]:
        return self.accepted, self.rejected


@dataclass
class Connection:
    """A keep-alive connection to `address` (host, port), opened when first needed."""

    address: tuple[str, int]
    timeout_s: float = 30.0
    _socket: socket.socket | None = None
    _buffer: bytes = field(default=b"", repr=False)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._buffer = b""

    def stream(self) -> socket.socket:
        """The open socket; connects when there is none."""
        if self._socket is None:
            try:
                self._socket = socket.create_connection(self.address, timeout=self.timeout_s)
            except OSError as error:
                raise NoAnswer(f"cannot connect: {error}") from error
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def request(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        pause_s: float = 0.0,
    ) -> Answer:
        """Send one request and read its answer.

        An iterable body is sent piece by piece, `pause_s` apart; it must be `chunked` unless
        `headers` carries its Content-Length.
        """
        lines = dict(headers or {})
        if chunked:
            lines.setdefault("Transfer-Encoding", "chunked")
        elif isinstance(body, bytes):
            lines.setdefault("Content-Length", str(len(body)))
        elif body is None and method != "GET":
            lines.setdefault("Content-Length", "0")
        pieces: Iterable[bytes] = ()
        if body is not None:
            pieces = _pieces(body) if isinstance(body, bytes) else body
        if chunked:
            pieces = chunk_frames(pieces)
        self._send(head_bytes(method, target, lines), pieces, pause_s)
        return self.read_answer(method)

    def post(
        self,
        target: str,
        body: bytes | Iterable[bytes],
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        pause_s: float = 0.0,
    ) -> Answer:
        return self.request("POST", target, body, headers, chunked=chunked, pause_s=pause_s)

    def send_raw(self, data: bytes) -> None:
        """Bytes as they are; the caller reads (or does not read) the answer."""
        try:
            self.stream().sendall(data)
        except OSError as error:
            raise NoAnswer(f"cannot send: {error}") from error

    def read_answer(self, method: str = "POST") -> Answer:
        """The next whole final response (1xx are skipped)."""
        deadline = time.monotonic() + self.timeout_s
        try:
            while True:
                answer, keep = self._read_one(method, deadline)
                if answer.status >= 200:
                    break
        except (OSError, ValueError) as error:
            self.close()
            raise NoAnswer(str(error)) from error
        except NoAnswer:
            self.close()
            raise
        if not keep:
            self.close()
        return answer

    def _send(self, head: bytes, pieces: Iterable[bytes], pause_s: float) -> None:
        stream = self.stream()
        try:
            # The first piece travels with the head, as most clients do it.
            rest = iter(pieces)
            stream.sendall(head + next(rest, b""))
            for piece in rest:
                if pause_s:
                    time.sleep(pause_s)
                if not self._send_watched(stream, piece):
                    return
        except OSError:
            # The peer may have answered before it closed: let the reader find out.
            return

    def _send_watched(self, stream: socket.socket, piece: bytes) -> bool:
        """Send `piece` unless an answer arrives first; False when one did."""
        view = memoryview(piece)
        deadline = time.monotonic() + self.timeout_s
        while view:
            readable, writable, _ = select.select([stream], [stream], [], 1.0)
            if readable:
                return False
            if writable:
                view = view[stream.send(view) :]
            elif time.monotonic() > deadline:
                raise TimeoutError("the server does not read")
        return True

    def _read_one(self, method: str, deadline: float) -> tuple[Answer, bool]:
        while b"\r\n\r\n" not in self._buffer:
            self._fill(deadline)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status_text, *_ = first.split(" ", 2)
        if version not in {"HTTP/1.1", "HTTP/1.0"}:
            raise NoAnswer(f"not an HTTP answer: {first!r}")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        status = int(status_text)
        body = b""
        if status >= 200 and status not in {204, 304} and method != "HEAD":
            body = self._read_body(headers, deadline)
        keep = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
        return Answer(status, headers, body), keep

    def _read_body(self, headers: Mapping[str, str], deadline: float) -> bytes:
        if "content-length" not in headers:
            raise NoAnswer("the answer has no Content-Length")
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            self._fill(deadline)
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return body

    def _fill(self, deadline: float) -> None:
        stream = self._socket
        if stream is None:
            raise NoAnswer("not connected")
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoAnswer("no answer in time")
        stream.settimeout(left)
        data = stream.recv(_PIECE_BYTES)
        stream.settimeout(self.timeout_s)
        if not data:
            raise NoAnswer("closed without a whole answer")
        self._buffer += data


def head_bytes(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """A request head; a Host header is added when there is none."""
    lines = [f"{method} {target} HTTP/1.1"]
    if not any(name.lower() == "host" for name in headers):
        lines.append("Host: localhost")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk_frames(pieces: Iterable[bytes], *, last: bool = True) -> Iterator[bytes]:
    """Chunked transfer coding of `pieces`; without `last` the message stays open."""
    for piece in pieces:
        if piece:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
    if last:
        yield b"0\r\n\r\n"


def compress(data: bytes, encoding: str | None, level: int = 1) -> bytes:
    """`data` in a content coding by its test name; `raw-deflate` has no zlib wrapper."""
    match encoding:
        case None | "identity":
            return data
        case "gzip":
            return gzip.compress(data, level, mtime=0)
        case "deflate":
            return zlib.compress(data, level)
        case "raw-deflate":
            packer = zlib.compressobj(level, zlib.DEFLATED, -15)
            return packer.compress(data) + packer.flush()
        case "zstd":
            return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)
    raise ValueError(encoding)


def event_line(account: str, row: object = 0, **extra: object) -> bytes:
    """A valid event without its line end; `sessionId` carries the row, None drops a property."""
    event = {
        "accountId": account,
        "userId": "user",
        "action": "feature",
        "sessionId": str(row),
        "createdAt": 1_700_000_000_000,
        **extra,
    }
    kept = {name: value for name, value in event.items() if value is not None}
    return json.dumps(kept, separators=(",", ":")).encode()


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]
