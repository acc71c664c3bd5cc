"""Rollups: what they cost uploads, how far they lag, and a year of hourly series out of them.

Uploads one after another go to a server as it is and to one whose rollup actor sleeps, in turn; the
loss is what the pairs differ by. The lag is sampled from `/metrics` all the while. The year is a
store of its own, filled through the store's own transactions with events of little text: the
series are the server's own code, out of rollups and out of rows.

Limits asked for: lag at most 5 s behind bodies of 1 M rows at no more than 35 % of their rate, 2 s
beside 5,000 small requests a second; the year within 50 ms on 100 M events.
"""

from __future__ import annotations

import http.client
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct, field

from bench import server as server_module
from bench.client import small_client, upload
from bench.corpus import Corpus, cache_directory, synthetic_corpus
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory
from bench.report import Row, note, pairwise_ratios
from bench.rollup_year import Told, YearStore, opened_year
from bench.server import Server, run_server

__all__ = ["run"]

_BODIES = 5  # one after another; the lag grows, if it does
_SMALL_RATE = 5_000
_SMALL_CONNECTIONS = 32
_YEAR_EVENTS = 10_000_000
_SMOKE_EVENTS = 5_000
# Of the store when it counts the same out of rows.
_RECOUNT_BYTES = 4 * 1024**3
_SAMPLE_S = 0.5  # each sample costs the server some CPU
_CATCH_UP_S_MAX = 300.0

# The same program with an actor that does nothing.
_WITHOUT = (
    "import trio, ingester.actors.rollups as rollups\n"
    "async def run(**_): await trio.sleep_forever()\n"
    "rollups.run = run\n"
    "from ingester.cli import main; main(prog_name='ingester')"
)


class _Lag(Struct):
    """Samples of `/metrics` while something ran, and how long it went on behind its end."""

    seconds: list[float] = field(default_factory=list)
    rest_s: float = 0.0


def run(options: Options) -> list[Row]:
    """Rows of uploads without and with rollups, of small requests, and of the year."""
    return [*_uploads(options), _small_requests(options), *_year(options)]


def _uploads(options: Options) -> list[Row]:
    corpus = synthetic_corpus(_SMOKE_EVENTS) if options.smoke else options.corpus()
    bodies = 2 if options.smoke else _BODIES
    rounds = 1 if options.smoke else options.rounds
    without: list[Row] = []
    beside: list[Row] = []
    for _ in range(rounds):
        with _without_rollups(), run_server() as server:
            without.append(_bodies(server, corpus, bodies, "without rollups", _Lag()))
        with run_server() as server:
            lag = _Lag()
            with _sampled(server, lag):
                row = _bodies(server, corpus, bodies, "with rollups", lag)
            row.extra |= _lags(lag)
            _assert_recount(server, bodies * corpus.events)
            beside.append(row)
        note(f"rollups: {without[-1].events_per_s:,.0f}/s without, {row.events_per_s:,.0f}/s with")
    quiet, busy = _median(without), _median(beside)
    busy.ratio, busy.ratio_to = busy.events_per_s / quiet.events_per_s, "with/without"
    busy.ratios = pairwise_ratios(beside, without)
    busy.extra["lag_s_max"] = max(row.extra["lag_s_max"] for row in beside)
    return [quiet, busy]


def _bodies(server: Server, corpus: Corpus, bodies: int, label: str, lag: _Lag) -> Row:
    path = corpus.path("gzip")
    reset_peak_memory(server.pid)
    cpu_before = cpu_seconds(server.pid)
    began = time.perf_counter()
    for _ in range(bodies):
        done = upload(server, path, "gzip")
        assert (done.status, done.accepted) == (200, corpus.events), done
    seconds = time.perf_counter() - began
    if label == "with rollups":
        lag.rest_s = _wait_caught_up(server)
    return Row(
        bench="rollups",
        name=f"{bodies} bodies of {corpus.events:,} one after another, {label}",
        events=bodies * corpus.events,
        raw_bytes=bodies * corpus.raw_bytes,
        seconds=seconds,
        # All of the work, also what is done behind the last answer.
        cpu_s=cpu_seconds(server.pid) - cpu_before,
        peak_rss_mb=memory_mb(server.pid),
    )


