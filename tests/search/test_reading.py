"""Readings: how one ends that cannot go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingester.errors import StoreBusy
from ingester.search.reading import Reading
from tests.store.stores import opened

MiB = 1024 * 1024


def test_a_search_without_memory_names_the_setting_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path, memory_bytes_max=32 * MiB) as store:
        with (
            pytest.raises(StoreBusy, match=r"memory_bytes_max.*shorter range"),
            Reading.open(store, seconds_max=20) as reading,
        ):
            reading.rows("SELECT list(range) FROM range(20_000_000)")
        with Reading.open(store, seconds_max=20) as reading:
            assert reading.rows("SELECT 1") == [(1,)]
