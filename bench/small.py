"""Small requests: POSTs with a durable answer, beside the bare echo as the ceiling.

The echo does what any HTTP server in this language must do (read, parse, answer) and nothing
else: it validates nothing and writes nothing. Ours and the echo take turns, each driven by the
same client with the same requests, to the byte. At the end every answered row must be in the
store.

Four kinds of requests: one event on the Natero door, one object on the log door, one metric and a
hundred metrics on the metric door. Rates count rows, so those of a hundred are metrics a second.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Struct

from bench.client import Target, bulk_client, small_client
from bench.client_bulk import BulkDone
from bench.client_small import SmallWindow
from bench.corpus import Corpus
from bench.log_corpus import synthetic_log_corpus
from bench.metric_corpus import PROJECT_ID, metric_corpus
from bench.options import DOORS, DoorName, Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory, wait_quiet
from bench.report import Row, median_row, note, pairwise_ratios
from bench.server import Door, EchoServer, Server, run_echo, run_server

__all__ = ["latencies", "median_small", "run"]

_BESIDE_BULK_CONNECTIONS = 32
_SHORT_CONNECTIONS = (32,)  # of the doors that nobody asked for by name
_BODIES = 4096  # the client sends no more different ones
_BATCH_METRICS = 100  # the most a request may hold
_BATCH_BODIES = 256


class _Load(Struct, frozen=True, kw_only=True):
    """One kind of request: `bodies` has one a line, each of so many rows of `table`."""

    name: str  # "" is left out of the rows' names
    open_door: Callable[[Server], Target]
    bodies: Callable[[Options], Corpus]
    table: str
    rows_per_request: int = 1

    def title(self, label: str, connections: int) -> str:
        door = f"{self.name}, " if self.name else ""
        return f"{door}{label} {connections} connections"


def _metrics(name: str, per_request: int, bodies: int) -> _Load:
    return _Load(
        name=name,
        open_door=lambda server: server.metric_door(PROJECT_ID),
        bodies=lambda _: metric_corpus(bodies, per_request),
        table="metrics",
        rows_per_request=per_request,
    )


_LOADS: dict[DoorName, tuple[_Load, ...]] = {
    "natero": (
        _Load(
            name="",
            open_door=lambda server: server,
            bodies=lambda options: options.corpus(),
            table="events",
        ),
    ),
    "log": (
        _Load(
            name="log door",
            open_door=lambda server: server.log_door(),
            bodies=lambda _: synthetic_log_corpus(_BODIES),
            table="logs",
        ),
    ),
    "metric": (
        _metrics("metric door", 1, _BODIES),
        _metrics(f"metric door × {_BATCH_METRICS}", _BATCH_METRICS, _BATCH_BODIES),
    ),
}


def run(options: Options) -> list[Row]:
    """A pair of rows for each door and number of connections; the Natero door beside a bulk
    upload as well.
    """
    rows: list[Row] = []
    for door in options.doors or DOORS:
        connections = options.connections
        if door != "natero" and not options.doors:
            connections = options.connections[:1] if options.smoke else _SHORT_CONNECTIONS
        for load in _LOADS[door]:
            rows += _beside_echo(load, connections, options)
        if door == "natero":
            rows.append(_beside_bulk(options.corpus(), options))
    return rows


def _beside_echo(load: _Load, connections: tuple[int, ...], options: Options) -> list[Row]:
    """Rounds of ours and the echo in turn, on one server."""
    rows: list[Row] = []
    stored = 0
    with run_server() as server, run_echo() as echo:
        target = load.open_door(server)
        stand_in = Door(echo.host, echo.port, target.target, target.token)
        for count in connections:
            ours: list[Row] = []
            ceiling: list[Row] = []
            measure = partial(_measure, load, connections=count, options=options)
            for _ in range(1 if options.smoke else options.rounds):
                wait_quiet(server.pid)
                row, answered = measure("ours", target, server)
                ours.append(row)
                stored += answered
                wait_quiet(server.pid)
                row, _ = measure("echo", stand_in, echo)
                ceiling.append(row)
                note(_progress(ours[-1], ceiling[-1]))
            rows += _pair(ours, ceiling)
        found = server.wait_count(stored, table=load.table)
        assert found == stored, f"{found} {load.table} stored, {stored} acknowledged"
    return rows


def _progress(ours: Row, echo: Row) -> str:
    return (
        f"small {ours.name}: {ours.events_per_s:,.0f}/s "
        f"p99 {ours.extra['p99_ms']:.2f} ms, echo {echo.events_per_s:,.0f}/s"
    )


def _measure(
    load: _Load,
    label: str,
    target: Target,
    process: Server | EchoServer,
    *,
    connections: int,
    options: Options,
) -> tuple[Row, int]:
    """One run against one server: its row, and all rows answered for (warm-up included)."""
    warmup_s, window_s = (0.1, 0.3) if options.smoke else (0.5, options.seconds)
    reset_peak_memory(process.pid)
    with small_client(
        target,
        load.bodies(options).plain,
        connections,
        warmup_s=warmup_s,
        window_s=window_s,
    ) as client:
        cpu_before = cpu_seconds(process.pid)
        client.go()
        windows = client.finished()
        cpu_s = cpu_seconds(process.pid) - cpu_before
    measured, answered = windows[1], sum(window.answered for window in windows)
    refused = sum(window.refused for window in windows)
    assert not refused, f"{label} refused {refused} requests"
    # CPU time is taken over the whole run and shared out: a tick is too coarse for the window.
    share = measured.answered / answered if answered else 0.0
    row = Row(
        bench="small",
        name=load.title(label, connections),
        events=measured.answered * load.rows_per_request,
        seconds=measured.seconds,
        cpu_s=cpu_s * share,
        client_cpu_s=measured.cpu_s,
        peak_rss_mb=memory_mb(process.pid),
        extra=latencies(measured),
    )
    return row, answered * load.rows_per_request


def latencies(window: SmallWindow) -> dict[str, Any]:
    """As a row shows them."""
    return {
        "p50_ms": round(window.p50_ms, 3),
        "p99_ms": round(window.p99_ms, 3),
        "max_ms": round(window.max_ms, 2),
    }


def median_small(rows: list[Row]) -> Row:
    """Rates differ in events at equal time here: the median run by rate, median latencies."""
    row = median_row(rows)
    middle = sorted(rows, key=lambda one: one.events_per_s)[len(rows) // 2]
    row.events, row.seconds = middle.events, middle.seconds
    row.cpu_s, row.client_cpu_s = middle.cpu_s, middle.client_cpu_s
    row.extra = {key: statistics.median(one.extra[key] for one in rows) for key in rows[0].extra}
    return row


def _pair(ours: list[Row], ceiling: list[Row]) -> list[Row]:
    mine, echo = median_small(ours), median_small(ceiling)
    echo.ratio = mine.events_per_s / echo.events_per_s
    echo.ratio_to = "ours/echo"
    echo.ratios = pairwise_ratios(ours, ceiling)
    return [mine, echo]


def _beside_bulk(corpus: Corpus, options: Options) -> Row:
    """Small requests on a fresh server while bulk uploads run one after the other beside them."""
    window_s = 1.0 if options.smoke else max(options.seconds * 3, 6.0)
    path = corpus.path("gzip")
    with (
        run_server() as server,
        bulk_client(server, path, encoding="gzip", until_stop=True) as bulk,
        small_client(
            server, corpus.plain, _BESIDE_BULK_CONNECTIONS, warmup_s=0.5, window_s=window_s
        ) as small,
    ):
        reset_peak_memory(server.pid)
        bulk.go()
        small.go()
        windows = small.finished()
        bulk.stop()
        uploads = [event for event in bulk.events() if isinstance(event, BulkDone)]
        assert all(done.status == 200 for done in uploads)
        assert not sum(window.refused for window in windows)
        answered = sum(window.answered for window in windows)
        expected = answered + len(uploads) * corpus.events
        count = server.wait_count(expected)
        assert count == expected, f"{count} events stored, {expected} acknowledged"
        peak_rss_mb = memory_mb(server.pid)
    measured = windows[1]
    bulk_seconds = sum(done.seconds for done in uploads)
    return Row(
        bench="small",
        name=f"ours {_BESIDE_BULK_CONNECTIONS} connections beside bulk",
        events=measured.answered,
        seconds=measured.seconds,
        client_cpu_s=measured.cpu_s,
        peak_rss_mb=peak_rss_mb,
        extra={
            **latencies(measured),
            "bulk_uploads": len(uploads),
            "bulk_events_per_s": round(len(uploads) * corpus.events / bulk_seconds),
        },
    )
