"""Counting what DuckDB must hold at once."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ingester.store.pinned import PINNED_ROWS, PinnedRows


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
