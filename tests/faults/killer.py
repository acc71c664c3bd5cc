"""Rounds of work in a forked child that kills itself at a named point.

`python -m` it with a folder, a count of rounds, a seed, and perhaps the name of a broken build.
Prints a report as JSON, a line a round.

Why forks: a process that has imported everything is ready for the next round in milliseconds, so
that hundreds of kills are a matter of minutes (as `tests/store/checkpoint_killer.py`).

A round: fork; the child starts on the folder as a server does, compares everything with the book,
and works until it comes to its point for the n-th time; what it was told and told it writes into a
pipe, which outlives it. Points are taken in turn, so that each gets its share; every few rounds the
kill comes after a random time instead, from outside.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import structlog

from ingester.store import rollups
from tests.faults.builds import broken
from tests.faults.life import Book, Life, Request, random_request
from tests.faults.points import POINTS, STARTING, install

__all__ = ["Round", "main", "one_round", "take"]

_OPS_MAX = 40
_RANDOM_EVERY = 6
_RANDOM_S_MAX = 0.6
# So often within a start.
_EARLY = 0.2
# A thread ends the process within a checkpoint, some time behind its beginning.
_WITHIN_S_MAX = 0.02
_RECOUNT_EVERY = 4
# Small, so that a few rounds merge a table of rollups.
_UNMERGED_ROWS_MAX = 60


class Round:
    """What becomes of one child. `point` None: killed from outside."""

    def __init__(self, number: int, point: str | None, count: int, seed: int) -> None:
        self.number = number
        self.point = point
        self.count = count
        self.chance = random.Random(f"{seed} {number}")
        self.said: list[str] = []

    def is_reached(self) -> bool:
        return any(line.startswith("reached") for line in self.said)


def work(folder: Path, book: Book, this: Round, say: Callable[[str], None]) -> None:
    """Until the point, or for so many steps."""
    left = this.count

    def reach(point: str) -> None:
        nonlocal left
        say(f"passed {point}")
        if point != this.point:
            return
        left -= 1
        if left:
            return
        say(f"reached {point}")
        if point == "checkpointing" and this.chance.random() < 0.7:
            threading.Timer(this.chance.uniform(0, _WITHIN_S_MAX), _end).start()
            return
        _end()

    rollups._UNMERGED_ROWS_MAX = _UNMERGED_ROWS_MAX  # type: ignore[misc]
    with ExitStack() as stack:
        stack.enter_context(install(reach))
        began = time.monotonic()
        life = Life(folder, book, say=say)
        say(f"ready {time.monotonic() - began}")
        for problem in book.compare(life):
            say(f"wrong {problem}")
        for request in book.requests.values():
            say(f"is {request.batch} {request.outcome}")
        say(f"gone {' '.join(book.gone)}")
        if this.number % _RECOUNT_EVERY == 0:
            for problem in life.recount():
                say(f"wrong {problem}")
        say("working")
        for step in steps(life, book, this):
            step()
        say("ended")
        _end()


def steps(life: Life, book: Book, this: Round) -> Iterator[Callable[[], object]]:
    """In no order, and so that each point is passed sooner or later."""
    chance = this.chance
    for _ in range(_OPS_MAX):
        some = [random_request(book, chance, book.day) for _ in range(chance.randint(1, 4))]
        small = [request for request in some if request.kind == "small"]
        if small:
            yield lambda those=small: life.send_small(*those)
        for request in some:
            if request.kind == "bulk":
                yield lambda r=request: life.send_bulk(r, as_file=chance.random() < 0.5)
        keyed = [r for r in book.requests.values() if r.key is not None]
        if keyed and chance.random() < 0.3:
            yield lambda those=keyed: _again(life, chance.choice(those), chance)
        for rate, step in (
            (0.5, life.load),
            (0.3, life.roll_up),
            (0.25, life.checkpoint),
            (0.25, life.rotate),
            (0.3, life.seal),
            (0.3, life.clean_journal),
        ):
            if chance.random() < rate:
                yield step
        if chance.random() < 0.25:
            yield lambda: life.purge(book.day + 1)


def _again(life: Life, request: Request, chance: random.Random) -> None:
    is_bulk = request.kind == "bulk"
    problem = life.send_again(request, as_file=chance.random() < 0.5 if is_bulk else None)
    if problem is not None:
        life._say(f"wrong {problem}")


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)


def one_round(folder: Path, book: Book, this: Round, end: Callable[[int], None] = _kill) -> None:
    """Fork, wait, and take note of what was said. Without a point `end` comes from outside, some
    time behind the start, or within it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            work(folder, book, this, lambda text: _write(writer, text))
        except BaseException as error:
            _write(
                writer,
                "wrong " + " | ".join(traceback.format_exception(error)[-5:]).replace("\n", " "),
            )
        finally:
            os._exit(1)
    os.close(writer)
    ending = threading.Timer(this.chance.uniform(0, _RANDOM_S_MAX), end, (child,))
    begins = "" if this.chance.random() < _EARLY else "working"
    with os.fdopen(reader, "r") as lines:
        if this.point is None and not begins:
            ending.start()
        for line in lines:
            this.said.append(line.rstrip("\n"))
            if this.point is None and begins and line.startswith(begins):
                ending.start()
    if ending.ident is not None:
        ending.join()
    os.waitpid(child, 0)
    for line in this.said:
        take(book, line)


