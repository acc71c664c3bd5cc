"""`ingester`, but it kills itself at a named point, or is broken there.

`FAULT_KILL=appended:3` ends the process by SIGKILL when it comes to that point the third time:
points of watching and delivering are here, those of the write path in `tests/faults/points.py`.
`FAULT_BREAK=cursor_first` is a build that does two steps in the wrong order: what finds nothing
wrong with it proves nothing.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import Any

from ingester.cli import main
from ingester.delivery.client import Client
from ingester.store import rollups
from ingester.store.control import ControlStore
from ingester.store.control.watches import WatchTransaction
from ingester.watch.rules import READER, RuleEngine
from tests.faults.points import POINT_GROUPS, install

__all__ = ["BREAKS", "DELIVERY_POINTS", "RULE_POINTS"]

# Between a match and its incident; with the incident and what is told of it in a transaction that
# is open; behind its commit, before anybody is rung for.
RULE_POINTS = ("evaluated", "appended", "committed")
# Before the request; behind the answer, before it is written down; behind that.
DELIVERY_POINTS = ("sending", "sent", "recorded")
BREAKS = ("cursor_first", "recorded_first")


class _Kill:
    """Ends the process at the n-th passing of a point."""

    def __init__(self, text: str) -> None:
        self.point, _, count = text.partition(":")
        self.left = int(count or 1)

    def at(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _patch_rules(kill: _Kill) -> None:
    evaluate, move, saved = (
        RuleEngine._evaluate,
        WatchTransaction.move_cursor,
        RuleEngine._note_saved,
    )
    found_any = False

    def evaluated(self: RuleEngine, *arguments: Any) -> Any:
        nonlocal found_any
        count, found = evaluate(self, *arguments)
        found_any = bool(found)
        if found_any:
            kill.at("evaluated")
        return count, found

    def moved(self: WatchTransaction, reader: str, position: int) -> None:
        move(self, reader, position)
        if reader == READER and found_any:
            kill.at("appended")

    def noted(self: RuleEngine) -> None:
        if found_any:
            kill.at("committed")
        saved(self)

    RuleEngine._evaluate = evaluated  # type: ignore[assignment,method-assign]
    WatchTransaction.move_cursor = moved  # type: ignore[method-assign]
    RuleEngine._note_saved = noted  # type: ignore[method-assign]


def _patch_delivery(kill: _Kill) -> None:
    send, record = Client.send, ControlStore.record_attempts

    async def sent(self: Client, *arguments: Any, **options: Any) -> Any:
        kill.at("sending")
        exchange = await send(self, *arguments, **options)
        kill.at("sent")
        return exchange

    def recorded(self: ControlStore, *arguments: Any, **options: Any) -> Any:
        done = record(self, *arguments, **options)
        kill.at("recorded")
        return done

    Client.send = sent  # type: ignore[method-assign]
    ControlStore.record_attempts = recorded  # type: ignore[assignment,method-assign]


def _break(name: str) -> None:
    if name == "cursor_first":
        group = RuleEngine._group

        def cursor_first(self: RuleEngine, reading: Any, batches: Any) -> Any:
            with self._transaction() as transaction:
                transaction.move_cursor(READER, batches.commit_number)
            return group(self, reading, batches)

        RuleEngine._group = cursor_first  # type: ignore[assignment,method-assign]
    elif name == "recorded_first":
        due = ControlStore.due

        def recorded_first(self: ControlStore, *arguments: Any, **options: Any) -> Any:
            found = due(self, *arguments, **options)
            with self._transaction() as connection:
                for one in found.deliveries:
                    connection.execute(
                        "UPDATE deliveries SET state = 'delivered' WHERE delivery_id = ?",
                        (one.delivery_id,),
                    )
            return found

        ControlStore.due = recorded_first  # type: ignore[assignment,method-assign]
    assert not name or name in BREAKS


if __name__ == "__main__":
    _break(os.environ.get("FAULT_BREAK", ""))
    _kill = _Kill(os.environ.get("FAULT_KILL", ""))
    _patch_rules(_kill)
    _patch_delivery(_kill)
    with ExitStack() as stack:
        if _kill.point in POINT_GROUPS:
            # Small, so that tables of rollups are merged within a round.
            rollups._UNMERGED_ROWS_MAX = 2_000  # type: ignore[misc]
            stack.enter_context(install(_kill.at))
        main(prog_name="ingester")
