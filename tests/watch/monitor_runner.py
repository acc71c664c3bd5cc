"""One monitor over a rig, looked at by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from ingester.search.reading import Stop
from ingester.store.control import WatchInfo
from ingester.watch.alerts import AlertWindow, bound_query
from ingester.watch.clock import Timeline
from ingester.watch.judge import Values
from ingester.watch.monitors import Due, MonitorEngine
from ingester.watch.settings import Monitor, SqlTarget, decode_settings
from ingester.watch.values import window_of
from tests.search.rows import log
from tests.store.stores import rows
from tests.watch.rig import BASE, START_S, Rig

__all__ = ["LOG_COUNT", "Runner", "time_at"]

LOG_COUNT = {"target": {"kind": "logs", "lql": "needle"}, "operator": ">=", "threshold": 3}


def time_at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START_S + seconds, UTC)


class Runner:
    """The monitor and its engine; `rig` has the clocks."""

    def __init__(self, rig: Rig, **fields: Any) -> None:
        self.rig = rig
        self.info: WatchInfo = rig.add("monitor", "mon", **{"window_s": 60, **fields})
        self.monitor = decode_settings(self.info.settings, Monitor)
        self.restart()
        self.look()

    def restart(self, alive_at: float | None = None) -> None:
        self.timeline = Timeline(self.rig.clock, alive_at)
        self.engine = MonitorEngine(
            self.rig.store,
            self.rig.control,
            self.timeline,
            console_base=lambda: BASE,
            clock=self.rig.clock,
            delay_s=5,
            late_s=3600,
            groups_max=3,
        )

    def look(self) -> list[int]:
        """Buckets judged, counted from the start."""
        self.timeline.look()
        back = self.timeline.take_back()
        judged: list[int] = []
        for _ in range(40):
            due = self.engine.due(self.info, self.monitor, went_back_to=back, stop=Stop())
            back = None
            if due is None:
                break
            if isinstance(self.monitor.target, SqlTarget):
                # As the actor does: a few buckets at a time.
                due = structs.replace(due, last=min(due.last, due.first + 1))
            self.engine.write(due, self.read(due))
            judged += range(due.first - int(START_S) // 60, due.last + 1 - int(START_S) // 60)
        return judged

    def read(self, due: Due) -> Mapping[int, Values]:
        target = self.monitor.target
        if not isinstance(target, SqlTarget):
            return self.engine.read(due, Stop())
        found = {}
        for bucket in range(due.first, due.last + 1):
            window = AlertWindow(*window_of(self.monitor, bucket))
            ((value,),) = rows(self.rig.store, bound_query(target.query, window))
            found[bucket] = Values({"": float(value)})
        return found

    def logs(self, *seconds: float, **fields: Any) -> None:
        self.rig.rows.add("logs", [log(time_at(at), "a needle", **fields) for at in seconds])
