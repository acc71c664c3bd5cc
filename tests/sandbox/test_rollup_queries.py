"""Rollups, users and accounts as public tables of queries."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ingester.sandbox.messages import QueryRefused
from ingester.store import rollups as rollups_module
from ingester.store.rollup_schema import ROLLUP_VIEW_NAMES
from tests.sandbox.asking import Asking, open_asking
from tests.search.rows import Rows
from tests.store.recount import COLUMNS, add_some
from tests.store.stores import rows


def plain(found: Any) -> Any:
    """A value as a query's JSON has it."""
    if isinstance(found, str) and found.startswith("{"):
        return json.loads(found)
    if hasattr(found, "isoformat"):
        return found.isoformat(timespec="microseconds") + "Z"
    return found


async def assert_told(asking: Asking) -> None:
    """Every rollup says to a query what it says inside of the store."""
    for name in ROLLUP_VIEW_NAMES:
        told = await asking.rows(f"SELECT {COLUMNS[name]} FROM {name}")
        found = rows(asking.store, f"SELECT {COLUMNS[name]} FROM {name}")
        assert sorted(map(repr, told)) == sorted(
            repr([plain(value) for value in row]) for row in found
        ), name
        assert told


async def test_a_query_sees_rollups_of_what_was_just_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups_module, "_UNMERGED_ROWS_MAX", 20)
    chance = random.Random(11)
    async with open_asking(tmp_path, with_rollups=True) as asking:
        made = Rows(asking.store)
        made.request_number = 100
        for _ in range(2):
            add_some(made, chance, 30)
            await assert_told(asking)
        rollups = asking.increments._rollups
        assert rollups is not None
        while rollups.maybe_merge():
            pass
        assert rollups.merge_count
        # Files of generations that are no more go.
        count = await asking.value("SELECT count(*) FROM events_hourly")
        generations = {name.split("-")[1] for name in asking_files(asking) if "_g" in name}
        assert generations <= {
            f"{table}_g{number}" for table, number in asking.store.rollup_file.generations.items()
        }
        assert count == await asking.value(
            "SELECT count(*) FROM (SELECT DISTINCT date_trunc('hour', created_at), source, "
            "account_id, action FROM events)"
        )
        add_some(made, chance, 30)
        await assert_told(asking)


def asking_files(asking: Asking) -> list[str]:
    return [path.name for path in (asking.folder / "export").iterdir()]


async def test_rollups_may_be_joined_and_described_but_not_their_tables(tmp_path: Path) -> None:
    async with open_asking(tmp_path, with_rollups=True) as asking:
        joined = await asking.value(
            'SELECT count(*) FROM Events_Daily d JOIN "USERS" u USING (source, account_id)'
        )
        assert joined > 0
        described = await asking.rows("DESCRIBE SELECT * FROM metrics_daily")
        assert [row[:2] for row in described][:2] == [
            ["bucket", "TIMESTAMP"],
            ["project_id", "VARCHAR"],
        ]
        assert await asking.value("SELECT typeof(details) FROM users LIMIT 1") == "JSON"
        for name in ("groups", "rollup_groups", "base.user_seen", "rollups.groups_g1"):
            with pytest.raises(QueryRefused):
                await asking.rows(f"SELECT * FROM {name}")
