"""The input of every bench: seeded synthetic product events, and real lines in event shape.

Why a cache: both sides of a comparison must read the same bytes, and making them must not cost
time in each run. Invariants:

1. The same kind, seed and version give the same bytes on every machine; only `random()` and
   `getrandbits()` are drawn, whose sequences Python keeps stable.
2. A corpus of N events is the beginning of every longer one of its kind.
3. A cached file is complete: it is written under a temporary name and renamed.

Refuses to hold a corpus in memory: generators yield blocks of about 1 MiB.
"""

from __future__ import annotations

import os
import random
import zlib
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec
import zstandard
from isal import isal_zlib
from msgspec import Struct

from bench import real_lines
from bench.report import note

__all__ = [
    "ENCODINGS",
    "Corpus",
    "Encoding",
    "cache_directory",
    "cached_corpus",
    "cached_zstd",
    "dirty_corpus",
    "file_corpus",
    "open_corpus",
    "real_corpus",
    "synthetic_blocks",
    "synthetic_corpus",
]

Encoding = Literal["none", "gzip", "deflate", "zstd"]
ENCODINGS: tuple[Encoding, ...] = ("none", "gzip", "deflate", "zstd")

# ClickHouse and DuckDB tell the encoding by the suffix.
_SUFFIX = {"none": "", "gzip": ".gz", "deflate": ".deflate", "zstd": ".zst"}

_VERSION = 1  # of the generator; part of every cached name
_SEED = 20260711
_BLOCK_LINES = 3000  # about 1 MiB
_DIRTY_EVERY = 1000  # one bad line in so many


class Corpus(Struct, frozen=True):
    """One input: `events` valid lines and `rejects` invalid ones, `raw_bytes` undecoded.

    `plain` is the uncompressed file; compressed forms lie beside it and are made on first use.
    """

    name: str
    plain: Path
    events: int
    rejects: int
    raw_bytes: int

    def path(self, encoding: Encoding) -> Path:
        """The file holding this corpus in `encoding`."""
        if encoding == "none":
            return self.plain
        target = self.plain.with_name(self.plain.name + _SUFFIX[encoding])
        if not target.exists():
            note(f"corpus {self.name}: writing {encoding}")
            _write_whole(target, _compressed(_file_blocks(self.plain), encoding))
        return target


def cache_directory() -> Path:
    """`$INGESTER_BENCH_CACHE`, else `~/.cache/ingester-bench`; made when missing."""
    configured = os.environ.get("INGESTER_BENCH_CACHE", "")
    path = Path(configured) if configured else Path.home() / ".cache" / "ingester-bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


def synthetic_corpus(events: int) -> Corpus:
    """`events` valid product events of about 340 bytes."""
    return cached_corpus(
        f"synthetic-v{_VERSION}-{events}", lambda: synthetic_blocks(events), events, 0
    )


def dirty_corpus(events: int) -> Corpus:
    """The same events with one line in a thousand made invalid, in every way in turn."""
    rejects = events // _DIRTY_EVERY
    name = f"dirty-v{_VERSION}-{events}"
    return cached_corpus(
        name, lambda: _dirtied(synthetic_blocks(events)), events - rejects, rejects
    )


def real_corpus(events: int, directory: Path | None = None) -> Corpus | None:
    """Real lines as events, repeated with shifted times; None where the data is absent."""
    found = directory or real_lines.find_directory()
    if found is None:
        return None
    name = f"real-v{_VERSION}-{events}"
    return cached_corpus(name, lambda: real_lines.blocks(found, events), events, 0)


def open_corpus(data: str, events: int) -> Corpus | None:
    """The corpus a command line asks for: `synthetic`, `real`, or the path of an NDJSON file."""
    if data == "synthetic":
        return synthetic_corpus(events)
    if data == "real":
        return real_corpus(events)
    return file_corpus(Path(data))


# --- files -----------------------------------------------------------------------------------


class _Facts(Struct, frozen=True):
    """What is kept beside a cached file, so that nobody counts it again."""

    events: int
    rejects: int
    raw_bytes: int


def cached_corpus(
    name: str, blocks: Callable[[], Iterable[bytes]], events: int, rejects: int
) -> Corpus:
    """The file of that name with its facts, written when it is not there yet."""
    plain = cache_directory() / f"{name}.ndjson"
    facts_path = plain.with_suffix(".facts.json")
    if not (plain.exists() and facts_path.exists()):
        note(f"corpus {name}: writing (once)")
        raw_bytes = _write_whole(plain, blocks())
        facts = msgspec.json.encode(_Facts(events, rejects, raw_bytes))
        _write_whole(facts_path, [facts])
    facts_read = msgspec.json.decode(facts_path.read_bytes(), type=_Facts)
    assert (facts_read.events, facts_read.rejects) == (events, rejects), name
    return Corpus(name, plain, events, rejects, facts_read.raw_bytes)


