"""A stand-in for the `ingester` command: enough of contract 9 to drive the load clients.

It counts the lines of every body that decodes and keeps the count in a file; nothing is durable.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import sys
import threading
import zlib
from pathlib import Path

import zstandard

_LOCK = threading.Lock()


class _Handler(socketserver.StreamRequestHandler):
    data_dir = Path()

    def handle(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        if not self.rfile.readline():
            return False
        headers = {}
        while (line := self.rfile.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        body = self._body(headers)
        encoding = headers.get(b"content-encoding", b"")
        if encoding == b"zstd":
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        elif encoding:
            body = zlib.decompress(body, 31 if encoding == b"gzip" else 15)
        accepted, rejected = _count(body)
        with _LOCK:
            path = self.data_dir / "count"
            path.write_text(str(int(path.read_text()) + accepted))
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nIngester-Accepted: %d\r\nIngester-Rejected: %d\r\n"
            b"Content-Length: 0\r\n\r\n" % (accepted, rejected)
        )
        return True

    def _body(self, headers: dict[bytes, bytes]) -> bytes:
        if b"content-length" in headers:
            return self.rfile.read(int(headers[b"content-length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def _count(body: bytes) -> tuple[int, int]:
    names = {"accountId", "userId", "createdAt", "action", "sessionId"}
    lines = body.split(b"\n")[:-1]
    accepted = 0
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        accepted += (
            isinstance(event, dict)
            and names <= event.keys()
            and isinstance(event["createdAt"], int)
        )
    return accepted, len(lines) - accepted


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256


def _serve(data_dir: Path) -> None:
    data_dir.mkdir(parents=True)
    (data_dir / "count").write_text("0")
    _Handler.data_dir = data_dir
    with _Server(("127.0.0.1", 0), _Handler) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        url = f"http://127.0.0.1:{server.server_address[1]}"
        print(json.dumps({"event": "ready", "intake": url, "console": url}), flush=True)
        server.serve_forever(poll_interval=0.05)


def _main() -> None:
    assert "INGESTER_BENCH_CACHE" not in os.environ, "the program refuses unknown settings"
    data_dir = Path(sys.argv[sys.argv.index("--data-dir") + 1])
    if sys.argv[1] == "serve":
        _serve(data_dir)
    elif sys.argv[1] == "source":
        print(json.dumps({"source": "bench", "auth_key": "a", "api_key": "b", "url": ""}))
    else:
        print(json.dumps([{"n": int((data_dir / "count").read_text())}]))


if __name__ == "__main__":
    _main()
