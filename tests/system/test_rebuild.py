"""F23: the open part of a killed server is gone; the journal brings back the small lane's rows."""

from __future__ import annotations

import secrets
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.kill_run import IngesterSubject, KillReport, compare
from tests.system.ledger import Ledger
from tests.system.load import LoadPlan, MixedLoad
from tests.system.server import Server

# Bodies of the keyed worker stay small too.
_PLAN = LoadPlan(single_workers=2, batch_workers=2, bulk_workers=0, bulk_rows=400)


@pytest.mark.timeout(300)
def test_a_deleted_open_part_is_rebuilt_from_the_journal(tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 32)
    server = Server(tmp_path / "data", tmp_path / "server.log")
    subject = IngesterSubject(server, server.create_source("load"))
    report = KillReport(seed)
    try:
        with closing(Ledger(tmp_path / "ledger.jsonl")) as ledger:
            subject.start()
            load = MixedLoad(subject.address, subject.path, ledger, "r0000", seed, _PLAN)
            load.start()
            time.sleep(2)
            subject.kill()
            load.stop()
            for path in (tmp_path / "data" / "open").iterdir():
                path.unlink()
            assert not server.command("check", exit_codes=(1,))["ok"]
            repaired = server.command("check", "--repair")
            assert repaired["ok"], repaired
            subject.start()
            compare(subject, ledger, load, report)
            report.problems += subject.audit(report.total)
            print(report)
            assert report.problems == []
            assert report.total.acknowledged_rows > 0
            assert report.total.lost_rows == report.total.duplicated_rows == 0
            assert server.stop() == 0
            assert server.command("check") == {"ok": True, "problems": []}
    finally:
        server.kill()
