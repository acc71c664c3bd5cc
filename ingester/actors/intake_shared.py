"""What every connection of one intake server shares: settings, clock, counters.

The clock is coarse on purpose: a tick several times a second moves `now_s` and the `Date` line,
so that a request on the fast path reads attributes instead of asking for the time.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import PurePath

import structlog
import trio
from msgspec import Struct

from ingester.config import IntakeConfig
from ingester.doors.exchange import Handler, Response, Shortcut
from ingester.protocol.cors import CorsRules
from ingester.protocol.forwarded import parse_networks
from ingester.protocol.http1 import HeadCache, HeadLimits, response_bytes

__all__ = ["NEVER", "IntakeShared", "IntakeStatistics"]

log = structlog.get_logger(__name__)

NEVER = math.inf

# Answers of which the common bytes are kept.
USUAL_MAX = 256

Headers = tuple[tuple[bytes, bytes], ...]


class IntakeStatistics(Struct, frozen=True, kw_only=True):
    """A snapshot; the counters run from the start of the server.

    `connections_ended`: for want of places or memory. `requests` counts answers by (door, status).
    `stalls`: senders that stopped, stayed below the minimum rate, or did not read their answer.
    `gone`: clients that left inside a request. `faults`: answers 500.
    """

    connections_open: int
    connections_accepted: int
    connections_refused: int
    connections_ended: int
    requests: dict[tuple[str, int], int]
    received_bytes: int
    sent_bytes: int
    stalls: int
    gone: int
    faults: int
    draining: bool


class IntakeShared:
    """Read by every connection; `take`, `tick` and the counters are all that changes it."""

    def __init__(
        self,
        handler: Handler,
        config: IntakeConfig,
        next_number: Callable[[], int],
        shortcuts: Mapping[str, Shortcut],
    ) -> None:
        self.handler = handler
        self.next_number = next_number
        self._shortcuts = shortcuts
        self.take(config)
        self.draining = False
        self._usual: dict[tuple[int, Headers], tuple[bytes, bytes]] = {}
        self.now_s = 0.0
        self.date_line = b""

        self.received_bytes = 0
        self.sent_bytes = 0
        self.stalls = 0
        self.gone = 0
        self.faults = 0
        self.requests: dict[tuple[str, int], int] = {}

    def take(self, config: IntakeConfig) -> None:
        """Settings, at the start and when they are read again. Of an open connection the limits of
        heads, its proxy and its shortcut stay what they were.
        """
        self.trusted = parse_networks("intake.trusted_proxies", config.trusted_proxies)
        self.limits = HeadLimits(
            head_bytes_max=config.head_bytes_max,
            target_bytes_max=config.target_bytes_max,
            header_count_max=config.header_count_max,
        )
        self.heads = HeadCache()
        self.body_bytes_max = config.body_bytes_max
        self.stall_s = float(config.stall_seconds_max)
        self.keep_alive_s = float(config.keep_alive_seconds_max)
        self.bytes_per_second_min = config.bytes_per_second_min
        self.cors = CorsRules(config.cors_origins) if config.cors_origins else None
        # By listener. What CORS adds depends on the request: then all take the long way.
        self.shortcuts = {} if self.cors is not None else self._shortcuts

        # At least four looks per shortest deadline, at most 20 a second.
        self.tick_s = max(0.05, min(0.25, self.stall_s / 4, self.keep_alive_s / 4))

    def tick(self) -> float:
        """Read the clocks; returns trio's."""
        self.now_s = trio.current_time()
        self.date_line = b"Date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        return self.now_s

    def deadline_in(self, seconds: float) -> float:
        """A deadline from the last tick on; later by at most one tick, never earlier."""
        return self.now_s + self.tick_s + seconds

    def first_lines(self, number: int) -> bytes:
        """The header lines of every answer."""
        return b"%bIngester-Request-Id: %016x\r\n" % (self.date_line, number)

    def first_lines_of(self, response: Response, number: int) -> bytes:
        lines = self.first_lines(response.request_number or number)
        if response.content_type:
            lines += b"Content-Type: %b\r\n" % response.content_type
        return lines

    def answer_bytes(self, response: Response, number: int, *, keep_alive: bool) -> bytes:
        """The whole answer to an HTTP/1.1 request that was not HEAD, without CORS.

        What such answers have in common is formatted once.
        """
        first_lines = self.first_lines_of(response, number)
        if response.body or not keep_alive:
            return response_bytes(
                response.status,
                response.headers,
                response.body,
                keep_alive=keep_alive,
                first_lines=first_lines,
            )
        key = (response.status, response.headers)
        found = self._usual.get(key)
        if found is None:
            if len(self._usual) >= USUAL_MAX:
                self._usual.clear()
            whole = response_bytes(*key, b"", keep_alive=True, first_lines=b"\0")
            before, _, after = whole.partition(b"\0")
            found = self._usual[key] = before, after
        return b"%b%b%b" % (found[0], first_lines, found[1])

    def count_answer(self, door: str, status: int) -> None:
        label = (door, status)
        self.requests[label] = self.requests.get(label, 0) + 1

    def count_fault(self, event: str, error: Exception, **fields: str) -> None:
        """Log where it happened. Not what it says: a message may carry a key or an event."""
        self.faults += 1
        log.error(
            event,
            error=type(error).__name__,
            where=[
                f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(error.__traceback__)[-8:]
            ],
            **fields,
        )
