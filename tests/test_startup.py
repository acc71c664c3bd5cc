"""Start-up after every kind of end; what was acknowledged is there, once and the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingester import startup
from ingester.config import Config, IntakeConfig, JournalConfig, StoreConfig
from ingester.doors.idempotency import IdempotencyKeys, Remembered
from ingester.errors import StoreBusy, StoreFailed
from ingester.journal.writer import JournalWriter
from ingester.protocol.requests import SmallRequest
from ingester.startup import Opened
from ingester.store.control import ControlStore
from ingester.store.database import StoreBroken, StoreOutOfMemory
from ingester.store.reader import check_parts
from ingester.store.store import Store
from tests.actors.requests import body_of, event_line, payload_of, small_request
from tests.store.stores import rows, value

KiB = 1024


def _config(folder: Path, **intake: Any) -> Config:
    return Config(
        store=StoreConfig(data_dir=str(folder)),
        journal=JournalConfig(segment_bytes=256 * KiB),
        intake=IntakeConfig(**intake),
    )


def _requests(first: int, count: int) -> list[SmallRequest]:
    """Some with several events, some with bad lines, some with a key."""
    made = []
    for number in range(first, first + count):
        lines = [event_line(number * 10 + i) for i in range(number % 3 + 1)]
        if number % 4 == 0:
            lines.insert(0, b"not an event")
        key = f"key-{number}" if number % 5 == 0 else None
        made.append(small_request(number, body_of(lines), key=key))
    return made


def _acknowledge(opened: Opened, requests: list[SmallRequest], *, load_too: bool) -> None:
    """What journal and loader do."""
    first_seq, _ = opened.writer.append([payload_of(request) for request in requests])
    if load_too:
        startup.load_requests(
            opened.store, first_seq, requests, opened.dead_letters, opened.loader_counters
        )


def _kill(opened: Opened) -> None:
    """Let go of everything without any of the tidying of `close`."""
    opened.store.database._root = None
    opened.store.database._leases.clear()
    opened.control.close()
    opened.lock.release()


def _everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, but for the batch they came with."""
    return {
        "events": rows(store, "SELECT * EXCLUDE (batch_id) FROM events ORDER BY id"),
        "rejects": rows(store, "SELECT * EXCLUDE (batch_id) FROM rejects ORDER BY id"),
        "requests": rows(store, "SELECT * FROM requests ORDER BY request_id"),
    }


def test_an_empty_folder_gets_a_source_once(tmp_path: Path) -> None:
    config = _config(tmp_path / "new" / "data")
    opened = startup.open_all(config)
    assert opened.first_run is not None
    assert opened.applied.value == opened.replayed_count == 0
    assert opened.problems == []
    assert oct((tmp_path / "new" / "data").stat().st_mode & 0o777) == "0o700"
    startup.close(opened)
    opened = startup.open_all(config)
    assert opened.first_run is None
    startup.close(opened)


def test_a_first_start_that_ended_before_the_source_was_made_is_made_good(tmp_path: Path) -> None:
    ControlStore.open(tmp_path / "control.sqlite").close()
    opened = startup.open_all(_config(tmp_path))
    assert opened.first_run is not None
    startup.close(opened)


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("loaded_count", [0, 25, 40])
def test_rows_are_the_same_before_and_after(tmp_path: Path, end: str, loaded_count: int) -> None:
    reference = startup.open_all(_config(tmp_path / "reference"))
    _acknowledge(reference, _requests(1, 40), load_too=True)
    wanted = _everything(reference.store)
    startup.close(reference)
    assert len(wanted["requests"]) == 40

    config = _config(tmp_path / "data")
    opened = startup.open_all(config)
    if loaded_count:
        _acknowledge(opened, _requests(1, loaded_count), load_too=True)
    if loaded_count < 40:
        _acknowledge(opened, _requests(loaded_count + 1, 40 - loaded_count), load_too=False)
    (startup.close if end == "stop" else _kill)(opened)

    opened = startup.open_all(config)
    assert opened.replayed_count == 40 - loaded_count
    assert _everything(opened.store) == wanted
    assert opened.applied.value == 40
    assert opened.writer.statistics().next_seq == 41
    assert opened.numbers.next() > 40
    assert opened.problems == []
    assert check_parts(opened.store) == []
    _acknowledge(opened, _requests(41, 3), load_too=True)
    startup.close(opened)

    opened = startup.open_all(config)
    assert opened.replayed_count == 0
    assert value(opened.store, "SELECT count(*) FROM requests") == 43
    startup.close(opened)


