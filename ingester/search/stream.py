"""The stream: a tail as server-sent events, for one client.

1. It looks when a commit has rung, at most every `_LOOK_EVERY_S`, and at once while there is more.
   It looks only when what was found before has been sent: a slow client makes its own lines wait,
   is told how many it missed, and holds up nobody.
2. Every row has its position as `id`, and so have signs of life: `Last-Event-ID` resumes exactly.
3. It ends within `_ASK_EVERY_S` of the right to read it, and of the server.
4. It is an iterator and no generator: it may be dropped at any await.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from ..errors import Overloaded, StoreBusy
from ..flow import Doorbell
from .reading import SearchTookTooLong
from .tail import Look, Position

__all__ = ["TailStream"]

_log = structlog.get_logger()

_LOOK_EVERY_S = 0.5
_HEARTBEAT_S = 15.0
_STOP_LOOK_S = 1.0
_ASK_EVERY_S = 15.0
_RETRY_S = 1.0
_ROWS_MAX = 1_000_000
_ROWS_MIN = 10_000

# How long a browser waits before it connects again.
_GREETING = b"retry: 2000\n\n"

Looker = Callable[[Position | None, int], Awaitable[Look]]


class TailStream:
    """Yields bytes of `text/event-stream`. `places` holds the bells of the streams under way."""

    def __init__(
        self,
        looker: Looker,
        position: Position | None,
        *,
        places: set[Doorbell],
        stop: trio.Event,
        is_allowed: Callable[[], Awaitable[bool]],
    ) -> None:
        self._looker = looker
        self._position = position
        self._places = places
        self._stop = stop
        self._is_allowed = is_allowed
        self._bell = Doorbell()
        self._rows_max = _ROWS_MAX
        self._is_begun = False
        self._looked_at = self._sent_at = float("-inf")
        self._asked_at = trio.current_time()

    def __aiter__(self) -> TailStream:
        return self

    async def __anext__(self) -> bytes:
        if not self._is_begun:
            self._is_begun = True
            self._places.add(self._bell)
            self._bell.ring()
            return self._sent(_GREETING)
        while True:
            await self._wait()
            if self._stop.is_set() or not await self._may_go_on():
                raise StopAsyncIteration
            found = await self._look()
            if found is not None and (found.rows or found.missed_lines or found.unread_rows):
                return self._sent(_events(found))
            if trio.current_time() >= self._sent_at + _HEARTBEAT_S:
                return self._sent(b": still here\n" + _id(self._position) + b"\n")

    def _sent(self, events: bytes) -> bytes:
        self._sent_at = trio.current_time()
        return events

    async def aclose(self) -> None:
        self._places.discard(self._bell)

    async def _wait(self) -> None:
        """Until a commit has rung, it is time for a sign of life, or the server stops."""
        await trio.sleep_until(self._looked_at + _LOOK_EVERY_S)
        while not self._stop.is_set() and trio.current_time() < self._sent_at + _HEARTBEAT_S:
            with trio.move_on_after(_STOP_LOOK_S):
                await self._bell.wait()
                return

    async def _may_go_on(self) -> bool:
        """Keys and sessions end; an open stream must not outlive its own by more than this."""
        if trio.current_time() < self._asked_at + _ASK_EVERY_S:
            return True
        self._asked_at = trio.current_time()
        return await self._is_allowed()

    async def _look(self) -> Look | None:
        """None: not now; what is there will be found the next time."""
        self._looked_at = trio.current_time()
        try:
            found = await self._looker(self._position, self._rows_max)
        except SearchTookTooLong:
            self._rows_max = max(_ROWS_MIN, self._rows_max // 4)
            self._later("it took too long")
            return None
        except (StoreBusy, Overloaded) as error:
            self._later(str(error))
            return None
        self._position = found.position
        if found.has_more:
            self._looked_at = float("-inf")
            self._bell.ring()
        return found

    def _later(self, reason: str) -> None:
        _log.info("a live tail looks again", reason=reason)
        self._looked_at += _RETRY_S
        self._bell.ring()


def _events(found: Look) -> bytes:
    """Notices first: what is left out is older than what is shown."""
    pieces: list[bytes] = []
    if found.missed_lines or found.unread_rows:
        notice = {"lines": found.missed_lines, "unread_rows": found.unread_rows}
        pieces.append(b"event: missed\ndata: " + msgspec.json.encode(notice) + b"\n\n")
    for position, document in found.rows:
        # A payload may stand on several lines; inside of its strings a line end is an escape.
        data = msgspec.json.encode(document).replace(b"\n", b" ").replace(b"\r", b" ")
        pieces.append(_id(position) + b"data: " + data + b"\n\n")
    pieces.append(_id(found.position) + b"\n")
    return b"".join(pieces)


def _id(position: Position | None) -> bytes:
    return b"" if position is None else f"id: {position}\n".encode()
