"""Questions over logs of a week: searches, charts, fields, beside ClickHouse with a `JSON` column.

The logs come in once through the honest door of one server, a request a day, and are sealed, as all
but the newest are; the rival reads the same files into its table. Then every question is asked in
rounds, ours and theirs in turn, each over and over for about a second, and both answers must be
equal each time. Events are the logs of the asked span, so that events a second say how fast a
question goes over them.

Loading is told for the record: both read the same files, but ours comes over HTTP.

Second figure (`query_beside.py`): what single requests notice of heavy searches and queries, on a
server that holds the same logs and seals nothing meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import msgspec

from bench.asker import Asker
from bench.options import Options
from bench.path import measured_upload
from bench.process import cpu_seconds, memory_mb, reset_peak_memory, wait_quiet
from bench.query_beside import beside_searches
from bench.query_corpus import QueryCorpus, open_query_corpus
from bench.query_questions import Question, questions
from bench.query_rival import RivalProcess, loaded_rival
from bench.report import Row
from bench.rivals import QUERY_RIVALS, available_rivals
from bench.rounds import Contender, compare_rounds
from bench.server import Server, run_server

__all__ = ["run"]

_BENCH = "query"
_LOGS = 10_000_000
_SMOKE_LOGS = 1_400
_ASKING_SECONDS = 1.0  # a question that takes less is asked again and again
_TIMES_MAX = 50
_SEALING_SECONDS_MAX = 3600.0
# No question is cut off: a slow answer is a figure too.
_SETTINGS = {"INGESTER_STORE_QUERY_SECONDS_MAX": "600"}


def run(options: Options) -> list[Row]:
    """Loading, then each question as ours and theirs, then small requests beside searches."""
    logs = options.events or options.rows or (_SMOKE_LOGS if options.smoke else _LOGS)
    corpus = open_query_corpus(logs)
    if not corpus.is_real:
        options.add_note("query: synthetic logs; the real files are not beside the repository")
    # A day's upload fills a part.
    part_bytes = min(day.path("zstd").stat().st_size for day in corpus.days) // 2
    with run_server(_SETTINGS | {"INGESTER_STORE_PART_BYTES_MAX": str(part_bytes)}) as server:
        rows = [_upload(server, corpus)]
        token = server.read_token()
        rows.append(_sealing(server, token, corpus, options))
        rivals = available_rivals(QUERY_RIVALS, options)
        if rivals:
            with loaded_rival(rivals[0], corpus) as rival:
                rows.append(rival.loading)
                rows += _compare(server, token, corpus, rival, options)
        else:
            rows += _compare(server, token, corpus, None, options)
    with run_server(_SETTINGS) as server:
        _upload(server, corpus)
        rows += beside_searches(server, server.read_token(), corpus, options)
    return rows


def _sealing(server: Server, token: str, corpus: QueryCorpus, options: Options) -> Row:
    """Until all of it is; in part beside the uploads. A tiny corpus is no file of its own and
    stays.
    """
    began, cpu = time.perf_counter(), cpu_seconds(server.pid)
    gives_up_at = began + _SEALING_SECONDS_MAX
    while not options.smoke and _files_left(server, token):
        assert time.perf_counter() < gives_up_at, "the logs were not sealed"
        time.sleep(1.0)
    files = [*(server.data_dir / "sealed").rglob("*.parquet")]
    return Row(
        bench=_BENCH,
        name="ours, sealing behind the last upload",
        events=corpus.logs,
        raw_bytes=corpus.raw_bytes,
        seconds=time.perf_counter() - began,
        cpu_s=cpu_seconds(server.pid) - cpu,
        peak_rss_mb=memory_mb(server.pid),
        extra={"stored_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1)},
    )


def _files_left(server: Server, token: str) -> int:
    with closing(Asker(server.console, token)) as asker:
        status = msgspec.json.decode(asker.get("/api/v1/status"))
    return int(status["actors"]["store"]["upload_files"])


def _upload(server: Server, corpus: QueryCorpus) -> Row:
    """Every day in a request of its own, one after the other."""
    door = server.ingest_door()
    days = [measured_upload(server, door, day, "zstd", _BENCH) for day in corpus.days]
    folders = (server.data_dir / "open", server.data_dir / "uploads")
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    stored = sum(path.stat().st_size for path in files)
    return Row(
        bench=_BENCH,
        name="ours, loading",
        events=corpus.logs,
        raw_bytes=corpus.raw_bytes,
        seconds=sum(day.seconds for day in days),
        cpu_s=sum(day.cpu_s for day in days),
        client_cpu_s=sum(day.client_cpu_s for day in days),
        peak_rss_mb=max(day.peak_rss_mb for day in days),
        extra={"stored_mb": round(stored / 1e6, 1)},
    )


def _compare(
    server: Server,
    token: str,
    corpus: QueryCorpus,
    rival: RivalProcess | None,
    options: Options,
) -> list[Row]:
    """Ours, then the rival in each of its ways, question by question."""
    rows: list[Row] = []
    with closing(Asker(server.console, token)) as asker:
        for question in questions(corpus):
            contest = _Contest(server, asker, question, options.smoke)
            rows += compare_rounds(
                f"{_BENCH} {question.name}",
                contest.ours,
                [] if rival is None else contest.contenders(rival),
                1 if options.smoke else options.rounds,
            )
    return rows


class _Contest:
    """One question. It is asked once of each side before it is timed: that answer is the one that
    all others must equal, and tells how often it is asked in a round.
    """

    def __init__(self, server: Server, asker: Asker, question: Question, smoke: bool) -> None:
        self._server = server
        self._asker = asker
        self._question = question
        self._smoke = smoke
        self._found = msgspec.json.decode(asker.get(question.target))
        self._rows = question.rows(self._found)
        assert self._rows, f"nothing answers {question.name}"
        # Of the second time: the first one read the files from the disk.
        self._times = self._often(_timed(lambda: asker.get(question.target)))

    def ours(self) -> Row:
        pid = self._server.pid
        if not self._smoke:
            wait_quiet(pid)
        reset_peak_memory(pid)
        cpu = cpu_seconds(pid)
        content = b""

        def ask() -> None:
            nonlocal content
            for _ in range(self._times):
                content = self._asker.get(self._question.target)

        seconds = _timed(ask)
        cpu_s = cpu_seconds(pid) - cpu
        self._check("ours", self._question.rows(msgspec.json.decode(content)))
        row = self._row("ours", self._times, seconds / self._times, cpu_s / self._times)
        row.peak_rss_mb = memory_mb(pid)
        return row

    def contenders(self, rival: RivalProcess) -> list[Contender]:
        """The rival in every way of asking it."""
        found = []
        for way in self._question.ways:
            sql = way.sql(self._found)
            name = " ".join(filter(None, (rival.name, way.name)))
            self._check(name, way.bring(rival.ask(sql).rows))
            times = self._often(rival.ask(sql).seconds)
            theirs = partial(self._theirs, rival, name, sql, times, way.bring)
            found.append(Contender(rival.name, theirs))
        return found

    def _theirs(
        self,
        rival: RivalProcess,
        name: str,
        sql: str,
        times: int,
        bring: Callable[[list[list[Any]]], list[list[Any]]],
    ) -> Row:
        answered = rival.ask(sql, times)
        self._check(name, bring(answered.rows))
        row = self._row(name, times, answered.seconds, answered.cpu_s)
        row.peak_rss_mb = answered.peak_rss_mb
        return row

    def _often(self, seconds: float) -> int:
        if self._smoke:
            return 1
        return max(1, min(_TIMES_MAX, round(_ASKING_SECONDS / seconds)))

    def _check(self, name: str, rows: list[list[Any]]) -> None:
        if rows == self._rows:
            return
        pairs = zip(rows, self._rows, strict=False)
        differing = next((pair for pair in pairs if pair[0] != pair[1]), None)
        raise AssertionError(
            f"{name} answers {self._question.name} with {len(rows)} rows, before it was "
            f"{len(self._rows)}; the first that differ: {differing}"
        )

    def _row(self, name: str, times: int, seconds: float, cpu_s: float) -> Row:
        return Row(
            bench=_BENCH,
            name=f"{name}, {self._question.name}",
            events=self._question.logs,
            seconds=seconds,
            cpu_s=cpu_s,
            extra={"rows": len(self._rows), "times": times},
        )


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
