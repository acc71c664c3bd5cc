"""Stage `columns`: decoded batches to Arrow columns, the body without a copy.

Ceiling: the same columns by `pyarrow.array` alone, the body as Python bytes cut from the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from bench.options import Options
from bench.report import Row
from bench.stage import Subject, compare, file_pieces
from ingester.protocol.columns import event_columns
from ingester.protocol.event_lines import EventRules
from ingester.protocol.events import EventBatch, EventDecoder

__all__ = ["decoded_batches", "run"]

_PIECE_BYTES = 256 * 1024
# Decoded batches are held in memory; more would measure the page faults of holding them.
_EVENTS_MAX = 200_000


def run(options: Options) -> list[Row]:
    """A pair of rows over at most the first 200,000 events."""
    corpus = options.corpus()
    batches = decoded_batches(options, _EVENTS_MAX)
    events = sum(len(batch.events) for batch in batches)
    return compare(
        "columns",
        corpus,
        Subject("ours", partial(_ours, batches)),
        Subject("plain arrays, body copied", partial(_plain, batches)),
        expected=events,
        rounds=1 if options.smoke else options.rounds,
        events=events,
        raw_bytes=sum(len(batch.data) for batch in batches),
    )


def decoded_batches(options: Options, events_max: int) -> list[EventBatch]:
    """The first batches of the corpus, as the decoder makes them."""
    decoder = EventDecoder(EventRules(), rejects_max=0, is_plain=False)
    batches: list[EventBatch] = []
    for piece in file_pieces(options.corpus().plain, _PIECE_BYTES):
        batches += decoder.feed(piece)
        if decoder.accepted_count >= events_max:
            return batches
    return batches + decoder.finish()


def _ours(batches: Sequence[EventBatch]) -> int:
    return sum(event_columns(batch).num_rows for batch in batches)


def _plain(batches: Sequence[EventBatch]) -> int:
    rows = 0
    for batch in batches:
        events, data = batch.events, batch.data
        spans = zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)
        table = pa.table({
            "account_id": pa.array([e.accountId for e in events]),
            "user_id": pa.array([e.userId for e in events]),
            "created_at": pa.array([int(e.createdAt) for e in events]).cast("timestamp[ms]"),
            "action": pa.array([e.action for e in events]),
            "session_id": pa.array([e.sessionId for e in events]),
            "body": pa.array([data[at : at + size] for at, size in spans], pa.string()),
            "line_number": pa.array(batch.line_numbers),
        })
        rows += table.num_rows
    return rows
