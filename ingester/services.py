"""What the console and the command line can ask of the running process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import trio
from msgspec import structs

from .actors.delivery import DeliveryCounters
from .actors.maintenance import save_quotas, save_usage
from .config import Config
from .console.metrics import make_registry, metrics_text
from .console.services import Document, QueryStream
from .delivery_desk import ProcessDesk
from .doors.admission import Admission
from .doors.auth import bearer_key
from .doors.key_ring import UnknownKey
from .doors.metric_labels import LabelWarning
from .doors.replay import Replayer
from .errors import Forbidden, InvalidField, Overloaded, Unauthorized
from .flow import Doorbell
from .journal import JournalWriter
from .management import Actor, Answer, Links, Management
from .management.calls import NOBODY
from .messages import Scope
from .reject_desk import StoreDesk
from .safekeeping.backup import BackupSource, back_up, told
from .safekeeping.check import check_running
from .safekeeping.copies import Pace
from .safekeeping.export import export_sql
from .safekeeping.niced import niced
from .safekeeping.stream import WorkStream
from .sandbox.messages import Format
from .sandbox.queries import EXPORT_LIMITS, Queries
from .search import Searches
from .store.control import ControlStore, MemberRole
from .store.database import StoreBroken
from .store.retention import Keeping, Retention, retention_of
from .store.rollups import Rollups
from .store.store import Store
from .watch_desk import ProcessWatchDesk

__all__ = ["FIRST_RUN_FILE", "ProcessServices", "reload_keys"]

# What the first start tells when nobody looks on; removed after set-up.
FIRST_RUN_FILE = "first-run.txt"

_ROLE_BY_SCOPE: tuple[tuple[Scope, MemberRole], ...] = (("admin", "admin"), ("read", "viewer"))

# A hash takes a quarter of a second: the last of them waits five.
_SIGN_INS_WAITING_MAX = 20

T = TypeVar("T")


class ProcessServices:
    """Implements `console.services.Services` over the topology's objects."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        intake_url: Callable[[], str],
        console_url: Callable[[], str],
        admission: Admission,
        control: ControlStore,
        store: Store,
        queries: Queries,
        journal: JournalWriter,
        rollups: Rollups,
        problems: Sequence[str],
        next_number: Callable[[], int],
        keeping: Callable[[], Keeping],
        outbox: Doorbell,
        delivery: DeliveryCounters,
        statistics: Callable[[], Mapping[str, Mapping[str, object]]],
    ) -> None:
        self._config = config
        self._intake_url = intake_url
        self._console_url = console_url
        self._admission = admission
        self._control = control
        self._store = store
        self._journal = journal
        self._is_backing_up = False
        self._problems = problems
        self._keeping = keeping
        self._sql = queries
        self._reads = trio.CapacityLimiter(2)
        self.searches = Searches(
            store,
            seconds_max=lambda: config().store.query_seconds_max,
            rollups=rollups,
            metric_warning=admission.metric_labels.warning_of,
        )
        self._sign_ins = trio.CapacityLimiter(1)
        replayer = Replayer(admission, control=control, store=store, next_number=next_number)
        self._rejects = StoreDesk(store, replayer)
        self._delivery = ProcessDesk(lambda: config().delivery, outbox, delivery)
        self._watch = ProcessWatchDesk(config, store, queries)
        self._statistics = statistics
        self._registry = make_registry(self.statistics)

    def ready(self) -> tuple[bool, list[str]]:
        reasons = self._admission.readiness()
        return not reasons, reasons

    def statistics(self) -> Mapping[str, Mapping[str, object]]:
        return {**self._statistics(), "search": self.searches.statistics()}

    def metrics_text(self) -> bytes:
        return metrics_text(self._registry)

    def viewer_requests(self) -> Sequence[Document]:
        return self._admission.viewer.documents()

    def metric_warnings(self) -> Sequence[LabelWarning]:
        return self._admission.metric_labels.warnings()

    async def query(self, sql: str, format_name: Format = "json") -> QueryStream:
        return await self._sql.ask(sql, format_name)

    async def export(
        self,
        *,
        table: str,
        format_name: Format,
        since: str | None,
        until: str | None,
        by: str,
        where: str | None,
        is_for_spreadsheets: bool,
    ) -> QueryStream:
        sql = export_sql(table, since=since, until=until, by=by, where=where)
        limits = structs.replace(EXPORT_LIMITS, is_for_spreadsheets=is_for_spreadsheets)
        return await self._sql.ask(sql, format_name, limits=limits)

    async def backup(self, directory: str, *, with_secrets: bool) -> QueryStream:
        target = Path(directory)
        if not target.is_absolute():
            raise InvalidField("directory", f"directory must be absolute; got {directory!r}")
        if self._is_backing_up:
            raise Overloaded("a backup is under way already; wait for its end", retry_after_s=30)
        self._is_backing_up = True
        source = BackupSource(
            store=self._store,
            data_dir=Path(self._config().store.data_dir),
            next_seq=lambda: self._journal.next_seq,
            keep_above=self._journal.keep_above,
        )

        def work(pace: Pace) -> Mapping[str, object]:
            return told(*back_up(source, target, with_secrets=with_secrets, pace=pace))

        def at_end() -> None:
            self._is_backing_up = False

        return WorkStream(work, at_end=at_end)

    async def authenticate(
        self, authorization: bytes | None, session_secret: str | None, address: str
    ) -> Actor:
        if authorization is not None:
            return await self._authenticate_token(authorization, address)
        if session_secret:
            session = await trio.to_thread.run_sync(self._control.session, session_secret)
            if session is not None:
                member = session.member
                return Actor(name=member.email or member.id, role=member.role, session=session)
        return NOBODY

    async def _authenticate_token(self, authorization: bytes, address: str) -> Actor:
        admission = self._admission
        try:
            credential = admission.keys.credential_of(bearer_key(authorization))
        except Unauthorized as error:
            admission.usage.refuse("", status=401, reason=str(error), address=address, path="/api")
            if isinstance(error, UnknownKey):
                await admission.failures.slow_down(address)
            raise
        for scope, role in _ROLE_BY_SCOPE:
            if scope in credential.scopes and credential.kind == "token":
                admission.usage.count(credential.credential, address=address)
                return Actor(name=credential.id, role=role)
        sentence = "this key is for sending data; the console takes a read or admin token"
        if credential.kind == "connection":
            raise Unauthorized(sentence)
        raise Forbidden(sentence)

    async def manage(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes,
        actor: Actor,
        address: str,
    ) -> Answer:
        await save_usage(self._control, self._admission.usage)
        await save_quotas(self._control, self._admission.quotas)
        if actor.role is None:
            return await self._sign_in(method, path, body, address)
        # Shielded: a client that leaves must not keep a revoked key alive in the doors.
        with trio.CancelScope(shield=True):
            answer = await trio.to_thread.run_sync(
                self._management().handle, method, path, query, body, actor
            )
            if answer.is_change:
                await reload_keys(self._control, self._admission)
        if answer.status == 401:  # a wrong present password: someone guesses at an open session
            await self._admission.failures.slow_down(address)
        return answer

    async def _sign_in(self, method: str, path: str, body: bytes, address: str) -> Answer:
        """Routes for anyone: hashing is bounded to one at a time, a failed attempt is slowed."""
        if self._sign_ins.statistics().tasks_waiting >= _SIGN_INS_WAITING_MAX:
            raise Overloaded("too many are signing in; try again shortly", retry_after_s=2)

        def handle() -> Answer:
            answer = self._management().handle(method, path, {}, body, NOBODY)
            if answer.status == 200 and path.rstrip("/").endswith("/setup"):
                # What the first start wrote down is of no more use, and holds keys.
                data_dir = Path(self._config().store.data_dir)
                (data_dir / FIRST_RUN_FILE).unlink(missing_ok=True)
            return answer

        answer = await trio.to_thread.run_sync(handle, limiter=self._sign_ins)
        if answer.status == 401:
            await self._admission.failures.slow_down(address)
        return answer

    def _management(self) -> Management:
        return Management(
            self._control,
            Links(intake=self._intake_base, console=self._console_base),
            session_seconds=self._config().console.session_hours * 3600,
            rejects=self._rejects,
            delivery=self._delivery,
            watch=self._watch,
        )

    def _intake_base(self) -> str:
        return self._config().intake.public_url or self._intake_url()

    def _console_base(self) -> str:
        return self._config().console.public_url or self._console_url()

    def trusted_proxies(self) -> Sequence[str]:
        return self._config().intake.trusted_proxies

    def intake_url(self) -> str:
        return self._intake_base()

    def public_url(self) -> str:
        return self._config().console.public_url

    async def check(self) -> list[str]:
        data_dir = Path(self._config().store.data_dir)
        return await self._read(
            lambda: niced(lambda: check_running(self._store, data_dir, at_start=self._problems))
        )

    async def retention(self) -> Retention:
        def read() -> Retention:
            return retention_of(
                self._store.sealed.all_files(),
                self._keeping(),
                stored_bytes=self._store.stored_bytes(),
                now=time.time(),
            )

        return await self._read(read)

    async def _read(self, read: Callable[[], T]) -> T:
        """Read the store; one that is found broken is reopened for the next who asks."""
        try:
            return await trio.to_thread.run_sync(read, limiter=self._reads)
        except StoreBroken as error:
            await trio.to_thread.run_sync(
                self._store.recover, error.generation, limiter=self._reads
            )
            raise


async def reload_keys(control: ControlStore, admission: Admission) -> None:
    """Make a change of keys effective in the running doors. One at a time: what was read later
    also counts later.
    """
    async with admission.keys.turn:
        tables = await trio.to_thread.run_sync(control.key_tables)
        try:
            if any(source.dedup_field is not None for source in tables.sources.values()):
                await trio.to_thread.run_sync(admission.dedup.prepare, tables.sources.values())
        finally:
            admission.keys.take(tables)
