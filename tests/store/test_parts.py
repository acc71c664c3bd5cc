"""Parts: rotation, what a crash leaves, what is refused, checkpoints."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from ingester.errors import StoreBusy, StoreError, StoreFailed
from ingester.store import parts as parts_module
from ingester.store import store as store_module
from ingester.store.database import Cursor, StoreBroken
from ingester.store.reader import check_parts
from ingester.store.schema import SCHEMA_VERSION
from ingester.store.store import Store

from .stores import fail_next, insert, load, opened, rows, value

MiB = 1024 * 1024


def _count(store: Store, part: str) -> int:
    found = value(store, f"SELECT count(*) FROM {part}.requests")
    assert isinstance(found, int)
    return found


def test_a_transaction_ends_in_the_part_it_began_in_and_views_show_both(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        load(store, 1)
        with store.begin("bulk") as upload:
            batch = insert(store, upload, 2, 30)
            store.rotate()
            load(store, 3)
            upload.commit([batch])
        assert (_count(store, "part_000001"), _count(store, "part_000002")) == (31, 1)
        assert value(store, "SELECT count(*) FROM requests") == 32
        assert check_parts(store) == []
        marks = store.ledger.applied_seq, store.ledger.batch_id, store.ledger.commit_number
        assert store.checkpoint()
    with opened(tmp_path) as store:
        assert (_count(store, "part_000001"), _count(store, "part_000002")) == (31, 1)
        assert (
            store.ledger.applied_seq,
            store.ledger.batch_id,
            store.ledger.commit_number,
        ) == marks
        load(store, 4)
        assert _count(store, "part_000002") == 2


def test_the_newest_part_alone_tells_the_marks(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in (1, 2, 3):
            load(store, number)
        store.rotate()
        marks = store.ledger
    for name in ("000001.duckdb", "000001.duckdb.wal"):
        (tmp_path / "open" / name).unlink(missing_ok=True)
    with opened(tmp_path) as store:
        assert [part.number for part in store.parts.parts] == [2]
        assert store.ledger.applied_seq == marks.applied_seq == 3
        assert store.ledger.batch_id == marks.batch_id
        assert store.ledger.commit_number == marks.commit_number
        assert store.ledger.request_number_max == marks.request_number_max


def test_an_unknown_commit_in_an_older_part_is_found_there(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with store.begin("bulk") as upload:
            batch = insert(store, upload, 1, 5)
            store.rotate()

            def commit_and_break(cursor: Cursor) -> None:
                cursor.execute("COMMIT")
                raise duckdb.FatalException("FATAL Error: database has been invalidated")

            fail_next(upload, commit_and_break)
            upload.commit([batch])
        assert (_count(store, "part_000001"), _count(store, "part_000002")) == (5, 0)


def test_a_mark_is_not_taken_for_the_batch_whose_number_it_carries(tmp_path: Path) -> None:
    """The number of an unknown batch is the newest taken, which is what a mark carries."""
    with opened(tmp_path) as store:
        with store.begin("small") as transaction:
            batch = insert(store, transaction, 1)

            def roll_back_and_mark(cursor: Cursor) -> None:
                cursor.execute("ROLLBACK")
                store._gate.release()
                store._rolled_back.add("part_000001")
                assert store.checkpoint(beside_writers=True)
                store._gate.acquire()
                raise duckdb.InterruptException("Interrupted!")

            fail_next(transaction, roll_back_and_mark)
            with pytest.raises(StoreBusy):
                transaction.commit([batch])
        load(store, 1)
        assert value(store, "SELECT count(*) FROM requests") == 1


def test_rotation_by_size_and_by_age_only_when_there_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, part_bytes_max=64 * MiB, part_hours_max=1) as store:
        assert not store.maybe_rotate()
        _make_older(store, monkeypatch)
        assert not store.maybe_rotate(), "an empty part is as good as a new one"
        load(store, 1)
        assert store.maybe_rotate()
        assert not store.maybe_rotate()
    with opened(tmp_path, part_bytes_max=1, part_hours_max=1) as store:
        assert not store.maybe_rotate(), "nothing came since"
        load(store, 2)
        assert store.maybe_rotate()
        load(store, 3)
        _make_older(store, monkeypatch)
    with opened(tmp_path, part_bytes_max=64 * MiB, part_hours_max=1) as store:
        assert store.parts.newest.has_rows
        assert store.maybe_rotate(), "a restart does not make a part younger"
        assert [part.number for part in store.parts.parts] == [1, 2, 3, 4]


def test_a_rotated_part_is_checkpointed_once_nobody_writes_into_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        load(store, 1)
        with store.begin("small") as transaction:
            insert(store, transaction, 2)
            store.rotate()
            with store.begin("small") as newest:
                insert(store, newest, 3)
                store.checkpoint_rotated()
                assert store.parts.parts[0].wal_bytes() > 0, "someone still writes into it"
        with store.begin("small") as newest:
            insert(store, newest, 4)
            store.checkpoint_rotated()
            assert store.parts.parts[0].wal_bytes() == 0
        assert value(store, "SELECT count(*) FROM requests") == 1


def _make_older(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two hours pass."""
    real = store_module.time.time
    monkeypatch.setattr(store_module.time, "time", lambda: real() + 7200)
    assert store.parts.newest.created_at < store_module.time.time()


