"""Every whole-process bench, tiny, against a stand-in server and the real rivals."""

from __future__ import annotations

import importlib
import importlib.util
import json

import pytest

from bench import __main__ as program
from bench import rivals
from bench.corpus import dirty_corpus, synthetic_corpus
from bench.options import Options

pytestmark = pytest.mark.usefixtures("fake_program")

needs_chdb = pytest.mark.skipif(
    importlib.util.find_spec("chdb") is None, reason="the extra 'bench' is not installed"
)


@pytest.mark.parametrize("name", ["inflate", "ndjson", "columns", "journal", "load"])
def test_stage_handles_every_event_and_has_a_ceiling(name: str) -> None:
    module = importlib.import_module(f"bench.{name}")
    rows = module.run(Options(smoke=True, events=2000))
    assert len(rows) % 2 == 0
    assert all(row.seconds for row in rows)
    assert all(ceiling.ratio for ceiling in rows[1::2])


@pytest.mark.parametrize("name", ["small", "memory", "grow"])
def test_whole_process_bench_runs_small(name: str) -> None:
    module = importlib.import_module(f"bench.{name}")
    rows = module.run(Options(smoke=True, events=500, uploads=3, connections=(1, 8)))
    assert all(row.events and row.seconds for row in rows)


def test_path_counts_rejects_and_compares_with_duckdb(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["path", "--smoke", "--json", "--events", "2000", "--rivals", "duckdb"]
    assert program.main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in document["rows"]}
    assert len(document["rows"]) == 13
    assert rows["ours gzip, 1 line in 1000 refused"]["events"] == 1998
    assert rows["ours zstd"]["ratio"] is None
    assert [row["ratio_to"] for row in document["rows"]].count("ours/duckdb") == 8
    assert rows["duckdb zstd, plain INSERT … SELECT"]["ratio"]
    assert rows["duckdb zstd, preserve_insertion_order=false"]["ratios"]


def test_a_missing_rival_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals.Rival, "available", lambda _: False)
    options = Options(smoke=True, events=300, encodings=("gzip",))
    rows = importlib.import_module("bench.path").run(options)
    assert len(rows) == 2
    assert "skipped" in options.notes[0]


@pytest.mark.parametrize("name", ["duckdb", pytest.param("clickhouse", marks=needs_chdb)])
def test_a_rival_loads_every_row_in_every_variant(name: str) -> None:
    (rival,) = (one for one in rivals.RIVALS if one.name == name)
    corpus = synthetic_corpus(1500)
    variant, rows = rivals.best_variant(rival, corpus, "gzip")
    assert variant in rival.variants
    assert all(row.events == 1500 and row.cpu_s > 0 for row in rows)


def test_a_rival_that_loses_rows_is_refused() -> None:
    rival = rivals.RIVALS[0]
    corpus = synthetic_corpus(100)
    corpus.plain.write_bytes(corpus.plain.read_bytes() + b'{"a":1}\n')
    with pytest.raises(AssertionError, match="101 rows of 100"):
        rivals.run_rival(rival, corpus, "none", "default")


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["nonsense"])
    assert "known: inflate" in capsys.readouterr().err


def test_a_rival_does_not_refuse_what_ours_refuses() -> None:
    """Why the row with refused lines has no rival: this line lacks its `userId`."""
    corpus = dirty_corpus(1000)
    with pytest.raises(AssertionError, match="1000 rows of 999"):
        rivals.run_rival(rivals.RIVALS[0], corpus, "none", "default")
