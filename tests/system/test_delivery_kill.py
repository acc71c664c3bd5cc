"""`kill -9` while incidents are delivered: each arrives, the same bytes under one id, in order."""

from __future__ import annotations

import json
import os
import random
import secrets
from contextlib import closing
from pathlib import Path

import pytest

from ingester.store.control import ControlStore
from ingester.store.control.outbox import append_revision
from tests.delivery.incidents import revision
from tests.system.server import Server, wait_until
from tests.system.webhooks import Webhooks, webhooks

_ROUNDS_SHORT = 4
_ROUNDS_LONG = 60
_INCIDENTS = 20


def _append(folder: Path, destination: str, round_number: int) -> list[str]:
    """Incidents of one round, opened and resolved, by another process than the server's."""
    ids = [f"inc_{round_number}_{number}" for number in range(_INCIDENTS)]
    with (
        closing(ControlStore.open(folder / "control.sqlite")) as control,
        control._transaction() as connection,
    ):
        for incident_id in ids:
            append_revision(connection, revision(incident_id), destinations=[destination])
        for incident_id in ids:
            resolved = revision(incident_id, "resolved", step=1)
            append_revision(connection, resolved, destinations=[destination])
    return ids


@pytest.mark.timeout(1800)
def test_no_delivery_is_lost_or_changed_by_kills_between_sending_and_recording(
    tmp_path: Path, long_form: bool
) -> None:
    seed = int(os.environ.get("KILL_SEED") or secrets.randbelow(1 << 32))
    print(f"kills while delivering, seed {seed}")
    rng = random.Random(seed)
    environment = {"INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8"}
    server = Server(tmp_path / "data", tmp_path / "server.log", environment)
    expected: list[str] = []
    with webhooks() as hooks:
        try:
            to = server.command("destination", "create", "ops", "--url", hooks.url)["id"]
            for round_number in range(_ROUNDS_LONG if long_form else _ROUNDS_SHORT):
                expected += _append(tmp_path / "data", to, round_number)
                _kill_in_the_middle(server, hooks, rng)
            server.start()
            wait_until(lambda: _all_have_come(hooks, expected), 60, "every delivery")
            wait_until(lambda: _pending(server) == 0, 20, "every delivery recorded")
            assert server.stop() == 0
        finally:
            server.kill()
    _check(hooks, expected)
    repeats = len(hooks.received) - 2 * len(expected)
    print(f"{len(expected)} incidents, {repeats} repeats")


def _kill_in_the_middle(server: Server, hooks: Webhooks, rng: random.Random) -> None:
    """Kill at a request of the receiver's: before it answers or just after."""
    countdown = rng.randint(1, 2 * _INCIDENTS)

    def maybe_kill() -> None:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            os.killpg(pid, 9)

    server.launch()
    pid = server.pid
    if rng.random() < 0.5:
        hooks.before_answer = maybe_kill
    else:
        hooks.after_answer = maybe_kill
    assert server.process is not None
    try:
        server.process.wait(30)
    finally:
        hooks.before_answer = hooks.after_answer = lambda: None
        server.kill()


def _all_have_come(hooks: Webhooks, expected: list[str]) -> bool:
    return len({one.id for one in hooks.received}) >= 2 * len(expected)


def _pending(server: Server) -> int:
    return len(server.command("delivery", "list", "--state", "pending")["deliveries"])


def _check(hooks: Webhooks, expected: list[str]) -> None:
    bodies: dict[str, bytes] = {}
    first_seen: dict[tuple[str, str], int] = {}
    for position, one in enumerate(hooks.received):
        assert bodies.setdefault(one.id, one.body) == one.body
        read = json.loads(one.body)
        assert read["idempotencyId"] == one.id
        first_seen.setdefault((read["id"], read["status"]), position)
    for incident_id in expected:
        assert first_seen[incident_id, "opened"] < first_seen[incident_id, "resolved"]
