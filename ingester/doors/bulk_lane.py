"""The bulk lane's door side: an upload handed to a worker, its body pumped piece by piece.

Why the pump: the socket belongs to the connection's task, which alone can time it out. So that
task reads pieces and sends them on a channel of 4; the worker reads the other end. While no worker
has taken the upload nothing is read, and the sender is not held to its minimum rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio
from msgspec import Struct

from ..errors import IngesterError
from ..messages import RequestRecord, Source
from ..protocol.events import EventDecoder
from ..protocol.inflate import Inflater
from .exchange import BodyStream

__all__ = ["PIECES_CAPACITY", "BulkLane", "BulkUpload", "Digest", "open_pieces"]

# 4 × 64 KiB: enough to keep the socket busy during one decode turn.
PIECES_CAPACITY = 4


class Digest(Protocol):
    """A running SHA-256 of the decoded body, when an idempotency key asks for one."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class BulkUpload(Struct):
    """A bulk body on its way. `pieces` ends with `b""` (the body is whole) or is closed early
    (it is not). `content_length` as announced, None for a chunked body. The worker sets `outcome`
    and then `done`.
    """

    request_number: int
    received_at_us: int
    door: str
    source: Source
    encoding_name: str
    content_length: int | None
    credential: str
    inflater: Inflater
    decoder: EventDecoder
    digest: Digest | None
    pieces: trio.MemoryReceiveChannel[bytes]
    idempotency_key: str | None
    done: trio.Event
    outcome: RequestRecord | IngesterError | None = None

    def __repr__(self) -> str:
        return f"BulkUpload({self.request_number:016x})"


class BulkLane:
    """Hand uploads to the workers."""

    def __init__(self, uploads: trio.MemorySendChannel[BulkUpload]) -> None:
        self._uploads = uploads

    async def send(
        self,
        upload: BulkUpload,
        pieces: trio.MemorySendChannel[bytes],
        prefix: Sequence[bytes],
        body: BodyStream,
    ) -> RequestRecord:
        """Wait for a worker, pump the body, and return what was committed.

        Raises the worker's refusal, or what reading the body raised; either way nothing of the
        body is stored.
        """
        async with pieces:
            await self._uploads.send(upload)
            try:
                for piece in prefix:
                    await pieces.send(piece)
                while piece := await body.receive():
                    await pieces.send(piece)
                await pieces.send(b"")
            except trio.BrokenResourceError:
                pass  # the worker has refused it already, and says why
            except IngesterError:
                # The body is not whole: the worker sees the channel end and rolls back first.
                pieces.close()
                await upload.done.wait()
                raise
        await upload.done.wait()
        assert upload.outcome is not None
        if isinstance(upload.outcome, RequestRecord):
            return upload.outcome
        raise upload.outcome


def open_pieces() -> tuple[trio.MemorySendChannel[bytes], trio.MemoryReceiveChannel[bytes]]:
    return trio.open_memory_channel[bytes](PIECES_CAPACITY)
