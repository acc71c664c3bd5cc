"""F14: minutes of load on a fast clock, killed again and again; nothing grows."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path

import pytest

from tests.system.server import Server
from tests.system.soak import Soak, SoakReport

_DAYS = 4
_SETTINGS = {
    "INGESTER_STORE_PART_BYTES_MAX": str(4 * 1024 * 1024),
    "INGESTER_STORE_UPLOAD_FILE_BYTES_MIN": str(256 * 1024),
    "INGESTER_STORE_CHECKPOINT_BYTES": str(1024 * 1024),
    "INGESTER_STORE_CHECKPOINT_SECONDS": "5",
    "INGESTER_JOURNAL_SEGMENT_BYTES": str(1024 * 1024),
    "INGESTER_JOURNAL_RETENTION_BYTES_MAX": str(4 * 1024 * 1024),
    "INGESTER_STORE_RETENTION_DAYS": ",".join(
        f"{table}={_DAYS}" for table in ("events", "logs", "metrics", "rejects", "requests")
    ),
    "INGESTER_STORE_ROLLUP_RETENTION_DAYS": str(_DAYS),
    "INGESTER_INTAKE_IDEMPOTENCY_HOURS": "24",
}


def _soak(folder: Path, *, lives: int, life_s: float, day_s: float) -> SoakReport:
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(1 << 32))
    clock = f"{time.time():.0f}:{86_400 / day_s}"
    server = Server(
        folder / "data",
        folder / "server.log",
        {**_SETTINGS, "FAULT_CLOCK": clock},
        module="tests.system.soak_server",
    )
    keys = server.create_source("soak")
    try:
        report = Soak(server, keys, clock, _DAYS, seed).run(folder, lives=lives, life_s=life_s)
        print(report)
        removed = server.log_text().count("rows removed")
        assert removed > 0
        oldest = server.value("SELECT min(epoch(received_at))::BIGINT FROM events")
        assert oldest // 86_400 >= Soak(server, keys, clock, _DAYS, seed).today() - _DAYS - 3
        assert server.stop(120) == 0
        assert server.command("check") == {"ok": True, "problems": []}
    finally:
        server.kill()
    return report


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_twenty_minutes_with_a_kill_each_leave_nothing_that_grows(tmp_path: Path) -> None:
    minutes = float(os.environ.get("SOAK_MINUTES") or 20)
    life_s = min(60.0, minutes * 60 / 5)
    report = _soak(tmp_path, lives=int(minutes * 60 / life_s), life_s=life_s, day_s=life_s / 4)
    assert report.problems == [], f"{report}\n" + "\n".join(report.problems[:20])
    assert report.lost_rows == report.duplicated_rows == 0
    for name, least in (
        ("rss_bytes", 40e6),
        ("descriptors", 10),
        ("threads", 5),
        ("wal_bytes", 8e6),
        ("total_bytes", 20e6),
    ):
        middle, last = report.thirds(name)
        assert last <= middle * 1.25 + least, f"{name}: {report}"
    shutil.rmtree(tmp_path / "data")
