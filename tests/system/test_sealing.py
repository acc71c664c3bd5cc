"""Sealing in a running server: killed at random moments, and from rotation to removal."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest

from tests.system.client import event_line
from tests.system.kill_run import IngesterSubject, run_rounds
from tests.system.server import Server, running, wait_until

_ROUNDS_SHORT = 3
_ROUNDS_LONG = 150

# A part is rotated, sealed and joined with others every few seconds.
_SMALL_PARTS = {
    "INGESTER_STORE_PART_BYTES_MAX": str(600 * 1024),
    "INGESTER_STORE_UPLOAD_FILE_BYTES_MIN": str(64 * 1024),
    "INGESTER_STORE_CHECKPOINT_BYTES": str(256 * 1024),
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(2 * 1024 * 1024),
}

_EVERY_ROW = (
    "SELECT count(*) AS n, bit_xor(hash(id, account_id, body::VARCHAR)) AS digest "
    "FROM events WHERE account_id <> 'settle'"
)


@pytest.mark.timeout(3600)
def test_acknowledged_requests_survive_kill_between_sealings(
    tmp_path: Path, long_form: bool
) -> None:
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1 << 32))
    server = Server(tmp_path / "data", tmp_path / "server.log", _SMALL_PARTS)
    subject = IngesterSubject(server, server.create_source("kill"))
    try:
        report = run_rounds(
            subject,
            tmp_path,
            rounds=_ROUNDS_LONG if long_form else _ROUNDS_SHORT,
            round_seconds=(0.5, 2.5),
            seed=seed,
        )
        # Kills may have left no sealing the time to end. Now one has it: two bodies of the small
        # lane that fill a part, so that there is one to seal, and everything is compared again.
        stored = server.query(_EVERY_ROW)
        with server.connect() as connection:
            for _ in range(2):
                lines = [event_line("settle", n, pad=secrets.token_hex(450)) for n in range(900)]
                assert connection.post(subject.path, b"\n".join(lines)).status == 200
        subject.settle()
        wait_until(lambda: "part sealed" in server.log_text(), 60, "a part is sealed")
        assert server.query(_EVERY_ROW) == stored
        report.problems += subject.audit(report.total)
        sealed = server.log_text().count("part sealed")
        put_off = [line for line in server.log_text().splitlines() if "sealing put off" in line]
        print(report, f"{sealed} parts sealed")
    finally:
        server.kill()
    assert report.problems == [], f"{report}\n" + "\n".join(report.problems[:20])
    assert report.total.lost_rows == report.total.duplicated_rows == 0
    assert sealed > 0
    assert put_off == []
    shutil.rmtree(tmp_path / "data")


def test_what_will_be_removed_is_told_by_the_server_and_of_a_stopped_folder(tmp_path: Path) -> None:
    environment = {**_SMALL_PARTS, "INGESTER_STORE_RETENTION_DAYS": "events=30,logs=7"}
    with running(tmp_path, environment) as server:
        told = server.command("retention")
        assert told["days"] == {"events": 30, "logs": 7}
        keys = server.create_source("shop")
        with server.connect() as connection:
            body = b"\n".join(
                event_line("acme", n, pad=secrets.token_hex(450)) for n in range(1200)
            )
            assert connection.post(keys.path, body).status == 200
        server.settle(keys)
        wait_until(lambda: "part sealed" in server.log_text(), 20, "a part is sealed")
        told = server.command("retention")
        (purge,) = told["purges"]
        assert purge["reason"] == "age"
        assert [item["table"] for item in purge["items"]] == ["events"]
        assert server.value("SELECT count(*) AS n FROM events WHERE account_id = 'acme'") == 1200
        assert server.command("check") == {"ok": True, "problems": []}
        server.stop()
        # The same of a stopped folder.
        stopped = server.command("retention")
        assert [each["items"] for each in stopped["purges"]] == [purge["items"]]
        assert server.command("check") == {"ok": True, "problems": []}
