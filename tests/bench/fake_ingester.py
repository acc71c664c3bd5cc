"""A stand-in for the `ingester` command: enough of contract 9 to drive the load clients.

It counts the rows of every body that decodes, a file for each table; nothing is durable. Logs of
the honest door are kept, so that queries over them have their answers: level, message and time as
the product reads them.
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
_TOKEN = "fake-token"
_TABLES = ("events", "logs", "metrics")
_RECEIVED_AT_US = 1_790_000_000_000_000


class _Handler(socketserver.StreamRequestHandler):
    data_dir = Path()

    def handle(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        words = self.rfile.readline().split()
        if not words:
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
        table, accepted, rejected = self._take(words[1].decode(), body)
        if table != "events" and headers.get(b"authorization") != b"Bearer " + _TOKEN.encode():
            self.wfile.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            return True
        with _LOCK:
            path = self.data_dir / table
            path.write_text(str(int(path.read_text()) + accepted))
        text = b"" if table == "events" else b'{"success":true}'
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nIngester-Accepted: %d\r\nIngester-Rejected: %d\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (accepted, rejected, len(text), text)
        )
        return True

    def _take(self, target: str, body: bytes) -> tuple[str, int, int]:
        """The table, how many rows are taken and how many are not."""
        if target.startswith("/v1/"):
            return "events", *_count(body)
        if target == "/api/webhooks/custom":
            return "metrics", len(json.loads(body)["metrics"]), 0
        if target == "/api/v1/webhook/event/log":
            json.loads(body)
            return "logs", 1, 0
        with (self.data_dir / "kept.ndjson").open("ab") as file:
            file.write(body)
        return "logs", body.count(b"\n"), 0

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
    for table in _TABLES:
        (data_dir / table).write_text("0")
    (data_dir / "kept.ndjson").touch()
    _Handler.data_dir = data_dir
    with _Server(("127.0.0.1", 0), _Handler) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        url = f"http://127.0.0.1:{server.server_address[1]}"
        print(json.dumps({"event": "ready", "intake": url, "console": url}), flush=True)
        server.serve_forever(poll_interval=0.05)


def _query(data_dir: Path, sql: str) -> list[dict[str, object]]:
    for table in _TABLES:
        if sql == f"SELECT count(*) AS n FROM {table}":
            return [{"n": int((data_dir / table).read_text())}]
    # Only here: the other commands start in a quarter of the time without.
    import duckdb

    from ingester.protocol.body_decoder import BodyLimits
    from ingester.protocol.log_requests import read_honest_logs
    from ingester.protocol.log_values import LEVELS

    kept = read_honest_logs(
        (data_dir / "kept.ndjson").read_bytes(),
        BodyLimits(),
        received_at_us=_RECEIVED_AT_US,
        rejects_max=0,
        is_plain=False,
    )
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE logs(time TIMESTAMP, received_at TIMESTAMP, level VARCHAR, "
        "message VARCHAR, attributes JSON)"
    )
    connection.executemany(
        f"INSERT INTO logs VALUES (make_timestamp(?), make_timestamp({_RECEIVED_AT_US}), ?, ?, ?)",
        [
            (row.time_us, LEVELS[row.level], row.message, text.decode())
            for row, text in zip(kept.rows, kept.texts, strict=True)
        ],
    )
    found = connection.execute(sql)
    assert found.description is not None
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def _main() -> None:
    assert "INGESTER_BENCH_CACHE" not in os.environ, "the program refuses unknown settings"
    data_dir = Path(_option("--data-dir"))
    match sys.argv[1]:
        case "serve":
            _serve(data_dir)
        case "source":
            print(json.dumps({"source": "bench", "auth_key": "a", "api_key": "b", "url": ""}))
        case "token":
            print(json.dumps({"id": "tok_1", "token": _TOKEN, "scope": "ingest"}))
        case "connection":
            print(json.dumps({"api_key": _TOKEN, "project_id": _option("--project")}))
        case "query":
            print(json.dumps(_query(data_dir, sys.argv[2])))
        case other:
            raise SystemExit(f"{other} is not faked")


if __name__ == "__main__":
    _main()
