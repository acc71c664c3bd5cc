"""Long work in a thread, told line by line: the answer of the backup route.

Each line is a JSON object: `{"copied_bytes": n}` about once a second, at last `{"done": {…}}`, or
`{"error": sentence}`. Who leaves stops the work; it is over when `aclose` returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
import structlog
import trio

from ..errors import IngesterError
from .copies import Pace
from .niced import start_niced

__all__ = ["Progress", "Stopped", "WorkStream"]

_log = structlog.get_logger()

_EVERY_S = 1.0
# Beside a server a step is followed by a rest of so many times its length.
_REST_RATIO = 2.0


class Stopped(IngesterError):
    """Nobody waits for it any more."""


class Progress:
    """What the thread tells, and is told."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._told_at = time.monotonic()
        self.copied_bytes = 0
        self.is_stopping = False
        self.pace = Pace(
            rest_ratio=_REST_RATIO, refuse_if_stopped=self._refuse, advanced=self._advanced
        )

    def _refuse(self) -> None:
        if self.is_stopping:
            raise Stopped("it was stopped before it was complete; it does not count")

    def _advanced(self, byte_count: int) -> None:
        self.copied_bytes += byte_count
        if time.monotonic() - self._told_at >= _EVERY_S:
            self._told_at = time.monotonic()
            self._tell(_line({"copied_bytes": self.copied_bytes}))


class WorkStream:
    """Implements `console.services.QueryStream` over a call in a thread of low priority."""

    content_type = "application/x-ndjson"

    def __init__(
        self, work: Callable[[Pace], Mapping[str, object]], *, at_end: Callable[[], None]
    ) -> None:
        self._work = work
        self._at_end = at_end
        # As many lines as anybody lets wait: the thread never does.
        self._send, self._receive = trio.open_memory_channel[bytes](1 << 20)
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._progress = Progress(self._tell)
        self._error: IngesterError | None = None
        self._is_begun = False
        start_niced(self._run)

    async def receive(self) -> bytes:
        """The next lines, b"" after the last. Raises what the work has, if it failed at once."""
        try:
            line = await self._receive.receive()
        except trio.EndOfChannel:
            return b""
        if self._error is not None and not self._is_begun:
            raise self._error
        self._is_begun = True
        return line

    async def aclose(self) -> None:
        self._progress.is_stopping = True
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    def _run(self) -> None:
        """In the thread."""
        try:
            try:
                self._tell(_line({"done": self._work(self._progress.pace)}))
            except IngesterError as error:
                self._error = error
                self._tell(_line({"error": str(error)}))
            except Exception as error:
                _log.error("a backup failed", exc_info=error)
                self._tell(_line({"error": f"internal error ({type(error).__name__})"}))
        finally:
            self._at_end()
            self._soon(self._finish)

    def _finish(self) -> None:
        self._send.close()
        self._ended.set()

    def _tell(self, line: bytes) -> None:
        self._soon(lambda: self._send.send_nowait(line))

    def _soon(self, call: Callable[[], None]) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call)


def _line(document: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(document) + b"\n"
