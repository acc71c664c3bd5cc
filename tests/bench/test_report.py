"""The frame: derived rates, medians, the table, the JSON document."""

from __future__ import annotations

import json

from bench.report import Report, Row, median_row, pairwise_ratios, render_table


def _row(seconds: float, **more: object) -> Row:
    fields = {"bench": "path", "name": "ours gzip", "events": 1000, "raw_bytes": 4_000_000}
    return Row(seconds=seconds, **(fields | more))  # type: ignore[arg-type]


def test_rates_are_derived_from_facts() -> None:
    row = _row(2.0, cpu_s=0.5)
    assert (row.events_per_s, row.mb_per_s, row.cpu_s_per_1m) == (500.0, 2.0, 500.0)
    assert _row(0.0, events=0).events_per_s == 0.0


def test_median_takes_the_middle_round_and_the_worst_memory() -> None:
    rows = [_row(3.0, peak_rss_mb=9.0), _row(1.0, peak_rss_mb=7.0), _row(2.0, peak_rss_mb=8.0)]
    row = median_row(rows)
    assert (row.seconds, row.peak_rss_mb) == (2.0, 9.0)
    assert row.extra["rounds_s"] == [3.0, 1.0, 2.0]


def test_a_ratio_above_one_means_ours_is_faster() -> None:
    assert pairwise_ratios([_row(1.0)], [_row(2.0)]) == [2.0]


def test_table_leaves_out_empty_columns_and_keeps_notes() -> None:
    text = render_table([_row(2.0, ratio=1.234, ratio_to="ours/duckdb")], ["one thing"])
    assert "RSS MB" not in text
    assert "1.23" in text
    assert text.endswith("note: one thing")


def test_json_document_holds_rows_with_their_rates() -> None:
    report = Report(machine={"cpus": 2}, settings={}, rows=[_row(2.0)], notes=["n"])
    document = json.loads(report.as_json())
    assert document["rows"][0]["events_per_s"] == 500.0
    assert document["notes"] == ["n"]
