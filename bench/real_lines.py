"""Real lines as events: an envelope with the five properties, the line itself under `payload`.

Invariants: 1. the payload's bytes are those of the file (only the line end is taken off), so
key order, big integers and duplicate keys stay. 2. A second pass over the files differs from the
first in `createdAt` only, which is shifted by whole weeks.

The files are not part of this repository; where the folder is absent every user of this module
says so and goes on.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import zstandard

__all__ = [
    "LOG_FILES",
    "REAL_FILES",
    "blocks",
    "decoded_blocks",
    "find_directory",
    "has_log_files",
    "log_blocks",
    "mixed_logs",
]

_REPOSITORY = Path(__file__).resolve().parent.parent
_WEEK_MS = 7 * 24 * 3600 * 1000
_BLOCK_BYTES = 1 << 20

_Envelope = tuple[str, str, int, str, str]  # account, user, created (ms), action, session
_encode = msgspec.json.encode


def find_directory() -> Path | None:
    """The folder of shared data beside the repository, when there is one."""
    path = _REPOSITORY.parent / "shared" / "data"
    return path if path.is_dir() else None


def _epoch_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _windows(line: dict[str, Any]) -> _Envelope:
    host = line["Hostname"]
    user = line.get("User") or line.get("SubjectUserName") or line.get("TargetUserName")
    session = line.get("ProcessGuid") or line.get("SubjectLogonId") or line.get("LogonId")
    created = _epoch_ms(line["@timestamp"])
    return (
        host.partition(".")[2] or host,
        str(user or f"{host}$"),
        created,
        f"{line['Channel'].partition('/')[0]}:{line['EventID']}",
        str(session or f"{host}-{created // 3_600_000}"),
    )


def _github(line: dict[str, Any]) -> _Envelope:
    return (
        line["repo"]["name"].partition("/")[0],
        line["actor"]["login"],
        _epoch_ms(line["created_at"]),
        line["type"],
        f"{line['actor']['id']}-{line['repo']['id']}",
    )


def _order(line: dict[str, Any]) -> _Envelope:
    return (
        f"shop-{line['currency']}",
        line["email"],
        _epoch_ms(line["order_date"]),
        "order",
        str(line["order_id"]),
    )


def _wiki(line: dict[str, Any]) -> _Envelope:
    session = line["meta"]["request_id"]
    return line["wiki"], line["user"], line["timestamp"] * 1000, line["type"], session


def _nginx(line: dict[str, Any]) -> _Envelope:
    session = f"{line['address']}-{line['generation']}"
    return line["address"], f"pid-{line['pid']}", line["timestamp"], "nginxStatus", session


def _host(line: dict[str, Any]) -> _Envelope:
    return "hosts", "host-1", _epoch_ms(line["ts"]), line["event"], line["ts"][:10]


REAL_FILES: tuple[tuple[str, Callable[[dict[str, Any]], _Envelope]], ...] = (
    ("windows-events-01.ndjson.gz", _windows),
    ("windows-events-05.ndjson.gz", _windows),
    ("github-events.ndjson.gz", _github),
    ("ecommerce-orders.ndjson.gz", _order),
    ("wiki-recentchange.ndjson.gz", _wiki),
    ("nginx-status.ndjson.gz", _nginx),
    ("host-metrics.ndjson", _host),
)


# These are logs as they are: no envelope.
LOG_FILES = (
    "windows-events-05.ndjson.gz",
    "github-events.ndjson.gz",
    "windows-events-01.ndjson.gz",
)
# The same, with how many lines of each in turn.
_MIX = (
    ("windows-events-05.ndjson.gz", _windows, 60),
    ("github-events.ndjson.gz", _github, 1),
    ("windows-events-01.ndjson.gz", _windows, 54),
)


def blocks(directory: Path, events: int) -> Iterator[bytes]:
    """`events` lines in blocks of whole lines, pass after pass over the files."""
    left = events
    passes = 0
    while left:
        before = left
        for name, envelope in REAL_FILES:
            path = directory / name
            if not path.exists():
                continue
            shift_ms = passes * _WEEK_MS
            for block, count in _file_events(path, envelope, shift_ms, left):
                left -= count
                yield block
            if not left:
                return
        if left == before:
            raise FileNotFoundError(f"no known file in {directory}")
        passes += 1


def _file_events(
    path: Path, envelope: Callable[[dict[str, Any]], _Envelope], shift_ms: int, limit: int
) -> Iterator[tuple[bytes, int]]:
    """The events of one file, at most `limit`, as blocks with their number of lines."""
    held: list[bytes] = []
    held_bytes = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for line in file:
            if not limit:
                break
            payload = line.rstrip(b"\r\n")
            if not payload.strip():
                continue
            event = _event(envelope(msgspec.json.decode(payload)), shift_ms, payload)
            held.append(event)
            held_bytes += len(event)
            limit -= 1
            if held_bytes >= _BLOCK_BYTES:
                yield b"".join(held), len(held)
                held, held_bytes = [], 0
    yield b"".join(held), len(held)


def _event(envelope: _Envelope, shift_ms: int, payload: bytes) -> bytes:
    account, user, created_ms, action, session = envelope
    return (
        b'{"accountId":%b,"userId":%b,"createdAt":%d,"action":%b,"sessionId":%b,"payload":%b}\n'
        % (
            _encode(account),
            _encode(user),
            created_ms + shift_ms,
            _encode(action),
            _encode(session),
            payload,
        )
    )


def has_log_files(directory: Path) -> bool:
    return all((directory / name).exists() for name in LOG_FILES)


def log_blocks(directory: Path, logs: int) -> Iterator[bytes]:
    """`logs` lines as they are in the files, pass after pass; only line ends are made equal."""
    held: list[bytes] = []
    held_bytes = 0
    while logs:
        for name in LOG_FILES:
            with gzip.open(directory / name, "rb") as file:
                lines = (line.rstrip(b"\r\n") + b"\n" for line in file if line.strip())
                for line in islice(lines, logs):
                    logs -= 1
                    held.append(line)
                    held_bytes += len(line)
                    if held_bytes >= _BLOCK_BYTES:
                        yield b"".join(held)
                        held, held_bytes = [], 0
    yield b"".join(held)


def mixed_logs(directory: Path) -> Iterator[bytes]:
    """Lines without end, each with `context` put before its own fields: account, user, action.

    The files take turns in proportion to their lines, so that every few hundred have some of each.
    """
    sources = [(_endless(directory / name), envelope, turn) for name, envelope, turn in _MIX]
    while True:
        for lines, envelope, turn in sources:
            for line in islice(lines, turn):
                account, user, _, action, _ = envelope(msgspec.json.decode(line))
                yield b'{"context":{"account":%b,"user":{"id":%b},"action":%b},%b' % (
                    _encode(account),
                    _encode(user),
                    _encode(action),
                    line[1:],
                )


def _endless(path: Path) -> Iterator[bytes]:
    while True:
        with gzip.open(path, "rb") as file:
            yield from (line.strip() for line in file if line.strip())


def decoded_blocks(path: Path) -> Iterator[bytes]:
    """A file's content, decompressed when its name says gzip or zstd."""
    if path.suffix == ".zst":
        with path.open("rb") as file:
            yield from zstandard.ZstdDecompressor().read_to_iter(file, read_size=1 << 20)
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
