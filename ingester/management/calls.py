"""What travels between who asks, the dispatcher and the functions behind the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Literal, Protocol, TypeVar

from msgspec import Struct

from ingester.delivery.exchange import Exchange, Target
from ingester.messages import ReplayOutcome
from ingester.store.control import ControlStore, MemberRole, Session
from ingester.store.reject_rows import (
    RejectCount,
    RejectFilter,
    RejectKey,
    RejectPage,
    StoredReject,
)
from ingester.watch.alerts import AlertWindow, Outcome
from ingester.watch.backtest import Backtest
from ingester.watch.settings import Alert, Monitor

__all__ = [
    "LOCAL_ADMIN",
    "NOBODY",
    "Actor",
    "Answer",
    "Call",
    "DeliveryDesk",
    "Links",
    "NeededRole",
    "Nothing",
    "RejectDesk",
    "WatchDesk",
]

# What a route asks for; "anyone" needs no sign-in.
NeededRole = Literal["anyone", "viewer", "admin"]


class Actor(Struct, frozen=True, kw_only=True):
    """Who asks. `name` is what the audit list shows; `role` None: nobody signed in."""

    name: str
    role: MemberRole | None
    session: Session | None = None


NOBODY = Actor(name="", role=None)
# Whoever may open the data folder: the control socket, or the files themselves.
LOCAL_ADMIN = Actor(name="local", role="admin")


class Links(Struct, frozen=True, kw_only=True):
    """Bases of links, asked for when needed: ports and settings change while running."""

    intake: Callable[[], str]
    console: Callable[[], str]


class RejectDesk(Protocol):
    """Who reads rejects, and sends them through their door again. Blocking."""

    @property
    def can_replay(self) -> bool: ...

    def page(
        self,
        wanted: RejectFilter,
        *,
        limit: int,
        after: RejectKey | None,
        oldest_first: bool = False,
    ) -> RejectPage:
        """Newest first, unless told otherwise, behind `after`. Perhaps fewer than `limit`."""

    def find(self, keys: Sequence[RejectKey]) -> list[StoredReject]: ...

    def counts(self, wanted: RejectFilter) -> list[RejectCount]: ...

    def replay(
        self,
        rejects: Sequence[StoredReject],
        edits: Mapping[str, bytes],
        *,
        dry_run: bool,
        actor: str,
    ) -> list[ReplayOutcome]:
        """What became of each; `edits` by id. Raises Overloaded before anything is sent."""


class DeliveryDesk(Protocol):
    """Who sends to destinations. Blocking."""

    def send(self, target: Target, event_id: str, body: bytes) -> Exchange:
        """One attempt on the way that all deliveries take."""

    def ring(self) -> None:
        """There is something new in the outbox, or a destination has changed."""


class WatchDesk(Protocol):
    """Who evaluates alerts and monitors over stored data. Blocking."""

    def check_sql(self, field: str, sql: str, window: AlertWindow) -> None:
        """Raise RequestError with the field when a query cannot be run."""

    def run_alert(self, alert: Alert, window: AlertWindow) -> Outcome:
        """What a run over a window finds now."""

    def backtest(self, monitor: Monitor, first: int, last: int) -> Backtest:
        """What a monitor would have done in these buckets, both included."""


class Answer(Struct, frozen=True, kw_only=True):
    """A status and a JSON-ready document. `session_secret` is for a cookie, "" to remove it."""

    status: int
    document: Mapping[str, object]
    is_change: bool = False
    session_secret: str | None = None
    session_seconds: int = 0
    allow: str = ""

    def __repr__(self) -> str:
        return f"Answer({self.status})"


class Nothing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body or a query that has nothing to say."""


BodyT = TypeVar("BodyT", bound=Struct)
QueryT = TypeVar("QueryT", bound=Struct)


class Call(Struct, Generic[BodyT, QueryT], kw_only=True):
    """One validated request. `names` are the variable parts of the path."""

    control: ControlStore
    links: Links
    actor: Actor
    names: Mapping[str, str]
    body: BodyT
    query: QueryT
    session_seconds: int
    session_secret: str | None = None
    rejects: RejectDesk | None = None
    delivery: DeliveryDesk | None = None
    watch: WatchDesk | None = None