async def test_idempotency_keys_are_known_again(tmp_path: Path) -> None:
    # `received_at` lies in 2023: remember it for long enough.
    config = _config(tmp_path, idempotency_hours=24 * 365 * 50)
    opened = startup.open_all(config)
    _acknowledge(opened, _requests(1, 10), load_too=True)
    _acknowledge(opened, _requests(11, 10), load_too=False)
    _kill(opened)
    opened = startup.open_all(config)
    keys: IdempotencyKeys = opened.idempotency
    for number in (5, 10, 15, 20):
        request = small_request(number)
        found = await keys.join(
            "natero", "source:1", f"key-{number}", request.entry.received_at_us + 1
        )
        assert isinstance(found, Remembered)
        assert found.request_number == number
        assert found.accepted == number % 3 + 1
    assert keys.statistics()["keys"] == 4
    startup.close(opened)


def test_replay_goes_to_the_newest_part(tmp_path: Path) -> None:
    config = _config(tmp_path)
    opened = startup.open_all(config)
    _acknowledge(opened, _requests(1, 5), load_too=True)
    opened.store.rotate()
    _acknowledge(opened, _requests(6, 7), load_too=False)
    _kill(opened)
    opened = startup.open_all(config)
    assert opened.replayed_count == 7
    assert value(opened.store, "SELECT count(*) FROM part_000001.requests") == 5
    assert value(opened.store, "SELECT count(*) FROM part_000002.requests") == 7
    startup.close(opened)


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    config = _config(tmp_path)
    opened = startup.open_all(config)
    with pytest.raises(StoreBusy, match=f"process {os.getpid()}"):
        startup.open_all(config)
    _acknowledge(opened, _requests(1, 2), load_too=True)
    startup.close(opened)
    opened = startup.open_all(config)
    assert value(opened.store, "SELECT count(*) FROM requests") == 2
    startup.close(opened)


def _newest_segment(folder: Path) -> Path:
    return max((folder / "journal").glob("*.seg"))


def _torn(path: Path) -> None:
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[:-5])


def _noise(path: Path) -> None:
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content + os.urandom(300))


@pytest.mark.parametrize(("damage", "lost"), [(_torn, 1), (_noise, 0)])
def test_a_torn_end_of_the_journal_is_the_trace_of_a_crash(
    tmp_path: Path, damage: Callable[[Path], None], lost: int
) -> None:
    config = _config(tmp_path)
    opened = startup.open_all(config)
    for number in range(1, 8):
        _acknowledge(opened, _requests(number, 1), load_too=False)
    _kill(opened)
    damage(_newest_segment(tmp_path))
    for _ in range(2):
        opened = startup.open_all(config)
        assert opened.problems == []
        assert value(opened.store, "SELECT count(*) FROM requests") == 7 - lost
        _kill(opened)
    opened = startup.open_all(config)
    next_seq = opened.writer.statistics().next_seq
    assert next_seq == 8 - lost
    _acknowledge(opened, _requests(100, 1), load_too=False)
    _kill(opened)
    opened = startup.open_all(config)
    assert value(opened.store, "SELECT count(*) FROM requests") == 8 - lost
    assert check_parts(opened.store) == []
    startup.close(opened)


def test_a_journal_that_is_gone_does_not_take_new_records_with_it(tmp_path: Path) -> None:
    """Its sequences must go on behind what the store has, or new records count as applied."""
    config = _config(tmp_path)
    opened = startup.open_all(config)
    _acknowledge(opened, _requests(1, 9), load_too=True)
    startup.close(opened)
    for path in (tmp_path / "journal").iterdir():
        path.unlink()
    opened = startup.open_all(config)
    _acknowledge(opened, _requests(10, 2), load_too=False)
    _kill(opened)
    opened = startup.open_all(config)
    assert opened.replayed_count == 2
    assert value(opened.store, "SELECT count(*) FROM requests") == 11
    startup.close(opened)