@pytest.mark.parametrize("step", ["tables", "ledger"])
def test_a_failed_rotation_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise duckdb.IOException("IO Error: No space left on device")

    with opened(tmp_path) as store:
        load(store, 1)
        with monkeypatch.context() as patch:
            if step == "tables":
                patch.setattr(parts_module, "PART_DDL", ("CREATE TABLE {part}.x(i NO_SUCH_TYPE)",))
            else:
                patch.setattr(parts_module, "write_applied", fail)
            for _ in range(2):
                with pytest.raises(StoreError):
                    store.rotate()
        assert sorted(p.name for p in (tmp_path / "open").glob("*.duckdb")) == ["000001.duckdb"]
        load(store, 2)
        assert value(store, "SELECT count(*) FROM requests") == 2
        store.rotate()
        load(store, 3)
        assert value(store, "SELECT count(*) FROM requests") == 3
        assert [part.number for part in store.parts.parts] == [1, 2]


_CRASH = """
import duckdb, os, sys
con = duckdb.connect(":memory:", config={"checkpoint_threshold": "1TiB"})
con.execute(f"ATTACH '{sys.argv[1]}' AS p (STORAGE_VERSION 'v1.5.0')")
con.execute("BEGIN")
con.execute("CREATE TABLE p.events(i INTEGER)")
con.execute("INSERT INTO p.events VALUES (1)")
os._exit(0)
"""


def _crash_in_first_transaction(path: Path) -> None:
    subprocess.run([sys.executable, "-c", _CRASH, str(path)], check=True, timeout=30)


def _with_stray_wal(path: Path) -> None:
    _crash_in_first_transaction(path)
    path.with_name(path.name + ".wal").write_bytes(b"\0" * 100)


def _stray_wal_only(path: Path) -> None:
    path.with_name(path.name + ".wal").write_bytes(b"\x01" * 300)


LEFTOVERS: dict[str, Callable[[Path], object]] = {
    "nothing in it": lambda path: path.write_bytes(b""),
    "half a header": lambda path: path.write_bytes(b"\0" * 8 + b"DUCK" + b"\0" * 4000),
    "zeros": lambda path: path.write_bytes(b"\0" * 12_288),
    "headers, no tables": lambda path: _crash_in_first_transaction(path),
    "headers and a WAL": _with_stray_wal,
    "a WAL without its file": _stray_wal_only,
}


@pytest.mark.parametrize("leftover", LEFTOVERS)
@pytest.mark.parametrize("number", [1, 2])
def test_a_crash_while_a_part_is_made_does_not_keep_the_store_from_opening(
    tmp_path: Path, leftover: str, number: int
) -> None:
    (tmp_path / "open").mkdir()
    if number == 2:
        with opened(tmp_path) as store:
            load(store, 1, 10)
    LEFTOVERS[leftover](tmp_path / "open" / f"{number:06d}.duckdb")
    with opened(tmp_path) as store:
        assert store.ledger.applied_seq == number - 1
        load(store, number)
        store.rotate()
        load(store, number + 1)
        wanted = 12 if number == 2 else 2
        assert value(store, "SELECT count(*) FROM requests") == wanted
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM requests") == wanted
        assert check_parts(store) == []


