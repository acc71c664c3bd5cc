"""The delivery actor: sends what is in the outbox, at least once, each destination by itself.

```
outbox ─► feeder ─(≤ HELD_MAX held)─► lane: worker × concurrency ─► recorder ─► control store
  ▲          one for all                one lane a destination        one transaction
  └───────────────────────── doorbell ◄──────────────────────────────  a batch of attempts
```

Invariants:

1. What is sent stays pending in the store until its attempt is recorded: a crash between the two
   sends the same bytes under the same id again, and loses nothing.
2. A delivery is *held* from the moment it is taken until its attempt is recorded; the store hands
   out only the oldest of an incident, so `resolved` is not even looked at while `opened` is held.
3. A lane waits for its own receiver only: it has its own connections, resolver threads, workers,
   pace and pauses. What all share is the store.
4. Waits are counted by the monotonic clock from the wall clock's word at the start: a clock that is
   set while we run makes nothing come sooner or later.
5. When told to stop, no attempt is begun; those under way end, within the exchange's time limit,
   and are recorded.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import structlog
import trio
from msgspec import Struct

from ingester.config import DeliveryConfig
from ingester.delivery.addresses import parse_networks
from ingester.delivery.client import Client, make_tls_context
from ingester.delivery.exchange import Exchange, Target
from ingester.delivery.schedule import Delivered, Final, Gone, Outcome, Retry, judged
from ingester.errors import StoreBusy
from ingester.flow import Doorbell
from ingester.store.control import Attempted, ControlStore, DueDelivery, TargetRow

__all__ = ["HELD_MAX", "DeliveryCounters", "run"]

_log = structlog.get_logger()

T = TypeVar("T")

# Of one destination, taken and not yet recorded. Enough that a lane never waits for the feeder:
# 50 deliveries a second in batches of some 20 ms.
HELD_MAX = 64
# The same in bytes of bodies, which may have 4 MiB each: with this much held nothing more is taken.
_HELD_BYTES_MAX = 4 * 1024 * 1024

_POLL_SECONDS = 1.0
_BUSY_SECONDS = 0.5
_RECORDED_MAX = 500
_UPKEEP_SECONDS = 10.0
_PRUNE_SECONDS = 3600.0
_DAY_S = 86_400
# The longest wait with its jitter.
_WAIT_SECONDS_MAX = 1.2 * _DAY_S


class DeliveryCounters:
    """Figures of the actor, kept over its restarts."""

    def __init__(self) -> None:
        self.attempts: dict[str, int] = {}
        self.in_flight = 0
        self.waiting: dict[str, int] = {"pending": 0, "dead": 0}
        self.destinations = 0
        self.problems: dict[str, str] = {}
        # A person has asked for something: no lane waits because a receiver once said so.
        self.lifts_pauses = False

    def count(self, outcome: Outcome) -> None:
        name = _OUTCOME_NAMES[type(outcome)]
        self.attempts[name] = self.attempts.get(name, 0) + 1

    def statistics(self) -> dict[str, object]:
        return {
            "attempts_total": {"by_outcome": dict(self.attempts)},
            "in_flight": self.in_flight,
            "destinations": self.destinations,
            "unreadable_destinations": len(self.problems),
            "deliveries": {"by_state": dict(self.waiting)},
        }


_OUTCOME_NAMES: Mapping[type[object], str] = {
    Delivered: "delivered",
    Retry: "retry",
    Final: "final",
    Gone: "gone",
}


class _Context(Struct):
    """What feeder, lanes and recorder share."""

    control: ControlStore
    bell: Doorbell
    stop: trio.Event
    settings: Callable[[], DeliveryConfig]
    console_base: Callable[[], str]
    counters: DeliveryCounters
    tls: ssl.SSLContext
    results: trio.MemorySendChannel[Attempted]
    # What reads and writes the control store for us: one thread, so that a long queue of others
    # who ask for threads does not come first.
    turn: trio.CapacityLimiter
    held: dict[int, dict[int, int]]
    wall_offset_s: float

    def now_s(self) -> float:
        return self.wall_offset_s + trio.current_time()

    def release(self, delivery: DueDelivery) -> None:
        self.held[delivery.destination_number].pop(delivery.delivery_id, None)

    def room(self, number: int) -> int:
        held = self.held[number]
        return 0 if sum(held.values()) >= _HELD_BYTES_MAX else HELD_MAX - len(held)


class _Lane:
    """A destination's queue and pace. `paused_until` and `next_at` are of the monotonic clock."""

    def __init__(self, row: TargetRow, target: Target) -> None:
        self.version = row.version
        self.name = row.name
        self.target = target
        self.send, self.receive = trio.open_memory_channel[DueDelivery](HELD_MAX)
        self.stop = trio.Event()
        self.paused_until = 0.0
        self.next_at = 0.0

    def end(self) -> None:
        self.stop.set()
        self.send.close()

    async def wait_turn(self, interval_s: float) -> bool:
        """Until the pace allows one more; False when the lane ends first."""
        while not self.stop.is_set():
            now = trio.current_time()
            if now < self.paused_until:
                at = self.paused_until
            elif now < self.next_at:
                at = self.next_at
            else:
                self.next_at = max(now, self.next_at) + interval_s
                return True
            with trio.move_on_at(at):
                await self.stop.wait()
        return False


