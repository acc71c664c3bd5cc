"""A toy event server for testing the harness itself: one file, one switch per lie.

Run as `python toy_server.py FILE MODE`; prints the same ready line as the real server. It knows
`POST /v1/<any>/<any>` with the encodings the load uses, and `Idempotency-Key`.

Modes: `honest` writes, syncs, then answers. `early` answers, and writes 200 ms later. `torn`
leaves out the second half of one batch in twenty. `twice` stores a repeat again. `ghost` stores
every tenth request and then refuses it with 503.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import zstandard

__all__ = ["main", "read_records"]

_EARLY_S = 0.2


def read_records(path: Path) -> list[dict[str, Any]]:
    """Whole records of the file; a torn last line is none."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


class _Store:
    def __init__(self, path: Path, mode: str) -> None:
        self.mode = mode
        self.lock = threading.Lock()
        records = read_records(path)
        self.answers = {record["key"]: record["id"] for record in records if record["key"]}
        self.serial = len(records)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        size = sum(len(json.dumps(record).encode()) + 1 for record in records)
        os.ftruncate(self.descriptor, size)

    def take(self, lines: list[str], key: str | None) -> tuple[int, str]:
        with self.lock:
            if key in self.answers and self.mode != "twice":
                return 200, self.answers[key]
            self.serial += 1
            name = f"{os.getpid():x}-{self.serial:x}"
            if self.mode == "torn" and self.serial % 20 == 0:
                lines = lines[: (len(lines) + 1) // 2]
            record = json.dumps({"key": key, "id": name, "lines": lines}).encode() + b"\n"
            if key:
                self.answers[key] = name
            if self.mode != "early":
                self._write(record)
        if self.mode == "early":
            threading.Timer(_EARLY_S, self._write, [record]).start()
        return (503 if self.mode == "ghost" and self.serial % 10 == 0 else 200), name

    def _write(self, record: bytes) -> None:
        os.write(self.descriptor, record)
        os.fdatasync(self.descriptor)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: _Store

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers["Content-Length"]))
        lines = _inflate(data, self.headers.get("Content-Encoding")).decode().splitlines()
        good = sum('"action"' in line for line in lines)
        status, name = self.store.take(lines, self.headers.get("Idempotency-Key"))
        self.send_response(status)
        self.send_header("Ingester-Request-Id", name)
        self.send_header("Content-Length", "0")
        if status == 200:
            self.send_header("Ingester-Accepted", str(good))
            self.send_header("Ingester-Rejected", str(len(lines) - good))
        else:
            self.send_header("Retry-After", "1")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the load is not of interest."""


def _inflate(data: bytes, encoding: str | None) -> bytes:
    match encoding:
        case "gzip":
            return zlib.decompress(data, 31)
        case "deflate":
            try:
                return zlib.decompress(data)
            except zlib.error:
                return zlib.decompress(data, -15)
        case "zstd":
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 26)
    return data


def main(path: str, mode: str) -> None:
    _Handler.store = _Store(Path(path), mode)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    print(json.dumps({"event": "ready", "intake": url, "console": url}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
