"""The bench of rollups, tiny, against a real server."""

from __future__ import annotations

from bench import rollups
from bench.options import Options


def test_rollups_are_measured_with_and_without_and_tell_the_same_as_rows() -> None:
    rows = rollups.run(Options(smoke=True, rows=3_000))
    assert [row.ratio_to for row in rows[:2]] == ["", "with/without"]
    assert {"lag_s_max", "rest_s"} <= rows[1].extra.keys()
    assert all(row.seconds for row in rows)