async def run(
    *,
    control: ControlStore,
    bell: Doorbell,
    stop: trio.Event,
    settings: Callable[[], DeliveryConfig],
    console_base: Callable[[], str],
    counters: DeliveryCounters,
) -> None:
    """Deliver until `stop`, then let what is under way end."""
    tls = await trio.to_thread.run_sync(make_tls_context, settings().tls_ca_file)
    results_send, results = trio.open_memory_channel[Attempted](_RECORDED_MAX)
    context = _Context(
        control=control,
        bell=bell,
        stop=stop,
        settings=settings,
        console_base=console_base,
        counters=counters,
        tls=tls,
        results=results_send,
        turn=trio.CapacityLimiter(2),
        held={},
        wall_offset_s=time.time() - trio.current_time(),
    )
    await _in_thread(context, control.bound_waits, context.now_s(), _WAIT_SECONDS_MAX)
    counters.in_flight = 0
    async with trio.open_nursery() as recording:
        recording.start_soon(_record_all, context, results)
        async with results_send, trio.open_nursery() as lanes:
            lanes.start_soon(_keep_house, context)
            await _feed(context, lanes)


async def _feed(context: _Context, nursery: trio.Nursery) -> None:
    """Hand out what is due until told to stop."""
    lanes: dict[int, _Lane] = {}
    try:
        while not context.stop.is_set():
            try:
                await _feed_once(context, nursery, lanes)
            except StoreBusy as error:
                _log.warning("outbox not read, trying again", reason=str(error))
                await trio.sleep(_BUSY_SECONDS)
            with trio.move_on_after(_POLL_SECONDS):
                await _wait_either(context.bell, context.stop)
    finally:
        for lane in lanes.values():
            lane.end()


async def _wait_either(bell: Doorbell, stop: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait_stop() -> None:
            await stop.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_stop)
        await bell.wait()
        nursery.cancel_scope.cancel()


async def _feed_once(context: _Context, nursery: trio.Nursery, lanes: dict[int, _Lane]) -> None:
    now = trio.current_time()
    if context.counters.lifts_pauses:
        context.counters.lifts_pauses = False
        for number in [number for number, lane in lanes.items() if now < lane.paused_until]:
            lanes.pop(number).end()  # a new one is made below
    room = {
        number: 0 if now < lane.paused_until else context.room(number)
        for number, lane in lanes.items()
    }
    look = partial(
        context.control.due,
        context.now_s(),
        known={number: lane.version for number, lane in lanes.items()},
        held={number: tuple(sizes) for number, sizes in context.held.items() if sizes},
        room=room,
        room_default=HELD_MAX,
    )
    due = await _in_thread(context, look)
    _settle_lanes(context, nursery, lanes, due.targets)
    for delivery in due.deliveries:
        lane = lanes.get(delivery.destination_number)
        if lane is not None and len(context.held[delivery.destination_number]) < HELD_MAX:
            held = context.held[delivery.destination_number]
            held[delivery.delivery_id] = len(delivery.body)
            lane.send.send_nowait(delivery)


def _settle_lanes(
    context: _Context,
    nursery: trio.Nursery,
    lanes: dict[int, _Lane],
    rows: Sequence[TargetRow],
) -> None:
    """Lanes for the destinations that are enabled now, with their present settings."""
    context.counters.problems = {row.name: row.problem for row in rows if row.problem}
    context.counters.destinations = len(rows)
    by_number = {row.number: row for row in rows if row.problem is None}
    for number in [number for number in lanes if number not in by_number]:
        lanes.pop(number).end()
    for number, row in by_number.items():
        if row.settings is None:
            continue
        paused_until = 0.0
        if number in lanes:
            paused_until = lanes[number].paused_until
            lanes.pop(number).end()
        context.held.setdefault(number, {})
        lane = lanes[number] = _Lane(row, Target(type=row.type, settings=row.settings))
        lane.paused_until = paused_until
        nursery.start_soon(_run_lane, context, lane)


