"""The loaders we compare with, each in a child process, on the same file and the same columns.

Fairness rules:
1. A rival reads the corpus file itself (no HTTP); its clock starts with the statement and stops
   when the rows are committed and checkpointed; process start, import and CREATE are outside.
2. It runs with its own defaults for threads (all CPUs) and with every variant of its settings
   that helps; `best_variant` measures them once and the rounds use the winner.
3. It gets a fresh file database on the file system of our server's folder.
4. Its row count is checked.

A rival that cannot read an encoding is compared by its gzip figure, and the row says so.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.corpus import Corpus, Encoding, cache_directory
from bench.report import Row

__all__ = ["RIVALS", "Rival", "RivalPlan", "RivalResult", "best_variant", "run_rival"]

_SECONDS_MAX = 1800
_REPOSITORY = Path(__file__).resolve().parent.parent


class RivalPlan(Struct, kw_only=True):
    """What a rival's process is told: the input, an empty folder, a variant of its settings."""

    path: str
    encoding: str
    folder: str
    variant: str
    threads: int


class RivalResult(Struct, kw_only=True):
    """What it measured of itself."""

    rows: int
    seconds: float
    cpu_s: float
    peak_rss_mb: float
    stored_mb: float


class Rival(Struct, frozen=True, kw_only=True):
    """A loader: its module, what it needs, what it can read, its variants."""

    name: str
    module: str
    package: str
    encodings: tuple[Encoding, ...]
    variants: tuple[str, ...]

    def available(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def readable(self, encoding: Encoding) -> Encoding:
        """`encoding`, or gzip where this loader cannot read it."""
        return encoding if encoding in self.encodings else "gzip"


RIVALS: tuple[Rival, ...] = (
    Rival(
        name="duckdb",
        module="bench.rival_duckdb",
        package="duckdb",
        encodings=("none", "gzip", "zstd"),
        variants=("default", "unordered"),
    ),
    Rival(
        name="clickhouse",
        module="bench.rival_clickhouse",
        package="chdb",
        encodings=("none", "gzip", "deflate", "zstd"),
        variants=("tuple", "fields"),
    ),
)


def run_rival(rival: Rival, corpus: Corpus, encoding: Encoding, variant: str) -> Row:
    """One load into a fresh database; the row count must be that of the corpus."""
    readable = rival.readable(encoding)
    folder = tempfile.mkdtemp(prefix=f"{rival.name}-", dir=cache_directory())
    plan = RivalPlan(
        path=str(corpus.path(readable)),
        encoding=readable,
        folder=folder,
        variant=variant,
        threads=os.cpu_count() or 1,
    )
    try:
        answer = subprocess.run(
            [sys.executable, "-m", rival.module, msgspec.json.encode(plan).decode()],
            stdout=subprocess.PIPE,
            check=True,
            timeout=_SECONDS_MAX,
            cwd=_REPOSITORY,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = msgspec.json.decode(answer.stdout.splitlines()[-1], type=RivalResult)
    if result.rows != corpus.events:
        raise AssertionError(f"{rival.name} holds {result.rows} rows of {corpus.events}")
    return Row(
        bench="path",
        name=f"{rival.name} {readable} {variant}",
        events=corpus.events,
        raw_bytes=corpus.raw_bytes,
        seconds=result.seconds,
        cpu_s=result.cpu_s,
        peak_rss_mb=result.peak_rss_mb,
        extra={"stored_mb": round(result.stored_mb, 1)},
    )


def best_variant(rival: Rival, corpus: Corpus, encoding: Encoding) -> tuple[str, list[Row]]:
    """The fastest variant by one run of each, and those runs."""
    rows = [run_rival(rival, corpus, encoding, variant) for variant in rival.variants]
    fastest = min(range(len(rows)), key=lambda index: rows[index].seconds)
    return rival.variants[fastest], rows
