"""F23: the open part of a killed server is gone; the journal brings back the small lane's rows."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.kill_run import IngesterSubject, KillReport, compare
from tests.system.ledger import Ledger
from tests.system.load import LoadPlan, MixedLoad
from tests.system.server import Server, wait_until

# All bodies stay small, and some fill a third of a segment.
_PLAN = LoadPlan(single_workers=2, batch_workers=2, bulk_workers=1, bulk_rows=2_000)
# A second segment is soon needed.
_SETTINGS = {"INGESTER_JOURNAL_SEGMENT_BYTES": str(1024 * 1024 + 4096)}


@pytest.mark.timeout(300)
def test_a_deleted_open_part_is_rebuilt_from_the_journal(tmp_path: Path) -> None:
    report = _rebuild(tmp_path)
    print(report)
    assert report.problems == []
    assert report.total.acknowledged_rows > 0
    assert report.total.lost_rows == report.total.duplicated_rows == 0


@pytest.mark.timeout(300)
def test_a_repair_that_skips_a_segment_is_found(tmp_path: Path) -> None:
    assert _rebuild(tmp_path, "skips_segment").total.lost_rows > 0


def _rebuild(folder: Path, broken: str = "") -> KillReport:
    """What is there when the part was lost, made anew, and the server is back. `broken`: a build
    of `broken_server.py`, as the repair has it.
    """
    module = "tests.system.broken_server" if broken else "ingester"
    server = Server(folder / "data", folder / "server.log", {**_SETTINGS, "BROKEN": broken})
    subject = IngesterSubject(server, server.create_source("load"))
    report = KillReport(secrets.randbelow(1 << 32))
    try:
        with closing(Ledger(folder / "ledger.jsonl")) as ledger:
            subject.start()
            load = MixedLoad(subject.address, subject.path, ledger, "r0000", report.seed, _PLAN)
            load.start()
            wait_until(lambda: _segment_count(folder) > 1, 60, "a second segment is begun")
            subject.kill()
            load.stop()
            for path in (folder / "data" / "open").iterdir():
                path.unlink()
            assert not server.command("check", exit_codes=(1,))["ok"]
            repaired = server.command_process("check", "--repair", module=module)
            assert repaired["ok"], repaired
            subject.start()
            compare(subject, ledger, load, report)
            report.problems += subject.audit(report.total)
            if not broken:
                assert server.stop() == 0
                assert server.command("check") == {"ok": True, "problems": []}
    finally:
        server.kill()
    return report


def _segment_count(folder: Path) -> int:
    return len(list((folder / "data" / "journal").glob("*.seg")))
