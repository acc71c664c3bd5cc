"""The audit list: who changed keys and members, newest first."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from ingester.store.control.file import ControlFile

__all__ = ["Audit", "AuditEntry"]


class AuditEntry(Struct, frozen=True, kw_only=True):
    """One change. `detail` holds settings and counts, never a key."""

    id: int
    time: float
    actor: str
    action: str
    target: str
    detail: dict[str, object]


class Audit(ControlFile):
    """The part of the control store that reads the audit list; each change writes its own entry."""

    def audit(self, *, limit: int, before: int | None = None) -> list[AuditEntry]:
        with self._reading() as connection:
            return [
                AuditEntry(
                    id=row[0],
                    time=row[1],
                    actor=row[2],
                    action=row[3],
                    target=row[4],
                    detail=msgspec.json.decode(row[5]),
                )
                for row in connection.execute(
                    "SELECT audit_id, time, actor, action, object, detail FROM audit"
                    " WHERE audit_id < ? ORDER BY audit_id DESC LIMIT ?",
                    (2**62 if before is None else before, limit),
                )
            ]
