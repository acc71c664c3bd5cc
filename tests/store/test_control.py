"""The control store: pairs, rotation, quotas, schema versions, file mode."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from ingester.errors import InvalidField, NotFound, StoreBusy, StoreFailed
from ingester.store.control import (
    RESERVED_SEGMENTS,
    ControlStore,
    SourceExists,
    new_key,
    pair_digest,
)
from ingester.store.control import file as control_file
from ingester.store.control import keys as control_keys
from ingester.store.migrations import Migration, bundled_migrations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "control.sqlite"


def test_a_created_pair_is_found_by_its_digest_after_reopening(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        made = store.create_source("shop", lenient_session=True, requests_per_hour=9)
    with closing(ControlStore.open(path)) as store:
        table = store.key_table(time.time())
    assert table == {pair_digest(made.auth_key, made.api_key): (made.source, None)}
    assert (made.source.name, made.source.lenient_session) == ("shop", True)
    assert made.source.requests_per_hour == 9


def test_keys_are_long_url_safe_distinct_and_not_stored(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        made = store.create_source("shop")
        (info,) = store.list_sources()
    assert made.auth_key != made.api_key
    for key in (made.auth_key, made.api_key):
        assert len(key) >= 26
        assert key.isalnum()
        assert key.isascii()
        assert key not in repr(made)
        for file in path.parent.iterdir():
            assert key.encode() not in file.read_bytes()
    assert info.keys[0].tail == made.api_key[-4:]


def test_a_reserved_segment_is_never_issued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_keys, "_KEY_LENGTH", 4)
    letters = iter("logs" + "test" + "free")
    assert new_key(lambda _: next(letters)) == "free"
    assert {"logs", "ping", "ingest"} <= RESERVED_SEGMENTS


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 65, "x" * 200, "a\n"])
def test_an_ill_formed_name_is_refused_with_the_rule(path: Path, name: str) -> None:
    with (
        closing(ControlStore.open(path)) as store,
        pytest.raises(InvalidField, match="1 to 64 characters"),
    ):
        store.create_source(name)


def test_a_taken_name_is_refused_and_changes_nothing(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        made = store.create_source("shop")
        with pytest.raises(SourceExists, match="exists already"):
            store.create_source("shop")
        with pytest.raises(InvalidField, match="requests_per_hour"):
            store.create_source("other", requests_per_hour=-1)
        assert list(store.key_table(time.time())) == [pair_digest(made.auth_key, made.api_key)]


def test_rotation_keeps_the_old_pair_for_the_overlap_only(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        old = store.create_source("shop")
        new = store.rotate_source("shop", overlap_seconds=3600)
        now = time.time()
        during, after = store.key_table(now), store.key_table(now + 3601)
        old_digest = pair_digest(old.auth_key, old.api_key)
        new_digest = pair_digest(new.auth_key, new.api_key)
        assert set(during) == {old_digest, new_digest}
        assert set(after) == {new_digest}
        until = during[old_digest][1]
        assert until is not None
        assert now + 3590 < until <= now + 3600
        # A second rotation without overlap ends both at once, also the one that had an end.
        last = store.rotate_source("shop", overlap_seconds=0)
        assert set(store.key_table(time.time())) == {pair_digest(last.auth_key, last.api_key)}


def test_a_longer_overlap_does_not_revive_a_pair_that_already_ends(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        first = store.create_source("shop")
        store.rotate_source("shop", overlap_seconds=10)
        store.rotate_source("shop", overlap_seconds=10_000)
        digest = pair_digest(first.auth_key, first.api_key)
        assert digest in store.key_table(time.time())
        assert digest not in store.key_table(time.time() + 11)
        with pytest.raises(InvalidField, match="overlap_seconds"):
            store.rotate_source("shop", overlap_seconds=-1)


def test_revocation_ends_every_pair_and_rotation_gives_new_ones(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        store.create_source("shop")
        store.rotate_source("shop", overlap_seconds=60)
        assert store.revoke_source("shop") == 2
        assert store.revoke_source("shop") == 0
        assert store.key_table(time.time()) == {}
        made = store.rotate_source("shop", overlap_seconds=60)
        assert set(store.key_table(time.time())) == {pair_digest(made.auth_key, made.api_key)}


def test_an_unknown_source_is_not_found(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        with pytest.raises(NotFound, match="no source named 'nope'"):
            store.revoke_source("nope")
        with pytest.raises(NotFound):
            store.rotate_source("nope", overlap_seconds=0)


def test_sources_are_listed_by_name_with_their_pairs(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        store.create_source("b")
        store.create_source("a", requests_per_hour=5)
        store.rotate_source("a", overlap_seconds=60)
        infos = store.list_sources()
    assert [info.source.name for info in infos] == ["a", "b"]
    assert [key.expires_at is None for key in infos[0].keys] == [False, True]


def test_pair_halves_cannot_be_shifted() -> None:
    assert pair_digest("ab", "c") != pair_digest("a", "bc")
    assert len(pair_digest("\udc80", "ü")) == 32


def test_hour_counts_survive_reopening_and_never_fall(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        store.store_hour_counts(500_000, {"source:1": 7, "source:2": 1})
        store.store_hour_counts(500_000, {"source:1": 3})
    with closing(ControlStore.open(path)) as store:
        assert store.hour_counts(500_000) == {"source:1": 7, "source:2": 1}
        store.store_hour_counts(500_003, {"source:1": 1})
        assert store.hour_counts(500_000) == {}


def test_the_files_are_private_also_when_they_were_not(path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    os.chmod(path, 0o644)
    with closing(ControlStore.open(path)) as store:
        store.create_source("shop")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes
    assert set(modes.values()) == {0o600}


def test_a_newer_file_is_refused_with_advice(path: Path) -> None:
    with closing(ControlStore.open(path)):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 'later', 0)")
    with pytest.raises(StoreFailed, match=r"schema version 99.*newer release"):
        ControlStore.open(path)


def test_an_upgrade_runs_the_missing_step_once_and_leaves_a_copy(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:
        made = store.create_source("shop")
    steps = (*bundled_migrations(), _next_step("CREATE TABLE more (x INTEGER);\n"))
    for _ in range(2):
        with closing(ControlStore.open(path, migrations=steps)) as store:
            assert [info.source for info in store.list_sources()] == [made.source]
    version = steps[-2].version
    copy = path.with_name(f"control.sqlite.v{version}.bak")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(ControlStore.open(copy)) as store:
        assert [info.source for info in store.list_sources()] == [made.source]


def test_a_failing_step_leaves_the_version_before_it(path: Path) -> None:
    with closing(ControlStore.open(path)):
        pass
    broken = _next_step("CREATE TABLE more (x INTEGER);\nINSERT INTO absent VALUES (1);\n")
    with pytest.raises(StoreFailed, match="absent"):
        ControlStore.open(path, migrations=(*bundled_migrations(), broken))
    with closing(sqlite3.connect(path)) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name='more'").fetchall()
    with closing(ControlStore.open(path)) as store:
        assert store.list_sources() == []


def test_a_corrupt_file_is_refused_with_advice(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, but it is long enough to be read as one" * 50)
    with pytest.raises(StoreFailed, match="put back a backup"):
        ControlStore.open(path)


def test_a_locked_file_is_busy_and_a_later_call_succeeds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_file, "_BUSY_SECONDS_MAX", 0.0)
    with closing(ControlStore.open(path)) as store, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="locked"):
            store.create_source("shop")
        assert store.list_sources() == []
        other.rollback()
        store.create_source("shop")


def test_threads_may_share_one_store(path: Path) -> None:
    with closing(ControlStore.open(path)) as store:

        def create(worker: int) -> None:
            for n in range(10):
                store.create_source(f"w{worker}-{n}")
                store.key_table(time.time())

        threads = [threading.Thread(target=create, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.key_table(time.time())) == 40


def test_two_stores_may_open_one_new_file_at_once(path: Path) -> None:
    stores: list[ControlStore] = []
    threads = [
        threading.Thread(target=lambda: stores.append(ControlStore.open(path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    for store in stores:
        store.close()


def _next_step(sql: str) -> Migration:
    return Migration(bundled_migrations()[-1].version + 1, "next.sql", sql)
