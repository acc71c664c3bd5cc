"""The small-request load client: one epoll loop over keep-alive connections, raw sockets.

`python -m bench.client_small '{…}'` with a `SmallPlan`. It prints `{"event": "ready"}`, then
obeys lines on standard input: `go` starts, `mark` prints a `SmallWindow` of what happened since
the last mark, `stop` (or the end of input) lets the requests in flight finish, prints the last
window and ends. With `window_s` it runs so long by itself after a warm-up.

Closed loop: a connection sends its next request when its answer is whole. With `rate_per_s` the
sends are paced instead, and a latency counts from the moment the request was due, so that a
stalled server cannot hide its own delay. Invariant: when it ends, every request sent was
answered; the `answered` of all windows is the number of stored requests.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import time
from array import array
from collections import deque
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from bench.wire import answer_length, request_head

__all__ = ["SmallPlan", "SmallWindow", "main", "percentiles"]

_STDIN = 0
# The shape of nearly every answer, told apart without a search for its length.
_EMPTY = b"ontent-Length: 0\r\n"
_OK = b"HTTP/1.1 2"
_DRAIN_S = 30.0


class SmallPlan(Struct, kw_only=True):
    """Whom to ask, how, and how long. `path` holds one body a line, used in rotation."""

    host: str
    port: int
    target: str
    path: str
    connections: int
    token: str = ""
    warmup_s: float = 0.5
    window_s: float = 0.0
    rate_per_s: float = 0.0


class SmallWindow(Struct, kw_only=True, tag_field="event", tag="window"):
    """One stretch of time; latencies in milliseconds. `last` closes the run."""

    seconds: float
    answered: int
    refused: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_s: float
    last: bool = False


def percentiles(latencies_ns: array[int]) -> tuple[float, float, float, float]:
    """p50, p90, p99 and the worst, in milliseconds; zeros for an empty window."""
    if not latencies_ns:
        return 0.0, 0.0, 0.0, 0.0
    found = np.percentile(np.frombuffer(latencies_ns, np.int64), (50, 90, 99, 100)) / 1e6
    return float(found[0]), float(found[1]), float(found[2]), float(found[3])


class _Loop:
    """The epoll loop. State is indexed by descriptor; one request in flight a connection."""

    def __init__(self, plan: SmallPlan) -> None:
        lines = Path(plan.path).read_bytes().splitlines(keepends=True)[:4096]
        self.requests = [
            request_head(plan.target, "none", len(line), plan.token) + line for line in lines
        ]
        self.next_request = 0
        self.epoll = select.epoll()
        self.connections: dict[int, socket.socket] = {}
        for _ in range(plan.connections):
            connection = socket.create_connection((plan.host, plan.port), timeout=10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self.connections[connection.fileno()] = connection
            self.epoll.register(connection.fileno(), select.EPOLLIN)
        self.idle: deque[int] = deque(self.connections)
        self.started_ns: dict[int, int] = {}  # in flight
        self.partial: dict[int, bytes] = {}
        self.period_ns = int(1e9 / plan.rate_per_s) if plan.rate_per_s else 0
        self.due_ns = 0
        self.stopping = False
        self.commands = bytearray()
        self.latencies_ns = array("q")
        self.refused = 0
        self.window_start = time.perf_counter()
        self.window_cpu = time.process_time()

    def send(self, descriptor: int, now_ns: int) -> None:
        request = self.requests[self.next_request]
        self.next_request = (self.next_request + 1) % len(self.requests)
        sent = self.connections[descriptor].send(request)
        assert sent == len(request), "a small request fits the socket buffer"
        self.started_ns[descriptor] = now_ns

    def receive(self, descriptor: int) -> None:
        """Take what came; with a whole answer note its latency and send or rest."""
        data = self.connections[descriptor].recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection")
        if descriptor in self.partial:
            data = self.partial.pop(descriptor) + data
        if not (data.endswith(b"\r\n\r\n") and _EMPTY in data):
            length = answer_length(data)
            if not length or len(data) < length:
                self.partial[descriptor] = data
                return
            assert len(data) == length, "more than one answer to one request"
        now_ns = time.perf_counter_ns()
        self.latencies_ns.append(now_ns - self.started_ns.pop(descriptor))
        if not data.startswith(_OK):
            self.refused += 1
        if self.stopping:
            return
        if self.period_ns:
            self.idle.append(descriptor)
        else:
            self.send(descriptor, now_ns)

    def send_due(self) -> float:
        """Send what is due (paced) or start all (closed loop); seconds until the next."""
        now_ns = time.perf_counter_ns()
        if not self.period_ns:
            while self.idle:
                self.send(self.idle.popleft(), time.perf_counter_ns())
            return 1.0
        while self.idle and self.due_ns <= now_ns:
            self.send(self.idle.popleft(), self.due_ns)
            self.due_ns += self.period_ns
        return max(0.0, (self.due_ns - now_ns) / 1e9) if self.idle else 1.0

    def step(self, seconds_max: float) -> None:
        """Wait for answers (or a command) and handle them."""
        for descriptor, _ in self.epoll.poll(seconds_max):
            if descriptor == _STDIN:
                self.obey()
            else:
                self.receive(descriptor)

    def obey(self) -> None:
        data = os.read(_STDIN, 4096)
        if not data:
            self.stopping = True
            self.epoll.unregister(_STDIN)
            return
        self.commands += data
        while b"\n" in self.commands:
            line, _, rest = bytes(self.commands).partition(b"\n")
            self.commands = bytearray(rest)
            if line == b"mark":
                self.close_window()
            elif line == b"stop":
                self.stopping = True

    def close_window(self, *, last: bool = False) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        p50, p90, p99, worst = percentiles(self.latencies_ns)
        window = SmallWindow(
            seconds=now - self.window_start,
            answered=len(self.latencies_ns) - self.refused,
            refused=self.refused,
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            max_ms=worst,
            cpu_s=cpu - self.window_cpu,
            last=last,
        )
        self.latencies_ns = array("q")
        self.refused = 0
        sys.stdout.buffer.write(msgspec.json.encode(window) + b"\n")
        sys.stdout.buffer.flush()
        self.window_start, self.window_cpu = time.perf_counter(), time.process_time()

    def run(self, plan: SmallPlan) -> None:
        """Until the time is over or a stop is read; then until nothing is in flight."""
        start = self.window_start = time.perf_counter()
        self.due_ns = time.perf_counter_ns()
        marks = [start + plan.warmup_s, start + plan.warmup_s + plan.window_s]
        while not self.stopping:
            wait_s = self.send_due()
            if plan.window_s:
                left = marks[0] - time.perf_counter()
                if left <= 0:
                    self.close_window()
                    marks.pop(0)
                    self.stopping = not marks
                    continue
                wait_s = min(wait_s, left)
            self.step(wait_s)
        deadline = time.monotonic() + _DRAIN_S
        while self.started_ns and time.monotonic() < deadline:
            self.step(1.0)
        assert not self.started_ns, "requests without an answer"
        self.close_window(last=True)

    def close(self) -> None:
        self.epoll.close()
        for connection in self.connections.values():
            connection.close()


def main() -> None:
    """Connect, say ready, wait for `go`, run."""
    plan = msgspec.json.decode(sys.argv[1], type=SmallPlan)
    loop = _Loop(plan)
    sys.stdout.buffer.write(b'{"event":"ready"}\n')
    sys.stdout.buffer.flush()
    if os.read(_STDIN, 3) != b"go\n":
        return
    loop.epoll.register(_STDIN, select.EPOLLIN)
    try:
        gc.disable()  # nothing here makes cycles; a collection would be taken for latency
        loop.run(plan)
    finally:
        loop.close()


if __name__ == "__main__":
    main()
