"""Rounds of load, `kill -9`, restart and comparison, against anything that can be killed.

Why a `Subject`: the same rounds run against the server and against toys that lie on purpose;
a harness that cannot fail proves nothing.

One round: start mixed load, kill at a random moment, sometimes kill again while starting, start,
repeat unanswered keyed requests, wait until all is queryable, compare with the ledger. The data
folder is the same for all rounds, and the sums over all rounds are compared at the end.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.system.client import Connection
from tests.system.ledger import Ledger, Sent, Stored, Verdict, reconcile
from tests.system.load import LoadPlan, MixedLoad, post_request, repeat_keyed
from tests.system.server import Server, SourceKeys
from tests.system.toy_server import read_records

__all__ = ["IngesterSubject", "KillReport", "Subject", "ToySubject", "compare", "run_rounds"]

# How often a round kills the process a second time, while it starts.
_KILL_WHILE_STARTING = 0.2
_STARTING_SECONDS_MAX = 0.5
_REPEATS_AFTER_RESTART = 5


class Subject(Protocol):
    """What a kill run needs of the thing under test."""

    @property
    def path(self) -> str: ...
    @property
    def address(self) -> tuple[str, int]: ...
    def start(self) -> float: ...
    def start_and_kill(self, after_s: float) -> None: ...
    def kill(self) -> None: ...
    def settle(self) -> None: ...
    def stored(self, round_name: str) -> dict[str, Stored]: ...
    def request_problems(self, requests: Sequence[Sent]) -> list[str]: ...
    def audit(self, total: Verdict) -> list[str]: ...


@dataclass
class KillReport:
    """The figures of a run."""

    seed: int
    rounds: int = 0
    total: Verdict = field(default_factory=Verdict)
    problems: list[str] = field(default_factory=list)
    ready_seconds: list[float] = field(default_factory=list)
    unanswered_requests: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        ready = sorted(self.ready_seconds) or [0.0]
        return (
            f"seed {self.seed}: {self.rounds} rounds, "
            f"{self.total.acknowledged_requests} requests and "
            f"{self.total.acknowledged_rows} rows acknowledged, "
            f"{self.total.lost_rows} lost, {self.total.duplicated_rows} duplicated, "
            f"{self.unanswered_requests} requests unanswered; answers {self.statuses}; "
            f"time to ready p50 {ready[len(ready) // 2]:.2f} s, "
            f"p99 {ready[int(len(ready) * 0.99)]:.2f} s, max {ready[-1]:.2f} s"
        )


def run_rounds(
    subject: Subject,
    folder: Path,
    *,
    rounds: int,
    seed: int,
    plan: LoadPlan | None = None,
    round_seconds: tuple[float, float] = (0.1, 1.5),
    until_problem: bool = False,
) -> KillReport:
    """All rounds; with `until_problem` it ends after the first round with one."""
    rng = random.Random(seed)
    report = KillReport(seed)
    print(f"kill run, seed {seed}")
    with closing(Ledger(folder / "ledger.jsonl")) as ledger:
        report.ready_seconds.append(subject.start())
        for number in range(rounds):
            name = f"r{number:04d}"
            load = MixedLoad(subject.address, subject.path, ledger, name, seed, plan or LoadPlan())
            load.start()
            time.sleep(rng.uniform(*round_seconds))
            subject.kill()
            load.stop()
            if rng.random() < _KILL_WHILE_STARTING:
                subject.start_and_kill(rng.uniform(0.0, _STARTING_SECONDS_MAX))
            report.ready_seconds.append(subject.start())
            report.rounds += 1
            compare(subject, ledger, load, report)
            if report.problems and until_problem:
                return report
    report.problems += subject.audit(report.total)
    return report


def compare(subject: Subject, ledger: Ledger, load: MixedLoad, report: KillReport) -> None:
    """What a round has sent with what is stored, after a start."""
    requests = ledger.take()
    report.unanswered_requests += sum(request.outcome == "unanswered" for request in requests)
    acknowledged = [r for r in requests if r.key is not None and r.outcome == "acknowledged"]
    report.problems += load.problems
    report.problems += repeat_keyed(subject.address, subject.path, ledger, requests)
    subject.settle()
    verdict = reconcile(requests, subject.stored(load.round_name))
    verdict.problems += subject.request_problems(requests)
    report.total.add(verdict)
    report.problems += verdict.problems
    for status, count in load.statuses.items():
        report.statuses[status] = report.statuses.get(status, 0) + count
    # Repeats of acknowledged keys must store nothing: seen by the sums of the audit.
    with Connection(subject.address) as connection:
        for request in acknowledged[-_REPEATS_AFTER_RESTART:]:
            answer = post_request(connection, subject.path, request)
            if (answer.status, answer.request_id) != (200, request.request_id):
                report.problems.append(
                    f"{request.batch}: after the restart a repeat of {request.request_id} was "
                    f"answered {answer.status} {answer.request_id}"
                )


@dataclass
class IngesterSubject:
    """The real server, looked at through its own commands."""

    server: Server
    keys: SourceKeys
    _start_count: int = 0

    @property
    def path(self) -> str:
        return self.keys.path

    @property
    def address(self) -> tuple[str, int]:
        return self.server.address

    def start(self) -> float:
        # In turn: every bulk upload to a file of its own, and every one into the open part.
        self._start_count += 1
        is_file = self._start_count % 2 == 1
        environment = dict(self.server.environment)
        environment["INGESTER_STORE_UPLOAD_FILE_BYTES_MIN"] = "1" if is_file else "1GiB"
        self.server.environment = environment
        return self.server.start()

    def start_and_kill(self, after_s: float) -> None:
        self.server.launch()
        time.sleep(after_s)
        self.server.kill()

    def kill(self) -> None:
        self.server.kill()

    def settle(self) -> None:
        self.server.settle(self.keys)

    def stored(self, round_name: str) -> dict[str, Stored]:
        # Together: each query is a process of its own.
        rows = self.server.query(
            "SELECT 'event' AS kind, account_id AS batch, count(*) AS n, "
            "count(DISTINCT session_id) AS distinct_n, "
            "sum(strlen(body::VARCHAR)) AS bytes, count(DISTINCT id) AS ids "
            f"FROM events WHERE account_id LIKE '{round_name}-%' GROUP BY account_id UNION ALL "
            "SELECT 'reject', batch, count(*), count(DISTINCT session), NULL, count(DISTINCT id) "
            "FROM (SELECT json_extract_string(decode(line), '$.accountId') AS batch, "
            "json_extract_string(decode(line), '$.sessionId') AS session, id FROM rejects "
            f"WHERE decode(line) LIKE '%\"{round_name}-%') GROUP BY batch"
        )
        stored: dict[str, Stored] = {}
        for row in sorted(rows, key=lambda row: row["kind"] == "reject"):
            assert row["ids"] == row["n"], f"ids are not unique: {row}"
            if row["kind"] == "event":
                stored[row["batch"]] = Stored(row["n"], row["distinct_n"], int(row["bytes"]))
            else:
                found = stored.setdefault(row["batch"], Stored())
                found.reject_count, found.distinct_reject_count = row["n"], row["distinct_n"]
        return stored

    def request_problems(self, requests: Sequence[Sent]) -> list[str]:
        """Every acknowledged request has one row of its own, with its counts."""
        wanted = {r.request_id: r for r in requests if r.outcome == "acknowledged"}
        rows = self.server.query(
            "SELECT request_id, count(*) AS n, sum(accepted) AS accepted, "
            "sum(rejected) AS rejected FROM requests "
            f"WHERE request_id >= '{min(wanted, default='')}' GROUP BY request_id"
        )
        found = {r["request_id"]: (r["n"], int(r["accepted"]), int(r["rejected"])) for r in rows}
        problems: list[str] = []
        for name, request in wanted.items():
            expected = (1, request.row_count, request.reject_count)
            if found.get(name) != expected:
                problems.append(
                    f"{request.batch} ({request.kind}): requests row {name} is "
                    f"{found.get(name)}, not {expected}"
                )
        return problems

    def audit(self, total: Verdict) -> list[str]:
        (sums,) = self.server.query(
            "SELECT (SELECT count(*) FROM events WHERE account_id <> 'settle') AS events, "
            "(SELECT count(*) FROM rejects) AS rejects, "
            "(SELECT count(*) FROM events) AS all_events, "
            "(SELECT sum(accepted) FROM requests) AS accepted, "
            "(SELECT sum(rejected) FROM requests) AS rejected"
        )
        problems: list[str] = []
        if sums["events"] != total.stored_rows:
            problems.append(f"{total.stored_rows} events were counted, now {sums['events']}")
        if sums["rejects"] != total.stored_rejects:
            problems.append(f"{total.stored_rejects} rejects were counted, now {sums['rejects']}")
        if (sums["all_events"], sums["rejects"]) != (sums["accepted"], sums["rejected"]):
            problems.append(f"requests do not add up to events and rejects: {sums}")
        return problems


@dataclass
class ToySubject:
    """The toy of `toy_server.py` in one of its modes."""

    folder: Path
    mode: str
    path: str = "/v1/toy/toy"
    _server: Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        assert self._server is not None
        return self._server.address

    def start(self) -> float:
        began = time.monotonic()
        server = Server(self.folder, self.folder / "toy.log")
        script = Path(__file__).with_name("toy_server.py")
        server.process = subprocess.Popen(
            [sys.executable, str(script), str(self.folder / "toy.jsonl"), self.mode],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        server.wait_ready()
        self._server = server
        return time.monotonic() - began

    def start_and_kill(self, after_s: float) -> None:
        self.start()
        self.kill()

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()

    def settle(self) -> None:
        """The toy writes through; an early answer is given time to be written."""
        time.sleep(0.5)

    def stored(self, round_name: str) -> dict[str, Stored]:
        rows: dict[str, list[tuple[str, int]]] = {}
        rejects: dict[str, list[str]] = {}
        for record in read_records(self.folder / "toy.jsonl"):
            for line in record["lines"]:
                event = json.loads(line)
                if "action" in event:
                    found = rows.setdefault(event["accountId"], [])
                    found.append((event["sessionId"], len(line)))
                else:
                    rejects.setdefault(event["accountId"], []).append(event["sessionId"])
        stored: dict[str, Stored] = {}
        for batch in rows.keys() | rejects.keys():
            if batch.startswith(round_name):
                have, refused = rows.get(batch, []), rejects.get(batch, [])
                sessions = {session for session, _ in have}
                size = sum(length for _, length in have)
                stored[batch] = Stored(
                    len(have), len(sessions), size, len(refused), len(set(refused))
                )
        return stored

    def request_problems(self, requests: Sequence[Sent]) -> list[str]:
        return []

    def audit(self, total: Verdict) -> list[str]:
        count = sum(
            '"action"' in line
            for record in read_records(self.folder / "toy.jsonl")
            for line in record["lines"]
        )
        return [] if count == total.stored_rows else [f"{count} rows, not {total.stored_rows}"]
