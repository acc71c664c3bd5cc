"""Stage `ndjson`: raw pieces in, lines framed, typed decode, every rule of validity checked.

Ceiling: msgspec's typed `decode_lines` on ready-made chunks of whole lines, which checks neither
that a line is one value nor what it skips. A second pair has one line in a thousand to refuse.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench.corpus import dirty_corpus
from bench.options import Options
from bench.report import Row
from bench.stage import Subject, compare, file_pieces, line_chunks
from ingester.config import IntakeConfig
from ingester.protocol.event_lines import EventRules, strict_decoder
from ingester.protocol.events import EventDecoder

__all__ = ["run"]

_PIECE_BYTES = 256 * 1024  # what the inflater hands on


def run(options: Options) -> list[Row]:
    """Ours and the ceiling on the corpus; ours on the corpus with refused lines."""
    corpus = options.corpus()
    rounds = 1 if options.smoke else options.rounds
    rows = compare(
        "ndjson",
        corpus,
        Subject("ours", partial(_ours, corpus.plain)),
        Subject("bare msgspec decode_lines", partial(_bare, corpus.plain)),
        expected=corpus.events,
        rounds=rounds,
    )
    if options.data != "synthetic":
        return rows
    dirty = dirty_corpus(corpus.events)
    pair = compare(
        "ndjson",
        dirty,
        Subject("ours, 1 line in 1000 refused", partial(_ours, dirty.plain)),
        Subject("line by line, typed decode only", partial(_by_line, dirty.plain)),
        expected=dirty.events,
        rounds=rounds,
    )
    return rows + pair


def _ours(path: Path) -> int:
    intake = IntakeConfig()
    rules = EventRules(intake.line_bytes_max, intake.depth_max)
    decoder = EventDecoder(rules, rejects_max=intake.rejects_per_request_max, is_plain=False)
    for piece in file_pieces(path, _PIECE_BYTES):
        decoder.feed(piece)
    decoder.finish()
    return decoder.accepted_count


def _bare(path: Path) -> int:
    decode_lines: Any = strict_decoder.decode_lines
    return sum(len(decode_lines(chunk)) for chunk in line_chunks(path))


def _by_line(path: Path) -> int:
    decode: Any = strict_decoder.decode
    accepted = 0
    for chunk in line_chunks(path):
        for line in chunk.splitlines():
            try:
                decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            # Bad UTF-8 in a property that is no column passes a typed decode unseen.
            accepted += b"\xff" not in line
    return accepted
