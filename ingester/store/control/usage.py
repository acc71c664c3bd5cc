"""Usage by credential and hour, last use, and the last refused requests.

The doors count in memory and hand over what came since the last time; a kill loses that much.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ingester.store.control.file import ControlFile

__all__ = ["RefusedRequest", "Usage", "UsageChange", "UsageHour", "UsageSummary"]

REFUSED_PER_CREDENTIAL_MAX = 100
# Seven weeks, so that a month can be compared with the one before it in part.
_HOURS_KEPT = 24 * 49


class UsageChange(Struct, frozen=True, kw_only=True):
    """What one credential did since the last save. `last_address` "" leaves the one known."""

    credential: str
    requests: int
    accepted: int
    rejected: int
    refused: int
    last_used_at: float
    last_address: str


class RefusedRequest(Struct, frozen=True, kw_only=True):
    """A refused request of a credential ("" when it had no valid key). `path` shows no key."""

    credential: str
    time: float
    status: int
    reason: str
    address: str
    path: str


class UsageHour(Struct, frozen=True, kw_only=True):
    """One UTC hour of a credential: rows accepted and rejected, requests refused (4xx)."""

    hour: int
    requests: int
    accepted: int
    rejected: int
    refused: int


class UsageSummary(Struct, frozen=True, kw_only=True):
    """When and from where a credential was last used."""

    last_used_at: float
    last_address: str


class Usage(ControlFile):
    """The part of the control store that keeps usage."""

    def store_usage(
        self, hour: int, changes: Sequence[UsageChange], refused: Sequence[RefusedRequest]
    ) -> None:
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO usage_hours VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " requests = requests + excluded.requests,"
                " accepted = accepted + excluded.accepted,"
                " rejected = rejected + excluded.rejected, refused = refused + excluded.refused",
                [
                    (
                        change.credential,
                        hour,
                        change.requests,
                        change.accepted,
                        change.rejected,
                        change.refused,
                    )
                    for change in changes
                ],
            )
            connection.executemany(
                "INSERT INTO credential_use VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
                " last_used_at = excluded.last_used_at,"
                " last_address = CASE excluded.last_address WHEN '' THEN last_address"
                " ELSE excluded.last_address END",
                [
                    (change.credential, change.last_used_at, change.last_address)
                    for change in changes
                ],
            )
            connection.executemany(
                "INSERT INTO refused_requests (credential, time, status, reason, address, path)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (one.credential, one.time, one.status, one.reason, one.address, one.path)
                    for one in refused
                ],
            )
            connection.executemany(
                "DELETE FROM refused_requests WHERE credential = ?1 AND refused_id <="
                " (SELECT refused_id FROM refused_requests WHERE credential = ?1"
                " ORDER BY refused_id DESC LIMIT 1 OFFSET ?2)",
                [
                    (name, REFUSED_PER_CREDENTIAL_MAX)
                    for name in {one.credential for one in refused}
                ],
            )
            connection.execute("DELETE FROM usage_hours WHERE hour < ?", (hour - _HOURS_KEPT,))

    def usage_hours(self, credential: str, *, since_hour: int) -> list[UsageHour]:
        """Oldest first; hours without a request are left out."""
        with self._reading() as connection:
            return [
                UsageHour(
                    hour=row[0], requests=row[1], accepted=row[2], rejected=row[3], refused=row[4]
                )
                for row in connection.execute(
                    "SELECT hour, requests, accepted, rejected, refused FROM usage_hours"
                    " WHERE credential = ? AND hour >= ? ORDER BY hour",
                    (credential, since_hour),
                )
            ]

    def last_uses(self) -> dict[str, UsageSummary]:
        with self._reading() as connection:
            return {
                row[0]: UsageSummary(last_used_at=row[1], last_address=row[2])
                for row in connection.execute(
                    "SELECT credential, last_used_at, last_address FROM credential_use"
                )
            }

    def refused_requests(self, *, credential: str | None, limit: int) -> list[RefusedRequest]:
        """Newest first, of one credential or of all."""
        with self._reading() as connection:
            return [
                RefusedRequest(
                    credential=row[0],
                    time=row[1],
                    status=row[2],
                    reason=row[3],
                    address=row[4],
                    path=row[5],
                )
                for row in connection.execute(
                    "SELECT credential, time, status, reason, address, path FROM refused_requests"
                    " WHERE ?1 IS NULL OR credential = ?1 ORDER BY refused_id DESC LIMIT ?2",
                    (credential, limit),
                )
            ]
