"""A fault at the n-th system call of a kind, for every n: `python -m` it with a folder, a kind, and
the numbers to try (`all`, or some). Prints a report as JSON.

A child starts on a copy of a folder, works through what a server does, and goes on behind the
fault; `strace -e inject=` lets one call of it fail. What it says goes into shared memory, as a
failing write must not be ours, and as a path that is asked for into the trace, so that the trace
tells what was answered before and after the call that failed.

1. A request whose own sync has failed is never acknowledged (journal, WAL, upload file).
2. One fault later at most three tries are needed until everything works again, or the server would
   have ended by itself with StoreFailed and a start sets it right; no fault loses or doubles a row.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from ingester.errors import StoreBusy, StoreFailed
from tests.faults.killer import take
from tests.faults.life import Book, Life, Request

__all__ = ["KINDS", "main"]

# What fails, and how.
KINDS = {
    "sync": ("fsync,fdatasync", "EIO"),
    "write": ("write,pwrite64,pwritev", "ENOSPC"),
    "rename": ("rename", "EIO"),
    "unlink": ("unlink", "EIO"),
    "truncate": ("ftruncate", "EIO"),
    "allocate": ("fallocate", "ENOSPC"),
}
_SAID_BYTES = 1 << 20
_TRIES_MAX = 3
_MARK = "/said/"
_LINE = re.compile(r"^\d+ +(?P<call>\w+)\((?P<rest>.*)$")
# Whose failed sync must refuse the request that waits for it.
_PROMISES = re.compile(r"<[^>]*(\.seg|\.duckdb\.wal|/uploads/[^/>]+\.tmp)>")


class _Said:
    """Lines in memory that outlives the child."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SAID_BYTES)

    def say(self, text: str) -> None:
        self._memory.write(text.encode() + b"\n")
        os.access(_MARK + text, 0)

    def lines(self) -> list[str]:
        return self._memory[:].rstrip(b"\0").decode().splitlines()


def work(folder: Path, book: Book, said: _Said) -> None:
    """Everything once, and then until it works again."""
    try:
        life = Life(folder, book, say=said.say)
    except StoreBusy as error:
        raise StoreFailed(f"a start: {error}") from error
    book.serial += 1000

    def small() -> None:
        life.send_small(Request(book.name(), "small", 3, 1, key=f"key-{book.serial}"))

    def bulk(as_file: bool) -> None:
        life.send_bulk(Request(book.name(), "bulk", 120), as_file=as_file)

    for step in (
        small,
        life.load,
        lambda: bulk(False),
        lambda: bulk(True),
        life.roll_up,
        life.checkpoint,
        life.rotate,
        small,
        life.seal,
        life.clean_journal,
    ):
        # What an actor puts off, it does later.
        for _ in range(_TRIES_MAX):
            try:
                step()
                break
            except StoreFailed:
                raise
            except StoreBusy as error:
                said.say(f"put off {error}".splitlines()[0])
                life._reopen(error)
    for step in (small, life.load, lambda: bulk(True), lambda: bulk(False), life.checkpoint):
        for _ in range(_TRIES_MAX):
            with suppress(StoreBusy):
                step()
                if not book.requests or list(book.requests.values())[-1].outcome != "refused":
                    break
        else:
            said.say("wrong: it does not work again")


