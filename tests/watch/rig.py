"""A store, a control store and a rule engine over them, with clocks that are set by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ingester.store.control import ControlStore
from ingester.store.control.watches import WatchInfo, WatchKind
from ingester.store.store import Store
from ingester.watch.clock import Clock
from ingester.watch.rules import RuleEngine
from tests.search.rows import Rows
from tests.store.stores import opened

__all__ = ["BASE", "Rig", "rigged"]

BASE = "http://console.example"
START_S = 1_795_262_400.0  # 2026-11-21T12:00:00Z


class Rig:
    def __init__(self, store: Store, control: ControlStore) -> None:
        self.store = store
        self.control = control
        self.rows = Rows(store)
        self.wall_s = START_S
        self.monotonic_s = 100.0
        self.clock = Clock(wall=lambda: self.wall_s, monotonic=lambda: self.monotonic_s)

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds

    @contextmanager
    def engine(self, **options: Any) -> Iterator[RuleEngine]:
        with closing(
            RuleEngine(
                self.store, self.control, console_base=lambda: BASE, clock=self.clock, **options
            )
        ) as engine:
            yield engine

    def add(self, kind: WatchKind, name: str, **fields: Any) -> WatchInfo:
        settings = msgspec.json.encode({"name": name, **fields})
        return self.control.create_watch(kind, name, settings, actor="test")

    def rule(self, lql: str, name: str = "rule", **fields: Any) -> WatchInfo:
        return self.add("rule", name, lql=lql, **fields)

    def select(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self.control._reading() as connection:
            return connection.execute(statement, values).fetchall()

    def revisions(self) -> list[tuple[int, str]]:
        return self.select(
            "SELECT incident_id, kind FROM revisions ORDER BY incident_id, updated_at"
        )

    def statuses(self) -> list[str]:
        return [
            status for (status,) in self.select("SELECT status FROM incidents ORDER BY incident_id")
        ]


@contextmanager
def rigged(folder: Path) -> Iterator[Rig]:
    with opened(folder) as store, closing(ControlStore.open(folder / "control.sqlite")) as control:
        yield Rig(store, control)