def _small_requests(options: Options) -> Row:
    corpus = synthetic_corpus(_SMOKE_EVENTS)
    window_s = 0.5 if options.smoke else max(10.0, options.seconds * 3)
    rate = 200 if options.smoke else _SMALL_RATE
    with run_server() as server:
        lag = _Lag()
        with (
            _sampled(server, lag),
            small_client(
                server,
                corpus.plain,
                _SMALL_CONNECTIONS,
                warmup_s=0.2,
                window_s=window_s,
                rate_per_s=float(rate),
            ) as client,
        ):
            cpu_before = cpu_seconds(server.pid)
            client.go()
            windows = client.finished()
            cpu_s = cpu_seconds(server.pid) - cpu_before
        answered = sum(window.answered for window in windows)
        lag.rest_s = _wait_caught_up(server)
        _assert_recount(server, answered)
        measured = windows[1]
        return Row(
            bench="rollups",
            name=f"single events at {rate:,}/s",
            events=measured.answered,
            seconds=measured.seconds,
            cpu_s=cpu_s,
            client_cpu_s=measured.cpu_s,
            peak_rss_mb=memory_mb(server.pid),
            extra={"p99_ms": measured.p99_ms, **_lags(lag)},
        )


def _year(options: Options) -> list[Row]:
    events = options.rows or (20_000 if options.smoke else _YEAR_EVENTS)
    folder = Path(tempfile.mkdtemp(prefix="year-", dir=cache_directory()))
    try:
        with opened_year(folder, events) as year:
            rows = [_building(year, events)]
            rounds = 1 if options.smoke else 5
            rolled = {name: year.ask(asked, rounds) for name, asked in _QUESTIONS.items()}
            for name, (taken_ms, _, _) in rolled.items():
                note(f"rollups: {name}: {statistics.median(taken_ms):.1f} ms")
            year.reopen(_RECOUNT_BYTES)
            for name, asked in _QUESTIONS.items():
                counted = year.ask(asked, 1, with_rollups=False)
                rows += _compared(name, rolled[name], counted, events)
            return rows
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_QUESTIONS = {
    "a year by hour, one action": {"q": "action:checkout", "interval": "hour"},
    "a year by hour, one account": {"q": "account_id:acct-00001", "interval": "hour"},
    "a year by day, by action": {"interval": "day", "group_by": "action"},
    "a year by week": {"interval": "week"},
}


def _building(year: YearStore, events: int) -> Row:
    return Row(
        bench="rollups",
        name="a year of events taken in",
        events=events,
        seconds=year.rollup_s,
        cpu_s=year.rollup_cpu_s,
        extra={"file_mb": year.file_mb, "rows_s": year.fill_s},
    )


def _compared(name: str, rolled: Told, counted: Told, events: int) -> list[Row]:
    """Out of rollups and out of rows, with the same points."""
    rolled_ms, points, source = rolled
    assert source == "rollups", source
    counted_ms, recount, source = counted
    assert source == "rows", source
    assert points == recount, name
    return [
        Row(
            bench="rollups",
            name=f"{name}, out of {kind}",
            events=events,
            seconds=statistics.median(found) / 1000,
            ratio=statistics.median(counted_ms) / statistics.median(found),
            ratio_to="rows",
            extra={"ms": [round(one, 1) for one in found], "points": len(points)},
        )
        for kind, found in (("rollups", rolled_ms), ("rows", counted_ms))
    ]


@contextmanager
def _without_rollups() -> Iterator[None]:
    program = server_module.PROGRAM[:]
    if program[1:2] == ["-m"] and program[2] == "ingester":
        server_module.PROGRAM[:] = [sys.executable, "-c", _WITHOUT]
    try:
        yield
    finally:
        server_module.PROGRAM[:] = program


@contextmanager
def _sampled(server: Server, lag: _Lag) -> Iterator[None]:
    token = server.read_token()
    over = threading.Event()

    def sample() -> None:
        while not over.wait(_SAMPLE_S):
            # One that comes late is left out.
            with suppress(OSError):
                lag.seconds.append(_metrics(server, token)["lag_seconds"])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _metrics(server: Server, token: str) -> dict[str, float]:
    connection = http.client.HTTPConnection(server.console, timeout=60)
    try:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    prefix = "ingester_rollups_"
    lines = [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]
    return {name: float(value) for name, value in (line.split() for line in lines)}


def _wait_caught_up(server: Server) -> float:
    token = server.read_token()
    began = time.perf_counter()
    while _metrics(server, token)["lag_commits"]:
        assert time.perf_counter() - began < _CATCH_UP_S_MAX, "the rollups do not catch up"
        time.sleep(_SAMPLE_S)
    return time.perf_counter() - began


def _assert_recount(server: Server, events: int) -> None:
    (found,) = server.query("SELECT sum(events)::BIGINT AS n FROM events_daily")
    assert found["n"] == events, f"{found['n']} events in rollups of {events}"


def _lags(lag: _Lag) -> dict[str, float]:
    samples = sorted(lag.seconds) or [0.0]
    return {
        "lag_s_p50": samples[len(samples) // 2],
        "lag_s_max": samples[-1],
        "rest_s": lag.rest_s,
    }


def _median(rows: list[Row]) -> Row:
    """The round in the middle."""
    return sorted(rows, key=lambda row: row.seconds)[len(rows) // 2]
