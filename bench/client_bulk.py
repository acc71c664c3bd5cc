"""The bulk load client: a process of its own that costs the machine as little as it can.

`python -m bench.client_bulk '{…}'` with a `BulkPlan`. Protocol on its standard streams, one JSON
document a line: it prints `{"event": "ready"}`, waits for a line (`go`), then prints a
`BulkDone` for every upload that got its answer, and progress lines while it streams.

Three ways to send: a file by `sendfile` with its length (the kernel moves the bytes), the same
file over many connections at once, or a file repeated up to a size, compressed on the way and
chunked (then the cost of compressing is the client's and is reported).
"""

from __future__ import annotations

import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zstandard
from isal import isal_zlib
from msgspec import Struct

from bench.wire import Answer, read_answer, request_head

__all__ = ["BulkDone", "BulkPlan", "Progress", "main"]

_PROGRESS_BYTES = 1_000_000_000
_PIECE_BYTES = 256 * 1024
# Uploads that wait for a slot are not read; the longest wait is the length of the whole run.
_TIMEOUT_S = 600.0


class BulkPlan(Struct, kw_only=True):
    """What to send. `stream_bytes` > 0 streams the plain file over and over up to that size;
    `parallel` > 1 sends the file on so many connections at once; `until_stop` repeats one
    upload until standard input ends.
    """

    host: str
    port: int
    target: str
    path: str
    token: str = ""
    encoding: str = "none"
    stream_bytes: int = 0
    parallel: int = 1
    until_stop: bool = False


class BulkDone(Struct, kw_only=True, tag_field="event", tag="done"):
    """One answered upload. `seconds` run from the first byte sent to the whole answer."""

    status: int
    accepted: int
    rejected: int
    seconds: float
    cpu_s: float
    sent_bytes: int
    raw_bytes: int = 0


class Progress(Struct, kw_only=True, tag_field="event", tag="progress"):
    """Raw bytes handed to the socket so far."""

    raw_bytes: int


def _say(message: Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def _connect(plan: BulkPlan) -> socket.socket:
    connection = socket.create_connection((plan.host, plan.port), timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _send_file(connection: socket.socket, plan: BulkPlan) -> tuple[Answer, int]:
    """One upload of the file as it lies on disk; an early answer ends the sending."""
    with Path(plan.path).open("rb") as file:
        length = Path(plan.path).stat().st_size
        connection.sendall(request_head(plan.target, plan.encoding, length, plan.token))
        try:
            sent = connection.sendfile(file)
        except (BrokenPipeError, ConnectionResetError):
            sent = file.tell()  # refused early; the answer, if any, is still to be read
    return read_answer(connection), sent


def _timed_upload(plan: BulkPlan, connection: socket.socket) -> BulkDone:
    cpu = time.process_time()
    start = time.perf_counter()
    answer, sent = _send_file(connection, plan)
    return BulkDone(
        status=answer.status,
        accepted=answer.accepted,
        rejected=answer.rejected,
        seconds=time.perf_counter() - start,
        cpu_s=time.process_time() - cpu,
        sent_bytes=sent,
    )


def _upload_parallel(plan: BulkPlan) -> None:
    """The same file on many connections; every answer is printed when it comes."""
    lock = threading.Lock()

    def one() -> None:
        with _connect(plan) as connection:
            done = _timed_upload(plan, connection)
        with lock:
            _say(done)

    threads = [threading.Thread(target=one) for _ in range(plan.parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _upload_until_stop(plan: BulkPlan) -> None:
    """Upload after upload on one connection; the one under way at the stop is finished."""
    stopped = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        stopped.set()

    threading.Thread(target=watch, daemon=True).start()
    with _connect(plan) as connection:
        while not stopped.is_set():
            _say(_timed_upload(plan, connection))


def _repeated_pieces(path: Path, raw_bytes: int) -> Iterator[bytes]:
    """Whole copies of the file until at least `raw_bytes` went out."""
    sent = 0
    while sent < raw_bytes:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                sent += len(piece)
                yield piece


def _compressor(encoding: str) -> tuple[object, object]:
    """(compress, flush) of one continuous stream at the fastest level."""
    if encoding == "zstd":
        stream = zstandard.ZstdCompressor(level=1).compressobj()
        return stream.compress, stream.flush
    if encoding == "none":
        return bytes, bytes
    wbits = 31 if encoding == "gzip" else 15
    deflate = isal_zlib.compressobj(1, zlib.DEFLATED, wbits)
    return deflate.compress, deflate.flush


def _upload_stream(plan: BulkPlan) -> None:
    """One chunked upload of unbounded length; progress after every GB raw."""
    compress, flush = _compressor(plan.encoding)
    assert callable(compress)
    assert callable(flush)
    raw_bytes = sent_bytes = 0
    due = _PROGRESS_BYTES
    cpu = time.process_time()
    start = time.perf_counter()
    with _connect(plan) as connection:
        connection.sendall(request_head(plan.target, plan.encoding, None, plan.token))

        def send(data: bytes) -> int:
            if not data:
                return 0
            connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            return len(data)

        try:
            for piece in _repeated_pieces(Path(plan.path), plan.stream_bytes):
                sent_bytes += send(compress(piece))
                raw_bytes += len(piece)
                if raw_bytes >= due:
                    due += _PROGRESS_BYTES
                    _say(Progress(raw_bytes=raw_bytes))
            sent_bytes += send(flush())
            connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused early; the answer, if any, is still to be read
        answer = read_answer(connection)
    _say(
        BulkDone(
            status=answer.status,
            accepted=answer.accepted,
            rejected=answer.rejected,
            seconds=time.perf_counter() - start,
            cpu_s=time.process_time() - cpu,
            sent_bytes=sent_bytes,
            raw_bytes=raw_bytes,
        )
    )


def main() -> None:
    """Read the plan, say ready, wait for the word, send."""
    plan = msgspec.json.decode(sys.argv[1], type=BulkPlan)
    sys.stdout.buffer.write(b'{"event":"ready"}\n')
    sys.stdout.buffer.flush()
    if not sys.stdin.buffer.readline():
        return
    if plan.stream_bytes:
        _upload_stream(plan)
    elif plan.until_stop:
        _upload_until_stop(plan)
    elif plan.parallel > 1:
        _upload_parallel(plan)
    else:
        with _connect(plan) as connection:
            _say(_timed_upload(plan, connection))


if __name__ == "__main__":
    main()
