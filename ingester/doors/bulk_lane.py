"""The bulk lane's door side: an upload handed to a worker, its body pumped piece by piece.

Why the pump: the socket belongs to the connection's task, which alone can time it out. So that
task reads pieces and sends them on a channel of 4; the worker reads the other end. While no worker
has taken the upload nothing is read, and the sender is not held to its minimum rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import trio
from msgspec import Struct

from ..errors import IngesterError, RequestError
from ..flow import WaitClock, send_counted
from ..messages import LineReject, RequestRecord
from ..protocol.forms import Decoder, Origin, RowTarget
from ..protocol.inflate import Inflater
from .dedup import Claim
from .exchange import BodyStream

__all__ = [
    "FIRST_REJECTS_MAX",
    "PIECES_CAPACITY",
    "BulkLane",
    "BulkUpload",
    "Digest",
    "LinesRefused",
    "RefusedBy",
    "open_pieces",
    "refuse_if_rejected",
]

# 4 × 64 KiB: enough to keep the socket busy during one decode turn.
PIECES_CAPACITY = 4


# Which rejects refuse the whole request: none, or when there is nothing else, or any one.
RefusedBy = Literal["nothing", "all_rejected", "any_rejected"]
# What is kept of them for the answer.
FIRST_REJECTS_MAX = 100


class LinesRefused(RequestError):
    """The door wants no part of a request with such rejects; `first_rejects` of them are told."""

    def __init__(self, accepted: int, rejected: int, first_rejects: Sequence[LineReject]) -> None:
        super().__init__(f"{rejected} of {accepted + rejected} lines were rejected")
        self.rejected = rejected
        self.first_rejects = first_rejects


def refuse_if_rejected(
    refused_by: RefusedBy, accepted: int, rejected: int, first_rejects: Sequence[LineReject]
) -> None:
    """Raises LinesRefused before anything is stored."""
    if refused_by == "nothing" or not rejected:
        return
    if refused_by == "any_rejected" or not accepted:
        raise LinesRefused(accepted, rejected, first_rejects[:FIRST_REJECTS_MAX])


class Digest(Protocol):
    """A running SHA-256 of the decoded body, when an idempotency key asks for one."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class BulkUpload(Struct):
    """A bulk body on its way. `pieces` ends with `b""` (the body is whole) or is closed early
    (it is not). `content_length` as announced, None for a chunked body. The worker sets `outcome`
    and then `done`. `is_plain`: not compressed. `first_rejects` are for the answer. `dedup` is the
    claim for its ids, if its source leaves out repeats, and `deduplicated` how many were; whoever
    ends the upload settles it.
    """

    request_number: int
    received_at_us: int
    origin: Origin
    encoding_name: str
    content_length: int | None
    inflater: Inflater
    decoder: Decoder
    target: RowTarget
    digest: Digest | None
    pieces: trio.MemoryReceiveChannel[bytes]
    idempotency_key: str | None
    done: trio.Event
    refused_by: RefusedBy = "nothing"
    is_plain: bool = False
    first_rejects: list[LineReject] = []
    dedup: Claim | None = None
    deduplicated: int = 0
    outcome: RequestRecord | IngesterError | None = None

    def __repr__(self) -> str:
        return f"BulkUpload({self.request_number:016x})"


class BulkLane:
    """Hand uploads to the workers."""

    def __init__(self, uploads: trio.MemorySendChannel[BulkUpload]) -> None:
        self._uploads = uploads
        # For a worker; for room in the channel of pieces.
        self.worker_waits = WaitClock()
        self.piece_waits = WaitClock()

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
            try:
                await send_counted(self._uploads, upload, self.worker_waits)
            except BaseException:  # no worker has it
                if upload.dedup is not None:
                    upload.dedup.settle(is_durable=False)
                raise
            try:
                for piece in prefix:
                    await send_counted(pieces, piece, self.piece_waits)
                while piece := await body.receive():
                    await send_counted(pieces, piece, self.piece_waits)
                await send_counted(pieces, b"", self.piece_waits)
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
