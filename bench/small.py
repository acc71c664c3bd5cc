"""Small requests: single-event POSTs with a durable answer, beside the bare echo as the ceiling.

The echo does what any HTTP server in this language must do (read, parse, answer) and nothing
else: it validates nothing and writes nothing. Ours and the echo take turns, each driven by the
same client with the same requests. At the end every answered event must be in the store.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.client import Target, bulk_client, small_client
from bench.client_bulk import BulkDone
from bench.client_small import SmallWindow
from bench.corpus import Corpus
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory, wait_quiet
from bench.report import Row, median_row, note, pairwise_ratios
from bench.server import EchoServer, Server, run_echo, run_server

__all__ = ["run"]

_BESIDE_BULK_CONNECTIONS = 32


def run(options: Options) -> list[Row]:
    """A pair of rows for each number of connections, then the run beside a bulk upload."""
    corpus = options.corpus()
    rounds = 1 if options.smoke else options.rounds
    rows: list[Row] = []
    stored = 0
    with run_server() as server, run_echo() as echo:
        for connections in options.connections:
            ours: list[Row] = []
            ceiling: list[Row] = []
            for _ in range(rounds):
                wait_quiet(server.pid)
                row, answered = _measure("ours", server, server, corpus, connections, options)
                ours.append(row)
                stored += answered
                wait_quiet(server.pid)
                row, _ = _measure("echo", echo, echo, corpus, connections, options)
                ceiling.append(row)
                note(_progress(connections, ours[-1], ceiling[-1]))
            rows += _pair(ours, ceiling)
        count = server.wait_count(stored)
        assert count == stored, f"{count} events stored, {stored} acknowledged"
    rows.append(_beside_bulk(corpus, options))
    return rows


def _progress(connections: int, ours: Row, echo: Row) -> str:
    return (
        f"small {connections} connections: ours {ours.events_per_s:,.0f}/s "
        f"p99 {ours.extra['p99_ms']:.2f} ms, echo {echo.events_per_s:,.0f}/s"
    )


def _measure(
    label: str,
    target: Target,
    process: Server | EchoServer,
    corpus: Corpus,
    connections: int,
    options: Options,
) -> tuple[Row, int]:
    """One run against one server: its row, and all that was answered (warm-up included)."""
    warmup_s, window_s = (0.1, 0.3) if options.smoke else (0.5, options.seconds)
    reset_peak_memory(process.pid)
    with small_client(
        target, corpus.plain, connections, warmup_s=warmup_s, window_s=window_s
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
        name=f"{label} {connections} connections",
        events=measured.answered,
        seconds=measured.seconds,
        cpu_s=cpu_s * share,
        client_cpu_s=measured.cpu_s,
        peak_rss_mb=memory_mb(process.pid),
        extra=_latencies(measured),
    )
    return row, answered


def _latencies(window: SmallWindow) -> dict[str, Any]:
    return {
        "p50_ms": round(window.p50_ms, 3),
        "p99_ms": round(window.p99_ms, 3),
        "max_ms": round(window.max_ms, 2),
    }


def _median_small(rows: list[Row]) -> Row:
    """Rates differ in events at equal time here: the median run by rate, median latencies."""
    row = median_row(rows)
    middle = sorted(rows, key=lambda one: one.events_per_s)[len(rows) // 2]
    row.events, row.seconds = middle.events, middle.seconds
    row.cpu_s, row.client_cpu_s = middle.cpu_s, middle.client_cpu_s
    row.extra = {key: statistics.median(one.extra[key] for one in rows) for key in rows[0].extra}
    return row


def _pair(ours: list[Row], ceiling: list[Row]) -> list[Row]:
    mine, echo = _median_small(ours), _median_small(ceiling)
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
            **_latencies(measured),
            "bulk_uploads": len(uploads),
            "bulk_events_per_s": round(len(uploads) * corpus.events / bulk_seconds),
        },
    )
