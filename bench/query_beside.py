"""Single requests while five clients ask heavy searches and SQL queries all the time, and idle.

Log objects on the log door over 32 connections, a durable answer each, in a closed loop: windows
of the idle server and windows beside the askers take turns on the server that holds the logs. What
is asked goes over all of them: expressions that nothing matches, charts over a nested field, the
histogram, and SELECTs with JSON functions. At the end every acknowledged log must be in the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.client import search_client, small_client
from bench.client_search import SearchDone, SearchPlan
from bench.log_corpus import synthetic_log_corpus
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory, wait_quiet
from bench.query_corpus import QueryCorpus
from bench.query_questions import whole_range
from bench.report import Row, note, pairwise_ratios
from bench.server import Door, Server
from bench.small import latencies, median_small

__all__ = ["beside_searches"]

_CONNECTIONS = 32
_CLIENTS = 5
_BODIES = 4096
_SEARCHES = (
    ("/api/v1/logs", r'~"no (such|other) [0-9]{7} line"'),
    ("/api/v1/logs", "c:countd(m.context.user.id) c:group_by(t::hour)"),
    ("/api/v1/logs", 'm.context.user.id:"nobody at all"'),
    ("/api/v1/logs/histogram", "-nosuchword"),
)
_STATEMENTS = (
    "SELECT json_extract_string(attributes, '$.context.action') AS action, count(*) AS n, "
    "count(DISTINCT json_extract_string(attributes, '$.context.user.id')) AS users "
    "FROM logs GROUP BY action ORDER BY n DESC LIMIT 20",
    "SELECT level, count(*) AS n, max(length(message)) AS longest, "
    "count(DISTINCT md5(message)) AS messages FROM logs GROUP BY level ORDER BY level",
)


def beside_searches(server: Server, token: str, corpus: QueryCorpus, options: Options) -> list[Row]:
    """Two rows: idle, and beside; the second with its rate over the first's."""
    door = server.log_door()
    plan = SearchPlan(
        address=server.console,
        token=token,
        clients=_CLIENTS,
        targets=[whole_range(path, q=lql) for path, lql in _SEARCHES],
        statements=list(_STATEMENTS),
    )
    idle: list[Row] = []
    beside: list[Row] = []
    stored = corpus.logs
    for _ in range(1 if options.smoke else options.rounds):
        if not options.smoke:
            wait_quiet(server.pid)
        row, answered = _window(server, door, "idle", options)
        idle.append(row)
        stored += answered
        with _asking(plan) as done:
            row, answered = _window(server, door, f"beside {_CLIENTS} asking", options)
        row.extra |= _counts(done)
        beside.append(row)
        stored += answered
        note(_progress(idle[-1], beside[-1]))
    found = server.wait_count(stored, table="logs", seconds_max=60.0)
    assert found == stored, f"{found} logs stored, {stored} acknowledged"
    return _pair(idle, beside)


@contextmanager
def _asking(plan: SearchPlan) -> Iterator[SearchDone]:
    """The askers at work; what they got is filled in at the end."""
    total = SearchDone()
    with search_client(plan) as client:
        client.go()
        yield total
        done = client.stop()
    assert not done.failures, done.failures
    total.searches, total.queries = done.searches, done.queries
    total.timeouts, total.refused = done.timeouts, done.refused


def _counts(done: SearchDone) -> dict[str, int]:
    return {
        "searches": done.searches,
        "queries": done.queries,
        "timeouts": done.timeouts,
        "told_to_wait": done.refused,
    }


def _window(server: Server, door: Door, label: str, options: Options) -> tuple[Row, int]:
    """One run of the small client: its row, and all logs that were acknowledged."""
    # Long enough for the slowest question to be under way in most of it.
    warmup_s, window_s = (0.2, 0.5) if options.smoke else (2.0, max(options.seconds * 5, 15.0))
    bodies = synthetic_log_corpus(_BODIES).plain
    reset_peak_memory(server.pid)
    with small_client(door, bodies, _CONNECTIONS, warmup_s=warmup_s, window_s=window_s) as client:
        cpu_before = cpu_seconds(server.pid)
        client.go()
        windows = client.finished()
        cpu_s = cpu_seconds(server.pid) - cpu_before
    measured, answered = windows[1], sum(window.answered for window in windows)
    refused = sum(window.refused for window in windows)
    assert not refused, f"{refused} requests were refused: {label}"
    row = Row(
        bench="query",
        name=f"single logs, {_CONNECTIONS} connections, {label}",
        events=measured.answered,
        seconds=measured.seconds,
        # Of the whole run, shared out; beside askers it is theirs too.
        cpu_s=cpu_s * measured.answered / answered if answered else 0.0,
        client_cpu_s=measured.cpu_s,
        peak_rss_mb=memory_mb(server.pid),
        extra=latencies(measured),
    )
    return row, answered


def _progress(idle: Row, beside: Row) -> str:
    return (
        f"query single logs: idle {idle.events_per_s:,.0f}/s p99 {idle.extra['p99_ms']:.2f} ms, "
        f"beside {beside.events_per_s:,.0f}/s p99 {beside.extra['p99_ms']:.2f} ms"
    )


def _pair(idle: list[Row], beside: list[Row]) -> list[Row]:
    quiet, busy = median_small(idle), median_small(beside)
    for key in _counts(SearchDone()):
        busy.extra[key] = sum(row.extra[key] for row in beside)
    busy.ratio = busy.events_per_s / quiet.events_per_s
    busy.ratio_to = "beside/idle"
    busy.ratios = pairwise_ratios(beside, idle)
    busy.extra["p99_times"] = busy.extra["p99_ms"] / quiet.extra["p99_ms"]
    return [quiet, busy]
