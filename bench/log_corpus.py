"""Seeded synthetic logs as services write them, and real lines as logs.

The mix: records with an RFC 3339 time, a level by name and nested fields (half), pino's numeric
levels and epoch milliseconds (a quarter), zap's epoch seconds with a fraction and `severity`, and
a share without any level, some of them guessed from an `error`, or without a message. Lines are
compact, so that a payload that is its own message is the line itself.

Invariants are those of `corpus.py`: the same bytes everywhere, a short corpus is the beginning of
every longer one. All times lie in one day of January 2026, so that none is ever in the future.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import real_lines
from bench.corpus import Corpus, cached_corpus, file_corpus

__all__ = ["log_blocks", "log_line", "open_log_corpus", "real_log_corpus", "synthetic_log_corpus"]

_VERSION = 1  # of the generator; part of every cached name
_SEED = 20260712
_BLOCK_LINES = 3000
_START_MS = 1_767_225_600_000  # 2026-01-01
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# By their number of slots of 16; aliases and capitals as they are met in the wild.
_LEVELS = ("info",) * 8 + ("debug", "debug", "INFO", "warn", "warning", "error", "err", "notice")
_SEVERITIES = ("INFO",) * 5 + ("WARN", "ERROR", "CRITICAL")
_PINO_LEVELS = (30,) * 11 + (20, 20, 40, 50, 60)
_SERVICES = ("checkout", "billing", "search", "gateway", "mailer", "auth", "catalog", "reports")
_METHODS = ("GET", "GET", "POST", "PUT")
_STATUSES = (200, 200, 200, 200, 201, 304, 404, 503)
_MESSAGES = (
    "request completed",
    "cache miss, reading through",
    r"payment of \"Zoë Müller\" accepted",
    "job finished and its lease was given back",
    r"upstream answered late:\n  at connect (net.js:1141)\n  at retry (pool.js:77)",
    "保存しました",
    "session was extended",
    r"wrote C:\\reports\\2026 in one piece",
)
_ERRORS = ("connect ECONNREFUSED 10.0.0.7:5432", "deadline exceeded", "déjà supprimé", "EPIPE")


def open_log_corpus(data: str, logs: int) -> Corpus | None:
    """`synthetic`, `real` (None where the data is absent), or the path of an NDJSON file."""
    if data == "synthetic":
        return synthetic_log_corpus(logs)
    return real_log_corpus(logs) if data == "real" else file_corpus(Path(data))


def synthetic_log_corpus(logs: int) -> Corpus:
    """`logs` objects of about 300 bytes, one a line."""
    return cached_corpus(f"logs-v{_VERSION}-{logs}", lambda: log_blocks(logs), logs, 0)


def real_log_corpus(logs: int, directory: Path | None = None) -> Corpus | None:
    """Real lines as they are, repeated; None where the data is absent."""
    found = directory or real_lines.find_directory()
    if found is None or not real_lines.has_log_files(found):
        return None
    name = f"real-logs-v{_VERSION}-{logs}"
    return cached_corpus(name, lambda: real_lines.log_blocks(found, logs), logs, 0)


def log_blocks(logs: int, seed: int = _SEED) -> Iterator[bytes]:
    """`logs` lines in blocks of whole lines."""
    bits = random.Random(seed).getrandbits
    time_ms = _START_MS
    lines: list[str] = []
    for _ in range(logs):
        time_ms += bits(5)
        lines.append(log_line(bits, time_ms))
        if len(lines) >= _BLOCK_LINES:
            yield "".join(lines).encode()
            lines.clear()
    yield "".join(lines).encode()


def log_line(bits: Callable[[int], int], time_ms: int) -> str:
    """One line of that time; `bits` draws what it says."""
    draw = bits(5)
    if draw < 16:
        return _structured(bits, time_ms)
    if draw < 24:
        return _pino(bits, time_ms)
    if draw < 28:
        return _zap(bits, time_ms)
    return _without_level(bits, time_ms)


def _rfc3339(time_ms: int, places: str = "milliseconds") -> str:
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    return moment.isoformat(timespec=places)[:-6] + "Z"


def _structured(bits: Callable[[int], int], time_ms: int) -> str:
    service = _SERVICES[bits(3)]
    return (
        f'{{"timestamp":"{_rfc3339(time_ms)}","level":"{_LEVELS[bits(4)]}",'
        f'"message":"{_MESSAGES[bits(3)]}","service":"{service}","trace_id":"{bits(128):032x}",'
        f'"http":{{"method":"{_METHODS[bits(2)]}","path":"/api/{service}/{bits(17)}",'
        f'"status":{_STATUSES[bits(3)]},"duration_ms":{bits(10)}.{1 + bits(3)}}},'
        f'"user":{{"id":"user-{bits(17):06d}","roles":["r{bits(3)}","r{bits(3)}"]}}}}\n'
    )


def _pino(bits: Callable[[int], int], time_ms: int) -> str:
    return (
        f'{{"level":{_PINO_LEVELS[bits(4)]},"time":{time_ms},"pid":{bits(12)},'
        f'"hostname":"{_SERVICES[bits(3)]}-{bits(32):08x}","reqId":"{bits(64):016x}",'
        f'"req":{{"method":"{_METHODS[bits(2)]}","url":"/v2/{_SERVICES[bits(3)]}?page={bits(9)}",'
        f'"remoteAddress":"10.{bits(8)}.{bits(8)}.{bits(8)}","remotePort":{1024 + bits(15)}}},'
        f'"res":{{"statusCode":{_STATUSES[bits(3)]},"length":{bits(15)}}},'
        f'"responseTime":{bits(10)},"msg":"{_MESSAGES[bits(3)]}"}}\n'
    )


def _zap(bits: Callable[[int], int], time_ms: int) -> str:
    seconds, rest = divmod(time_ms, 1000)
    return (
        f'{{"severity":"{_SEVERITIES[bits(3)]}","ts":{seconds}.{rest:03d}{1 + bits(3)},'
        f'"logger":"{_SERVICES[bits(3)]}.worker","caller":"pool/run.go:{bits(10)}",'
        f'"msg":"{_MESSAGES[bits(3)]}","job":{{"id":"{bits(96):024x}","attempt":{1 + bits(2)},'
        f'"queue":"q{bits(4)}","payload_bytes":{bits(18)},"tags":["t{bits(5)}","t{bits(5)}"]}},'
        f'"shard":{bits(6)}}}\n'
    )


def _without_level(bits: Callable[[int], int], time_ms: int) -> str:
    """Half with a message only, a quarter with an error to guess from, a quarter with neither."""
    draw = bits(2)
    said = f'"msg":"{_MESSAGES[bits(3)]}",' if draw < 3 else ""
    failed = f'"error":"{_ERRORS[bits(2)]}",' if draw == 2 else ""
    return (
        f'{{"time":"{_rfc3339(time_ms, "microseconds")}",{said}{failed}'
        f'"source":"{_SERVICES[bits(3)]}","container":{{"id":"{bits(128):032x}",'
        f'"image":"registry.example/{_SERVICES[bits(3)]}:{bits(6)}.{bits(4)}"}},'
        f'"labels":{{"zone":"z{bits(2)}","node":"node-{bits(8):03d}","rev":"{bits(40):010x}"}}}}\n'
    )
