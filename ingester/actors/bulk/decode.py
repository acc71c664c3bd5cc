"""The decoding half of a bulk upload: pieces of the body as received in, slices of rows out.

Pieces (channel, 4 × 256 KiB) ► decode turn, one process-wide, at most 512 KiB of inflated bytes at
a time ► slices (channel, 1).

Inflating shares the thread with decoding. With a thread of its own for it, one block ahead, three
busy threads share two cores and one interpreter lock: 3.2 to 3.5 CPU-s per million events instead
of 2.9 to 3.2, and no less time (2026-11-21).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import trio
from msgspec import Struct

from ...doors.bulk_lane import FIRST_REJECTS_MAX, BulkUpload
from ...doors.dedup import Claim
from ...errors import IngesterError
from ...flow import WaitClock, send_counted
from ...messages import LineReject
from ...protocol.json_views import kept_rows

__all__ = ["SLICE_BYTES", "SLICE_ROWS", "Slice", "decode_pieces"]

# A slice is one INSERT. Measured 2026-11-21 (1 M events): 4 MiB 3.5, 8 MiB 3.3 CPU-s, and three of
# them are alive at once.
SLICE_BYTES = 8 * 1024 * 1024
SLICE_ROWS = 131_072
# Received bytes inflated by one call, if so many are here.
_PIECE_BYTES = 256 * 1024
# Of a body that is not compressed so many are waited for: taken as they come, a piece is an eighth
# of what an inflated one is, and the way to the thread and back costs as much for either.
_PLAIN_PIECE_BYTES = 512 * 1024
# After this a turn is given back: others wait for it, and a small body inflates far.
_TURN_SECONDS = 0.02
# Rejected lines kept in memory before they go to the transaction.
_REJECT_SLICE_BYTES = 4 * 1024 * 1024

_END = b""


class Slice(Struct):
    """What one INSERT takes. `digests` are the ids of its rows, one behind the other."""

    rows: pa.Table | None = None
    rejects: list[LineReject] = []
    row_count: int = 0
    byte_count: int = 0
    digests: bytes = b""


class _Abandoned(IngesterError):
    """The sender went away: nobody is told, everything is rolled back."""


async def decode_pieces(
    upload: BulkUpload,
    slices: trio.MemorySendChannel[Slice],
    turn: trio.CapacityLimiter,
    waits: WaitClock,
) -> None:
    """Pull pieces, decode them by turns, and hand on slices. Owns `slices`; `waits` counts how long
    they had no room.
    """
    bytes_min = _PLAIN_PIECE_BYTES if upload.is_plain else 0
    pieces = _Pieces(upload.pieces, bytes_min)
    decode = _Decode(upload)
    async with slices:
        while True:
            piece = await pieces.next()
            turns = decode.finish() if piece == _END else decode.feed(piece)
            while (
                found := await trio.to_thread.run_sync(next, turns, None, limiter=turn)
            ) is not None:
                if isinstance(found, Slice):
                    try:
                        await send_counted(slices, found, waits)
                    except trio.BrokenResourceError:
                        return  # inserting has failed and raises why
                elif isinstance(found, Claim):
                    # Of a small request, which waits for nothing but the journal.
                    await found.wait_ended()
            if piece == _END:
                return


class _Pieces:
    """What has arrived of a body, joined up to `_PIECE_BYTES`; `bytes_min` are waited for."""

    def __init__(self, channel: trio.MemoryReceiveChannel[bytes], bytes_min: int) -> None:
        self._channel = channel
        self._bytes_min = bytes_min
        self._is_ended = False

    async def next(self) -> bytes:
        """The next bytes, `b""` at the proper end. Raises _Abandoned when it was cut."""
        if self._is_ended:
            return _END
        try:
            parts = [await self._channel.receive()]
        except trio.EndOfChannel:
            raise _Abandoned("the body was not sent whole") from None
        if parts[0] == _END:
            return _END
        size = len(parts[0])
        while size < max(_PIECE_BYTES, self._bytes_min):
            try:
                if size < self._bytes_min:
                    piece = await self._channel.receive()
                else:
                    piece = self._channel.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            if piece == _END:
                self._is_ended = True
                break
            parts.append(piece)
            size += len(piece)
        return b"".join(parts)


class _TurnOver:
    """The decode turn is given back before a slice is full."""


_TURN_OVER = _TurnOver()


class _Decode:
    """Called in a thread: bytes as received in, slices out."""

    def __init__(self, upload: BulkUpload) -> None:
        self._upload = upload
        self._inflater = upload.inflater
        self._decoder = upload.decoder
        self._slice = Slice()
        self._columns: list[pa.RecordBatch] = []
        self._reject_bytes = 0
        self._turn_ends_s = 0.0

    def feed(self, data: bytes) -> Iterator[Slice | _TurnOver | Claim]:
        self._turn_ends_s = time.monotonic() + _TURN_SECONDS
        for raw in self._inflater.feed(data):
            if self._upload.digest is not None:
                self._upload.digest.update(raw)
            yield from self._take_in(self._decoder.feed(raw))

    def finish(self) -> Iterator[Slice | _TurnOver | Claim]:
        self._turn_ends_s = time.monotonic() + _TURN_SECONDS
        self._inflater.finish()
        for batch in self._decoder.finish():
            yield from self._take_in([] if batch is None else [batch])
        yield from self._take_in([])
        if self._slice.row_count or self._slice.rejects:
            yield self._take()

    def _take_in(self, batches: Iterable[Any]) -> Iterator[Slice | _TurnOver | Claim]:
        claim = self._upload.dedup
        for batch in batches:
            columns = self._upload.target.columns_of(batch)
            if claim is not None:
                columns = yield from self._without_repeats(batch, columns, claim)
                if not columns.num_rows:
                    continue
            self._columns.append(columns)
            self._slice.row_count += columns.num_rows
            self._slice.byte_count += len(batch.data)
        rejects = self._decoder.take_rejects()
        if rejects:
            first = self._upload.first_rejects
            first += rejects[: FIRST_REJECTS_MAX - len(first)]
            self._slice.rejects += rejects
            self._reject_bytes += sum(len(r.line) for r in rejects)
        if (
            self._slice.byte_count >= SLICE_BYTES
            or self._slice.row_count >= SLICE_ROWS
            or self._reject_bytes >= _REJECT_SLICE_BYTES
        ):
            yield self._take()
            self._turn_ends_s = time.monotonic() + _TURN_SECONDS
        elif time.monotonic() > self._turn_ends_s:
            yield _TURN_OVER
            self._turn_ends_s = time.monotonic() + _TURN_SECONDS

    def _without_repeats(
        self, batch: Any, columns: pa.RecordBatch, claim: Claim
    ) -> Generator[Claim, None, pa.RecordBatch]:
        """Claim the ids of `batch`; the rows whose ids were not there. Yields whose end must be
        waited for.
        """
        digests = claim.window.field.digests(batch.data, batch.starts, batch.lengths)
        repeats = bytearray(len(digests))
        place, blocker = claim.take(digests, repeats)
        while blocker is not None:
            yield blocker
            place, blocker = claim.take(digests, repeats, place)
        if 1 not in repeats:
            return columns
        is_repeat = np.frombuffer(repeats, bool)
        count = int(np.count_nonzero(is_repeat))
        self._upload.deduplicated += count
        claim.repeat_count += count
        return kept_rows(columns, ~is_repeat)

    def _take(self) -> Slice:
        taken, self._slice = self._slice, Slice()
        if self._upload.dedup is not None:
            taken.digests = self._upload.dedup.take_fresh()
        if self._columns:
            taken.rows = pa.Table.from_batches(self._columns)
        self._columns = []
        self._reject_bytes = 0
        return taken