def cached_zstd(name: str, blocks: Callable[[], Iterable[bytes]], events: int) -> Corpus:
    """The same of valid lines, kept as zstd alone: for what is too large to lie about as it is."""
    plain = cache_directory() / f"{name}.ndjson"
    packed = plain.with_name(plain.name + _SUFFIX["zstd"])
    facts_path = plain.with_suffix(".facts.json")
    if not (packed.exists() and facts_path.exists()):
        note(f"corpus {name}: writing (once)")
        raw_bytes = 0

        def counted() -> Iterator[bytes]:
            nonlocal raw_bytes
            for block in blocks():
                raw_bytes += len(block)
                yield block

        _write_whole(packed, _compressed(counted(), "zstd"))
        _write_whole(facts_path, [msgspec.json.encode(_Facts(events, 0, raw_bytes))])
    facts = msgspec.json.decode(facts_path.read_bytes(), type=_Facts)
    assert facts.events == events, name
    return Corpus(name, plain, events, 0, facts.raw_bytes)


def file_corpus(path: Path) -> Corpus:
    """A file of the caller's, taken to hold valid lines only; decoded into the cache."""
    stat = path.stat()
    name = f"file-{path.name}-{stat.st_size}-{stat.st_mtime_ns}"
    plain = cache_directory() / f"{name}.ndjson"
    if not plain.exists():
        _write_whole(plain, real_lines.decoded_blocks(path))
    raw_bytes = plain.stat().st_size
    return Corpus(name, plain, _line_count(plain), 0, raw_bytes)


def _line_count(path: Path) -> int:
    """Lines that are not blank; the last one may lack its newline."""
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _write_whole(path: Path, blocks: Iterable[bytes]) -> int:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    written = 0
    try:
        with temporary.open("wb") as file:
            for block in blocks:
                written += file.write(block)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return written


