"""Rules, alerts and monitors as they are kept: a name, settings as JSON, where they came from.

What the settings mean is the business of `watch/`; here they are text. Everything that evaluating
changes (state, runs, cursor, incidents, outbox) is one transaction: `watching`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct

from ingester.errors import Conflict, NotFound
from ingester.store.control.file import ControlFile
from ingester.store.control.incidents import INCIDENT_ID_PREFIX, IncidentBook
from ingester.store.control.tokens import id_number

__all__ = ["AlertRun", "DeclaredWatch", "WatchInfo", "WatchKind", "WatchTransaction", "Watches"]

WatchKind = Literal["rule", "alert", "monitor"]
WATCH_PREFIXES: Mapping[WatchKind, str] = {"rule": "rul_", "alert": "alr_", "monitor": "mon_"}

_RUNS_KEPT = 200
_SELECT = (
    "SELECT watch_id, kind, name, settings, file, version, created_at, updated_at FROM watches"
)


class WatchInfo(Struct, frozen=True, kw_only=True):
    """One of them. `version` rises with each change of its settings. `file`: the file that it was
    declared in, None for one made here.
    """

    number: int
    kind: WatchKind
    name: str
    settings: str
    file: str | None
    version: int
    created_at: float
    updated_at: float

    @property
    def id(self) -> str:
        return f"{WATCH_PREFIXES[self.kind]}{self.number}"


class AlertRun(Struct, frozen=True, kw_only=True):
    """One run of an alert over one window. `row_count` None: it failed with `error`."""

    window_start: float
    window_end: float
    ran_at: float
    attempts: int
    row_count: int | None
    digest: str | None
    error: str | None


class DeclaredWatch(Struct, frozen=True):
    """One that a file declares."""

    kind: WatchKind
    name: str
    settings: bytes
    file: str


class WatchTransaction:
    """What one round of evaluating reads and writes; committed whole or not at all."""

    def __init__(self, connection: sqlite3.Connection, book: IncidentBook) -> None:
        self.connection = connection
        self.book = book

    def cursor(self, reader: str) -> int | None:
        row = self.connection.execute(
            "SELECT position FROM read_cursors WHERE reader = ?", (reader,)
        ).fetchone()
        return None if row is None else int(row[0])

    def move_cursor(self, reader: str, position: int) -> None:
        self.connection.execute(
            "INSERT INTO read_cursors VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET position = excluded.position",
            (reader, position),
        )

    def state(self, number: int) -> str | None:
        row = self.connection.execute(
            "SELECT state FROM watch_states WHERE watch_id = ?", (number,)
        ).fetchone()
        return None if row is None else str(row[0])

    def save_state(self, number: int, state: bytes) -> None:
        self.connection.execute(
            "INSERT INTO watch_states VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET state = excluded.state",
            (number, state.decode()),
        )

    def save_alert_rows(self, number: int, rows: bytes | None) -> None:
        """What an alert has found before its window is over, a JSON array; None: nothing."""
        if rows is None:
            self.connection.execute("DELETE FROM alert_rows WHERE watch_id = ?", (number,))
            return
        self.connection.execute(
            "INSERT INTO alert_rows VALUES (?, ?) ON CONFLICT DO UPDATE SET rows = excluded.rows",
            (number, rows),
        )

    def is_current(self, info: WatchInfo) -> bool:
        """Whether it is still there as it was evaluated."""
        row = self.connection.execute(
            "SELECT version FROM watches WHERE watch_id = ?", (info.number,)
        ).fetchone()
        return row is not None and row[0] == info.version

    def buckets(self, number: int, since: int) -> dict[int, str]:
        return dict(
            self.connection.execute(
                "SELECT bucket, points FROM monitor_buckets WHERE watch_id = ? AND bucket >= ?"
                " ORDER BY bucket",
                (number, since),
            ).fetchall()
        )

    def save_bucket(self, number: int, bucket: int, points: bytes) -> None:
        self.connection.execute(
            "INSERT INTO monitor_buckets VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET points = excluded.points",
            (number, bucket, points.decode()),
        )

    def drop_buckets(self, number: int, *, before: int) -> None:
        self.connection.execute(
            "DELETE FROM monitor_buckets WHERE watch_id = ? AND bucket < ?", (number, before)
        )

    def add_run(self, number: int, run: AlertRun) -> None:
        self.connection.execute(
            "INSERT INTO alert_runs (watch_id, window_start, window_end, ran_at, attempts,"
            " row_count, digest, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                run.window_start,
                run.window_end,
                run.ran_at,
                run.attempts,
                run.row_count,
                run.digest,
                run.error,
            ),
        )
        self.connection.execute(
            "DELETE FROM alert_runs WHERE watch_id = ?1 AND run_id <= (SELECT run_id FROM"
            " alert_runs WHERE watch_id = ?1 ORDER BY run_id DESC LIMIT 1 OFFSET ?2)",
            (number, _RUNS_KEPT),
        )

    def has_run(self, number: int, window_end: float, digest: str) -> bool:
        """Whether a run over a window that ended then has found the same rows."""
        row = self.connection.execute(
            "SELECT 1 FROM alert_runs WHERE watch_id = ? AND window_end = ? AND digest = ?",
            (number, window_end, digest),
        ).fetchone()
        return row is not None

    def quiet_since(self, number: int) -> int | None:
        """When a rule with an open incident last matched (epoch ms); None when it has none."""
        row = self.connection.execute(
            "SELECT max(last_fired_at) FROM affected WHERE watch_id = ? AND resolved_at IS NULL",
            (number,),
        ).fetchone()
        return None if row is None else row[0]


class Watches(ControlFile):
    """The part of the control store that keeps rules, alerts and monitors."""

    # Rises with each change of them, in this process.
    watch_changes = 0

    def open_watches(self, kind: WatchKind) -> dict[int, int]:
        """Those with an open incident, by number: the last firing (epoch ms)."""
        with self._reading() as connection:
            return dict(
                connection.execute(
                    "SELECT affected.watch_id, max(last_fired_at) FROM affected"
                    " JOIN watches USING (watch_id) WHERE resolved_at IS NULL AND kind = ?"
                    " GROUP BY affected.watch_id",
                    (kind,),
                ).fetchall()
            )

    def open_incidents(self, number: int) -> list[str]:
        """Ids of incidents that one takes part in now."""
        with self._reading() as connection:
            return [
                f"{INCIDENT_ID_PREFIX}{incident}"
                for (incident,) in connection.execute(
                    "SELECT DISTINCT incident_id FROM affected WHERE watch_id = ?"
                    " AND resolved_at IS NULL ORDER BY incident_id",
                    (number,),
                )
            ]

    def last_bucket(self, number: int) -> tuple[int, str] | None:
        """The newest judged bucket of a monitor and its points."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT bucket, points FROM monitor_buckets WHERE watch_id = ?"
                " ORDER BY bucket DESC LIMIT 1",
                (number,),
            ).fetchone()
            return None if row is None else (row[0], row[1])

    def has_untold(self) -> bool:
        """Whether an open incident was told to nobody yet, for a silence."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT 1 FROM incidents WHERE status = 'opened' AND is_told = 0 LIMIT 1"
            ).fetchone()
            return row is not None

    @contextmanager
    def watching(
        self, *, now_s: float, console_base: str, actor: str = ""
    ) -> Iterator[WatchTransaction]:
        """One transaction over cursor, states, incidents and outbox."""
        with self._transaction() as connection:
            book = IncidentBook(
                connection, now_ms=int(now_s * 1000), console_base=console_base, actor=actor
            )
            yield WatchTransaction(connection, book)

    def list_watches(self, kind: WatchKind | None = None) -> list[WatchInfo]:
        with self._reading() as connection:
            return _infos(connection, "WHERE ?1 IS NULL OR kind = ?1 ORDER BY watch_id", kind)

    def watch(self, kind: WatchKind, watch_id: str) -> WatchInfo:
        with self._reading() as connection:
            return find_watch(connection, kind, watch_id)

    def create_watch(self, kind: WatchKind, name: str, settings: bytes, *, actor: str) -> WatchInfo:
        with self._transaction() as connection:
            info = insert_watch(connection, kind, name, settings, file=None)
            self._note(connection, actor, f"{kind} created", info.id, name=name)
        self.watch_changes += 1
        return info

    def change_watch(
        self, kind: WatchKind, watch_id: str, name: str, settings: bytes, *, actor: str
    ) -> WatchInfo:
        """New settings. What it had open stays open until it is evaluated again."""
        with self._transaction() as connection:
            info = find_watch(connection, kind, watch_id)
            refuse_declared(info)
            update_watch(connection, info, name, settings)
            self._note(connection, actor, f"{kind} changed", watch_id, name=name)
            changed = find_watch(connection, kind, watch_id)
        self.watch_changes += 1
        return changed

    def delete_watch(
        self, kind: WatchKind, watch_id: str, *, console_base: str, actor: str
    ) -> None:
        """What it has open is resolved."""
        with self._transaction() as connection:
            info = find_watch(connection, kind, watch_id)
            refuse_declared(info)
            remove_watch(connection, info, console_base=console_base, actor=actor)
            self._note(connection, actor, f"{kind} deleted", watch_id, name=info.name)
        self.watch_changes += 1

    def undeclared_watches(self) -> set[tuple[str, str]]:
        """Kind and name of those that no file declares."""
        with self._reading() as connection:
            return {
                (kind, name)
                for kind, name in connection.execute(
                    "SELECT kind, name FROM watches WHERE file IS NULL"
                )
            }

    def declare_watches(self, declared: Sequence[DeclaredWatch], *, console_base: str) -> int:
        """Hold these and none that was declared before; how many were changed."""
        changed = 0
        with self._transaction() as connection:
            before = {
                (info.kind, info.name): info
                for info in _infos(connection, "WHERE file IS NOT NULL")
            }
            for one in declared:
                info = before.pop((one.kind, one.name), None)
                if info is None:
                    insert_watch(connection, one.kind, one.name, one.settings, file=one.file)
                elif info.settings.encode() != one.settings:
                    update_watch(connection, info, one.name, one.settings)
                elif info.file == one.file:
                    continue
                connection.execute(
                    "UPDATE watches SET file = ? WHERE kind = ? AND name = ?",
                    (one.file, one.kind, one.name),
                )
                changed += 1
            for info in before.values():
                remove_watch(connection, info, console_base=console_base, actor="files")
                changed += 1
            if changed:
                self._note(connection, "files", "watch files read", "", changed=changed)
        self.watch_changes += 1
        return changed

    def watch_state(self, number: int) -> str | None:
        with self._reading() as connection:
            row = connection.execute(
                "SELECT state FROM watch_states WHERE watch_id = ?", (number,)
            ).fetchone()
            return None if row is None else str(row[0])

    def alert_rows(self, number: int) -> bytes:
        """What `save_alert_rows` has kept; an empty array when there is nothing."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT rows FROM alert_rows WHERE watch_id = ?", (number,)
            ).fetchone()
            return b"[]" if row is None else bytes(row[0])

    def alert_runs(self, number: int, *, limit: int = 50) -> list[AlertRun]:
        """Newest first."""
        with self._reading() as connection:
            return [
                AlertRun(
                    window_start=row[0],
                    window_end=row[1],
                    ran_at=row[2],
                    attempts=row[3],
                    row_count=row[4],
                    digest=row[5],
                    error=row[6],
                )
                for row in connection.execute(
                    "SELECT window_start, window_end, ran_at, attempts, row_count, digest, error"
                    " FROM alert_runs WHERE watch_id = ? ORDER BY run_id DESC LIMIT ?",
                    (number, limit),
                )
            ]


