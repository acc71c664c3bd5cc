"""More than the server can take (F21): 429 and 503 beside 2xx and nothing else, everything that was
acknowledged is there, one source cannot starve another, and afterwards all is as before.

Three times as many senders as it takes to fill the process, with a backlog that is soon full. The
long form prints goodput against its peak, and how soon it has recovered.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.client import Connection, NoAnswer, event_line
from tests.system.server import Server, SourceKeys, wait_until

_ENVIRONMENT = {
    # A backlog that a second of load fills, and few bodies at a time.
    "INGESTER_JOURNAL_BACKLOG_BYTES_MAX": str(1024 * 1024),
    "INGESTER_INTAKE_BODY_BUDGET_BYTES": str(4 * 1024 * 1024),
    "INGESTER_STORE_LINGER_MS_MAX": "1000",
}
_PEAK_SENDERS, _GREEDY_SENDERS = 8, 32
_REFUSED = frozenset({429, 503})
_SECONDS_SHORT, _SECONDS_LONG = 3.0, 300.0
_RECOVERY_SECONDS_MAX = 10


@dataclass
class Sending:
    """What one source was answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def send(
    server: Server, keys: SourceKeys, kind: str, stop: threading.Event, sending: Sending, seed: str
) -> None:
    """One sender: batches of a hundred lines, at once after each answer; `polite` single events,
    ten a second, each repeated until it is taken.
    """
    rng = random.Random(seed)
    serial = 0
    with Connection(server.address, 20) as connection:
        while not stop.is_set():
            count = 1 if kind == "polite" else 100
            pad = rng.randbytes(150).hex()
            body = b"\n".join(event_line(kind, f"{seed}-{serial}-{n}", p=pad) for n in range(count))
            began = time.monotonic()
            while True:
                try:
                    answer = connection.post(keys.path, body)
                except NoAnswer as error:
                    sending.problems.append(f"{kind}: {error}")
                    return
                with sending.lock:
                    sending.statuses[answer.status] += 1
                if answer.status == 200:
                    with sending.lock:
                        sending.rows += count
                        sending.longest_s = max(sending.longest_s, time.monotonic() - began)
                    break
                if answer.status not in _REFUSED or "retry-after" not in answer.headers:
                    sending.problems.append(f"{kind}: {answer}")
                    return
                if stop.wait(0.1 if kind == "polite" else 0.005):
                    break
            serial += 1
            if kind == "polite":
                stop.wait(0.1)


def load(
    server: Server, sources: dict[str, SourceKeys], senders: dict[str, int], seconds: float
) -> dict[str, Sending]:
    """So many senders of each kind at once."""
    stop = threading.Event()
    sendings = {kind: Sending() for kind in senders}
    threads = [
        threading.Thread(
            target=send,
            args=(server, sources[kind], kind, stop, sendings[kind], f"{kind}{number}"),
        )
        for kind, count in senders.items()
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive()
    return sendings


def run(folder: Path, seconds: float, broken: str = "") -> list[str]:
    module = "tests.system.broken_server" if broken else "ingester"
    environment = {**_ENVIRONMENT, "BROKEN": broken}
    server = Server(folder / "data", folder / "server.log", environment, module=module)
    problems: list[str] = []
    rows: Counter[str] = Counter()
    try:
        server.start()
        sources = {kind: server.create_source(kind) for kind in ("greedy", "polite", "settle")}
        peak = load(server, sources, {"greedy": _PEAK_SENDERS}, seconds / 3)["greedy"]
        over = load(server, sources, {"greedy": _GREEDY_SENDERS, "polite": 1}, seconds)
        began = time.monotonic()
        wait_until(
            lambda: _is_taken(server, sources["settle"]), _RECOVERY_SECONDS_MAX, "it has recovered"
        )
        recovery_s = time.monotonic() - began
        for sending in (peak, *over.values()):
            problems += sending.problems
        rows["greedy"] = peak.rows + over["greedy"].rows
        rows["polite"] = over["polite"].rows
        if not over["polite"].rows:
            problems.append("the polite source was starved")
        goodput, best = over["greedy"].rows / seconds, peak.rows / (seconds / 3)
        print(
            f"overload, {seconds:.0f} s: {best:.0f} rows/s by {_PEAK_SENDERS} senders,"
            f" {goodput:.0f} rows/s by {_GREEDY_SENDERS} ({goodput / best:.2f});"
            f" answers {dict(over['greedy'].statuses)}, of the polite source"
            f" {dict(over['polite'].statuses)}, its longest wait"
            f" {over['polite'].longest_s * 1000:.0f} ms; recovered in {recovery_s:.1f} s"
        )
        if problems:
            return problems
        server.settle(sources["settle"], 60)
        stored = server.query("SELECT source AS s, count(*) AS n FROM events GROUP BY 1")
        for row in stored:
            if row["s"] != "settle" and row["n"] != rows[row["s"]]:
                problems.append(
                    f"{rows[row['s']]} rows of {row['s']} acknowledged, {row['n']} there"
                )
        if not over["greedy"].statuses.keys() & _REFUSED:
            problems.append(f"it was not too much: {over['greedy'].statuses}")
        if not broken:
            assert server.stop() == 0
            assert "Traceback" not in server.log_text()
    finally:
        server.kill()
    return problems


def _is_taken(server: Server, keys: SourceKeys) -> bool:
    with server.connect() as connection:
        return connection.post(keys.path, event_line("settle")).status == 200


@pytest.mark.timeout(900)
def test_too_much_is_refused_and_nothing_else_happens(tmp_path: Path, long_form: bool) -> None:
    assert run(tmp_path, _SECONDS_LONG if long_form else _SECONDS_SHORT) == []


@pytest.mark.long
def test_a_build_that_answers_500_is_found(tmp_path: Path) -> None:
    assert run(tmp_path, 2, "faulty_when_full") != [], "the test lets a broken build pass"
