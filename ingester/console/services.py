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
4. Documents are JSON-ready mappings; they hold a key only where it has just been made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from ingester.errors import RequestError

__all__ = ["Conflict", "Document", "InvalidField", "QueryAnswer", "Services"]

Document = Mapping[str, object]


class Conflict(RequestError):
    """The named thing exists already, or is in a state that forbids this."""

    status_hint = 409


class InvalidField(RequestError):
    """A well-formed request whose `field` has a value that cannot be taken."""

    status_hint = 422

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class QueryAnswer(Struct, frozen=True, kw_only=True):
    """Rows of one SELECT as Python values; `types` are DuckDB's type names, one per column."""

    columns: list[str]
    types: list[str]
    rows: list[tuple[object, ...]]

    def __repr__(self) -> str:
        return f"QueryAnswer({len(self.columns)} columns, {len(self.rows)} rows)"


class Services(Protocol):
    """The process behind the console."""

    def ready(self) -> tuple[bool, list[str]]:
        """Whether requests are taken; when not, why, in sentences anyone may read."""

    def statistics(self) -> Mapping[str, Mapping[str, object]]:
        """A snapshot per actor, in the form `console.metrics` describes."""

    def metrics_text(self) -> bytes:
        """The same in the Prometheus text format (`console.metrics.metrics_text`)."""

    def viewer_requests(self) -> Sequence[Document]:
        """The newest requests of the test door, oldest first, without keys."""

    async def query(self, sql: str) -> QueryAnswer:
        """One read-only SELECT over the public schema."""

    async def create_source(
        self, name: str, *, lenient_session: bool, requests_per_hour: int
    ) -> Document:
        """`{"source", "auth_key", "api_key", "url", …}`; `Conflict` when the name is taken."""

    async def list_sources(self) -> Sequence[Document]:
        """Every source by name; no keys."""

    async def rotate_source(self, name: str, *, overlap_seconds: int) -> Document:
        """A new pair, in the form of `create_source`; the old ones end after the overlap."""

    async def revoke_source(self, name: str) -> Document:
        """End every pair of the source now; its data stays. `{"source", "revoked", …}`."""

    async def check(self) -> list[str]:
        """Problems found in the data folder, in sentences; empty when all is well."""
