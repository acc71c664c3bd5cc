"""A control store with destinations, and the delivery actor over it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ingester.actors import delivery
from ingester.actors.delivery import DeliveryCounters
from ingester.config import DeliveryConfig
from ingester.delivery.incident import Firing, Revision
from ingester.delivery.settings import DestinationSettings
from ingester.flow import Doorbell
from ingester.store.control import ControlStore, TargetRow
from ingester.store.control.outbox import append_firing, append_revision

__all__ = ["LOOPBACK", "Rig", "opened_rig", "running"]

LOOPBACK = DeliveryConfig(allow_networks=("127.0.0.0/8",), timeout_seconds_max=2)


class Rig:
    """What a test appends to and looks at."""

    def __init__(self, control: ControlStore) -> None:
        self.control = control
        self.bell = Doorbell()
        self.counters = DeliveryCounters()

    def destination(self, url: str, *, type: str = "webhook", name: str = "", **more: Any) -> str:
        settings = (
            DestinationSettings(base_url=url, api_token="key", alert_source_config_id="src", **more)
            if type == "incident_io"
            else DestinationSettings(url=url, **more)
        )
        count = len(self.control.list_destinations())
        return self.control.create_destination(name or f"to-{count}", type, settings).id

    def append(self, *revisions: Revision, to: Sequence[str] = ()) -> None:
        with self.control._transaction() as connection:
            for revision in revisions:
                append_revision(connection, revision, destinations=to)
        self.bell.ring()

    def fire(self, *firings: Firing, to: Sequence[str] = ()) -> None:
        with self.control._transaction() as connection:
            for firing in firings:
                append_firing(connection, firing, destinations=to)
        self.bell.ring()

    def rows(self, sql: str, *values: object) -> list[Any]:
        with self.control._reading() as connection:
            return connection.execute(sql, values).fetchall()

    def states(self) -> dict[str, int]:
        return dict(self.rows("SELECT state, count(*) FROM deliveries GROUP BY state"))

    def targets(self) -> Sequence[TargetRow]:
        return self.control.due(0.0, known={}, held={}, room={}, room_default=0).targets

    def hurry(self) -> None:
        """All waits are over."""
        with self.control._transaction() as connection:
            connection.execute("UPDATE deliveries SET next_at = 0 WHERE state = 'pending'")
        self.bell.ring()

    async def wait_states(self, **wanted: int) -> None:
        while await trio.to_thread.run_sync(self.states) != wanted:  # noqa: ASYNC110
            await trio.sleep(0.01)

    async def wait_attempts(self, count: int) -> None:
        """So many attempts have been recorded."""
        while self.rows("SELECT count(*) FROM attempts")[0][0] < count:  # noqa: ASYNC110
            await trio.sleep(0.01)


@contextmanager
def opened_rig(folder: Path) -> Iterator[Rig]:
    with closing(ControlStore.open(folder / "control.sqlite")) as control:
        yield Rig(control)


@asynccontextmanager
async def running(rig: Rig, settings: DeliveryConfig = LOOPBACK) -> AsyncIterator[trio.Event]:
    """The actor, until the block ends or the event is set."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                delivery.run,
                control=rig.control,
                bell=rig.bell,
                stop=stop,
                settings=lambda: settings,
                console_base=lambda: "https://console.example",
                counters=rig.counters,
            )
        )
        yield stop
        stop.set()


def now_ms() -> int:
    return int(time.time() * 1000)
