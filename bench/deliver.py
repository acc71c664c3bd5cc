"""`deliver`: incidents from the outbox to ten receivers, by the delivery actor as it runs.

Each receiver is a process of its own that answers 200 (the bare echo). Measured are deliveries a
second with a full outbox (two revisions of each incident, in order), and how long a single
revision takes from its transaction to the end of its attempt while one comes every 10 ms.
The control store is a real file: every batch of attempts is a synced transaction. Last comes the
way from a rule's match to the receiver through a whole server (`deliver_rules`).
"""

from __future__ import annotations

import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import trio

from bench.corpus import cache_directory
from bench.deliver_rules import from_match_to_receiver
from bench.options import Options
from bench.report import Row, median_row
from bench.server import run_echo
from ingester.actors import delivery
from ingester.config import DeliveryConfig
from ingester.delivery.incident import AffectedMonitor, GroupValue, Incident, Revision
from ingester.delivery.settings import DestinationSettings
from ingester.delivery.signing import new_secret
from ingester.flow import Doorbell
from ingester.store.control import ControlStore
from ingester.store.control.outbox import append_revision

__all__ = ["run"]

_RECEIVERS = 10
_INCIDENTS = 500
_SMOKE_INCIDENTS = 5
_INTERVAL_S = 0.01
_SINGLE = 500
_SMOKE_SINGLE = 10
_SETTINGS = DeliveryConfig(allow_networks=("127.0.0.0/8",))


def run(options: Options) -> list[Row]:
    incidents = _SMOKE_INCIDENTS if options.smoke else _INCIDENTS
    singles = _SMOKE_SINGLE if options.smoke else _SINGLE
    rounds = 1 if options.smoke else options.rounds
    with ExitStack() as stack:
        echoes = [stack.enter_context(run_echo()) for _ in range(_RECEIVERS)]
        urls = [f"http://127.0.0.1:{echo.port}/hook" for echo in echoes]
        full = [trio.run(_measured, urls, incidents, 0) for _ in range(rounds)]
        single = [trio.run(_measured, urls[:1], 0, singles) for _ in range(rounds)]
        hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        silent = f"http://127.0.0.1:{hanging.getsockname()[1]}/hook"
        beside = [trio.run(_measured, urls[:1], 0, singles, silent) for _ in range(rounds)]
    middle = len(single) // 2
    return [median_row(full), single[middle], beside[middle], from_match_to_receiver(options)]


async def _measured(urls: Sequence[str], incidents: int, singles: int, silent_url: str = "") -> Row:
    """`silent_url`: of a receiver that is told everything too, and never answers."""
    with tempfile.TemporaryDirectory(prefix="deliver-", dir=cache_directory()) as folder:
        path = Path(folder) / "control.sqlite"
        with closing(ControlStore.open(path)) as control:
            ids = [
                control.create_destination(
                    f"to-{number}", "webhook", DestinationSettings(url=url, secret=new_secret())
                ).id
                for number, url in enumerate(urls)
            ]
            expected = incidents * 2 * len(ids) + singles
            if silent_url:
                settings = DestinationSettings(url=silent_url)
                ids.append(control.create_destination("silent", "webhook", settings).id)
            _append(control, ids, range(incidents), ("opened", "resolved"))
            bell, stop = Doorbell(), trio.Event()
            counters = delivery.DeliveryCounters()
            started, cpu_started = time.perf_counter(), time.process_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    partial(
                        delivery.run,
                        control=control,
                        bell=bell,
                        stop=stop,
                        settings=lambda: _SETTINGS,
                        console_base=lambda: "https://console.example",
                        counters=counters,
                    )
                )
                for number in range(singles):
                    await trio.to_thread.run_sync(
                        _append, control, ids, range(number, number + 1), ("opened",)
                    )
                    bell.ring()
                    await trio.sleep(_INTERVAL_S)
                while counters.attempts.get("delivered", 0) < expected:  # noqa: ASYNC110
                    await trio.sleep(0.005)
                seconds = time.perf_counter() - started
                cpu_s = time.process_time() - cpu_started
                nursery.cancel_scope.cancel()
            row = Row(
                bench="deliver",
                name=_name(len(urls), incidents, silent_url),
                events=expected,
                seconds=seconds,
                cpu_s=cpu_s,
            )
            if singles:
                row.extra |= _latencies(control)
            return row


def _name(receivers: int, incidents: int, silent_url: str) -> str:
    if incidents:
        return f"{receivers} receivers, full outbox"
    return "one at a time, another hangs" if silent_url else "one at a time"


def _append(
    control: ControlStore, ids: Sequence[str], numbers: range, kinds: Sequence[str]
) -> None:
    now_ms = int(time.time() * 1000)
    with control._transaction() as connection:
        for number in numbers:
            for step, kind in enumerate(kinds):
                append_revision(
                    connection, _revision(number, kind, now_ms + step), destinations=ids
                )


def _revision(number: int, kind: str, at_ms: int) -> Revision:
    is_resolved = kind == "resolved"
    affected = AffectedMonitor(
        id=str(number),
        monitor_id="mon_1",
        type="LOG_COUNT",
        name="Errors of a service",
        entity_type="service",
        absolute_path="logs.prod.web",
        linked_at_ms=at_ms,
        resolved_at_ms=at_ms if is_resolved else None,
        group=(GroupValue(name="service", value=f"web-{number}"),),
    )
    return Revision(
        kind="resolved" if is_resolved else "opened",
        incident=Incident(
            id=f"inc_{number}",
            created_at_ms=at_ms,
            updated_at_ms=at_ms,
            status="resolved" if is_resolved else "opened",
            url=f"https://console.example/incidents/inc_{number}",
            title="Errors of a service",
            affected_monitors=(affected,),
        ),
    )


def _latencies(control: ControlStore) -> dict[str, float]:
    with control._reading() as connection:
        waits_ms = [
            wait_s * 1000
            for (wait_s,) in connection.execute(
                "SELECT time - created_at FROM attempts JOIN deliveries USING (delivery_id)"
                " WHERE state = 'delivered'"
            )
        ]
    cuts = statistics.quantiles(waits_ms, n=100)
    return {"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1)}
