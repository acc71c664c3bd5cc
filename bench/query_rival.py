"""A rival that is asked: a process that loads the logs into its table and answers SQL.

One JSON document a line on its standard streams: it prints a `Loaded` when every log is in and
its table has settled, then for each `Ask` an `Answered`, until its input ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.corpus import cache_directory
from bench.log_sql import LogNames
from bench.query_corpus import QueryCorpus
from bench.report import Row, note
from bench.rivals import Rival, RivalPlan
from bench.server import child_line

__all__ = ["Answered", "Ask", "Loaded", "QueryPlan", "RivalProcess", "loaded_rival"]

_LOAD_SECONDS_MAX = 7200.0
_REPOSITORY = Path(__file__).resolve().parent.parent


class QueryPlan(Struct, kw_only=True):
    """What its process is told: where the files are (a pattern), and what their fields mean."""

    load: RivalPlan
    names: LogNames


class Loaded(Struct, kw_only=True):
    """What loading took, and how long the table then went on merging."""

    rows: int
    seconds: float
    cpu_s: float
    stored_mb: float


class Ask(Struct):
    """One SELECT, asked `times` times."""

    sql: str
    times: int


class Answered(Struct, kw_only=True):
    """The rows, and what one time cost on average."""

    rows: list[list[Any]]
    seconds: float
    cpu_s: float
    peak_rss_mb: float


class RivalProcess:
    """A loaded rival that answers."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], loading: Row) -> None:
        self.name = name
        self.loading = loading
        self._process = process

    def ask(self, sql: str, times: int = 1) -> Answered:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(Ask(sql, times)) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; its error is above")
        return msgspec.json.decode(line, type=Answered)


@contextmanager
def loaded_rival(rival: Rival, corpus: QueryCorpus) -> Iterator[RivalProcess]:
    """The rival in a process of its own, every log in its table; ended with its folder."""
    folder = tempfile.mkdtemp(prefix=f"{rival.name}-", dir=cache_directory())
    load = RivalPlan(
        path=corpus.pattern,
        encoding="zstd",
        folder=folder,
        variant=next(iter(rival.variants)),
        threads=os.cpu_count() or 1,
    )
    plan = QueryPlan(load=load, names=corpus.names)
    command = [sys.executable, "-m", rival.module, msgspec.json.encode(plan).decode()]
    note(f"{rival.name}: loading")
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_REPOSITORY
        ) as process:
            try:
                assert process.stdout is not None
                line = child_line(process.stdout, _LOAD_SECONDS_MAX)
                if not line:
                    raise RuntimeError(f"{rival.name} did not load; its error is above")
                loaded = msgspec.json.decode(line, type=Loaded)
                if loaded.rows != corpus.logs:
                    raise AssertionError(f"{rival.name} holds {loaded.rows} of {corpus.logs}")
                yield RivalProcess(rival.name, process, _loading_row(rival, corpus, loaded))
            except BaseException:
                process.kill()
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _loading_row(rival: Rival, corpus: QueryCorpus, loaded: Loaded) -> Row:
    return Row(
        bench="query",
        name=f"{rival.name}, loading",
        events=corpus.logs,
        raw_bytes=corpus.raw_bytes,
        seconds=loaded.seconds,
        cpu_s=loaded.cpu_s,
        extra={"stored_mb": round(loaded.stored_mb, 1)},
    )
