"""Hostile bytes at both doors (F15): the process lives, nothing is smuggled in, and a plain request
works after each.

The long form makes 120,000 connections. `RAW_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import pytest
import trio

from tests.http_peer import Peer, reset
from tests.system.client import compress, event_line
from tests.system.raw_samples import mutated, plain_samples, shapes
from tests.system.server import Server

_WORKERS = 32
_SHORT, _LONG = 200, 60_000
_PATIENCE_S = 0.02
_PLAIN = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Door:
    """One door: where bodies go, and a request that would leave a trace with a number."""

    name: str
    address: tuple[str, int]
    target: bytes
    inner: Callable[[int], bytes]

    def plan(self) -> list[tuple[str, bytes]]:
        """Every shape, each with a request of its own inside."""
        names = [name for name, _ in shapes(self.target, self.inner(0))]
        return [
            next(islice(shapes(self.target, self.inner(number)), number, None))
            for number in range(len(names))
        ]


@dataclass
class Report:
    """What a run found."""

    seed: int
    connections: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


async def fuzz(door: Door, count: int, report: Report) -> None:
    """Every shape as it is, then mutations."""
    plan = door.plan()
    samples = plain_samples(door.target)
    rng = random.Random(f"{report.seed} {door.name}")
    jobs = iter(range(max(count, len(plan))))

    async def work(rng: random.Random) -> None:
        async with _Checker(door) as checker:
            for number in jobs:
                if report.problems:
                    return
                name, data = (
                    plan[number]
                    if number < len(plan)
                    else (f"mutation {number}", mutated(rng.choice(samples), rng))
                )
                try:
                    report.answers[await _send(door, data, rng)] += 1
                    report.connections += 1
                    await checker.ask()
                except (OSError, EOFError, trio.TooSlowError, trio.BrokenResourceError) as error:
                    report.problems.append(f"{door.name}: {error!r} after {name}: {data[:300]!r}")

    async with trio.open_nursery() as nursery:
        for _ in range(_WORKERS):
            nursery.start_soon(work, random.Random(rng.random()))


async def _send(door: Door, data: bytes, rng: random.Random) -> str:
    """In up to three pieces; the status of the first answer."""
    said = b""
    async with await trio.open_tcp_stream(*door.address) as stream:
        try:
            cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 2)))
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                await stream.send_all(data[start:end])
            kind = rng.randrange(10)
            if kind == 0:
                reset(stream)
                return "reset by us"
            if kind == 1:
                await stream.send_eof()
            with trio.move_on_after(_PATIENCE_S if kind > 1 else 5):
                said = await stream.receive_some()
                while await stream.receive_some():
                    pass
        except trio.BrokenResourceError:
            return "reset"
    return said.split(b" ", 2)[1].decode("latin-1") if b" " in said else "none"


class _Checker:
    """A plain request at a time, over a connection that is kept as long as the server keeps it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._peer: Peer | None = None

    async def __aenter__(self) -> _Checker:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._peer is not None:
            await self._peer.stream.aclose()

    async def ask(self) -> None:
        """Raises when it does not work on a fresh connection."""
        kept, self._peer = self._peer, None
        if kept is not None:
            try:
                await self._once(kept)
                return
            except (EOFError, trio.BrokenResourceError):
                await kept.stream.aclose()  # it may have rested for too long
        await self._once(Peer(await trio.open_tcp_stream(*self._door.address)))

    async def _once(self, peer: Peer) -> None:
        self._peer = peer  # closed at the end, whatever comes
        with trio.fail_after(20):
            answer = await peer.ask(_PLAIN)
        if answer.status != 200:
            raise OSError(f"a plain request was answered {answer.status}")


def run(folder: Path, count: int, doors: Literal["both", "intake"], broken: str = "") -> Report:
    report = Report(int(os.environ.get("RAW_SEED") or secrets.randbelow(1 << 32)))
    module = "tests.system.broken_server" if broken else "ingester"
    server = Server(folder / "data", folder / "server.log", {"BROKEN": broken}, module=module)
    began = time.monotonic()
    try:
        server.start()
        keys = server.create_source("raw")
        admin = server.command("token", "create", "--scope", "admin")["token"]
        intake = Door(
            "intake",
            server.address,
            keys.path.encode(),
            # Packed: as a line of the body around it, it must not be an event.
            lambda number: _post(
                keys.path,
                compress(event_line(f"smuggled-{number:03}"), "gzip"),
                "Content-Encoding: gzip\r\n",
            ),
        )
        host, _, port = server.ready["console"].removeprefix("http://").rpartition(":")
        bearer = f"Authorization: Bearer {admin}\r\n"
        console = Door(
            "console",
            (host, int(port)),
            b"/api/v1/query",
            lambda number: _post("/api/v1/projects", b'{"id":"smuggled-%03d"}' % number, bearer),
        )
        for door in [intake, console] if doors == "both" else [intake]:
            before = report.connections
            trio.run(fuzz, door, count, report)
            print(f"{door.name}, seed {report.seed}: {report.connections - before} connections")
        if report.problems:
            return report
        server.settle(keys)
        rows = server.query("SELECT account_id AS name FROM events WHERE account_id <> 'settle'")
        report.problems += _told(intake, [row["name"] for row in rows])
        listed = server.command("project", "list")["projects"]
        report.problems += _told(console, [one["id"] for one in listed if one["id"] != "default"])
        # The requests inside are sound: sent by themselves they leave their traces.
        with server.connect() as connection:
            connection.send_raw(intake.inner(0))
            assert connection.read_answer().accepted == 1
        print(f"{dict(report.answers)}; {time.monotonic() - began:.0f} s")
        if not report.problems:
            assert server.stop() == 0
            assert "Traceback" not in server.log_text()
            assert "connection_failed" not in server.log_text()
    finally:
        server.kill()
    return report


def _post(path: str, body: bytes, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _told(door: Door, found: list[str]) -> list[str]:
    """Traces that requests have left."""
    names = [name for name, _ in door.plan()]
    numbers = [int(name.rpartition("-")[2]) for name in found]
    return [f"{door.name}: smuggled in: {names[number]}" for number in numbers]


@pytest.mark.timeout(3600)
def test_no_bytes_end_the_process_or_smuggle_a_request(tmp_path: Path, long_form: bool) -> None:
    report = run(tmp_path, _LONG if long_form else _SHORT, "both")
    assert report.problems == [], report.problems
    assert report.answers.keys() >= {"200", "400", "404"}
    assert not any(
        status.startswith("5") and status not in {"501", "505"} for status in report.answers
    )


@pytest.mark.parametrize("broken", ["dies", "smuggles"])
def test_a_broken_build_is_found(tmp_path: Path, broken: str) -> None:
    assert run(tmp_path, 30, "intake", broken).problems, "the test lets a broken build pass"
