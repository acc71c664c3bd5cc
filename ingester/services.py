"""What the console and the command line can ask of the running process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import trio

from .config import Config
from .console.metrics import make_registry, metrics_text
from .console.services import Conflict, Document, InvalidField, QueryAnswer
from .doors.admission import Admission
from .messages import natero_url
from .store.control import ControlStore, SourceExists, SourceKeys
from .store.database import StoreBroken
from .store.reader import check_parts, select
from .store.store import Store

__all__ = ["ProcessServices", "reload_keys"]


T = TypeVar("T")


class ProcessServices:
    """Implements `console.services.Services` over the topology's objects."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        intake_url: Callable[[], str],
        admission: Admission,
        control: ControlStore,
        store: Store,
        problems: Sequence[str],
        statistics: Callable[[], Mapping[str, Mapping[str, object]]],
    ) -> None:
        self._config = config
        self._intake_url = intake_url
        self._admission = admission
        self._control = control
        self._store = store
        self._problems = problems
        self._queries = trio.CapacityLimiter(2)
        self.statistics = statistics
        self._registry = make_registry(statistics)

    def ready(self) -> tuple[bool, list[str]]:
        reasons = self._admission.readiness()
        return not reasons, reasons

    def metrics_text(self) -> bytes:
        return metrics_text(self._registry)

    def viewer_requests(self) -> Sequence[Document]:
        return self._admission.viewer.documents()

    async def query(self, sql: str) -> QueryAnswer:
        seconds_max = self._config().store.query_seconds_max
        rows = await self._read(lambda: select(self._store, sql, seconds_max=seconds_max))
        return QueryAnswer(columns=rows.columns, types=rows.types, rows=rows.rows)

    async def create_source(
        self, name: str, *, lenient_session: bool, requests_per_hour: int
    ) -> Document:
        def create() -> SourceKeys:
            return self._control.create_source(
                name, lenient_session=lenient_session, requests_per_hour=requests_per_hour
            )

        try:
            made = await trio.to_thread.run_sync(create)
        except SourceExists as error:
            raise Conflict(str(error)) from error
        except ValueError as error:
            raise InvalidField("name", str(error)) from error
        await reload_keys(self._control, self._admission)
        return self._made(made)

    async def list_sources(self) -> Sequence[Document]:
        sources = await trio.to_thread.run_sync(self._control.list_sources)
        return [source.document() for source in sources]

    async def rotate_source(self, name: str, *, overlap_seconds: int) -> Document:
        made = await trio.to_thread.run_sync(
            lambda: self._control.rotate_source(name, overlap_seconds=overlap_seconds)
        )
        await reload_keys(self._control, self._admission)
        return self._made(made)

    async def revoke_source(self, name: str) -> Document:
        revoked = await trio.to_thread.run_sync(self._control.revoke_source, name)
        await reload_keys(self._control, self._admission)
        return {"source": name, "revoked": revoked}

    async def check(self) -> list[str]:
        found = await self._read(lambda: check_parts(self._store))
        return [*self._problems, *found]

    async def _read(self, read: Callable[[], T]) -> T:
        """Read the store; one that is found broken is reopened for the next who asks."""
        try:
            return await trio.to_thread.run_sync(read, limiter=self._queries)
        except StoreBroken as error:
            await trio.to_thread.run_sync(
                self._store.recover, error.generation, limiter=self._queries
            )
            raise

    def _made(self, made: SourceKeys) -> Document:
        base = self._config().intake.public_url or self._intake_url()
        return {
            "source": made.source.name,
            "lenient_session": made.source.lenient_session,
            "requests_per_hour": made.source.requests_per_hour,
            "auth_key": made.auth_key,
            "api_key": made.api_key,
            "url": natero_url(base, made.auth_key, made.api_key),
        }


async def reload_keys(control: ControlStore, admission: Admission) -> None:
    """Make a change of keys effective in the running doors."""
    admission.keys.replace(await trio.to_thread.run_sync(control.key_table, time.time()))
