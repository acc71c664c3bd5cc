"""A server under steady load, killed again and again while days pass: what grows?

1. Few accounts, users and sessions: what the server keeps of them is bounded, so that whatever
   rises with time is the server's.
2. After each kill the requests of that life are compared with the store. One that retention may
   have removed by then may be gone, or there; no other may.
3. Samples are of the process (memory, descriptors, threads) and of the folder (bytes by room).
4. The last life may be longer than the others: what a process keeps goes with it, so that what
   grows by the minute shows within one life only.
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.client import Connection, NoAnswer, compress
from tests.system.ledger import Ledger, Sent, Stored, reconcile
from tests.system.server import Server, SourceKeys
from tests.system.soak_server import fast_time

__all__ = ["Sample", "Soak", "SoakReport"]

_DAY_S = 86_400
_WORKERS = 4
_PAUSE_S = 0.05
_SAMPLE_EVERY_S = 2.0
_BULK_ROWS = 3_000
# By how much the last third may be above the second: a quarter, and this; within one life what the
# process holds a tenth, and half of this. The folder follows the rate, which others' load changes.
_RATIO_MAX, _RATIO_MAX_LIFE = 1.25, 1.1
_OF_PROCESS = {"rss_bytes", "descriptors", "threads"}
_MORE_MAX = {
    "rss_bytes": 40e6,
    "descriptors": 10,
    "threads": 5,
    "wal_bytes": 8e6,
    "total_bytes": 20e6,
}


@dataclass(frozen=True)
class Sample:
    """One look."""

    at_s: float
    life: int
    rss_bytes: int
    descriptors: int
    threads: int
    wal_bytes: int
    folder_bytes: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        return sum(self.folder_bytes.values())


@dataclass
class SoakReport:
    """`problems` empty: nothing lost, nothing doubled."""

    seed: int
    lives: int = 0
    acknowledged_requests: int = 0
    acknowledged_rows: int = 0
    lost_rows: int = 0
    duplicated_rows: int = 0
    removed_requests: int = 0
    ready_seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def thirds(self, name: str, *, is_last_life: bool = False) -> tuple[float, float]:
        """Medians of the second and last third, of all or of one life: the first fills up."""
        life = self.samples[-1].life if is_last_life else 0
        samples = [sample for sample in self.samples if sample.life >= life]
        begin, end = samples[0].at_s, samples[-1].at_s
        third = (end - begin) / 3
        middle = [getattr(s, name) for s in samples if third <= s.at_s - begin < 2 * third]
        last = [getattr(s, name) for s in samples if s.at_s - begin >= 2 * third]
        return statistics.median(middle), statistics.median(last)

    def grown(self) -> list[str]:
        """What is more in the last third than it may be."""
        found: list[str] = []
        for name, least in _MORE_MAX.items():
            middle, last = self.thirds(name)
            if last > middle * _RATIO_MAX + least:
                found.append(f"{name}: {middle:,.0f} then {last:,.0f}")
            middle, last = self.thirds(name, is_last_life=True)
            if name in _OF_PROCESS and last > middle * _RATIO_MAX_LIFE + least / 2:
                found.append(f"{name}: {middle:,.0f} then {last:,.0f} within the last life")
        return found

    def slope(self, name: str) -> float:
        """Per hour, by least squares, without the first third."""
        end = self.samples[-1].at_s
        found = [(s.at_s / 3600, getattr(s, name)) for s in self.samples if s.at_s >= end / 3]
        return statistics.linear_regression(*zip(*found, strict=True)).slope

    def __str__(self) -> str:
        told = [
            f"{name} {a:,.0f} then {b:,.0f} ({self.slope(name):+,.0f} an hour),"
            f" {c:,.0f} then {d:,.0f} within the last life"
            for name in _MORE_MAX
            for a, b in (self.thirds(name),)
            for c, d in (self.thirds(name, is_last_life=True),)
        ]
        end = self.samples[-1].at_s
        parts = [
            [s.folder_bytes for s in self.samples if n * end / 3 <= s.at_s <= (n + 1) * end / 3]
            for n in range(3)
        ]
        rooms = ", ".join(
            f"{room} "
            + " ".join(f"{statistics.median(s[room] for s in part):,.0f}" for part in parts)
            for room in self.samples[-1].folder_bytes
        )
        return (
            f"seed {self.seed}: {self.lives} lives, {self.acknowledged_requests} requests and "
            f"{self.acknowledged_rows} rows acknowledged, {self.lost_rows} lost, "
            f"{self.duplicated_rows} duplicated, {self.removed_requests} removed by retention; "
            f"ready in {max(self.ready_seconds):.1f} s at most; {'; '.join(told)}; {rooms}"
        )


@dataclass
class Soak:
    """`clock` as `soak_server.py` has it; `days` is what retention keeps."""

    server: Server
    keys: SourceKeys
    clock: str
    days: int
    seed: int

    def run(
        self, folder: Path, *, lives: int, life_s: float, last_s: float | None = None
    ) -> SoakReport:
        """So many lives; the last one of `last_s`."""
        report = SoakReport(self.seed)
        began = time.monotonic()
        with closing(Ledger(folder / "ledger.jsonl")) as ledger:
            report.ready_seconds.append(self.server.start(60))
            for life in range(lives):
                name = f"r{life:04d}"
                stop = threading.Event()
                threads = [
                    threading.Thread(target=self._work, args=(f"{name}-{n}", ledger, stop))
                    for n in range(_WORKERS)
                ]
                for thread in threads:
                    thread.start()
                is_last = life == lives - 1
                ends_at = time.monotonic() + (last_s if is_last and last_s else life_s)
                while time.monotonic() < ends_at:
                    time.sleep(_SAMPLE_EVERY_S)
                    report.samples.append(self._sample(time.monotonic() - began, life))
                self.server.kill()
                stop.set()
                for thread in threads:
                    thread.join(40)
                report.ready_seconds.append(self.server.start(60))
                report.lives += 1
                self._compare(name, ledger.take(), report)
        return report

    def today(self) -> int:
        return int(fast_time(self.clock, time.time())) // _DAY_S

    def _work(self, name: str, ledger: Ledger, stop: threading.Event) -> None:
        chance = random.Random(f"{self.seed} {name}")
        serial = 0
        with Connection(self.server.address) as connection:
            while not stop.is_set():
                serial += 1
                request = self._request(f"{name}-{serial}", chance)
                ledger.sending(request)
                try:
                    headers = {"Content-Encoding": "gzip"} if request.encoding else {}
                    answer = connection.post(self.keys.path, request.body, headers)
                except NoAnswer:
                    return
                finally:
                    request.body = b""
                ledger.answered(request, answer)
                stop.wait(_PAUSE_S)

    def _request(self, batch: str, chance: random.Random) -> Sent:
        is_bulk = chance.random() < 0.03
        row_count = _BULK_ROWS if is_bulk else chance.choice((1, 1, 1, 40))
        now_ms = int(fast_time(self.clock, time.time()) * 1000)
        lines = [
            json.dumps({
                "accountId": f"a{chance.randrange(5)}",
                "userId": f"u{chance.randrange(50)}",
                "sessionId": f"s{chance.randrange(200)}",
                "action": "feature",
                "createdAt": now_ms,
                "batch": batch,
                "row": row,
                "pad": chance.randbytes(150 if is_bulk else 20).hex(),
            })
            for row in range(row_count)
        ]
        body = "\n".join(lines).encode()
        if is_bulk:
            body = compress(body, "gzip")
        # The day it was sent on, for retention.
        return Sent(
            batch,
            str(self.today()),
            row_count,
            0,
            sum(map(len, lines)),
            body=body,
            encoding="gzip" if is_bulk else None,
        )

    def _compare(self, name: str, requests: list[Sent], report: SoakReport) -> None:
        self.server.settle(self.keys, 120)
        found = {
            row["batch"]: Stored(row["n"], row["different"], int(row["bytes"]))
            for row in self.server.query(
                "SELECT body->>'batch' AS batch, count(*) AS n, "
                "count(DISTINCT body->>'row') AS different, "
                "sum(strlen(body::VARCHAR)) AS bytes FROM events "
                f"WHERE body->>'batch' LIKE '{name}-%' GROUP BY ALL"
            )
        }
        today = self.today()
        kept: list[Sent] = []
        for request in requests:
            # A file goes as many days after the end of its day.
            may_be_gone = int(request.kind) + self.days < today
            if may_be_gone and request.outcome == "acknowledged" and request.batch not in found:
                report.removed_requests += 1
                continue
            kept.append(request)
        verdict = reconcile(kept, found)
        report.problems += verdict.problems
        report.acknowledged_requests += verdict.acknowledged_requests
        report.acknowledged_rows += verdict.acknowledged_rows
        report.lost_rows += verdict.lost_rows
        report.duplicated_rows += verdict.duplicated_rows

    def _sample(self, at_s: float, life: int) -> Sample:
        process = Path(f"/proc/{self.server.pid}")
        status = dict(
            line.split(":", 1) for line in (process / "status").read_text("ascii").splitlines()
        )
        data = self.server.data_dir
        return Sample(
            at_s,
            life,
            int(status["VmRSS"].split()[0]) * 1024,
            len(list((process / "fd").iterdir())),
            int(status["Threads"]),
            sum(map(_size, data.rglob("*.wal"))),
            {
                room: sum(map(_size, (data / room).rglob("*")))
                for room in ("open", "uploads", "sealed", "journal", "export")
            }
            | {
                "rollups": sum(map(_size, data.glob("rollups.*"))),
                "control": sum(map(_size, data.glob("control.*"))),
            },
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
