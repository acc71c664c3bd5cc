"""Counting what DuckDB must hold at once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ingester.actors.loader import load_batch
from ingester.store.pinned import PINNED_ROWS, PinnedRows, TailRows
from ingester.store.reader import check_parts
from tests.actors.requests import event_line, small_request

from .stores import opened, rows, value

MiB = 1024 * 1024


@pytest.mark.parametrize("seed", range(8))
def test_the_widest_rows_in_a_row_are_found_however_they_come(seed: int) -> None:
    choice = random.Random(seed)
    lengths = [choice.choice([1, 10, 100_000, 1 << 20]) for _ in range(choice.randint(1, 9_000))]
    pinned = PinnedRows()
    at = 0
    while at < len(lengths):
        count = choice.choice([0, 1, 7, 2047, 2048, 2049, 5000])
        pinned.add(np.array(lengths[at : at + count], np.int32))
        at += count
    windows = range(max(1, len(lengths) - PINNED_ROWS + 1))
    assert pinned.widest_bytes == max(sum(lengths[i : i + PINNED_ROWS]) for i in windows)
    assert pinned.tail_bytes == sum(lengths[-PINNED_ROWS:])
    assert pinned.row_count == len(lengths)


def test_nothing_pins_nothing() -> None:
    pinned = PinnedRows()
    pinned.add(np.zeros(0, np.int32))
    assert (pinned.widest_bytes, pinned.tail_bytes, pinned.row_count) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(2))
def test_the_tail_never_says_less_than_what_is_in_the_last_rows(seed: int) -> None:
    choice = random.Random(seed)
    tail = TailRows()
    stored: list[int] = []
    for _ in range(60):
        lengths = [choice.choice([1, 1000]) for _ in range(choice.choice([1, 30, 2047, 2049]))]
        rows = PinnedRows()
        rows.add(np.array(lengths, np.int64))
        stored += lengths
        neighbours = stored[-(len(lengths) + PINNED_ROWS) :]
        windows = range(max(1, len(neighbours) - PINNED_ROWS + 1))
        widest = max(sum(neighbours[i : i + PINNED_ROWS]) for i in windows)
        assert tail.widest_with(rows) >= widest
        tail.add(rows)
        assert sum(stored[-PINNED_ROWS:]) <= tail.byte_count
        assert tail.byte_count <= sum(stored[-2 * PINNED_ROWS - 2050 :])


def test_narrow_rows_that_trickle_in_are_merged_and_wide_ones_are_not(tmp_path: Path) -> None:
    """Merged by checkpoints, 300 rows of 1 MiB would make every further checkpoint fail."""

    def cycles(first: int, size: int, count: int) -> None:
        for start in range(first, first + 10 * count, count):
            requests = [small_request(n, event_line(n, size)) for n in range(start, start + count)]
            load_batch(store, start, requests)
            assert store.checkpoint()

    def row_groups() -> int:
        sql = "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('part_000001.events')"
        found = value(store, sql)
        assert isinstance(found, int)
        return found

    memory = {"memory_bytes_max": 64 * MiB}
    with opened(tmp_path, **memory) as store:
        cycles(1, 300, 10)
        assert row_groups() <= 2
        assert not store.parts.newest.is_wide
        cycles(101, MiB - 100, 10)
        assert store.parts.newest.is_wide
        assert row_groups() > 5
        assert rows(store, "SELECT DISTINCT lane FROM part_000001.applied ORDER BY 1") == [
            ("carry",),
            ("small",),
            ("wide",),
        ]
    with opened(tmp_path, **memory) as store:
        assert store.parts.newest.is_wide
        load_batch(store, 201, [small_request(1_000)])
        assert store.checkpoint()
        store.rotate()
        assert not store.parts.newest.is_wide
        load_batch(store, 202, [small_request(1_001)])
        assert value(store, "SELECT count(DISTINCT request_id) FROM requests") == 202
        assert check_parts(store) == []


def test_the_width_of_the_last_rows_is_known_after_a_restart(tmp_path: Path) -> None:
    requests = [small_request(n, event_line(n, MiB - 100)) for n in range(1, 41)]
    with opened(tmp_path) as store:
        load_batch(store, 1, requests[:20])
        assert not store.parts.newest.is_wide
    with opened(tmp_path) as store:
        stored_bytes = sum(len(line) for request in requests[:20] for line in request.lines)
        assert store.parts.newest.tail["events"].byte_count == stored_bytes
        load_batch(store, 21, requests[20:])
        assert store.parts.newest.is_wide