def test_a_crash_after_the_first_transaction_of_a_part_keeps_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        load(store, 1)

        def sync(_: Path) -> None:
            raise OSError("crash")

        with monkeypatch.context() as patch:
            patch.setattr(parts_module, "sync_path", sync)
            patch.setattr(store.parts, "discard", lambda *_: None)
            with pytest.raises(StoreBusy, match="crash"):
                store.rotate()
        store.recover(0)
        assert [part.number for part in store.parts.parts] == [1, 2]
        load(store, 2)
        assert _count(store, "part_000002") == 1
        assert value(store, "SELECT count(*) FROM requests") == 2
        assert check_parts(store) == []


def test_a_damaged_part_is_refused_and_not_removed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 1000)
    path = tmp_path / "open" / "000001.duckdb"
    content = path.read_bytes()
    path.write_bytes(b"\0" * 12_288 + content[12_288:])
    with pytest.raises(StoreFailed, match="000001"), opened(tmp_path):
        pass
    assert path.stat().st_size == len(content)


def test_somebody_elses_database_is_refused_and_not_removed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    path = tmp_path / "open" / "000001.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE precious(i INTEGER)")
    with pytest.raises(StoreFailed, match="not a part"), opened(tmp_path):
        pass
    assert path.exists()


def test_a_part_of_a_newer_schema_is_refused_with_advice(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        load(store, 1)
        with store.database.lease() as lease, lease.using() as cursor:
            cursor.execute(
                "INSERT INTO part_000001.part_info VALUES (?, 1, now() AT TIME ZONE 'UTC')",
                [SCHEMA_VERSION + 1],
            )
    with pytest.raises(StoreFailed, match="start the newer release"), opened(tmp_path):
        pass


def test_a_part_of_the_first_schema_is_given_the_tables_it_lacks(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 10)
        with store.database.lease() as lease, lease.using() as cursor:
            for table in ("logs", "metrics", "dedup_keys"):
                cursor.execute(f"DROP TABLE part_000001.{table}")
            cursor.execute("ALTER TABLE part_000001.requests DROP COLUMN deduplicated")
            for column in ("column_number", "form"):
                cursor.execute(f"ALTER TABLE part_000001.rejects DROP COLUMN {column}")
            cursor.execute("UPDATE part_000001.part_info SET schema_version = 1")
    for _ in range(2):
        with opened(tmp_path) as store:
            assert value(store, "SELECT count(*) FROM requests") == 10
            assert value(store, "SELECT count(*) FROM logs") == 0
            assert value(store, "SELECT count(*) FROM metrics") == 0
            sql = "SELECT list(schema_version) FROM part_000001.part_info"
            assert value(store, sql) == [SCHEMA_VERSION]
            assert check_parts(store) == []


def test_a_checkpoint_waits_until_no_transaction_is_open(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        load(store, 1, 1000)
        with store.begin("bulk") as upload:
            batch = insert(store, upload, 2, 40_000)
            assert not store.checkpoint()
            assert store.wal_bytes() > 0
            assert store.checkpoint(beside_writers=True)
            assert store.wal_bytes() == 0
            load(store, 3)
            upload.commit([batch])
        assert store.checkpoint()
        assert store.wal_bytes() == 0
        assert value(store, "SELECT count(*) FROM requests") == 41_001
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM requests") == 41_001


def test_a_checkpoint_gives_back_the_space_of_a_rolled_back_upload(tmp_path: Path) -> None:
    """DuckDB does nothing at a checkpoint without a WAL."""
    with opened(tmp_path) as store:
        load(store, 1)
        assert store.checkpoint()
        before = store.parts.newest.file_bytes()
        with store.begin("bulk") as upload:
            for number in range(2, 10):
                insert(store, upload, number, 20_000, random_bytes=100)
        assert store.parts.newest.file_bytes() > before + 2 * MiB
        assert store.is_space_owed
        marks = store.ledger.commit_number, store.ledger.applied_seq
        assert store.checkpoint()
        assert store.parts.newest.file_bytes() < before + MiB
        assert not store.is_space_owed
        assert (store.ledger.commit_number, store.ledger.applied_seq) == marks
        load(store, 2)
        assert check_parts(store) == []


_UPLOADS_AND_CRASH = """
import os, sys
from pathlib import Path
from tests.store.stores import insert, load, opened
with opened(Path(sys.argv[1])) as store:
    load(store, 1)
    store.checkpoint()
    with store.begin("bulk") as upload:
        batches = [insert(store, upload, n, 20_000, random_bytes=100) for n in range(2, 10)]
        if sys.argv[2] == "committed":
            upload.commit(batches)
        os._exit(0)
"""


@pytest.mark.parametrize("outcome", ["committed", "open"])
def test_what_a_crashed_upload_left_is_cut_off_and_what_was_committed_is_not(
    tmp_path: Path, outcome: str
) -> None:
    subprocess.run(
        [sys.executable, "-c", _UPLOADS_AND_CRASH, str(tmp_path), outcome],
        cwd=Path(__file__).resolve().parents[2],
        check=True,
        timeout=60,
    )
    path = tmp_path / "open" / "000001.duckdb"
    crashed_bytes = path.stat().st_size
    assert crashed_bytes > 8 * MiB
    wanted = 160_001 if outcome == "committed" else 1
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(DISTINCT request_id) FROM requests") == wanted
        assert store.checkpoint()
        store.trim()
        assert value(store, "SELECT count(DISTINCT request_id) FROM requests") == wanted
        assert value(store, "SELECT sum(octet_length(fingerprint)) FROM part_000001.requests") == (
            None if wanted == 1 else 16_000_000
        )
        load(store, 20)
    is_smaller = path.stat().st_size < 2 * MiB
    assert is_smaller == (outcome == "open")
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(DISTINCT request_id) FROM requests") == wanted + 1
        assert check_parts(store) == []


def test_an_upload_that_is_reopened_away_leaves_nothing_behind(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        load(store, 1)
        assert store.checkpoint()
        with store.begin("bulk") as upload:
            for number in range(2, 10):
                insert(store, upload, number, 20_000, random_bytes=100)
            assert store.parts.newest.file_bytes() > 8 * MiB
            store.recover(0)
        assert store.parts.newest.file_bytes() < 2 * MiB
        load(store, 2, 1000)
        assert value(store, "SELECT count(*) FROM requests") == 1001


def test_check_names_what_does_not_add_up(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        load(store, 1)
        load(store, 2)
        store.rotate()
        with store.database.lease() as lease, lease.using() as cursor:
            applied = "now() AT TIME ZONE 'UTC'"
            cursor.execute(
                "INSERT INTO part_000002.applied VALUES "
                f"(2, 1, 'small', 0, 0, 0, 0, {applied}), (9, 9, 'small', 0, 0, 5, 0, {applied})"
            )
            cursor.execute("INSERT INTO part_000002.events(batch_id) VALUES (77)")
            cursor.execute("INSERT INTO part_000002.requests SELECT * FROM part_000001.requests")
        found = "; ".join(sorted(check_parts(store)))
    assert "2 requests are stored twice" in found
    assert "batch_id 2 was used 2 times" in found
    assert "commit_number 1 was used 2 times" in found
    assert "batch 9 has 0 rows, the ledger says 5" in found
    assert "batch 77 has 1 rows, the ledger says 0" in found


def test_statistics_can_be_read_while_the_store_is_reopened(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        ends = threading.Event()

        def look() -> None:
            while not ends.is_set():
                assert store.statistics()["parts"] == 1

        thread = threading.Thread(target=look)
        thread.start()
        try:
            for _ in range(5):
                store.recover(store.database.generation)
        finally:
            ends.set()
            thread.join(10)
        assert rows(store, "SELECT count(*) FROM requests") == [(0,)]


def test_a_lease_of_a_closed_store_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        lease = store.database.lease()
    with pytest.raises(StoreBroken), lease.using():
        pass
    with pytest.raises(StoreBusy, match="closed"):
        store.begin("small")
    store.recover(store.database.generation)
    with pytest.raises(StoreBusy, match="closed"):
        store.begin("small")
