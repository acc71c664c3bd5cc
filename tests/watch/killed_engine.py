"""An alert or a monitor over many windows, each evaluated by a process of its own that may kill
itself with SIGKILL on the way; the clocks are set by hand, so that two runs can be compared.

`python -m tests.watch.killed_engine FOLDER alert|monitor WINDOWS SEED [kills] [state_first]`
prints what was told (the frozen bodies), what became of the incidents, and how many kills there
were. With `state_first` it is a build that stores where it stands before the incident.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from ingester.delivery.settings import DestinationSettings
from ingester.search.reading import Stop
from ingester.store.control.watches import WatchTransaction
from ingester.watch.alerts import AlertBook, AlertState
from ingester.watch.clock import Timeline
from ingester.watch.monitors import MonitorEngine
from ingester.watch.settings import Alert, Monitor, decode_settings
from tests.search.rows import log
from tests.watch.monitor_runner import LOG_COUNT, time_at
from tests.watch.rig import BASE, START_S, Rig, rigged

__all__: list[str] = []

# Behind the evaluation and before its transaction; with all of it in the open transaction; behind
# the commit.
_POINTS = ("evaluated", "appended", "committed")
_DELAY_S = 5.0


def main(folder: Path, kind: str, windows: int, seed: int, flags: set[str]) -> None:
    _in_child(partial(_prepare, folder, kind))
    chance = random.Random(seed)
    kills = 0
    for window in range(windows):
        point = chance.choice(_POINTS)
        if "kills" in flags:
            kills += not _in_child(partial(_evaluate, folder, kind, window, point, flags))
        assert _in_child(partial(_evaluate, folder, kind, window, "", flags))
    with rigged(folder) as rig:
        told = rig.select("SELECT kind, body FROM messages ORDER BY message_id")
        found = {
            "kills": kills,
            "told": [[each, body.decode()] for each, body in told],
            "revisions": rig.revisions(),
            "statuses": rig.statuses(),
            "firings": rig.select("SELECT firings, matches FROM affected ORDER BY affected_id"),
        }
    print(json.dumps(found))


def _in_child(work: Callable[[], None]) -> bool:
    """Whether it came to its end; False when it was killed. Nothing but modules is shared."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status == 0


def _prepare(folder: Path, kind: str) -> None:
    with rigged(folder) as rig:
        settings = DestinationSettings(url="https://example.org/hook")
        to = rig.control.create_destination("ops", "webhook", settings).id
        each = rig.control.create_destination("each", "generic", settings).id
        fields: dict[str, Any] = {"destinations": [to, each]}
        if kind == "monitor":
            rig.add("monitor", "m", **LOG_COUNT, **fields, window_s=60, group_by=["service"])
        else:
            rig.add("alert", "a", language="lql", query="needle", cron="* * * * *", **fields)
        _look(rig, kind, "")


def _evaluate(folder: Path, kind: str, window: int, point: str, flags: set[str]) -> None:
    """The rows of a window, once, and what is due behind it."""
    chance = random.Random(f"{kind} {window}")
    with rigged(folder) as rig:
        rig.wall_s = START_S + window * 60 + 30
        rig.rows.request_number = window
        if rig.store.ledger.request_number_max == window:
            times = [time_at(window * 60 + second) for second in range(chance.choice([0, 3, 4]))]
            rows = [log(at, f"needle {window}", service=chance.choice("ab")) for at in times]
            rig.rows.add("logs", [log(time_at(window * 60 + 1), "other"), *rows])
        rig.wall_s = START_S + (window + 1) * 60 + _DELAY_S + 1
        is_broken = "state_first" in flags
        if is_broken:
            _break()
        _look(rig, kind, point, 2 if is_broken else 1)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _look(rig: Rig, kind: str, point: str, saves: int = 1) -> None:
    """`saves`: how often the state is stored for one window."""
    if point == "appended":
        save = WatchTransaction.save_state
        left = saves

        def saved(self: WatchTransaction, number: int, state: bytes) -> None:
            nonlocal left
            save(self, number, state)
            left -= 1
            if not left:
                _kill()

        WatchTransaction.save_state = saved  # type: ignore[method-assign]
    # As a start a second ago: no time in which nothing could arrive.
    timeline = Timeline(rig.clock, rig.wall_s - 1)
    timeline.gaps = ()
    (_monitor if kind == "monitor" else _alert)(rig, timeline, point)
    if point == "committed":
        _kill()


def _monitor(rig: Rig, timeline: Timeline, point: str) -> None:
    (info,) = rig.control.list_watches("monitor")
    monitor = decode_settings(info.settings, Monitor)
    engine = MonitorEngine(
        rig.store,
        rig.control,
        timeline,
        console_base=lambda: BASE,
        clock=rig.clock,
        delay_s=_DELAY_S,
        late_s=3600,
        groups_max=10,
    )
    due = engine.due(info, monitor, went_back_to=None, stop=Stop())
    if due is None:
        return
    values = engine.read(due, Stop())
    if point == "evaluated":
        _kill()
    engine.write(due, values)


def _alert(rig: Rig, timeline: Timeline, point: str) -> None:
    (info,) = rig.control.list_watches("alert")
    alert = decode_settings(info.settings, Alert)
    book = AlertBook(
        rig.store,
        rig.control,
        timeline,
        console_base=lambda: BASE,
        clock=rig.clock,
        delay_s=lambda: _DELAY_S,
    )
    while (due := book.due(info, alert, went_back_to=None)) is not None:
        state, window = due
        ran = book.lql_rows(info, alert, state, stop=Stop())
        if point == "evaluated":
            _kill()
        book.settle(info, alert, state, window, ran)


def _break() -> None:
    """Where it stands is committed by itself, before the rest."""
    settle, write = AlertBook.settle, MonitorEngine.write

    def settled(self: AlertBook, *arguments: Any) -> int:
        info, alert, state, window, ran = arguments
        after = AlertState(window.end.timestamp(), ran.commit_number or state.commit_number)
        self._save(info, after)
        return settle(self, info, alert, state, window, ran)

    def written(self: MonitorEngine, *arguments: Any) -> tuple[int, int]:
        due, values = arguments
        with self._transaction() as transaction:
            newest = self._store.ledger.commit_number
            state = structs.replace(due.state, next_bucket=due.last + 1, commit_number=newest)
            transaction.save_state(due.info.number, json.dumps(structs.asdict(state)).encode())
        return write(self, due, values)

    AlertBook.settle = settled  # type: ignore[method-assign]
    MonitorEngine.write = written  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), set(sys.argv[5:]))
