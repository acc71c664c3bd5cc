"""F5, F6: one system call fails, or every sync takes its time; by strace, where it is there."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.calls import KINDS
from tests.system.client import event_line
from tests.system.kill_run import IngesterSubject, KillReport, compare
from tests.system.ledger import Ledger
from tests.system.load import LoadPlan, MixedLoad
from tests.system.server import Server

# What the short form tries: a journal's sync, one within a checkpoint, and one of the manifest.
_SHORT = {"sync": "8,18,30"}
_SYNC_US = 200_000
_MEMORY_BYTES_MAX = 700 * 1024 * 1024


def _fail_calls(folder: Path, *arguments: str) -> dict[str, Any]:
    if shutil.which("strace") is None:
        pytest.skip("there is no strace to let system calls fail")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.calls", folder / "calls", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if "strace:" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "kind", [k if k in _SHORT else pytest.param(k, marks=pytest.mark.long) for k in KINDS]
)
def test_one_call_that_fails_costs_nothing_that_was_promised(
    tmp_path: Path, kind: str, long_form: bool
) -> None:
    numbers = "all" if long_form else _SHORT[kind]
    report = _fail_calls(tmp_path, kind, numbers)
    print(report)
    assert report["wrong"] == []
    assert report["injected"] > 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_build_that_acknowledges_all_the_same_is_found(tmp_path: Path) -> None:
    assert _fail_calls(tmp_path, "sync", "6,7,8,9,10", "early")["wrong"]


@pytest.mark.timeout(600)
def test_a_slow_disk_slows_senders_and_loses_nothing(tmp_path: Path, long_form: bool) -> None:
    """Every sync takes 0.2 s: requests wait or are refused, and the server answers all along."""
    report, least_s = _slow_disk(tmp_path, 20 if long_form else 2)
    print(f"{report}; the soonest answer after {least_s:.3f} s")
    assert report.problems == []
    assert report.total.acknowledged_rows > 0
    assert least_s >= _SYNC_US / 1e6


@pytest.mark.timeout(600)
def test_a_build_that_does_not_wait_for_a_slow_disk_is_found(tmp_path: Path) -> None:
    _, least_s = _slow_disk(tmp_path, 30, "hasty")
    assert least_s < _SYNC_US / 1e6


def _slow_disk(folder: Path, seconds: float, broken: str = "") -> tuple[KillReport, float]:
    """What a kill at the end of it leaves, and how soon a small request was acknowledged: never
    before a sync that began behind its coming has ended.
    """
    if shutil.which("strace") is None:
        pytest.skip("there is no strace to slow system calls down")
    report = KillReport(int(os.environ.get("SLOW_SEED") or secrets.randbelow(1 << 32)))
    module = "tests.system.broken_server" if broken else "ingester"
    environment = {"BROKEN": broken}
    server = Server(folder / "data", folder / "server.log", environment, module=module)
    ledger = Ledger(folder / "ledger.jsonl")
    try:
        server.start(60)
        subject = IngesterSubject(server, server.create_source("slow"))
        with _slowed(server.pid):
            address = subject.address
            plan = LoadPlan(0, 0, 0, 0) if broken else LoadPlan()
            load = MixedLoad(address, subject.path, ledger, "r0000", report.seed, plan)
            load.start()
            least_s = math.inf
            ends_at = time.monotonic() + seconds
            last_at = ends_at + 60  # so long until something is acknowledged, on a busy machine
            with server.connect() as connection:
                while (now := time.monotonic()) < ends_at or (
                    now < last_at and (least_s == math.inf or not (broken or load.statuses))
                ):
                    began = time.monotonic()
                    if connection.post(subject.path, event_line("one")).status == 200:
                        least_s = min(least_s, time.monotonic() - began)
                    assert connection.request("GET", "/healthz").status == 200
                    if broken and least_s < _SYNC_US / 1e6:
                        break
            assert server.memory_peak_bytes() < _MEMORY_BYTES_MAX
            server.kill()
        load.stop()
        if not broken:
            server.start(60)
            compare(subject, ledger, load, report)
        return report, least_s
    finally:
        ledger.close()
        server.kill()


@contextmanager
def _slowed(pid: int) -> Iterator[None]:
    """Every sync of the process takes `_SYNC_US` more."""
    calls = "fsync,fdatasync"
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-p", str(pid), "-o", "/dev/null"),
            *("-e", f"trace={calls}", "-e", f"inject={calls}:delay_enter={_SYNC_US}"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        told = tracer.stderr.readline()
        if "attached" not in told:
            pytest.skip(f"strace: {told.strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=30)
