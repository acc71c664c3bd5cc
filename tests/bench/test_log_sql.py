"""The rivals' SQL reads what the product reads, row by row; facts see every difference."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from bench.log_corpus import log_blocks
from bench.log_sql import FACTS_SQL, HISTOGRAM_SQL, LEVEL_TEXTS, duckdb_select, names_of
from ingester.protocol.log_values import JSON_NAMES, LEVELS, level_code, read_log

_NOW_US = 1_795_000_000_000_000

_Row = tuple[int | None, str, str]


def _by_sql(path: Path, data: str) -> list[_Row]:
    connection = duckdb.connect()
    select = duckdb_select(f"read_ndjson_objects('{path}')", names_of(data))
    connection.execute(
        "CREATE TABLE logs(time TIMESTAMP, received_at TIMESTAMP, service VARCHAR, "
        "environment VARCHAR, level VARCHAR, message VARCHAR, attributes JSON)"
    )
    connection.execute(f"INSERT INTO logs {select}")
    return connection.execute(
        "SELECT CASE WHEN time <> received_at THEN epoch_us(time) END, level, message FROM logs"
    ).fetchall()


def _by_product(lines: list[bytes]) -> list[_Row]:
    rows = [read_log(line, _NOW_US, _NOW_US, JSON_NAMES) for line in lines]
    return [
        (None if row.time_us == _NOW_US else row.time_us, LEVELS[row.level], row.message)
        for row in rows
    ]


def _compare(tmp_path: Path, lines: list[bytes], data: str) -> None:
    path = tmp_path / "lines.ndjson"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    for line, sql, product in zip(lines, _by_sql(path, data), _by_product(lines), strict=True):
        assert sql == product, line


def test_every_synthetic_log_reads_alike(tmp_path: Path) -> None:
    _compare(tmp_path, b"".join(log_blocks(3000)).splitlines(), "synthetic")


def test_level_texts_are_those_of_the_product() -> None:
    for text, level in LEVEL_TEXTS.items():
        assert LEVELS[level_code(text)] == level, text
        if text.isdecimal():
            assert LEVELS[level_code(int(text))] == level, text
    assert set(LEVEL_TEXTS.values()) == set(LEVELS)


@pytest.mark.parametrize(
    "log",
    [
        {"level": "FATAL", "msg": "x"},
        {"level": None, "severity": "Emerg", "message": "x"},
        {"level": "nonsense", "severity": 4, "message": "x"},
        {"level": True, "message": "x"},
        {"level": "30", "message": ""},
        {"level": 50, "message": {"a": [1, "é"]}},
        {"message": None, "msg": "second"},
        {"error": "", "msg": "no error"},
        {"error": {"code": 5}, "level": "info", "msg": "x"},
        {"error": "guessed", "timestamp": "no time", "time": "2026-01-02T03:04:05.123456Z"},
        {"timestamp": "1767225600052", "msg": "x"},
        {"ts": 1767225600, "msg": "seconds"},
        {"ts": 1767225600.0521, "msg": "with a fraction"},
        {"ts": 1767225600052001, "msg": "microseconds"},
        {"ts": 1767225600052001000, "msg": "nanoseconds"},
        {"note": 'neither "level" nor message\n'},
    ],
)
def test_the_rules_read_alike_beyond_the_corpus(log: object, tmp_path: Path) -> None:
    line = json.dumps(log, ensure_ascii=False, separators=(",", ":")).encode()
    _compare(tmp_path, [line], "synthetic")


def test_names_of_the_real_files_and_of_any_file(tmp_path: Path) -> None:
    real = b'{"Level":"0","Message":"m","@timestamp":"2023-09-05T09:51:51.566Z"}'
    _compare(tmp_path, [real, b'{"type":"PushEvent"}'], "real")
    _compare(tmp_path, [b'{"date":"2026-01-02 03:04:05Z","level":"crit"}'], "mine.ndjson")


@pytest.mark.parametrize(
    "change",
    [
        "SET level = 'debug'",
        "SET message = 'xy'",
        "SET time = time + INTERVAL 1 MICROSECOND",
        "SET time = received_at",
        "SET attributes = '{}'",
    ],
)
def test_facts_tell_one_changed_row_from_none(change: str) -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE logs AS SELECT i, make_timestamp(1767225600000000 + i * 7) AS time, "
        "now()::TIMESTAMP AS received_at, 'info' AS level, 'x' AS message, "
        "'{\"a\":1}'::JSON AS attributes FROM range(100) t(i)"
    )

    def facts() -> object:
        return connection.execute(FACTS_SQL).fetchall(), connection.execute(
            HISTOGRAM_SQL
        ).fetchall()

    before = facts()
    assert facts() == before
    connection.execute(f"UPDATE logs {change} WHERE i = 50")
    assert facts() != before
