"""Key tables: what the doors look keys and source settings up in, read in one snapshot."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from msgspec import Struct

from ingester.messages import Credential, Source
from ingester.store.control.connections import connection_credentials
from ingester.store.control.file import ControlFile
from ingester.store.control.sources import sources_by_name
from ingester.store.control.tokens import token_credentials

__all__ = ["KeyTables", "Tables"]


class KeyTables(Struct, frozen=True, kw_only=True):
    """Digest → (whose, valid until; None for no end), and sources by name."""

    pairs: Mapping[bytes, tuple[Source, float | None]]
    bearers: Mapping[bytes, tuple[Credential, float | None]]
    sources: Mapping[str, Source]

    def __repr__(self) -> str:
        return f"KeyTables({len(self.pairs)} pairs, {len(self.bearers)} bearers)"


class Tables(ControlFile):
    """The part of the control store that the doors are served from."""

    def key_tables(self, now_s: float | None = None) -> KeyTables:
        now_s = time.time() if now_s is None else now_s
        with self._reading() as connection:
            sources = sources_by_name(connection)
            return KeyTables(
                pairs=_pairs(connection, sources, now_s),
                bearers=token_credentials(connection, now_s)
                | connection_credentials(connection, now_s),
                sources=sources,
            )

    def key_table(self, now_s: float) -> Mapping[bytes, tuple[Source, float | None]]:
        """Valid pairs only."""
        return self.key_tables(now_s).pairs


def _pairs(
    connection: sqlite3.Connection, sources: Mapping[str, Source], now_s: float
) -> dict[bytes, tuple[Source, float | None]]:
    by_id = {source.source_id: source for source in sources.values()}
    return {
        digest: (by_id[source_id], until)
        for digest, source_id, until in connection.execute(
            "SELECT digest, source_id, expires_at FROM source_keys"
            " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)",
            (now_s,),
        )
    }
