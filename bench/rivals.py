"""The loaders we compare with, each in a child process, on the same file and the same columns.

Fairness rules:
1. A rival reads the corpus file itself (no HTTP); its clock starts with the statement and stops
   when the rows are committed and checkpointed; process start, import and CREATE are outside.
2. It runs with its own defaults for threads (all CPUs) and with every variant of its settings
   that helps. Variants named in `repeated` take part in every round; of the others `best_variant`
   measures each once and the rounds use the winner.
3. It gets a fresh file database on the file system of our server's folder.
4. Its row count is checked; of logs also what it extracted (`log_sql.LogFacts`).

A rival that cannot read an encoding is compared by its gzip figure, and the row says so.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.corpus import Corpus, Encoding, cache_directory
from bench.log_sql import LogFacts
from bench.options import Options
from bench.report import Row

__all__ = [
    "LOG_RIVALS",
    "QUERY_RIVALS",
    "RIVALS",
    "Rival",
    "RivalPlan",
    "RivalResult",
    "available_rivals",
    "best_variant",
    "rival_result",
    "rival_row",
    "run_rival",
]

_SECONDS_MAX = 1800
_REPOSITORY = Path(__file__).resolve().parent.parent


class RivalPlan(Struct, kw_only=True):
    """What a rival's process is told: the input, an empty folder, a variant of its settings.

    `data` is the command line's choice of a corpus, which tells the names of properties in logs.
    """

    path: str
    encoding: str
    folder: str
    variant: str
    threads: int
    data: str = "synthetic"


class RivalResult(Struct, kw_only=True):
    """What it measured of itself."""

    rows: int
    seconds: float
    cpu_s: float
    peak_rss_mb: float
    stored_mb: float
    facts: LogFacts | None = None


class Rival(Struct, frozen=True, kw_only=True):
    """A loader: its module, what it needs, what it can read, its variants and their labels."""

    name: str
    module: str
    package: str
    encodings: tuple[Encoding, ...]
    variants: Mapping[str, str]
    repeated: tuple[str, ...] = ()

    def available(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def readable(self, encoding: Encoding) -> Encoding:
        """`encoding`, or gzip where this loader cannot read it."""
        return encoding if encoding in self.encodings else "gzip"


_DUCKDB_VARIANTS = {
    "default": "plain INSERT … SELECT",
    "unordered": "preserve_insertion_order=false",
}

RIVALS: tuple[Rival, ...] = (
    Rival(
        name="duckdb",
        module="bench.rival_duckdb",
        package="duckdb",
        encodings=("none", "gzip", "zstd"),
        variants=_DUCKDB_VARIANTS,
        repeated=tuple(_DUCKDB_VARIANTS),
    ),
    Rival(
        name="clickhouse",
        module="bench.rival_clickhouse",
        package="chdb",
        encodings=("none", "gzip", "deflate", "zstd"),
        variants={"tuple": "one typed JSONExtract", "fields": "five JSONExtract"},
    ),
)

LOG_RIVALS: tuple[Rival, ...] = (
    Rival(
        name="duckdb",
        module="bench.rival_duckdb_logs",
        package="duckdb",
        encodings=("none", "gzip", "zstd"),
        variants=_DUCKDB_VARIANTS,
        repeated=tuple(_DUCKDB_VARIANTS),
    ),
    Rival(
        name="clickhouse",
        module="bench.rival_clickhouse_logs",
        package="chdb",
        encodings=("none", "gzip", "deflate", "zstd"),
        variants={"tuple": "one typed JSONExtract"},
        repeated=("tuple",),
    ),
)

QUERY_RIVALS: tuple[Rival, ...] = (
    Rival(
        name="clickhouse",
        module="bench.rival_clickhouse_queries",
        package="chdb",
        encodings=("zstd",),
        variants={"json": "a JSON column"},
    ),
)


def available_rivals(rivals: tuple[Rival, ...], options: Options) -> list[Rival]:
    """Those that were asked for and are installed; a missing one is a note."""
    found = []
    for rival in rivals:
        if rival.name not in options.rivals:
            continue
        if rival.available():
            found.append(rival)
        else:
            options.add_note(f"{rival.name} skipped: install the extra 'bench' ({rival.package})")
    return found


def run_rival(rival: Rival, corpus: Corpus, encoding: Encoding, variant: str) -> Row:
    """One load into a fresh database; the row count must be that of the corpus."""
    result = rival_result(rival, corpus, encoding, variant)
    return rival_row(rival, corpus, encoding, variant, result)


def rival_result(
    rival: Rival, corpus: Corpus, encoding: Encoding, variant: str, data: str = "synthetic"
) -> RivalResult:
    """What a process of the rival's measured of itself."""
    readable = rival.readable(encoding)
    folder = tempfile.mkdtemp(prefix=f"{rival.name}-", dir=cache_directory())
    plan = RivalPlan(
        path=str(corpus.path(readable)),
        encoding=readable,
        folder=folder,
        variant=variant,
        threads=os.cpu_count() or 1,
        data=data,
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
    return result


def rival_row(
    rival: Rival,
    corpus: Corpus,
    encoding: Encoding,
    variant: str,
    result: RivalResult,
    bench: str = "path",
) -> Row:
    """The result as a line of the table."""
    return Row(
        bench=bench,
        name=f"{rival.name} {rival.readable(encoding)}, {rival.variants[variant]}",
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
    return list(rival.variants)[fastest], rows
