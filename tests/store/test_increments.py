"""Rows of open parts as files: every row once, few files, none removed under a reader."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ingester.errors import StoreBusy
from ingester.store import increments as increments_module
from ingester.store.increments import ExportLate, Holding, Increments
from ingester.store.ledger import AppliedBatch
from ingester.store.schema import VIEW_NAMES
from ingester.store.store import Store
from tests.sandbox.asking import EVENT_SCHEMA, add_events, event_rows
from tests.store.stores import load, opened, rows

# A text that names all there is.
EVERY = " ".join(VIEW_NAMES)


def hold(increments: Increments) -> Holding:
    return increments.hold(gives_up_at=time.monotonic() + 60, sql=EVERY)


def numbers(holding: Holding, table: str = "events") -> list[tuple[int, int]]:
    """Request and line of every row, sorted."""
    found: list[tuple[int, int]] = []
    for path in holding.files[table]:
        columns = pq.read_table(path).to_pydict()
        lines = columns.get("line_number", [0] * len(columns["request_number"]))
        found += zip(columns["request_number"], lines, strict=True)
    return sorted(found)


def stored(store: Store, table: str = "events") -> list[tuple[int, int]]:
    line = "0" if table == "requests" else "line_number"
    found: list[tuple[int, int]] = []
    for part in store.parts.parts:
        found += rows(store, f"SELECT request_number, {line} FROM {part.name}.{table}")
    return sorted(found)


def opened_increments(store: Store, folder: Path) -> Increments:
    increments = Increments(store, folder / "export")
    increments.open()
    return increments


def test_every_row_is_exported_once_in_few_files(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        for number in range(1, 120):
            add_events(store, number, 1 + number % 7)
            load(store, number)
            if number % 40 == 0:
                store.checkpoint()
            if number == 60:
                store.rotate()
            holding = hold(increments)
            assert numbers(holding) == stored(store)
            assert numbers(holding, "requests") == stored(store, "requests")
            increments.release(holding)
        assert len(holding.files["events"]) <= 16
        found = {path.name for path in (tmp_path / "export").iterdir()}
        assert found == {Path(p).name for files in holding.files.values() for p in files}
        assert increments.exported_row_count < 8 * (
            len(stored(store)) + len(stored(store, "requests"))
        )


def test_nothing_is_written_again_without_new_rows(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 10)
        first = hold(increments)
        second = hold(increments)
        assert first.files == second.files
        assert increments.exported_row_count == 10


def test_no_credential_is_exported(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        load(store, 1, 3)
        (path,) = hold(increments).files["requests"]
        names = pq.read_schema(path).names
        assert not {"credential", "fingerprint"} & set(names)
        assert "idempotency_key" in names
        assert Path(path).stat().st_mode & 0o077 == 0


def test_a_replaced_file_stays_until_its_last_reader_has_gone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 1)
        first, again = hold(increments), hold(increments)
        add_events(store, 2, 1)
        second = hold(increments)
        assert first.files["events"] != second.files["events"]
        assert numbers(first) == [(1, 0)]
        increments.release(first)
        assert numbers(again) == [(1, 0)]
        increments.release(again)
        assert not Path(again.files["events"][0]).exists()
        assert numbers(second) == [(1, 0), (2, 0)]


def test_files_of_many_rows_are_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(increments_module, "_FILE_ROWS_MAX", 10)
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 35)
        assert len(hold(increments).files["events"]) == 4
        for number in range(2, 40):
            add_events(store, number, 3)
            holding = hold(increments)
            assert numbers(holding) == stored(store)
            increments.release(holding)
        assert all(pq.read_metadata(p).num_rows <= 10 for p in holding.files["events"])


def test_the_deadline_keeps_what_was_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(increments_module, "_FILE_ROWS_MAX", 10)
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 45)
        tries = 0
        export = increments._export

        def slow(*arguments: object) -> object:
            made = export(*arguments)  # type: ignore[arg-type]
            monkeypatch.setattr(increments_module.time, "monotonic", lambda: 1e12)
            return made

        monkeypatch.setattr(increments, "_export", slow)
        while True:
            tries += 1
            try:
                holding = increments.hold(gives_up_at=1e11, sql=EVERY)
            except ExportLate:
                monkeypatch.setattr(increments_module.time, "monotonic", lambda: 0.0)
            else:
                break
        assert tries == 5
        assert numbers(holding) == stored(store)


def test_a_clean_close_spares_the_next_start_the_work(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 20)
        files = hold(increments).files
        increments.close()
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        assert not (tmp_path / "export/index.json").exists()
        assert hold(increments).files == files
        add_events(store, 2, 20)
        assert numbers(hold(increments)) == stored(store)
        assert increments.exported_row_count == 40  # joined
    with opened(tmp_path) as store:  # not closed: nothing is believed
        increments = opened_increments(store, tmp_path)
        assert list((tmp_path / "export").iterdir()) == []
        assert numbers(hold(increments)) == stored(store)


@pytest.mark.parametrize("damage", ["cut", "gone", "index"])
def test_a_damaged_file_is_exported_again(tmp_path: Path, damage: str) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 1000)
        first = hold(increments)
        add_events(store, 2, 10)
        files = hold(increments).files["events"]
        assert len(files) == 2
        increments.release(first)
        increments.close()
    path = Path(files[0])
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "gone":
        path.unlink()
    else:
        (tmp_path / "export/index.json").write_bytes(b'[{"name"')
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        assert numbers(hold(increments)) == stored(store)


def test_a_disk_that_is_full_is_busy_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 5)
        with monkeypatch.context() as patch:
            patch.setattr(increments_module, "_write", full)
            with pytest.raises(StoreBusy, match="No space left"):
                hold(increments)
        assert list((tmp_path / "export").iterdir()) == []
        assert numbers(hold(increments)) == stored(store)


def test_rows_are_exported_while_others_are_committed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        ends = threading.Event()

        def write() -> None:
            number = 0
            while not ends.is_set():
                number += 1
                add_events(store, number, 5)
                if number % 20 == 0:
                    store.checkpoint()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            seen = 0
            for _ in range(30):
                holding = hold(increments)
                found = numbers(holding)
                assert len(found) >= seen
                # Whole commits in their order, each row once.
                assert found == [(n, i) for n in range(1, len(found) // 5 + 1) for i in range(5)]
                seen = len(found)
                increments.release(holding)
        finally:
            ends.set()
            thread.join(20)
        assert numbers(hold(increments)) == stored(store)


def test_upload_files_are_named_as_they_lie(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        with store.begin("bulk") as transaction:
            transaction.prepare("events", EVENT_SCHEMA)
            batch_id = store.ledger.take_batch_id()
            transaction.write_upload(
                "events", event_rows(7, 4), {"batch_id": batch_id}, request_number=7
            )
            assert hold(increments).files["events"] == []
            transaction.commit([AppliedBatch(batch_id, "bulk", 0, 0, 4, 7)])
        (path,) = hold(increments).files["events"]
        assert Path(path).parent == tmp_path / "uploads"


def test_nothing_is_written_without_room_but_what_is_there_can_be_read(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 5)
        increments.release(hold(increments))
        files = set((tmp_path / "export").iterdir())
        late = time.monotonic() + 60
        holding = increments.hold(gives_up_at=late, has_room=lambda: False, sql=EVERY)
        assert len(numbers(holding)) == 5
        increments.release(holding)
        add_events(store, 2, 5)
        with pytest.raises(StoreBusy, match="disk is nearly full"):
            increments.hold(gives_up_at=late, has_room=lambda: False, sql=EVERY)
        assert set((tmp_path / "export").iterdir()) == files
        assert len(numbers(hold(increments))) == 10


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT 1", set()),
        ("SELECT count(*) FROM events", {"events"}),
        ('SELECT * FROM "Events" JOIN main.LOGS USING (id)', {"events", "logs"}),
        ("FROM events_daily", set()),
        ("SELECT 'metrics' FROM requests", {"metrics", "requests"}),
    ],
)
def test_a_query_is_given_the_tables_that_it_names(
    tmp_path: Path, sql: str, tables: set[str]
) -> None:
    with opened(tmp_path) as store:
        increments = opened_increments(store, tmp_path)
        add_events(store, 1, 5)
        load(store, 9)
        holding = increments.hold(gives_up_at=time.monotonic() + 60, sql=sql)
        assert set(holding.files) == tables
        stored_tables = {table for table, files in holding.files.items() if files}
        assert stored_tables == tables & {"events", "requests"}
        exported = {path.name.split("-")[1] for path in (tmp_path / "export").glob("*.parquet")}
        assert exported == stored_tables
        increments.release(holding)
