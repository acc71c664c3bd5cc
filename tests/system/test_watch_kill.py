"""`kill -9` between a match and its incident, and between sending and writing it down.

Every log has a number. A rule matches all of them, and a generic webhook is sent each batch of
matches: at the end every acknowledged number must have come, in one message only, and each message
always with the same bytes. A webhook hears of one incident. The same rounds find what is wrong with
builds that write the cursor before the incident, or the delivery before it is sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.client import NoAnswer
from tests.system.doors import LOGS, bearer
from tests.system.faulty_server import DELIVERY_POINTS, RULE_POINTS
from tests.system.server import Server, wait_until
from tests.system.webhooks import Webhook, Webhooks, webhooks

_ROUNDS_SHORT = 3
_ROUNDS_LONG = 54
_ROUNDS_BROKEN_MAX = 12
_ENVIRONMENT = {"INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8"}
_ROUND_SECONDS_MAX = 60.0
# Beside whatever else the machine does.
_START_SECONDS_MAX = 120.0


@dataclass
class Run:
    """What was sent, and what has come of it."""

    server: Server
    hooks: Webhooks
    token: str
    acknowledged: set[int] = field(default_factory=set)
    sent: int = 0
    kills: Counter[str] = field(default_factory=Counter)

    def killed_at(self, point: str, countdown: int) -> None:
        """One round: logs until the server has ended itself at that point."""
        self.server.environment = {**self.server.environment, "FAULT_KILL": f"{point}:{countdown}"}
        self.server.launch()
        try:
            self.server.wait_ready(seconds_max=_START_SECONDS_MAX)
        except AssertionError as error:  # killed before it was ready, not unable to start
            if f"exit code {-signal.SIGKILL}" not in str(error):
                raise
        ends = time.monotonic() + _ROUND_SECONDS_MAX
        while self.server.process is not None and self.server.process.poll() is None:
            assert time.monotonic() < ends, f"never came to {point}"
            self.send_logs(random.randint(1, 20))
            time.sleep(0.02)
        self.server.kill()
        self.kills[point] += 1

    def send_logs(self, count: int) -> None:
        """One request of so many logs, which count when it was acknowledged."""
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        body = json.dumps([{"message": "a needle", "number": number} for number in numbers])
        with (
            contextlib.suppress(NoAnswer, OSError),
            self.server.connect(timeout_s=5) as connection,
        ):
            if connection.post(LOGS, body.encode(), bearer(self.token)).status == 200:
                self.acknowledged |= set(numbers)

    def problems(self) -> list[str]:
        """After the last start: what is missing, doubled or changed."""
        told: Counter[int] = Counter()
        found: list[str] = []
        for one in first_bodies(self.hooks.received, found).values():
            if one.path == "/each":
                told.update(event["number"] for event in json.loads(one.body))
        found += [f"number {number} was never told" for number in self.acknowledged - told.keys()]
        found += [f"number {number} is in {n} messages" for number, n in told.items() if n > 1]
        return found


def first_bodies(received: Sequence[Webhook], problems: list[str]) -> dict[str, Webhook]:
    """By id and path the first request."""
    bodies: dict[str, Webhook] = {}
    for one in received:
        first = bodies.setdefault(f"{one.path} {one.id}", one)
        if first.body != one.body:
            problems.append(f"{one.id} has come with other bytes")
    return bodies


def rounds(
    folder: Path, points: Sequence[str], count: int, *, broken: str = ""
) -> tuple[Run, list[str]]:
    """The run and what is wrong with it; with a broken build it ends with the first fault."""
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1 << 32))
    print(f"watch kills, seed {seed}")
    chance = random.Random(seed)
    environment = {**_ENVIRONMENT, "FAULT_BREAK": broken}
    server = Server(
        folder / "data", folder / "log", environment, module="tests.system.faulty_server"
    )
    with webhooks() as hooks:
        base = hooks.url.removesuffix("/hook")
        made = server.command("token", "create", "--service", "s", "--environment", "e")
        server.command("destination", "create", "once", "--url", f"{base}/once")
        server.command(
            "destination", "create", "each", "--type", "generic", "--url", f"{base}/each"
        )
        server.command(
            *("rule", "create", "needles", "--lql", "needle", "--resolve-after", "7d"),
            *("--destination", "once", "--destination", "each"),
        )
        run = Run(server, hooks, made["token"])
        found: list[str] = []
        try:
            for number in range(count):
                run.killed_at(chance.choice(points), chance.choice([1, 1, 2, 5]))
                if broken and number % 3 == 2 and (found := settled(run, 8.0)):
                    break
            if not broken:
                found = settled(run, 60.0)
                found += one_incident(server, hooks, run)
            assert server.process is None or server.stop() == 0
        finally:
            server.kill()
    return run, found


def settled(run: Run, seconds_max: float) -> list[str]:
    """What is wrong when the server has had time to tell all."""
    run.server.environment = {**run.server.environment, "FAULT_KILL": ""}
    run.server.start()
    ends = time.monotonic() + seconds_max
    while (found := run.problems()) and time.monotonic() < ends:
        time.sleep(0.2)
    if found:
        run.server.stop()
    return found


def one_incident(server: Server, hooks: Webhooks, run: Run) -> list[str]:
    incidents = server.command("incident", "list")["incidents"]
    matches = [one["affected"][0]["matches"] for one in incidents]
    stored = server.value("SELECT count(*) FROM logs")
    found = [] if matches == [stored] else [f"{stored} logs are stored, {matches} matched"]
    wait_until(
        lambda: not server.command("delivery", "list", "--state", "pending")["deliveries"],
        20,
        "nothing is pending",
    )
    opened = {one.id for one in hooks.received if one.path == "/once"}
    if len(opened) != 1:
        found.append(f"{len(opened)} revisions of one incident")
    repeats = len(hooks.received) - len(first_bodies(hooks.received, []))
    print(f"{dict(run.kills)}, {len(run.acknowledged)} logs, {repeats} repeats, {found[:3]}")
    return found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("points", [RULE_POINTS, DELIVERY_POINTS], ids=["rules", "delivery"])
def test_every_match_is_told_whatever_is_killed(
    tmp_path: Path, points: tuple[str, ...], long_form: bool
) -> None:
    run, found = rounds(tmp_path, points, _ROUNDS_LONG if long_form else _ROUNDS_SHORT)
    assert found == []
    assert run.acknowledged


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("broken", "point"), [("cursor_first", "evaluated"), ("recorded_first", "sending")]
)
def test_the_rounds_find_a_build_that_does_it_in_the_wrong_order(
    tmp_path: Path, broken: str, point: str
) -> None:
    _, found = rounds(tmp_path, [point], _ROUNDS_BROKEN_MAX, broken=broken)
    assert any("was never told" in one for one in found)
