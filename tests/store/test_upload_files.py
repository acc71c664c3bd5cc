"""Upload files: listed or gone, whatever happens between the file and its commit."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingester.errors import StoreBusy
from ingester.store import upload_files
from ingester.store.check_files import file_problem
from ingester.store.ledger import AppliedBatch
from ingester.store.reader import check_parts
from ingester.store.store import Store
from ingester.store.upload_files import UploadFile, table_of

from .stores import opened, rows, value

ROWS = pa.table({
    "account_id": ["a", "b", "a"],
    "user_id": ["u1", "u2", None],
    "created_at": pa.array([0, 1, 2], pa.int64()).view(pa.timestamp("us")),
    "action": ["x", "x", "y"],
    "session_id": ["s", None, "s"],
    "body": pa.ExtensionArray.from_storage(
        pa.json_(pa.string_view()),
        pa.array(['{"a":1,"é":"ü"}', '{"a":2}', '{"a":[3]}'], pa.string_view()),
    ),
    "line_number": [1, 2, 4],
})


def upload(store: Store, number: int, *, commit: bool = True) -> None:
    with store.begin("bulk") as transaction:
        batch_id = store.ledger.take_batch_id()
        constants = {
            "request_number": number,
            "received_at_us": 1_700_000_000_000_000,
            "source": "web",
            "batch_id": batch_id,
        }
        transaction.write_upload("events", ROWS, constants, request_number=number)
        if commit:
            transaction.commit([AppliedBatch(batch_id, "bulk", 0, 0, 3, number)])


def file_count(store: Store) -> int:
    return len(list(store.uploads_directory.iterdir()))


def test_rows_of_a_file_are_events_like_any_other(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        upload(store, 0xABC)
        assert rows(
            store, "SELECT id, source, account_id, body->>'$.a' FROM events ORDER BY id"
        ) == [
            ("0000000000000abc-1", "web", "a", "1"),
            ("0000000000000abc-2", "web", "b", "2"),
            ("0000000000000abc-4", "web", "a", "[3]"),
        ]
        assert value(store, "SELECT typeof(body) FROM events LIMIT 1") == "JSON"
        assert check_parts(store) == []
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM events") == 3
        upload(store, 0xABD)
        store.rotate()
        upload(store, 0xABE)
        assert value(store, "SELECT count(DISTINCT id) FROM events") == 9
        assert check_parts(store) == []


def test_a_transaction_that_is_left_takes_its_file_along(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        upload(store, 1, commit=False)
        assert file_count(store) == 0
        assert value(store, "SELECT count(*) FROM events") == 0


@pytest.mark.parametrize("suffix", ["", ".tmp"])
def test_what_a_crash_left_behind_is_removed_at_the_next_opening(
    tmp_path: Path, suffix: str
) -> None:
    with opened(tmp_path) as store:
        upload(store, 1)
        stray = store.uploads_directory / f"000001-00000000000000ff.parquet{suffix}"
        stray.write_bytes(b"PAR1")
    with opened(tmp_path) as store:
        assert not stray.exists()
        assert value(store, "SELECT count(*) FROM events") == 3


@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
def test_a_listed_file_that_cannot_be_read_is_told_and_the_rest_can_be_queried(
    tmp_path: Path, damage: str
) -> None:
    with opened(tmp_path) as store:
        upload(store, 1)
        upload(store, 2)
        first = min(store.uploads_directory.iterdir())
    if damage == "gone":
        first.unlink()
    else:
        first.write_bytes(first.read_bytes()[:-9] if damage == "cut" else b"")
    with opened(tmp_path) as store:
        assert value(store, "SELECT count(*) FROM events") == 3
        problems = check_parts(store)
        assert any(first.name in problem and "missing" in problem for problem in problems)


def test_each_table_has_files_of_its_own(tmp_path: Path) -> None:
    logs = pa.table({
        "time": ROWS["created_at"],
        "level": ["info", "info", "error"],
        "message": ["x", "y", "z"],
        "attributes": ROWS["body"],
        "line_number": [1, 2, 3],
    })
    with opened(tmp_path) as store:
        upload(store, 1)
        with store.begin("bulk") as transaction:
            constants = {
                "request_number": 2,
                "received_at_us": 7,
                "service": "api",
                "environment": "prod",
                "batch_id": store.ledger.take_batch_id(),
            }
            transaction.write_upload("logs", logs, constants, request_number=2)
            transaction.commit([AppliedBatch(int(constants["batch_id"]), "bulk", 0, 0, 3, 2)])
    with opened(tmp_path) as store:
        assert check_parts(store) == []
        assert value(store, "SELECT count(*) FROM events") == 3
        assert rows(store, "SELECT id, service, level, message FROM logs ORDER BY id") == [
            ("0000000000000002-1", "api", "info", "x"),
            ("0000000000000002-2", "api", "info", "y"),
            ("0000000000000002-3", "api", "error", "z"),
        ]


def test_the_first_files_had_no_table_in_their_names() -> None:
    assert table_of("000001-0000000000000001.parquet") == "events"
    assert table_of("000001-0000000000000001-logs.parquet") == "logs"


@pytest.mark.parametrize("step", ["fdatasync", "rename", "fsync"])
def test_a_file_that_cannot_be_made_durable_refuses_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(upload_files.os, step, fail)
            with pytest.raises(StoreBusy, match="No space"):
                upload(store, 1)
        assert file_count(store) == 0
        upload(store, 2)
        assert value(store, "SELECT count(*) FROM events") == 3
        assert check_parts(store) == []


@pytest.mark.parametrize("is_committed", [False, True])
def test_the_ledger_decides_about_the_file_of_an_unknown_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    with opened(tmp_path) as store:
        real = Store._note_applied

        def fail_once(self: Store, *arguments: object) -> None:
            monkeypatch.setattr(Store, "_note_applied", real)
            raise duckdb.FatalException("COMMIT succeeded, something else did not")

        if is_committed:
            monkeypatch.setattr(Store, "_note_applied", fail_once)
            upload(store, 1)
        else:
            with monkeypatch.context() as patch:
                patch.setattr("ingester.store.store.write_applied", _fail)
                with pytest.raises(StoreBusy):
                    upload(store, 1)
        assert value(store, "SELECT count(*) FROM events") == (3 if is_committed else 0)
        assert file_count(store) == (1 if is_committed else 0)
        upload(store, 2)
        assert value(store, "SELECT count(*) FROM events") == (6 if is_committed else 3)
        assert check_parts(store) == []


def _fail(*_: object) -> None:
    raise duckdb.IOException("IO Error: No space left on device")


def test_the_descriptor_is_not_leaked(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        file = UploadFile(tmp_path, 1, number, "events")
        file.write(ROWS, {"source": "web", "batch_id": 1})
        if number % 2:
            file.finish()
        file.discard()
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []


def test_a_footer_that_the_store_cannot_read_is_damage_whatever_arrow_says(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3], "text": ["a", "b", "c"]}), path)
    sound = path.read_bytes()
    assert file_problem(path, 3, len(sound)) is None
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    refused = 0
    for at in range(footer, len(sound) - 8, 5):
        data = bytearray(sound)
        data[at] ^= 0x08
        path.write_bytes(data)
        try:
            with duckdb.connect() as connection:
                connection.execute(f"FROM read_parquet('{path}')").fetchall()
        except duckdb.Error:
            refused += 1
            assert file_problem(path, 3, len(sound)) is not None, at
    assert refused > 5