def _write(descriptor: int, text: str) -> None:
    data = f"{text}\n".encode()
    while data:
        data = data[os.write(descriptor, data) :]


def take(book: Book, line: str) -> None:
    """The parent's book, from what a child has said."""
    kind, _, rest = line.partition(" ")
    if kind == "sent":
        batch, sort, row_count, reject_count, day, key = json.loads(rest)
        request = Request(batch, sort, row_count, reject_count, day=day, key=key)
        book.requests[batch] = request
        book.serial = max(book.serial, int(batch[1:]))
    elif kind in ("acknowledged", "refused"):
        batch, _, request_id = rest.partition(" ")
        book.requests[batch].outcome = kind  # type: ignore[assignment]
        book.requests[batch].request_id = request_id
    elif kind == "is":
        batch, outcome = rest.split()
        book.requests[batch].outcome = outcome  # type: ignore[assignment]
    elif kind == "day":
        book.day = max(book.day, int(rest))
    elif kind == "going":
        book.going.update(rest.split())
    elif kind == "gone":
        book.gone.update(rest.split())
        book.going.clear()


def main(folder: Path, count: int, seed: int, build: str = "") -> dict[str, Any]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with broken(build) if build else nullcontext():
        return _rounds(folder, count, seed)


def _rounds(folder: Path, count: int, seed: int) -> dict[str, Any]:
    book = Book()
    reached: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    ready: list[float] = []
    report: dict[str, Any] = {"seed": seed, "wrong": []}
    points = list(POINTS)
    random.Random(seed).shuffle(points)
    for number in range(count + 1):
        point = None
        if number < count and number % _RANDOM_EVERY != _RANDOM_EVERY - 1:
            point = points[(number - number // _RANDOM_EVERY) % len(points)]
        chance = random.Random(f"{seed} count {number}")
        this = Round(number, point, chance.choice((1, 1, 2, 3, 5)) if point else 0, seed)
        if point in STARTING:
            this.count = 1
        one_round(folder, book, this)
        passed.update(line.removeprefix("passed ") for line in this.said if "passed " in line)
        reached.update([point] if point and this.is_reached() else [])
        ready += [float(line.split()[1]) for line in this.said if line.startswith("ready")]
        report["wrong"] += [line for line in this.said if line.startswith("wrong")]
        told = [r for r in book.requests.values() if r.outcome == "acknowledged"]
        report |= {
            "rounds": number + 1,
            "reached": dict(reached),
            "never_passed": sorted(set(POINTS) - set(passed)),
            "acknowledged_requests": len(told),
            "acknowledged_rows": sum(request.row_count for request in told),
            "unanswered": sum(r.outcome == "unanswered" for r in book.requests.values()),
            "removed_by_retention": len(book.gone),
            "ready_p50_s": round(sorted(ready)[len(ready) // 2], 3) if ready else None,
            "ready_max_s": round(max(ready), 3) if ready else None,
        }
        print(json.dumps(report), flush=True)
        if report["wrong"]:
            break
    return report


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:5])
