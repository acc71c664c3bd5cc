"""Timing of one stage inside this process: production functions, a dummy sink, a ceiling.

The ceiling is the bare library call the stage is built on, given the same input: what it costs
above that is what our checks and bounds cost. Both take turns, round by round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from bench.corpus import Corpus
from bench.process import memory_mb, reset_peak_memory
from bench.report import Row, median_row, pairwise_ratios

__all__ = ["Subject", "compare", "file_pieces", "line_chunks"]

# What the socket hands over at once, and what the inflater hands on.
_RECEIVE_BYTES = 64 * 1024
_CHUNK_BYTES = 256 * 1024


class Subject(Struct):
    """A thing to time: its name, and a call that does the whole work once and returns how many
    events (or bytes, where a stage knows no events) it handled, to be checked.
    """

    name: str
    work: Callable[[], int]


def compare(
    bench: str,
    corpus: Corpus,
    ours: Subject,
    ceiling: Subject,
    *,
    expected: int,
    rounds: int,
    events: int | None = None,
    raw_bytes: int | None = None,
) -> list[Row]:
    """Rows of ours and of the ceiling, the second with our rate over its rate.

    Each runs once unmeasured first: what it pays for fresh memory and a cold cache is not asked.
    """
    if rounds > 1:
        for subject in (ours, ceiling):
            subject.work()
    measured: dict[str, list[Row]] = {ours.name: [], ceiling.name: []}
    for _ in range(rounds):
        for subject in (ours, ceiling):
            row = _timed(subject, expected)
            row.bench = bench
            row.events = corpus.events if events is None else events
            row.raw_bytes = corpus.raw_bytes if raw_bytes is None else raw_bytes
            measured[subject.name].append(row)
    mine, other = (median_row(rows) for rows in measured.values())
    other.ratio = other.seconds / mine.seconds
    other.ratio_to = "ours/this"
    other.ratios = pairwise_ratios(*measured.values())
    return [mine, other]


def _timed(subject: Subject, expected: int) -> Row:
    reset_peak_memory(os.getpid())
    cpu, start = time.process_time(), time.perf_counter()
    handled = subject.work()
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    assert handled == expected, f"{subject.name} handled {handled} of {expected}"
    return Row(
        bench="",
        name=subject.name,
        events=0,
        seconds=seconds,
        cpu_s=cpu_s,
        peak_rss_mb=memory_mb(os.getpid()),
    )


def file_pieces(path: Path, size: int = _RECEIVE_BYTES) -> Iterator[bytes]:
    """A file as the pieces a body arrives in."""
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


def line_chunks(path: Path) -> Iterator[bytes]:
    """The file as chunks of about 256 KiB that hold whole lines."""
    carry = b""
    for piece in file_pieces(path, _CHUNK_BYTES):
        end = piece.rfind(b"\n") + 1
        if not end:
            carry += piece
            continue
        yield carry + piece[:end]
        carry = piece[end:]
    if carry:
        yield carry