def _child(act: Callable[[], None], said: _Said) -> int:
    """A forked process that waits for a byte; the descriptor to write it to, below its id."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        try:
            act()
        except StoreFailed as error:
            said.say(f"failed {error}")
        except BaseException as error:
            last = " | ".join(traceback.format_exception(error)[-4:]).replace("\n", " ")
            said.say(f"wrong: {last}")
        finally:
            os._exit(0)
    os.close(reader)
    return child << 32 | writer


def _traced(act: Callable[[], None], said: _Said, trace: Path, calls: str, fault: str) -> list[str]:
    """The trace of a child."""
    both = _child(act, said)
    child, writer = both >> 32, both & 0xFFFFFFFF
    command = ["strace", "-f", "-y", "-p", str(child), "-o", str(trace)]
    command += ["-e", f"trace={calls},access", "-e", f"inject={calls}:{fault}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        told = tracer.stderr.readline()
        if "attached" not in told:
            os.kill(child, 9)
            raise SystemExit(f"strace: {told.strip()}")
        os.write(writer, b".")
        os.close(writer)
        os.waitpid(child, 0)
    return trace.read_text("utf-8", "replace").splitlines()


def _acknowledged_wrongly(trace: Sequence[str]) -> list[str]:
    """Requests that were acknowledged although their own sync had failed."""
    waiting: set[str] = set()
    spoilt: set[str] = set()
    wrong: list[str] = []
    for line in trace:
        found = _LINE.match(line)
        if found is None:
            continue
        rest = found["rest"]
        if found["call"] == "access" and _MARK in rest:
            kind, _, told = rest.split(_MARK, 1)[1].partition(" ")
            name = re.search(r"b\d{6}", told)
            if name and kind == "sent":
                waiting.add(name[0])
            elif name and kind in ("acknowledged", "refused"):
                if kind == "acknowledged" and name[0] in spoilt:
                    wrong.append(f"{name[0]} was acknowledged, its sync had failed")
                waiting.discard(name[0])
        elif "(INJECTED)" in rest and "sync" in found["call"] and _PROMISES.search(rest):
            spoilt |= waiting
    return wrong


def _prepare(folder: Path, book: Book) -> None:
    """What a server leaves behind: rows everywhere, and some in the journal alone."""
    said = _Said()

    def act() -> None:
        life = Life(folder, book, say=said.say)
        for number in range(3):
            life.send_small(Request(book.name(), "small", 4, 1, key=f"key-{number}"))
            life.load()
            life.send_bulk(Request(book.name(), "bulk", 50), as_file=number == 1)
            life.rotate()
            life.seal()
        life.send_small(Request(book.name(), "small", 2))

    both = _child(act, said)
    os.write(both & 0xFFFFFFFF, b".")
    os.waitpid(both >> 32, 0)
    for line in said.lines():
        assert not line.startswith(("wrong", "failed")), line
        take(book, line)


def _compare(folder: Path, book: Book) -> list[str]:
    """What is wrong with what a start without faults finds."""
    said = _Said()

    def act() -> None:
        life = Life(folder, book)
        for problem in (*book.compare(life), *life.recount()):
            said.say(f"wrong: {problem}")

    both = _child(act, said)
    os.write(both & 0xFFFFFFFF, b".")
    os.waitpid(both >> 32, 0)
    return said.lines()


def main(folder: Path, kind: str, numbers: str, is_early: str = "") -> dict[str, Any]:
    """`is_early`: a build that acknowledges although the journal failed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    calls, error = KINDS[kind]
    folder.mkdir(parents=True)
    if is_early:
        _acknowledge_whatever_happens()
    before = Book()
    _prepare(folder / "made", before)

    def run(fault: str) -> tuple[list[str], list[str]]:
        data = folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(folder / "made", data)
        book, said = Book(), _Said()
        book.requests, book.serial = dict(before.requests), before.serial
        trace = _traced(lambda: work(data, book, said), said, folder / "trace", calls, fault)
        for line in said.lines():
            take(book, line)
        wrong = [line for line in said.lines() if line.startswith("wrong")]
        wrong += _acknowledged_wrongly(trace) + _compare(data, book)
        ended = [line for line in said.lines() if line.startswith("failed")]
        return trace, [f"{fault}: {line}" for line in wrong] or [f"ended {e}" for e in ended]

    trace, wrong = run(f"error={error}:when=65535")
    # `when` counts each call by itself.
    count = max(sum(f" {call}(" in line for line in trace) for call in calls.split(","))
    report: dict[str, Any] = {"kind": kind, "calls": count, "wrong": wrong, "ended": 0}
    tried = range(1, count + 1) if numbers == "all" else map(int, numbers.split(","))
    report["tried"] = report["injected"] = 0
    for number in tried:
        trace, wrong = run(f"error={error}:when={number}")
        report["tried"] += 1
        report["injected"] += any("(INJECTED)" in line for line in trace)
        report["ended"] += any(line.startswith("ended") for line in wrong)
        report.setdefault("endings", []).extend(w for w in wrong if w.startswith("ended"))
        report["wrong"] += [line for line in wrong if not line.startswith("ended")]
        print(json.dumps(report), flush=True)
    return report


def _acknowledge_whatever_happens() -> None:
    from ingester.journal.writer import JournalWriter

    append = JournalWriter.append

    def appended(self: JournalWriter, payloads: Any) -> tuple[int, int]:
        first = self.next_seq
        with suppress(Exception):
            return append(self, payloads)
        return first, first + len(payloads) - 1

    JournalWriter.append = appended  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
