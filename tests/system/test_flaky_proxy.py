"""Uploads over a network that resets, stalls, drips, half-closes and loses answers (F9): what has
an idempotency key is there exactly once, what was cut is not there at all.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.client import Connection, NoAnswer
from tests.system.flaky_proxy import FlakyProxy, proxied
from tests.system.kill_run import IngesterSubject
from tests.system.ledger import Ledger, Sent, reconcile
from tests.system.load import build_request, post_request
from tests.system.server import CommandFailed, Server

_WORKERS = 6
_REQUESTS_SHORT, _REQUESTS_BROKEN, _REQUESTS_LONG = 90, 60, 6_000
_RUNS_BROKEN = 6
_TRIES_MAX = 40
_ENCODINGS = (None, "gzip", "deflate", "zstd", "raw-deflate")
# A sender that the proxy has stalled for good is let go soon, by both sides.
_ENVIRONMENT = {"INGESTER_INTAKE_STALL_SECONDS_MAX": "1"}
_CLIENT_SECONDS_MAX = 2.0


@dataclass
class Report:
    """Figures and problems of a run."""

    seed: int
    encodings: Sequence[str | None]
    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    repeats_answered: int = 0


def make(batch: str, rng: random.Random, encodings: Sequence[str | None]) -> Sent:
    """Single, by the fifty, or more than the small lane takes; two in three under a key."""
    kind = rng.choices(("single", "batch", "bulk"), (6, 5, 2))[0]
    return build_request(
        batch,
        kind,
        rng,
        row_count={"single": 1, "batch": 50, "bulk": 5_000}[kind],
        reject_count=0 if kind == "single" else 2,
        padding_bytes=240 if kind == "bulk" else 0,
        encoding=rng.choice(encodings),
        key=f"key-{batch}" if rng.random() < 0.67 else None,
    )


def work(
    name: str, count: int, path: str, proxy: FlakyProxy, ledger: Ledger, report: Report
) -> None:
    """Post `count` requests, each on a connection of its own; those under a key until answered."""
    rng = random.Random(f"{report.seed} {name}")
    for serial in range(count):
        request = make(f"f-{name}-{serial}", rng, report.encodings)
        ledger.sending(request)
        for attempt in range(_TRIES_MAX if request.key else 1):
            try:
                with Connection(proxy.address, _CLIENT_SECONDS_MAX) as connection:
                    answer = post_request(connection, path, request, chunked=rng.random() < 0.4)
            except NoAnswer:
                report.answers["none"] += 1
                continue
            report.answers[str(answer.status)] += 1
            if answer.status == 200 and answer.counts != (request.row_count, request.reject_count):
                report.problems.append(f"{request.batch}: acknowledged with {answer.counts}")
            if request.key and answer.status in {408, 429, 503}:
                continue
            report.repeats_answered += attempt > 0
            ledger.answered(request, answer)
            break


def run(folder: Path, count: int, broken: str = "") -> Report:
    """`BROKEN` see `broken_server.py`; `PROXY_SEED` repeats a run."""
    seed = int(os.environ.get("PROXY_SEED") or secrets.randbelow(1 << 32))
    # A body that is packed proves its end by itself.
    report = Report(seed, (None,) if broken == "cut_bodies" else _ENCODINGS)
    environment = {**_ENVIRONMENT, "BROKEN": broken}
    module = "tests.system.broken_server" if broken else "ingester"
    server = Server(folder / "data", folder / "server.log", environment, module=module)
    began = time.monotonic()
    try:
        server.start()
        keys = server.create_source("flaky")
        with (
            closing(Ledger(folder / "ledger.jsonl")) as ledger,
            proxied(server.address, seed=report.seed) as proxy,
        ):
            threads = [
                threading.Thread(
                    target=work, args=(f"{n}", count // _WORKERS, keys.path, proxy, ledger, report)
                )
                for n in range(_WORKERS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            requests = ledger.take()
        server.settle(keys)
        subject = IngesterSubject(server, keys)
        try:
            # By worker: of all rows of the long form at once a query would need too much memory.
            stored = {k: v for n in range(_WORKERS) for k, v in subject.stored(f"f-{n}").items()}
        except CommandFailed as error:  # a reject that was cut is no JSON
            report.problems.append(str(error))
            return report
        verdict = reconcile(requests, stored)
        report.problems += verdict.problems + subject.request_problems(requests)
        report.problems += subject.audit(verdict)
        report.problems += [
            f"{one.batch} was never answered"
            for one in requests
            if one.key and one.outcome != "acknowledged"
        ]
        print(
            f"proxy, seed {report.seed}: {len(requests)} requests,"
            f" {sum(proxy.counts.values())} connections, spoilt"
            f" {sum(proxy.counts.values()) - proxy.counts['none']}: {dict(proxy.counts)}; answers"
            f" {dict(report.answers)}; {verdict.acknowledged_rows} rows acknowledged,"
            f" {verdict.lost_rows} lost, {verdict.duplicated_rows} duplicated,"
            f" {report.repeats_answered} repeats answered;"
            f" {len(report.problems)} problems; {time.monotonic() - began:.0f} s"
        )
        if not broken:
            assert server.stop() == 0
            assert "Traceback" not in server.log_text()
    finally:
        server.kill()
    return report


@pytest.mark.timeout(3600)
def test_keyed_requests_are_there_once_and_cut_ones_not_at_all(
    tmp_path: Path, long_form: bool
) -> None:
    report = run(tmp_path, _REQUESTS_LONG if long_form else _REQUESTS_SHORT)
    assert report.problems == [], report.problems[:20]
    assert report.repeats_answered > 0
    assert report.answers["none"] > 0


@pytest.mark.parametrize("broken", ["cut_bodies", "forgets"])
def test_a_broken_build_is_found(tmp_path: Path, broken: str) -> None:
    """The proxy spoils by chance: what it takes to find these may be missing from a short run."""
    folders = [tmp_path / str(number) for number in range(_RUNS_BROKEN)]
    for folder in folders:
        folder.mkdir()
    assert any(run(folder, _REQUESTS_BROKEN, broken).problems for folder in folders)
