"""Quota counters: requests of the running UTC hours by credential."""

from __future__ import annotations

from collections.abc import Mapping

from ingester.store.control.file import ControlFile

__all__ = ["Quotas"]

# Counters of closed hours are of no use; two are kept for a clock that is set back a little.
_QUOTA_HOURS_KEPT = 2


class Quotas(ControlFile):
    """The part of the control store that keeps quota counters over a restart."""

    def hour_counts(self, hour: int) -> dict[str, int]:
        """Requests per credential in one UTC hour (`hour` = epoch seconds // 3600)."""
        with self._reading() as connection:
            return dict(
                connection.execute(
                    "SELECT credential, requests FROM quota_hours WHERE hour = ?", (hour,)
                ).fetchall()
            )

    def store_hour_counts(self, hour: int, counts: Mapping[str, int]) -> None:
        """Keep totals of an hour. A total never falls, so a late or repeated call does no harm."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO quota_hours (hour, credential, requests) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET requests = max(requests, excluded.requests)",
                [(hour, credential, count) for credential, count in counts.items()],
            )
            connection.execute(
                "DELETE FROM quota_hours WHERE hour < ?", (hour - _QUOTA_HOURS_KEPT,)
            )