def find_watch(connection: sqlite3.Connection, kind: WatchKind, watch_id: str) -> WatchInfo:
    number = id_number(watch_id, WATCH_PREFIXES[kind], kind)
    found = _infos(connection, "WHERE kind = ?1 AND watch_id = ?2", kind, number)
    if not found:
        raise NotFound(f"there is no {kind} '{watch_id}'")
    return found[0]


def insert_watch(
    connection: sqlite3.Connection, kind: WatchKind, name: str, settings: bytes, *, file: str | None
) -> WatchInfo:
    _refuse_taken(connection, kind, name, 0)
    now_s = time.time()
    number = connection.execute(
        "INSERT INTO watches (kind, name, settings, file, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (kind, name, settings.decode(), file, now_s, now_s),
    ).lastrowid
    return _infos(connection, "WHERE watch_id = ?", number)[0]


def update_watch(
    connection: sqlite3.Connection, info: WatchInfo, name: str, settings: bytes
) -> None:
    _refuse_taken(connection, info.kind, name, info.number)
    connection.execute(
        "UPDATE watches SET name = ?, settings = ?, version = version + 1, updated_at = ?"
        " WHERE watch_id = ?",
        (name, settings.decode(), time.time(), info.number),
    )


def remove_watch(
    connection: sqlite3.Connection, info: WatchInfo, *, console_base: str, actor: str
) -> None:
    now_ms = int(time.time() * 1000)
    book = IncidentBook(connection, now_ms=now_ms, console_base=console_base, actor=actor)
    book.recover(info.number, None)
    connection.execute("DELETE FROM watches WHERE watch_id = ?", (info.number,))


def refuse_declared(info: WatchInfo) -> None:
    if info.file is not None:
        raise Conflict(
            f"{info.kind} '{info.name}' is declared in {info.file}: change it there and reload"
        )


def _refuse_taken(connection: sqlite3.Connection, kind: WatchKind, name: str, number: int) -> None:
    row = connection.execute(
        "SELECT 1 FROM watches WHERE kind = ? AND name = ? AND watch_id <> ?", (kind, name, number)
    ).fetchone()
    if row is not None:
        raise Conflict(f"there is a {kind} named {name!r} already")


def _infos(connection: sqlite3.Connection, where: str, *values: object) -> list[WatchInfo]:
    return [
        WatchInfo(
            number=row[0],
            kind=row[1],
            name=row[2],
            settings=row[3],
            file=row[4],
            version=row[5],
            created_at=row[6],
            updated_at=row[7],
        )
        for row in connection.execute(f"{_SELECT} {where}", values)
    ]
