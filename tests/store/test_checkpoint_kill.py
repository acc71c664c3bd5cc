"""Checkpoints that are cut off: at points that DuckDB names, and at any moment."""

from __future__ import annotations

from pathlib import Path

from ingester.store.rollups import Rollups
from tests.store.stores import load, opened, value

HEADERS = 3 * 4096


def headers(folder: Path) -> list[bytes]:
    files = [folder / "open" / "000001.duckdb", folder / "rollups.duckdb"]
    return [path.read_bytes()[:HEADERS] for path in files]


def test_nothing_is_checkpointed_without_a_copy_when_a_store_is_opened_again_or_closed(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 50)
        Rollups(store).step()
        before = headers(tmp_path)
        store.recover(store.database.generation)
        assert headers(tmp_path) == before
        assert value(store, "SELECT count(*) FROM requests") == 50
    assert headers(tmp_path) == before
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM requests") == 50
        assert Rollups(store).commit_number == store.ledger.commit_number
