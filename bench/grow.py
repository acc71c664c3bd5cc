"""The store as it grows: upload after upload into one server, from empty to 50 M rows and more.

Asked: does the bulk rate hold, and does a small durable answer stay quick? Beside the uploads a
few paced connections send single events (latency counted from the moment each was due); their
percentiles are taken per upload. The rate at the end is that of the last five uploads, at the
start of the first five.
"""

from __future__ import annotations

import statistics
from typing import Any

from msgspec import Struct

from bench.client import SmallClient, small_client, upload
from bench.corpus import Corpus
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, reset_peak_memory
from bench.report import Row, note
from bench.server import Server, run_server

__all__ = ["run"]

_EDGE_COUNT = 5
_SMALL_CONNECTIONS = 4
_SMALL_PER_SECOND = 200.0
_ROWS = 50_000_000
_SAMPLES_MAX = 12  # lines of the series that are printed


class _Sample(Struct):
    """One upload: rows in the store after it, its rate, latencies beside it."""

    rows: int
    seconds: float
    cpu_s: float
    client_cpu_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    peak_rss_mb: float


def run(options: Options) -> list[Row]:
    """Rows for the start, points between, and the end with its ratio to the start."""
    corpus = options.corpus()
    uploads = (
        6 if options.smoke else max(2 * _EDGE_COUNT, -(-(options.rows or _ROWS) // corpus.events))
    )
    with (
        run_server() as server,
        small_client(
            server, corpus.plain, _SMALL_CONNECTIONS, rate_per_s=_SMALL_PER_SECOND
        ) as small,
    ):
        samples, answered = _grow(server, corpus, small, uploads)
        expected = uploads * corpus.events + answered
        count = server.wait_count(expected)
        assert count == expected, f"{count} events stored, {expected} acknowledged"
    return _rows(corpus, samples)


def _grow(
    server: Server, corpus: Corpus, small: SmallClient, uploads: int
) -> tuple[list[_Sample], int]:
    """All uploads; also the number of small requests answered."""
    path = corpus.path("gzip")
    samples: list[_Sample] = []
    answered = 0
    small.go()
    for number in range(1, uploads + 1):
        reset_peak_memory(server.pid)
        answered += small.mark().answered
        cpu_before = cpu_seconds(server.pid)
        done = upload(server, path, "gzip")
        cpu_s = cpu_seconds(server.pid) - cpu_before
        window = small.mark()
        answered += window.answered
        assert (done.status, done.accepted) == (200, corpus.events), done
        assert not window.refused, f"{window.refused} small requests refused"
        sample = _Sample(
            rows=number * corpus.events + answered,
            seconds=done.seconds,
            cpu_s=cpu_s,
            client_cpu_s=done.cpu_s,
            p50_ms=window.p50_ms,
            p99_ms=window.p99_ms,
            max_ms=window.max_ms,
            peak_rss_mb=memory_mb(server.pid),
        )
        samples.append(sample)
        note(
            f"grow {sample.rows:,} rows: {corpus.events / done.seconds:,.0f} events/s, "
            f"small p99 {window.p99_ms:.1f} ms, peak {sample.peak_rss_mb:.0f} MB"
        )
    answered += small.stop().answered
    return samples, answered


def _row(corpus: Corpus, name: str, samples: list[_Sample]) -> Row:
    def median(field: str) -> float:
        return float(statistics.median(getattr(sample, field) for sample in samples))

    extra: dict[str, Any] = {
        "small_p50_ms": round(median("p50_ms"), 2),
        "small_p99_ms": round(median("p99_ms"), 2),
        "small_max_ms": round(max(sample.max_ms for sample in samples), 1),
    }
    return Row(
        bench="grow",
        name=name,
        events=corpus.events,
        raw_bytes=corpus.raw_bytes,
        seconds=median("seconds"),
        cpu_s=median("cpu_s"),
        client_cpu_s=median("client_cpu_s"),
        peak_rss_mb=max(sample.peak_rss_mb for sample in samples),
        extra=extra,
    )


def _rows(corpus: Corpus, samples: list[_Sample]) -> list[Row]:
    edge = min(_EDGE_COUNT, len(samples) // 2)
    start = _row(corpus, f"start, first {edge} uploads", samples[:edge])
    end = _row(corpus, f"end, last {edge} uploads", samples[-edge:])
    end.ratio = start.seconds / end.seconds
    end.ratio_to = "end/start"
    between = samples[edge:-edge]
    step = max(1, -(-len(between) // _SAMPLES_MAX))
    series = [
        _row(corpus, f"{between[index].rows:,} rows", between[index : index + 1])
        for index in range(0, len(between), step)
    ]
    return [start, *series, end]
