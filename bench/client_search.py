"""Clients that ask all the time: a process of a few threads, each with a connection of its own.

`python -m bench.client_search '{…}'` with a `SearchPlan`. It prints `{"event": "ready"}`, waits for
a line (`go`), asks until its standard input ends, then prints a `SearchDone` and leaves: what is
under way is given up, as by a person who closes the page.

Every thread goes through all questions in turn, each from another one on. One that is told to come
again (503) waits a moment; any answer but 200, 408 and 503 is a failure.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import closing

import msgspec
from msgspec import Struct

from bench.asker import Asker, Refused

__all__ = ["SearchDone", "SearchPlan", "main"]

_AGAIN_S = 0.2
_TIMEOUT, _AGAIN = 408, 503


class SearchPlan(Struct, kw_only=True):
    """Whom to ask and what: `targets` by GET, `statements` at the SQL door."""

    address: str
    token: str
    clients: int
    targets: list[str]
    statements: list[str]


class SearchDone(Struct, kw_only=True):
    """What they got: answers of searches and of SQL, deadlines, and refusals."""

    searches: int = 0
    queries: int = 0
    timeouts: int = 0
    refused: int = 0
    failures: list[str] = []


class _Clients:
    """The threads and what they count."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self.done = SearchDone()

    def start(self) -> None:
        for number in range(self._plan.clients):
            threading.Thread(target=self._ask_on, args=(number,), daemon=True).start()

    def _ask_on(self, number: int) -> None:
        with closing(Asker(self._plan.address, self._plan.token)) as asker:
            try:
                while True:
                    self._ask(asker, number)
                    number += 1
            except Exception as error:
                with self._lock:
                    self.done.failures.append(f"{type(error).__name__}: {error}")

    def _ask(self, asker: Asker, number: int) -> None:
        plan = self._plan
        place = number % (len(plan.targets) + len(plan.statements))
        is_search = place < len(plan.targets)
        try:
            if is_search:
                asker.get(plan.targets[place])
            else:
                asker.query(plan.statements[place - len(plan.targets)])
        except Refused as refusal:
            if refusal.status not in {_TIMEOUT, _AGAIN}:
                raise
            with self._lock:
                self.done.timeouts += refusal.status == _TIMEOUT
                self.done.refused += refusal.status == _AGAIN
            if refusal.status == _AGAIN:
                time.sleep(_AGAIN_S)
            return
        with self._lock:
            self.done.searches += is_search
            self.done.queries += not is_search


def main() -> None:
    """Read the plan, say ready, wait for the word, ask until the input ends."""
    clients = _Clients(msgspec.json.decode(sys.argv[1], type=SearchPlan))
    sys.stdout.buffer.write(b'{"event":"ready"}\n')
    sys.stdout.buffer.flush()
    if not sys.stdin.buffer.readline():
        return
    clients.start()
    sys.stdin.buffer.read()
    sys.stdout.buffer.write(msgspec.json.encode(clients.done) + b"\n")
    sys.stdout.buffer.flush()
    # Threads wait for answers that nobody wants; the kernel closes their connections.
    os._exit(0)


if __name__ == "__main__":
    main()