def _file_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def _compressed(blocks: Iterable[bytes], encoding: Encoding) -> Iterator[bytes]:
    """One stream at the level the usual clients use: gzip and zlib 6, zstd 3."""
    if encoding == "zstd":
        zstd = zstandard.ZstdCompressor(level=3).compressobj()
        for block in blocks:
            yield zstd.compress(block)
        yield zstd.flush()
        return
    zlib_stream = zlib.compressobj(6, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    for block in blocks:
        yield zlib_stream.compress(block)
    yield zlib_stream.flush()


def inflated_bytes(path: Path, encoding: Encoding) -> bytes:
    """A whole small corpus file decoded, for checks."""
    data = path.read_bytes()
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if encoding == "none":
        return data
    return bytes(isal_zlib.decompress(data, 31 if encoding == "gzip" else 15))


# --- synthetic events ------------------------------------------------------------------------

_ACCOUNT_COUNT = 5000
_SESSION_COUNT = 2000  # open at any moment; an event ends its session with chance 1/16
_START_MS = 1_790_000_000_000

_MODULES = ("billing", "reports", "admin", "editor", "inbox", "search", "settings", "Übersicht")
_NAMES = ("Zoë Müller", "José Ñandú", "Łukasz Żak", "佐藤 花子", "Оля Иванова", "Ann Lee")
_LOCALES = ("de-DE", "en-US", "fr-FR", "ja-JP")
_TEXTS = (
    r"Looks great \u2013 thanks",
    r"She said \"no\" twice\nthen left",
    "très bien, déjà vu",
    "保存しました",
    "done ✅",
    r"C:\\reports\\2026",
    "ok",
    "plain words and nothing else",
)
_PLANS = ("free", "pro", "scale", "unlimited")
_OTHER_ACTIONS = ("checkout", "export", "searchRun", "fileUpload")


def _zipf_table() -> list[int]:
    """65,536 slots filled with account numbers, account k in proportion to 1/k^1.1."""
    weights = list(accumulate(1 / (rank**1.1) for rank in range(1, _ACCOUNT_COUNT + 1)))
    total = weights[-1]
    return [bisect(weights, (slot + 0.5) / 65536 * total) for slot in range(65536)]


def _new_session(bits: Callable[[int], int], zipf: list[int]) -> str:
    """The identity part of a line, up to and without the time."""
    account = zipf[bits(16)]
    user = bits(18) % (20 + 40_000 // (account + 1))
    return (
        f'{{"accountId":"acct-{account:05d}","userId":"user-{user:06d}@acct-{account:05d}.example",'
        f'"sessionId":"{bits(128):032x}","createdAt":'
    )


def _properties(bits: Callable[[int], int]) -> str:
    """Action and what belongs to it: the known actions and others, with nested properties."""
    draw = bits(7)
    module = _MODULES[bits(3)]
    if draw < 40:
        return (
            f'"feature","feature":"{module}.{_TEXTS[7] if draw == 0 else "open"}",'
            f'"module":"{module}","total":{1 + bits(3)},"product":"core-{bits(2)}",'
            f'"flags":{{"beta":{"true" if draw & 1 else "false"},"cohort":{bits(6)}}}'
        )
    if draw < 70:
        return (
            f'"pageViewEnd","properties":{{"path":"/app/{module}/{bits(17)}",'
            f'"referrer":"https://example.com/{_MODULES[bits(3)]}","viewport":'
            f'[{300 + bits(11)},{300 + bits(10)}],"timing":{{"ttfb":{bits(9)},"dom":{bits(12)}}}}}'
        )
    if draw < 85:
        return f'"sessionSync","activeDuration":{bits(16)},"idle":{bits(10)},"tabs":{1 + bits(3)}'
    if draw < 100:
        return f'"moduleEnd","module":"{module}","timeSpent":{bits(17)},"depth":0.{bits(20)}'
    if draw < 106:
        return (
            f'"identifyUser","details":{{"name":"{_NAMES[bits(8) % 6]}","plan":"{_PLANS[bits(2)]}",'
            f'"seats":{bits(9)},"email":"u{bits(17)}@example.com","tags":["a{bits(4)}","b{bits(4)}"]}}'
        )
    if draw < 110:
        return (
            f'"identifyAccount","details":{{"name":"{_NAMES[bits(8) % 6]} GmbH",'
            f'"plan":"{_PLANS[bits(2)]}","mrr":{bits(14)}.{bits(6)},"region":null}}'
        )
    return (
        f'"{_OTHER_ACTIONS[bits(2)]}","properties":{{"item":{{"sku":"ZO{bits(33):010d}",'
        f'"price":{bits(9)}.{bits(6):02d},"labels":["{module}","{bits(12)}"]}},'
        f'"comment":"{_TEXTS[bits(3)]}","ab":{{"group":"{"ab"[bits(1)]}","exp":{bits(5)}}}}}'
    )


def synthetic_blocks(events: int, seed: int = _SEED) -> Iterator[bytes]:
    """`events` lines in blocks of whole lines."""
    bits = random.Random(seed).getrandbits
    zipf = _zipf_table()
    sessions = [_new_session(bits, zipf) for _ in range(_SESSION_COUNT)]
    time_ms = _START_MS
    lines: list[str] = []
    for _ in range(events):
        time_ms += bits(5)
        slot = bits(16) % _SESSION_COUNT
        lines.append(
            f'{sessions[slot]}{time_ms},"action":{_properties(bits)},"context":{{'
            f'"ip":"10.{bits(8)}.{bits(8)}.{bits(8)}","locale":"{_LOCALES[bits(2)]}",'
            f'"lib":"ingester-bench/1.0"}}}}\n'
        )
        if not bits(4):
            sessions[slot] = _new_session(bits, zipf)
        if len(lines) >= _BLOCK_LINES:
            yield "".join(lines).encode()
            lines.clear()
    yield "".join(lines).encode()


def _dirtied(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Every thousandth line spoilt: cut, a field missing, of a wrong type, or no object."""
    spoil: tuple[Callable[[bytes], bytes], ...] = (
        lambda line: line[: len(line) // 2],
        lambda line: line.replace(b'"userId"', b'"nobody"'),
        lambda line: line.replace(b'"createdAt":', b'"createdAt":"x","was":'),
        lambda line: b"[" + line + b"]",
        lambda line: line + line,
        lambda line: line.replace(b'"lib":"', b'"lib":"\xff'),
    )
    number = 0
    for block in blocks:
        lines = block.split(b"\n")
        for index in range(len(lines) - 1):
            number += 1
            if number % _DIRTY_EVERY == 0:
                lines[index] = spoil[number // _DIRTY_EVERY % len(spoil)](lines[index])
        yield b"\n".join(lines)
