"""Backups of a server under load, restored: every request acknowledged before, once and whole."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.system.kill_run import IngesterSubject
from tests.system.ledger import Ledger, Sent, reconcile
from tests.system.load import LoadPlan, MixedLoad, post_request
from tests.system.server import CommandFailed, Server, SourceKeys, running

# Rotation, sealing, checkpoints, and journal segments that are deleted as soon as they may be.
_SMALL_FILES = {
    "INGESTER_STORE_PART_BYTES_MAX": str(2 * 1024 * 1024),
    "INGESTER_STORE_CHECKPOINT_BYTES": str(256 * 1024),
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(2 * 1024 * 1024),
    "INGESTER_JOURNAL_RETENTION_BYTES_MAX": "0",
    "INGESTER_STORE_UPLOAD_FILE_BYTES_MIN": str(1024 * 1024),
}
_ROUNDS_SHORT, _ROUNDS_LONG = 2, 60


def _restored(folder: Path, backup: Path, name: str) -> Server:
    server = Server(folder / name, folder / f"{name}.log")
    found = server.command("restore", str(backup))
    assert found["left_out"][0].startswith("secret.key")
    assert server.command("check") == {"ok": True, "problems": []}
    return server


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.jsonl")) as book:
        yield book


def test_backups_under_load_hold_every_request_acknowledged_before_them(
    tmp_path: Path, ledger: Ledger, long_form: bool
) -> None:
    plan = LoadPlan(2, 1, 1, 1, bulk_rows=6_000)
    with running(tmp_path, _SMALL_FILES) as server:
        keys = server.create_source("load")
        load = MixedLoad(server.address, keys.path, ledger, "r", 1, plan)
        load.start()
        known: set[str] = set()
        rounds = _ROUNDS_LONG if long_form else _ROUNDS_SHORT
        for number in range(rounds):
            time.sleep(0.7)
            with ledger._lock:
                before = {r.batch for r in ledger.requests if r.outcome == "acknowledged"}
            told = server.command("backup", str(tmp_path / "backup"))
            with ledger._lock:
                sent = list(ledger.requests)
            assert len(before) > len(known), "the load stands still"
            known = before
            if long_form or number + 1 == rounds:
                restored = _restored(tmp_path, tmp_path / "backup", f"restored-{number}")
                _compare(restored, keys, sent, before, told)
        load.stop()
        assert load.problems == []
        assert server.command("check") == {"ok": True, "problems": []}


def _compare(
    server: Server,
    keys: SourceKeys,
    sent: Sequence[Sent],
    before: Collection[str],
    told: Mapping[str, Any],
) -> None:
    server.start()
    try:
        subject = IngesterSubject(server, keys)
        subject.settle()
        stored = subject.stored("r")
        # Answered while the backup was made: in it whole, or not at all.
        requests = [
            request
            if request.batch in before or request.outcome == "refused"
            else _copy(request, outcome="unanswered")
            for request in sent
        ]
        verdict = reconcile(requests, stored)
        assert verdict.problems == []
        assert (verdict.lost_rows, verdict.duplicated_rows) == (0, 0)
        assert verdict.acknowledged_requests == len(before)
        assert verdict.stored_rows >= told["rows"]["events"] > 0
        keyed = [r for r in requests if r.key and r.outcome == "acknowledged"][-5:]
        with server.connect() as connection:
            for request in keyed:
                answer = post_request(connection, keys.path, request)
                assert (answer.status, answer.request_id) == (200, request.request_id)
        assert subject.stored("r") == stored, "a repeat was stored"
    finally:
        server.kill()


def _copy(request: Sent, **changes: str) -> Sent:
    fields = {name: getattr(request, name) for name in Sent.__slots__}
    return Sent(**{**fields, **changes})


def test_an_interrupted_backup_is_never_taken_for_whole(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with running(tmp_path) as server:
        keys = server.create_source("shop")
        server.settle(keys)
        first = server.command("backup", str(backup))
        manifest = (backup / "backup.json").read_bytes()
        assert first["rows"]["events"] == 1
        # What a power cut in the middle of the next one leaves.
        (backup / "sets" / "20261121T000000Z-abcdef" / "parts").mkdir(parents=True)
        (backup / "files" / "uploads").mkdir(parents=True)
        (backup / "files" / "uploads" / "000001-0000000000000001-events.parquet").write_bytes(b"x")
        (backup / ".backup.json.partial").write_bytes(manifest[:100])
        assert (backup / "backup.json").read_bytes() == manifest
        restored = _restored(tmp_path, backup, "restored")
        assert restored.value("SELECT count(*) FROM events") == 1
        server.settle(keys)
        assert server.command("backup", str(backup))["rows"]["events"] == 2
        sets = list((backup / "sets").iterdir())
        assert len(sets) == 1
        assert not (backup / "files" / "uploads").exists()


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with running(tmp_path) as server:
        with pytest.raises(CommandFailed, match="no backup"):
            server.command("backup", str(other))
        with pytest.raises(CommandFailed, match="lie in one another"):
            server.command("backup", str(server.data_dir / "backup"))
        server.command("backup", str(tmp_path / "backup"))
    empty = Server(tmp_path / "new", tmp_path / "new.log")
    with pytest.raises(CommandFailed, match="no complete backup"):
        empty.command("restore", str(other))
    full = Server(other, tmp_path / "other.log")
    with pytest.raises(CommandFailed, match="is not empty"):
        full.command("restore", str(tmp_path / "backup"))
    path = next((tmp_path / "backup").glob("sets/*/control.sqlite"))
    data = bytearray(path.read_bytes())
    data[5_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(CommandFailed, match="checksum"):
        empty.command("restore", str(tmp_path / "backup"))
    assert sorted(p.name for p in empty.data_dir.iterdir() if p.name != "lock") == [".restoring"]
    path.write_bytes(bytes(data[:5_000]) + bytes([data[5_000] ^ 1]) + bytes(data[5_001:]))
    empty.command("restore", str(tmp_path / "backup"))
    assert json.loads((tmp_path / "backup" / "backup.json").read_text())["format"] == 1
