"""Every whole-process bench, tiny, against a stand-in server and the real rivals."""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import Any

import pytest

from bench import __main__ as program
from bench import rivals, server
from bench.corpus import Encoding, dirty_corpus, synthetic_corpus
from bench.options import DoorName, Options

pytestmark = pytest.mark.usefixtures("fake_program")

needs_chdb = pytest.mark.skipif(
    importlib.util.find_spec("chdb") is None, reason="the extra 'bench' is not installed"
)

_SHORT_LOADS = ("log door", "metric door", "metric door × 100")


@pytest.mark.parametrize("name", ["inflate", "ndjson", "columns", "journal", "load"])
def test_stage_handles_every_event_and_has_a_ceiling(name: str) -> None:
    module = importlib.import_module(f"bench.{name}")
    rows = module.run(Options(smoke=True, events=2000))
    assert len(rows) % 2 == 0
    assert all(row.seconds for row in rows)
    assert all(ceiling.ratio for ceiling in rows[1::2])


def test_the_stage_of_rules_is_compared_with_a_statement_each() -> None:
    module = importlib.import_module("bench.rules")
    assert len(module.mixed_rules()) == len(module.substring_rules()) == 1000
    rows = module.stage(Options(smoke=True, events=200))
    assert [row.events for row in rows] == [200] * 4
    assert all(other.ratio for other in rows[1::2])


@pytest.mark.parametrize("name", ["small", "memory", "grow"])
def test_whole_process_bench_runs_small(name: str) -> None:
    module = importlib.import_module(f"bench.{name}")
    rows = module.run(
        Options(smoke=True, events=500, uploads=3, connections=(1, 8), doors=("natero",))
    )
    assert all(row.events and row.seconds for row in rows)


def test_path_counts_rejects_and_compares_with_duckdb(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["path", "--smoke", "--json", "--events", "2000", "--rivals", "duckdb"]
    arguments += ["--encodings", "none,gzip,deflate,zstd"]
    assert program.main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in document["rows"]}
    assert len(document["rows"]) == 13
    assert rows["ours gzip, 1 line in 1000 refused"]["events"] == 1998
    assert rows["ours zstd"]["ratio"] is None
    assert [row["ratio_to"] for row in document["rows"]].count("ours/duckdb") == 8
    assert rows["duckdb zstd, plain INSERT … SELECT"]["ratio"]
    assert rows["duckdb zstd, preserve_insertion_order=false"]["ratios"]


@pytest.mark.parametrize(
    ("rival", "encoding"),
    [("duckdb", "gzip"), pytest.param("clickhouse", "none", marks=needs_chdb)],
)
def test_path_logs_agrees_with_a_rival_on_what_was_read(rival: str, encoding: Encoding) -> None:
    options = Options(smoke=True, events=2000, rivals=(rival,), encodings=(encoding,))
    rows = importlib.import_module("bench.path_logs").run(options)
    assert [row.ratio_to for row in rows[1:]] == [f"ours/{rival}"] * (2 if rival == "duckdb" else 1)
    assert all(row.events == 2000 and row.seconds for row in rows)


def test_path_logs_refuses_a_rival_that_reads_other_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = rivals.rival_result

    def other(*arguments: Any) -> rivals.RivalResult:
        result = measured(*arguments)
        assert result.facts is not None
        result.facts.levels["info"] -= 1
        result.facts.levels["debug"] += 1
        return result

    path_logs = importlib.import_module("bench.path_logs")
    monkeypatch.setattr(path_logs, "rival_result", other)
    options = Options(smoke=True, events=300, encodings=("gzip",), rivals=("duckdb",))
    with pytest.raises(AssertionError, match=r"duckdb gzip, plain .* read LogFacts"):
        path_logs.run(options)


def test_small_drives_the_doors_asked_for() -> None:
    rows = importlib.import_module("bench.small").run(
        Options(smoke=True, doors=("log", "metric"), connections=(2,))
    )
    assert [row.name for row in rows[::2]] == [
        "log door, ours 2 connections",
        "metric door, ours 2 connections",
        "metric door × 100, ours 2 connections",
    ]
    assert all(row.events % 100 == 0 for row in rows[4:])
    assert all(row.ratio_to == "ours/echo" and row.ratio for row in rows[1::2])


@pytest.mark.parametrize(
    ("doors", "expected"),
    [
        ((), [("", (1, 8, 32)), *((name, (32,)) for name in _SHORT_LOADS)]),
        (("log",), [("log door", (1, 8, 32))]),
    ],
)
def test_doors_nobody_asked_for_run_at_32_connections_only(
    doors: tuple[DoorName, ...], expected: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = importlib.import_module("bench.small")
    ran = []
    monkeypatch.setattr(small, "_beside_bulk", lambda *_: None)

    def beside_echo(load: Any, connections: object, _: Options) -> list[object]:
        ran.append((load.name, connections))
        return []

    monkeypatch.setattr(small, "_beside_echo", beside_echo)
    small.run(Options(events=100, doors=doors, connections=(1, 8, 32)))
    assert ran == expected


def test_small_refuses_rows_that_are_not_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.Server, "wait_count", lambda *_, **__: 7)
    with pytest.raises(AssertionError, match="7 metrics stored"):
        importlib.import_module("bench.small").run(
            Options(smoke=True, doors=("metric",), connections=(1,))
        )


def test_unknown_doors_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["small", "--doors", "back"])
    assert "doors" in capsys.readouterr().err


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
