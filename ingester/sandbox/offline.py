"""A query on a stopped server's folder, in the same kind of process as beside a running one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from ..config import StoreConfig
from ..store.database import StoreBroken
from ..store.increments import Increments
from ..store.offline import opened_store
from ..store.rollups import Rollups
from .messages import Format
from .queries import AskLimits, Queries

__all__ = ["query"]


async def query(
    data_dir: Path,
    config: StoreConfig,
    sql: str,
    format_name: Format,
    write: Callable[[bytes], object],
    limits: AskLimits | None = None,
) -> None:
    """Raises what `Queries.ask` does, and NotFound or StoreBusy for the folder."""
    with opened_store(data_dir, config) as store:
        rollups = await trio.to_thread.run_sync(Rollups, store)
        increments = Increments(store, data_dir / "export", rollups)
        await trio.to_thread.run_sync(increments.open)

        def recover(error: StoreBroken) -> None:
            store.recover(error.generation)

        queries = Queries(increments, lambda: config, on_broken=recover)
        try:
            async with await queries.ask(sql, format_name, limits=limits) as answer:
                while piece := await answer.receive():
                    write(piece)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(increments.close)