def test_a_lost_record_in_the_middle_is_named_and_the_rest_is_loaded(tmp_path: Path) -> None:
    config = _config(tmp_path)
    opened = startup.open_all(config)
    _acknowledge(opened, _requests(1, 5), load_too=False)
    _kill(opened)
    damaged = _newest_segment(tmp_path)
    # Another segment behind it.
    writer = JournalWriter.open(tmp_path / "journal", config.journal, next_seq=6)
    writer.append([payload_of(request) for request in _requests(6, 3)])
    writer.close()
    _torn(damaged)
    opened = startup.open_all(config)
    assert len(opened.problems) == 1
    assert "records 5 to 5 are lost" in opened.problems[0]
    assert value(opened.store, "SELECT count(*) FROM requests") == 7
    assert opened.applied.value == 8
    startup.close(opened)


def test_a_record_of_a_newer_version_stops_the_start_and_nothing_is_changed(
    tmp_path: Path,
) -> None:
    config = _config(tmp_path)
    opened = startup.open_all(config)
    opened.writer.append([b"\x93\x63\x01\x02"])  # an array that begins with version 99
    _kill(opened)
    for _ in range(2):
        with pytest.raises(StoreFailed, match=r"record 1 cannot be read .* newer version"):
            startup.open_all(config)


@pytest.mark.parametrize(
    "errors",
    [
        [StoreBusy("no space")] * 3,
        [StoreBroken("gone", 0)],
        [StoreOutOfMemory("too much")] * 3,
    ],
    ids=["busy", "broken", "out of memory"],
)
def test_a_store_that_is_busy_at_the_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: list[Exception]
) -> None:
    config = _config(tmp_path)
    opened = startup.open_all(config)
    _acknowledge(opened, _requests(1, 20), load_too=False)
    _kill(opened)
    real = startup.load_requests
    left = list(errors)

    def load_requests(*arguments: Any) -> None:
        if left:
            raise left.pop(0)
        real(*arguments)

    monkeypatch.setattr(startup, "load_requests", load_requests)
    monkeypatch.setattr(startup, "_REPLAY_WAIT_S", 0.001)
    opened = startup.open_all(config)
    assert opened.replayed_count == 20
    assert value(opened.store, "SELECT count(*) FROM requests") == 20
    assert check_parts(opened.store) == []
    startup.close(opened)


def test_a_start_that_fails_lets_go_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path)
    opened = startup.open_all(config)
    _acknowledge(opened, _requests(1, 3), load_too=False)
    _kill(opened)

    def busy(*_: Any) -> None:
        raise StoreBusy("no space")

    with monkeypatch.context() as patch:
        patch.setattr(startup, "load_requests", busy)
        patch.setattr(startup, "_REPLAY_WAIT_S", 0.001)
        for _ in range(2):
            with pytest.raises(StoreBusy, match="no space"):
                startup.open_all(config)
    opened = startup.open_all(config)
    assert opened.replayed_count == 3
    startup.close(opened)


def test_a_checkpoint_that_fails_at_start_or_stop_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path)
    opened = startup.open_all(config)
    _acknowledge(opened, _requests(1, 10), load_too=False)
    _kill(opened)

    def fail(self: Store, cursor: Any, part: Any) -> bool:
        raise duckdb.FatalException("FATAL Error: database has been invalidated")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_checkpoint_part", fail)
        opened = startup.open_all(config)
        assert opened.store.database.reopened_count == 1
        assert value(opened.store, "SELECT count(*) FROM requests") == 10
        _acknowledge(opened, _requests(11, 1), load_too=True)
        startup.close(opened)
    opened = startup.open_all(config)
    assert value(opened.store, "SELECT count(*) FROM requests") == 11
    startup.close(opened)
