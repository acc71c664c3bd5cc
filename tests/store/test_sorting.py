"""Sorting in bounded memory: every row once, in order of time, whatever order it came in."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingester.store import sorting
from ingester.store.part_rows import Chunk, overlap_rows
from ingester.store.sorting import RowSorter, merged, time_values

TIMES = st.lists(st.lists(st.integers(0, 20), max_size=30), max_size=12)


def table(times: list[int], first: int = 0) -> pa.Table:
    return pa.table({
        "time": pa.array(times, pa.timestamp("us")),
        "name": pa.array([f"row {n}" for n in range(first, first + len(times))], pa.string()),
    })


def tables(times: list[list[int]]) -> list[pa.Table]:
    found, first = [], 0
    for each in times:
        found.append(table(each, first))
        first += len(each)
    return found


def as_rows(pieces: list[pa.Table]) -> list[tuple[int, str]]:
    return [
        (int(time), name)
        for piece in pieces
        for time, name in zip(
            time_values(piece, "time"), piece.column("name").to_pylist(), strict=True
        )
    ]


def check(pieces: list[pa.Table], wanted: list[pa.Table]) -> None:
    found = as_rows(pieces)
    assert [time for time, _ in found] == sorted(time for time, _ in found)
    assert Counter(found) == Counter(as_rows(wanted))


class Groups:
    """Groups that need not be sorted inside."""

    def __init__(self, groups: list[pa.Table]) -> None:
        self.groups = groups
        self.lows = [int(time_values(group, "time").min()) for group in groups]

    def read(self, group: int) -> pa.Table:
        return self.groups[group]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(times=TIMES, run_bytes=st.sampled_from([1, 200, 10_000]), spill_every=st.integers(1, 5))
def test_runs_are_merged_in_order(times: list[list[int]], run_bytes: int, spill_every: int) -> None:
    pieces = tables(times)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(sorting, "RUN_BYTES", run_bytes)
        patch.setattr(sorting, "_GROUP_BYTES", 64)
        sorter = RowSorter("time", Path(folder) / "runs")
        for n, piece in enumerate(pieces, 1):
            sorter.add(piece)
            if n % spill_every == 0:
                sorter.spill()
        check(list(sorter.rows()), pieces)
        sorter.close()
        assert list(Path(folder).iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(times=TIMES, run_bytes=st.sampled_from([1, 200, 10_000]))
def test_chunks_are_merged_as_they_lie(times: list[list[int]], run_bytes: int) -> None:
    pieces = [piece for piece in tables(times) if piece.num_rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "RUN_BYTES", run_bytes)
        check(list(merged([Groups([piece]) for piece in pieces], "time")), pieces)


def test_merging_in_order_holds_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", 10_000)
    read: list[int] = []

    class Counted(Groups):
        def read(self, group: int) -> pa.Table:
            read.append(self.lows[group])
            return super().read(group)

    jitter = np.random.default_rng(3)
    sources = [
        Counted([table((n * 100 + jitter.integers(0, 150, 100)).tolist())]) for n in range(200)
    ]
    given_out = 0
    for piece in merged(sources, "time"):
        given_out += piece.num_rows
        # What was read and not given out: a run and the chunks beside it.
        assert len(read) * 100 - given_out < 1_500
    assert given_out == 20_000


def chunk(low: int, high: int, rows: int = 10) -> Chunk:
    return Chunk(first=0, end=rows, row_count=rows, low=low, high=high, first_day=0, last_day=0)


def test_overlapping_chunks_are_counted() -> None:
    assert overlap_rows([]) == 0
    assert overlap_rows([chunk(0, 1), chunk(2, 3), chunk(4, 5)]) == 10
    assert overlap_rows([chunk(0, 2), chunk(2, 3)]) == 20
    assert overlap_rows([chunk(0, 9), chunk(2, 3), chunk(3, 5), chunk(6, 7)]) == 30
