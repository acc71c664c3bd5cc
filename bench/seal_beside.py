"""Single requests while a part is sealed, and before: rate and latency over 32 connections.

A server rotates a part of two uploads while single events come in a closed loop; sealing is to take
what they leave. At the end every acknowledged event must be in the store.
"""

from __future__ import annotations

import time
from urllib.request import Request, urlopen

import msgspec

from bench.client import SmallClient, small_client, upload
from bench.client_small import SmallWindow
from bench.corpus import Corpus, synthetic_corpus
from bench.options import Options
from bench.process import cpu_seconds
from bench.report import Row, note, pairwise_ratios
from bench.server import Server, run_server
from bench.small import latencies, median_small

__all__ = ["beside_sealing"]

_CONNECTIONS = 32
_UPLOADS = 2
_SEALED_SECONDS_MAX = 300.0


def beside_sealing(options: Options) -> list[Row]:
    """Two rows: before, and beside; the second with its rate over the first's."""
    corpus = options.corpus()
    idle: list[Row] = []
    beside: list[Row] = []
    for _ in range(1 if options.smoke else options.rounds):
        # Both uploads fill it, and the next is begun.
        part_bytes = corpus.raw_bytes * _UPLOADS // 10
        with run_server({"INGESTER_STORE_PART_BYTES_MAX": str(part_bytes)}) as server:
            _round(server, corpus, options, idle, beside)
        note(
            f"seal single events: before {idle[-1].events_per_s:,.0f}/s "
            f"p99 {idle[-1].extra['p99_ms']:.2f} ms, beside {beside[-1].events_per_s:,.0f}/s "
            f"p99 {beside[-1].extra['p99_ms']:.2f} ms, {beside[-1].seconds:.1f} s"
        )
    quiet, busy = median_small(idle), median_small(beside)
    busy.ratio, busy.ratio_to = busy.events_per_s / quiet.events_per_s, "beside/before"
    busy.ratios = pairwise_ratios(beside, idle)
    busy.extra["p99_times"] = busy.extra["p99_ms"] / quiet.extra["p99_ms"]
    return [quiet, busy]


def _round(
    server: Server, corpus: Corpus, options: Options, idle: list[Row], beside: list[Row]
) -> None:
    token = server.read_token()
    bodies = synthetic_corpus(4096).plain
    seconds = 0.5 if options.smoke else max(options.seconds, 5.0)
    with small_client(server, bodies, _CONNECTIONS) as client:
        client.go()
        time.sleep(seconds / 2)
        windows = [client.mark()]
        idle.append(_window(server, client, windows, "before", seconds))
        for _ in range(_UPLOADS):
            upload(server, corpus.path("gzip"), "gzip")
        windows.append(client.mark())
        beside.append(_window(server, client, windows, "beside sealing", 0.0, token))
        windows.append(client.stop())
    expected = corpus.events * _UPLOADS + sum(window.answered for window in windows)
    found = server.wait_count(expected, seconds_max=60.0)
    assert found == expected, f"{found} events stored, {expected} acknowledged"


def _window(
    server: Server,
    client: SmallClient,
    windows: list[SmallWindow],
    label: str,
    seconds: float,
    token: str = "",
) -> Row:
    """So many seconds, or until the part is sealed."""
    cpu_before = cpu_seconds(server.pid)
    if token:
        gives_up_at = time.monotonic() + _SEALED_SECONDS_MAX
        while not _sealed_rows(server, token):
            assert time.monotonic() < gives_up_at, "the part was not sealed"
            time.sleep(0.1)
    else:
        time.sleep(seconds)
    windows.append(client.mark())
    return Row(
        bench="seal",
        name=f"single events, {_CONNECTIONS} connections, {label}",
        events=windows[-1].answered,
        seconds=windows[-1].seconds,
        cpu_s=cpu_seconds(server.pid) - cpu_before,
        client_cpu_s=windows[-1].cpu_s,
        extra=latencies(windows[-1]),
    )


def _sealed_rows(server: Server, token: str) -> int:
    request = Request(
        f"http://{server.console}/api/v1/status", headers={"Authorization": f"Bearer {token}"}
    )
    with urlopen(request, timeout=10) as answer:
        return int(msgspec.json.decode(answer.read())["actors"]["sealer"]["sealed_rows_total"])
