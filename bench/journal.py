"""Stage `journal`: groups of small bodies appended and synced, as the journal actor does it.

Ceiling: the bytes of each group in one `write` and one `fdatasync` on a plain file, without
frames, checksums, sequence numbers or segments.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.corpus import cache_directory
from bench.options import Options
from bench.report import Row
from bench.stage import Subject, compare
from ingester.config import JournalConfig
from ingester.journal.writer import JournalWriter

__all__ = ["run"]

_GROUP_SIZES = (1, 8, 32, 128)
_GROUPS = 1000
_SMOKE_GROUPS = 20

_Append = Callable[[Path, Sequence[Sequence[bytes]]], int]


def run(options: Options) -> list[Row]:
    """A pair of rows for each group size."""
    corpus = options.corpus()
    with corpus.plain.open("rb") as file:
        bodies = [file.readline() for _ in range(min(corpus.events, 1024))]
    group_count = _SMOKE_GROUPS if options.smoke else _GROUPS
    rows: list[Row] = []
    for size in _GROUP_SIZES:
        groups = [
            [bodies[(number * size + index) % len(bodies)] for index in range(size)]
            for number in range(group_count)
        ]
        pair = compare(
            "journal",
            corpus,
            Subject(f"ours, groups of {size}", partial(_in_fresh_folder, _ours, groups)),
            Subject(f"bare write + fdatasync, {size}", partial(_in_fresh_folder, _bare, groups)),
            expected=group_count * size,
            rounds=1 if options.smoke else options.rounds,
            events=group_count * size,
            raw_bytes=sum(len(body) for group in groups for body in group),
        )
        for row in pair:
            row.extra["ms_per_group"] = round(row.seconds / group_count * 1000, 3)
        rows += pair
    return rows


def _in_fresh_folder(append: _Append, groups: Sequence[Sequence[bytes]]) -> int:
    folder = Path(tempfile.mkdtemp(prefix="journal-", dir=cache_directory()))
    try:
        return append(folder, groups)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ours(folder: Path, groups: Sequence[Sequence[bytes]]) -> int:
    writer = JournalWriter.open(folder, JournalConfig(), next_seq=1)
    last_seq = 0
    try:
        for group in groups:
            _, last_seq = writer.append(group)
    finally:
        writer.close()
    return last_seq


def _bare(folder: Path, groups: Sequence[Sequence[bytes]]) -> int:
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT, 0o600)
    count = 0
    try:
        for group in groups:
            os.write(descriptor, b"".join(group))
            os.fdatasync(descriptor)
            count += len(group)
    finally:
        os.close(descriptor)
    return count