async def _run_lane(context: _Context, lane: _Lane) -> None:
    client = Client(
        lane.target,
        allow_networks=lambda: parse_networks(context.settings().allow_networks),
        tls=context.tls,
    )
    async with client, trio.open_nursery() as workers:
        for _ in range(context.settings().concurrency_per_destination_max):
            workers.start_soon(_work, context, lane, client)


async def _work(context: _Context, lane: _Lane, client: Client) -> None:
    """Send one delivery after the other. What the lane's end leaves over is given back."""
    is_incident_io = lane.target.type == "incident_io"
    async for delivery in lane.receive:
        settings = context.settings()
        interval_s = 60 / settings.incident_io_events_per_minute if is_incident_io else 0.0
        if context.stop.is_set() or not await lane.wait_turn(interval_s):
            context.release(delivery)
            context.bell.ring()
            continue
        context.counters.in_flight += 1
        try:
            exchange = await _exchange(client, delivery, settings.timeout_seconds_max)
        finally:
            context.counters.in_flight -= 1
        outcome = judged(
            exchange.status,
            exchange.headers,
            exchange.answer,
            attempt=delivery.attempt,
            is_incident_io=is_incident_io,
            now_s=time.time(),
        )
        if isinstance(outcome, Retry) and outcome.pause_s:
            lane.paused_until = max(lane.paused_until, trio.current_time() + outcome.pause_s)
        await context.results.send(
            Attempted(
                delivery=delivery,
                time_s=time.time(),
                status=exchange.status,
                latency_ms=exchange.latency_ms,
                error=exchange.error,
                answer=exchange.answer.decode("utf-8", "replace"),
                outcome=outcome,
            )
        )


async def _exchange(client: Client, delivery: DueDelivery, seconds_max: int) -> Exchange:
    try:
        return await client.send(delivery.event_id, delivery.body, seconds_max=seconds_max)
    except Exception as error:  # a bug that one receiver brings out must not stop the others
        _log.error("delivery failed by a fault of ours", exc_info=error)
        return Exchange(
            status=None,
            headers={},
            answer=b"",
            latency_ms=0.0,
            error=f"a fault of ours: {type(error).__name__}",
        )


async def _record_all(context: _Context, results: trio.MemoryReceiveChannel[Attempted]) -> None:
    """Write attempts down, as many at a time as have gathered. Ends with the last lane."""
    async with results:
        async for first in results:
            batch = [first]
            while len(batch) < _RECORDED_MAX:
                try:
                    batch.append(results.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            await _record(context, batch)
            for one in batch:
                context.release(one.delivery)
                context.counters.count(one.outcome)
            context.bell.ring()


async def _record(context: _Context, batch: list[Attempted]) -> None:
    record = partial(
        context.control.record_attempts,
        batch,
        now_s=context.now_s(),
        disable_after_s=context.settings().disable_hours * 3600,
        console_base=context.console_base(),
    )
    while True:
        try:
            disabled = await _in_thread(context, record)
        except StoreBusy as error:
            _log.warning("attempts not recorded, trying again", reason=str(error))
            await trio.sleep(_BUSY_SECONDS)
            continue
        for name in disabled:
            _log.error("destination disabled", destination=name)
        return


async def _keep_house(context: _Context) -> None:
    """Count what waits, and remove what nobody asks for any more."""
    pruned_at = -_PRUNE_SECONDS
    while not context.stop.is_set():
        try:
            context.counters.waiting = await _in_thread(context, context.control.delivery_counts)
            if trio.current_time() - pruned_at >= _PRUNE_SECONDS:
                before_s = context.now_s() - context.settings().keep_days * _DAY_S
                while await _in_thread(context, context.control.prune_messages, before_s):
                    pass
                pruned_at = trio.current_time()
        except StoreBusy as error:
            _log.warning("outbox not looked after, trying again", reason=str(error))
        with trio.move_on_after(_UPKEEP_SECONDS):
            await context.stop.wait()


async def _in_thread(context: _Context, function: Callable[..., T], *args: object) -> T:
    return await trio.to_thread.run_sync(function, *args, limiter=context.turn)
