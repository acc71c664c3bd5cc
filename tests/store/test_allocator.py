"""Freed memory goes back to the system, and giving it back hurts nobody."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from ingester.store.allocator import give_back


def _anonymous_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    pytest.skip("the kernel does not tell what memory is anonymous")


def test_what_a_dropped_table_took_goes_back() -> None:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("CREATE TABLE t AS SELECT md5(i::VARCHAR) AS a FROM range(3000000) r(i)")
        connection.execute("DROP TABLE t")
        before = _anonymous_mb()
        give_back()
        assert before - _anonymous_mb() > 40
        assert connection.execute("SELECT sum(i) FROM range(10) r(i)").fetchone() == (45,)
