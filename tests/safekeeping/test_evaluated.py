"""Rows that were lost and come back: rules tell of them again only if they had not seen them."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import msgspec
import pytest

from ingester.lql import parse
from ingester.safekeeping.repair import repair_folder
from ingester.search.reading import Reading
from ingester.search.subjects import SUBJECTS
from ingester.search.tail import matching_behind
from ingester.startup import Opened
from ingester.watch.rules import RuleEngine
from tests.safekeeping.folders import acknowledge, config_of, requests, started, upload
from tests.store.stores import value

_SMALL = 'action:"open"'
_LARGE = 'action:"x"'


def _evaluate(opened: Opened) -> None:
    engine = RuleEngine(opened.store, opened.control, console_base=lambda: "http://c")
    with closing(engine):
        while engine.round().groups:
            pass
        engine.save()


def _matches(opened: Opened) -> dict[str, int]:
    with opened.control._reading() as connection:
        return dict(
            connection.execute(
                "SELECT name, sum(matches) FROM affected JOIN watches USING (watch_id) GROUP BY 1"
            ).fetchall()
        )


def _events(opened: Opened, action: str) -> int:
    count = value(opened.store, f"SELECT count(*) FROM events WHERE action = '{action}'")
    assert isinstance(count, int)
    return count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The second part has what was evaluated, and after that what was not."""
    path = tmp_path / "data"
    with started(path) as opened:
        for name, lql in (("small", _SMALL), ("large", _LARGE)):
            settings = msgspec.json.encode({"name": name, "lql": lql, "on": "events"})
            opened.control.create_watch("rule", name, settings, actor="test")
        _evaluate(opened)
        acknowledge(opened, requests(range(1, 50)))
        opened.store.rotate()
        acknowledge(opened, requests(range(50, 100)))
        upload(opened.store, 1_001, 1_000)
        hour_ago = datetime.now(UTC).timestamp() - 3600
        (evaluated,) = (path / "uploads").iterdir()
        os.utime(evaluated, (hour_ago, hour_ago))
        acknowledge(opened, requests(range(100, 120)))
        _evaluate(opened)
        assert _matches(opened) == {"small": _events(opened, "open"), "large": 1_000}
        acknowledge(opened, requests(range(120, 150)))
        upload(opened.store, 1_002, 500)
    return path


@pytest.mark.parametrize("starts_before_repair", [False, True])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_rules_fire_once_for_rows_that_come_back(
    folder: Path, starts_before_repair: bool, damage: str
) -> None:
    path = folder / "open" / "000002.duckdb"
    if damage == "gone":
        path.unlink()
        if starts_before_repair:
            with started(folder) as opened:
                _evaluate(opened)
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    with started(folder) as opened:
        _evaluate(opened)
        assert _events(opened, "x") == 1_500
        assert _events(opened, "open") == sum(n % 3 + 1 for n in range(1, 150))
        assert _matches(opened) == {"small": _events(opened, "open"), "large": 1_500}
        acknowledge(opened, requests(range(150, 160)))
        _evaluate(opened)
        assert _matches(opened)["small"] == _events(opened, "open"), "what is new is told of"


def test_rows_whose_ledger_is_lost_are_not_told_again_if_their_part_was_evaluated(
    folder: Path,
) -> None:
    """Of an older part, which nothing was written to since. The journal does not have its rows."""
    with started(folder) as opened:
        _evaluate(opened)
        before = _matches(opened)
        opened.store.rotate()
        acknowledge(opened, requests(range(200, 203)))
        _evaluate(opened)
        told = _matches(opened)
    assert told["small"] > before["small"]
    for segment in (folder / "journal").iterdir():
        segment.unlink()
    path = folder / "open" / "000002.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE applied")
    hour_ago = datetime.now(UTC).timestamp() - 3600
    for each in (path, *(folder / "uploads").iterdir()):
        os.utime(each, (hour_ago, hour_ago))
    found = repair_folder(config_of(folder))
    assert found.problems == [], found
    assert any("its ledger is lost" in lost for lost in found.lost)
    with started(folder) as opened:
        _evaluate(opened)
        assert _events(opened, "x") == 1_500
        assert _matches(opened) == told


def test_an_upload_that_may_not_have_been_evaluated_is(folder: Path) -> None:
    """An incident twice is better than none."""
    now = datetime.now(UTC).timestamp()
    for path in (folder / "uploads").iterdir():
        os.utime(path, (now, now))
    (folder / "open" / "000002.duckdb").unlink()
    assert repair_folder(config_of(folder)).problems == []
    with started(folder) as opened:
        _evaluate(opened)
        assert _matches(opened)["large"] == 1_000 + 1_500


def test_an_alert_looks_at_rows_that_came_back_if_they_arrived_since_its_last_window(
    folder: Path,
) -> None:
    (folder / "open" / "000002.duckdb").unlink()
    assert repair_folder(config_of(folder)).problems == []
    with started(folder) as opened, Reading.open(opened.store, seconds_max=10) as reading:
        subject = SUBJECTS["events"]
        query = parse(_SMALL, context="rule", schema=subject.schema)
        arrived = value(opened.store, "SELECT max(received_at) FROM events WHERE action = 'open'")
        assert isinstance(arrived, datetime)
        counts = {
            name: matching_behind(reading, subject, query, 10, limit=10_000, again_since=since)[1]
            for name, since in (
                ("before", arrived - timedelta(days=1)),
                ("after", arrived + timedelta(days=1)),
                ("never", None),
            )
        }
        fresh = sum(n % 3 + 1 for n in range(120, 150))
        lost = sum(n % 3 + 1 for n in range(50, 120))
        assert counts == {"before": fresh + lost, "after": fresh, "never": fresh}
