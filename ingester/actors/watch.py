"""Watch actor: rules behind each commit, alerts and monitors by the clock, the ends of quiet rules.

One task a kind, so that a slow alert never holds up a rule. What blocks runs in threads of its own
that are niced: taking data comes first. Each look begins with what the control store says, so a
bell that was lost costs a second.

1. A round that failed changed nothing; it is done again after a wait, and shown.
2. Ends by cancellation; a transaction under way is waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog
import trio
from msgspec import Struct

from ..errors import StoreError, StoreFailed
from ..flow import Doorbell
from ..search.threads import SearchThreads
from ..store.database import StoreBroken
from ..store.store import Store
from ..watch.rules import RuleEngine

__all__ = ["WatchCounters", "run_rules"]

_log = structlog.get_logger()

_LOOK_S = 1.0
_FAILED_WAIT_S = 2.0


class WatchCounters(Struct):
    """What watching has done since the start."""

    rule_groups: int = 0
    rule_rows: int = 0
    rule_matches: int = 0
    rule_failures: int = 0
    alert_runs: int = 0
    alert_failures: int = 0
    monitor_buckets: int = 0
    monitor_failures: int = 0
    messages: int = 0

    def statistics(self) -> dict[str, int]:
        return {f"{name}_total": getattr(self, name) for name in self.__struct_fields__}


async def run_rules(
    make_engine: Callable[[], RuleEngine],
    *,
    store: Store,
    outbox: Doorbell,
    counters: WatchCounters,
) -> None:
    """Evaluate what is committed, as it is; rings `outbox` when something is to be told."""
    bell = Doorbell()
    token = trio.lowlevel.current_trio_token()

    def ring() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(bell.ring, idempotent=True)

    threads = SearchThreads("rules", threads_max=1, waiting_max=1)
    engine = make_engine()
    store.listen(ring)
    try:
        while True:
            await _guarded(
                "rules", partial(_rule_round, engine, threads, outbox, counters), store, counters
            )
            with trio.move_on_after(_LOOK_S):
                await bell.wait()
    finally:
        store.unlisten(ring)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_end, engine)
        threads.close()


async def _rule_round(
    engine: RuleEngine, threads: SearchThreads, outbox: Doorbell, counters: WatchCounters
) -> None:
    done = await threads.run(engine.round)
    counters.rule_groups += done.groups
    counters.rule_rows += done.rows
    counters.rule_matches += done.matches
    told = done.told
    if not done.groups:
        told += await threads.run(lambda _: engine.resolve_quiet())
    counters.messages += told
    if told:
        outbox.ring()


def _end(engine: RuleEngine) -> None:
    try:
        engine.save()
    except StoreError as error:
        _log.warning("rule cursor not stored, the last batches are looked at again", reason=error)
    engine.close()


async def _guarded(
    kind: str,
    look: Callable[[], Awaitable[None]],
    store: Store,
    counters: WatchCounters,
) -> None:
    """One look; what the store cannot do now is tried again later."""
    try:
        await look()
    except StoreFailed:
        raise
    except StoreError as error:
        name = f"{kind.rstrip('s')}_failures"
        setattr(counters, name, getattr(counters, name) + 1)
        _log.warning("watching put off", kind=kind, reason=str(error))
        if isinstance(error, StoreBroken):
            await trio.to_thread.run_sync(store.recover, error.generation)
        await trio.sleep(_FAILED_WAIT_S)
