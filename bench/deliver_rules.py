"""`deliver`, from a rule's match to the receiver, while logs arrive at 1,000 a second.

A whole server; a load client sends the logs that match nothing, one a request. This process sends
one that matches every 50 ms, and is the receiver: a generic webhook, which is sent each batch of
matches. The clock of one match runs from its acknowledgement to its body's last byte at the
receiver, so it has in it what the loader waits for (`linger_ms_max`), the commit, the rule, the
incident's and the outbox's transaction, and the request. A load client that is held up by the
machine sends less than it should; the rate that was reached stands beside.
"""

from __future__ import annotations

import http.client
import http.server
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.client import small_client
from bench.corpus import cache_directory
from bench.options import Options
from bench.process import cpu_seconds, memory_mb, wait_quiet
from bench.report import Row
from bench.server import Door, Server, run_server

__all__ = ["from_match_to_receiver"]

_RATE_PER_S = 1_000
_CONNECTIONS = 8
_INTERVAL_S = 0.05
_SECONDS = 20.0
_SMOKE_SECONDS = 1.0
_ARRIVED_SECONDS_MAX = 30.0
_NOTHING = b'{"message":"request served","level":"info","path":"/api/items","status":200}\n'


class _Event(msgspec.Struct):
    number: int


_EVENTS = msgspec.json.Decoder(list[_Event])


def from_match_to_receiver(options: Options) -> Row:
    """One row: latencies in milliseconds, and the rate of all logs that was reached."""
    seconds = _SMOKE_SECONDS if options.smoke else _SECONDS
    with _receiver() as (url, arrived):
        settings = {
            "INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8",
            "INGESTER_WATCH_FILES": str(_watch_file(url)),
        }
        with run_server(settings) as server:
            return _measured(server, arrived, seconds)


def _measured(server: Server, arrived: dict[int, float], seconds: float) -> Row:
    door = server.log_door()
    bodies = cache_directory() / "deliver.ndjson"
    bodies.write_bytes(_NOTHING * 100)
    wait_quiet(server.pid)
    cpu_before = cpu_seconds(server.pid)
    with small_client(
        door, bodies, _CONNECTIONS, rate_per_s=_RATE_PER_S - 1 / _INTERVAL_S
    ) as client:
        client.go()
        time.sleep(min(2.0, seconds))
        client.mark()
        began = time.monotonic()
        acknowledged = _send_matches(door, seconds)
        took_s = time.monotonic() - began
        window = client.stop()
    ends = time.monotonic() + _ARRIVED_SECONDS_MAX
    while len(arrived) < len(acknowledged) and time.monotonic() < ends:
        time.sleep(0.05)
    missing = acknowledged.keys() - arrived.keys()
    assert not missing, f"{len(missing)} matches have not arrived"
    waits_ms = [(arrived[number] - at) * 1000 for number, at in acknowledged.items()]
    cuts = statistics.quantiles(waits_ms, n=100)
    return Row(
        bench="deliver",
        name="from a rule's match to the receiver",
        events=len(acknowledged),
        seconds=took_s,
        cpu_s=cpu_seconds(server.pid) - cpu_before,
        peak_rss_mb=memory_mb(server.pid),
        extra={
            "p50_ms": round(cuts[49], 1),
            "p99_ms": round(cuts[98], 1),
            "max_ms": round(max(waits_ms), 1),
            "logs_per_s": round(window.answered / window.seconds + len(acknowledged) / took_s),
        },
    )


def _send_matches(door: Door, seconds: float) -> dict[int, float]:
    """When each was acknowledged."""
    acknowledged: dict[int, float] = {}
    connection = http.client.HTTPConnection(door.host, door.port, timeout=30)
    began = time.monotonic()
    for number in range(int(seconds / _INTERVAL_S)):
        time.sleep(max(0.0, began + number * _INTERVAL_S - time.monotonic()))
        body = msgspec.json.encode({"message": "the needle", "number": number})
        connection.request(
            "POST", door.target, body=body, headers={"Authorization": f"Bearer {door.token}"}
        )
        answer = connection.getresponse()
        answer.read()
        acknowledged[number] = time.monotonic()
        assert answer.status == 200, answer.status
    connection.close()
    return acknowledged


@contextmanager
def _receiver() -> Iterator[tuple[str, dict[int, float]]]:
    """Its address, and when each number has first come."""
    arrived: dict[int, float] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            now = time.monotonic()
            for event in _EVENTS.decode(body):
                arrived.setdefault(event.number, now)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/each", arrived
        finally:
            server.shutdown()
            thread.join()


def _watch_file(url: str) -> Path:
    file = cache_directory() / "deliver.toml"
    file.write_text(
        f'[[destinations]]\nname = "each"\ntype = "generic"\nurl = "{url}"\n'
        '[[rules]]\nname = "needles"\nlql = "needle"\ndestinations = ["each"]\n',
        encoding="utf-8",
    )
    return file
