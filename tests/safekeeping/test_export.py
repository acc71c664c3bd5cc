"""Exports equal the rows, whatever the format and the engine that reads them."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from ingester.cli import main
from ingester.errors import InvalidField
from ingester.safekeeping.export import days_sql, export_sql
from ingester.sandbox.values import csv_field
from tests.safekeeping.folders import filled

COUNT = 10_998


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("export") / "data")


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INGESTER_")]:
        monkeypatch.delenv(name)


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments, "--data-dir", str(folder)])


def queried(folder: Path, sql: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, ["query", sql, "--json", "--data-dir", str(folder)])
    rows = json.loads(result.stdout)
    assert isinstance(rows, list)
    return rows


def test_every_format_holds_the_same_rows(folder: Path, tmp_path: Path) -> None:
    wanted = {row["id"]: row for row in queried(folder, "FROM events")}
    assert len(wanted) == COUNT
    assert run(folder, "events", "--to", "x.ndjson").exit_code == 0
    lines = [json.loads(line) for line in Path("x.ndjson").read_text().splitlines()]
    assert {line["id"]: line for line in lines} == wanted
    assert len(lines) == COUNT

    assert run(folder, "events", "--to", "x.csv").exit_code == 0
    with Path("x.csv").open(newline="") as file:
        found = {row["id"]: row for row in csv.DictReader(file)}
    assert found.keys() == wanted.keys()
    assert all(json.loads(row["body"]) == wanted[key]["body"] for key, row in found.items())

    assert run(folder, "events", "--to", "x.parquet").exit_code == 0
    table = pq.read_table("x.parquet").to_pylist()
    assert {row["id"]: json.loads(row["body"]) for row in table} == {
        key: row["body"] for key, row in wanted.items()
    }
    assert not list(tmp_path.glob(".*"))


def test_a_folder_has_a_file_for_each_day_that_other_engines_read(folder: Path) -> None:
    polars = pytest.importorskip("polars")
    result = run(folder, "events", "--to", "out", "--by", "time", "--json")
    document = json.loads(result.stdout)
    assert (document["rows"], len(document["files"])) == (COUNT, 2)
    assert sorted(document["files"]) == [
        "out/events/day=1970-01-01/rows.parquet",
        "out/events/day=2023-11-14/rows.parquet",
    ]
    frame = polars.read_parquet("out/events/**/*.parquet", hive_partitioning=True)
    assert frame.height == frame["id"].n_unique() == COUNT
    assert frame.filter(polars.col("day").cast(polars.String) == "1970-01-01").height == 10_000
    assert pq.read_table("out/events").num_rows == COUNT
    # Again, of one day: its file is replaced.
    again = json.loads(
        run(
            folder, "events", "--to", "out", "--by", "time", "--since", "2023-11-14", "--json"
        ).stdout
    )
    assert (again["rows"], again["files"]) == (998, ["out/events/day=2023-11-14/rows.parquet"])
    assert pq.read_table("out/events").num_rows == COUNT


def test_a_pipe_gets_all_rows_and_nothing_else(folder: Path) -> None:
    result = run(folder, "requests", "--to", "-", "--format", "csv")
    assert result.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 501
    assert not result.stderr


def test_a_select_is_exported_too(folder: Path) -> None:
    sql = "SELECT action, count(*) AS n FROM events GROUP BY ALL ORDER BY n"
    assert run(folder, "--sql", sql, "--to", "a.csv").exit_code == 0
    assert Path("a.csv").read_text().splitlines() == ["action,n", "open,998", "x,10000"]
    refused = run(folder, "--sql", sql, "--to", "folder")
    assert (refused.exit_code, Path("folder").exists()) == (2, False)


def test_a_condition_keeps_the_rows_that_meet_it_in_files_of_days(folder: Path) -> None:
    where = "action = 'x' AND account_id = 'a1' -- a comment"
    result = run(folder, "events", "--where", where, "--to", "out", "--json")
    document = json.loads(result.stdout)
    assert document["rows"] == 2_000
    rows = [row for file in document["files"] for row in pq.read_table(file).to_pylist()]
    assert len(rows) == 2_000
    assert {(row["action"], row["account_id"]) for row in rows} == {("x", "a1")}
    # With OR, too, the span counts for all of it.
    spanned = ("--since", "2000-01-01", "--until", "2001-01-01", "--where", "true OR true")
    assert run(folder, "events", *spanned, "--to", "-").stdout == ""


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nonsense = 1", "nonsense"),
        ("read_text('/etc/passwd') IS NOT NULL", "read_text"),
        ("id IN (SELECT content FROM read_text('/etc/passwd'))", "read_text"),
        ("true; DROP TABLE events", ""),
        (" ", "condition"),
    ],
)
def test_a_condition_passes_the_walls_of_any_query(folder: Path, where: str, said: str) -> None:
    result = run(folder, "events", "--where", where, "--to", "x.csv", "--json")
    assert result.exit_code != 0
    assert said in json.loads(result.stdout)["error"]
    assert not Path("x.csv").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "x"),
        ("events", "--sql", "SELECT 1", "--to", "x.csv"),
        ("events", "--to", "x.parquet", "--spreadsheet"),
        ("events", "--to", "-", "--json"),
        ("--sql", "SELECT 1", "--to", "x.csv", "--where", "true"),
        ("--sql", "SELECT 1", "--to", "x.csv", "--since", "1h"),
    ],
)
def test_what_contradicts_itself_is_refused(folder: Path, arguments: tuple[str, ...]) -> None:
    assert run(folder, *arguments).exit_code == 2


def test_a_failed_export_leaves_no_file(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "--sql", "SELECT * FROM nowhere", "--to", "x.csv", "--json")
    assert result.exit_code == 1
    assert "nowhere" in json.loads(result.stdout)["error"]
    assert list(tmp_path.iterdir()) == []


def test_texts_that_a_spreadsheet_would_run_get_an_apostrophe_only_when_asked() -> None:
    for text in ("=1+1", "+1", "-1", "@x", "\tx", "\rx"):
        assert csv_field(text, is_for_spreadsheets=True).lstrip('"').startswith("'")
        assert "'" not in csv_field(text)
    assert csv_field(-1, is_for_spreadsheets=True) == "-1"
    assert csv_field("a=1", is_for_spreadsheets=True) == "a=1"


def test_spans_are_of_arrival_unless_told_otherwise() -> None:
    sql = export_sql("events", since="2026-01-01", until="2026-01-02")
    assert sql == (
        "SELECT * FROM events WHERE received_at >= TIMESTAMP '2026-01-01 00:00:00'"
        " AND received_at < TIMESTAMP '2026-01-02 00:00:00'"
    )
    assert "created_at >=" in export_sql("events", since="1h", until=None, by="time")
    assert "received_at" in days_sql("requests", since=None, until=None, by="time")
    with pytest.raises(InvalidField, match="table must be one of"):
        export_sql("events; DROP TABLE x", since=None, until=None)
    with pytest.raises(InvalidField, match="since"):
        export_sql("events", since="'; --", until=None)
