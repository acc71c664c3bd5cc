"""What the console needs from the rest of the process, as one narrow interface.

The console never holds the store, the journal or an actor; the topology gives it an object of
this shape. Tests give it a fake.

Rules for implementers:

1. The three plain methods (`ready`, `statistics`, `viewer_requests`) and `metrics_text` answer
   from memory and never block: they run on the event loop.
2. The async methods may be cancelled at any await when the client leaves.
3. What the client did wrong is a `RequestError` with its sentence (`NotFound` for a name that
   does not exist, `Conflict` for one that is taken). A `column` or `field` attribute on it is
   passed on. `StoreBusy` and `Overloaded` become 503; everything else is our fault (500).
4. Documents are JSON-ready mappings; they hold a key only where it was made or asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ingester.doors.metric_labels import LabelWarning
from ingester.management import Actor, Answer
from ingester.sandbox.messages import Format
from ingester.search import Searches
from ingester.store.retention import Retention

__all__ = ["Document", "QueryStream", "Services"]

Document = Mapping[str, object]


class QueryStream(Protocol):
    """The result of one SELECT, in the format asked for."""

    content_type: str

    async def receive(self) -> bytes:
        """The next piece, b"" after the last. Raises QueryCut when the rest does not come."""

    async def aclose(self) -> None:
        """No more is wanted. May be called again."""


class Services(Protocol):
    """The process behind the console."""

    @property
    def searches(self) -> Searches:
        """Searches over logs, events and metrics, as `ingester.search.ROUTES` lists them."""

    def ready(self) -> tuple[bool, list[str]]:
        """Whether requests are taken; when not, why, in sentences anyone may read."""

    def statistics(self) -> Mapping[str, Mapping[str, object]]:
        """A snapshot per actor, in the form `console.metrics` describes."""

    def metrics_text(self) -> bytes:
        """The same in the Prometheus text format (`console.metrics.metrics_text`)."""

    def viewer_requests(self) -> Sequence[Document]:
        """The newest requests of the test door, newest first, without keys."""

    def metric_warnings(self) -> Sequence[LabelWarning]:
        """Metrics whose name or unit has changed, the newest change first."""

    async def query(self, sql: str, format_name: Format) -> QueryStream:
        """One read-only SELECT over the public schema, run where it cannot hurt. Close it."""

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
        """All rows of a table within a span, streamed; one at a time. Close it."""

    async def backup(self, directory: str, *, with_secrets: bool) -> QueryStream:
        """Copy everything into a folder of this machine, told line by line. Close it."""

    async def authenticate(
        self, authorization: bytes | None, session_secret: str | None, address: str
    ) -> Actor:
        """Who sent these: a token that may read or administer, else a session; nobody when there
        is neither. Raises Unauthorized or Forbidden, slowed for a key nobody has.
        """

    async def manage(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes,
        actor: Actor,
        address: str,
    ) -> Answer:
        """A management route (`ingester.management`). A change of keys is in effect when this
        returns; a failed sign-in is slowed.
        """

    def trusted_proxies(self) -> Sequence[str]:
        """CIDRs whose `X-Forwarded-*` count."""

    def intake_url(self) -> str:
        """Where data is sent: scheme, host and port."""

    def public_url(self) -> str:
        """The console's own address as configured, "" when it is not."""

    async def retention(self) -> Retention:
        """What is kept how long, and which rows are removed next."""

    async def check(self) -> list[str]:
        """Problems found in the data folder, in sentences; empty when all is well."""
