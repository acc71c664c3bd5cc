"""The control store: sources and their key pairs, quota counters; SQLite beside the event data.

Small facts that change one at a time, and secrets, are kept out of DuckDB: single-row updates are
what it is worst at, and no query of a user can reach them here.

Invariants:

1. A key is shown once, when it is made. Stored are SHA-256 of the pair and a 4-character tail.
2. Every change is one transaction, synced before the call returns (WAL, `synchronous=FULL`).
3. One connection, one lock: any thread may call, one at a time.
4. The file and its `-wal`/`-shm` companions have mode 0600.
5. While it is open, nothing else in this process opens the file: closing any descriptor of it
   drops the POSIX locks of all. The file is created with `O_EXCL` before SQLite sees it.

Refuses a file of a newer schema, and names or keys that a route could mistake for its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
import string
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from ingester.errors import NotFound, StoreBusy, StoreFailed
from ingester.messages import Source
from ingester.store.migrations import Migration, bundled_migrations, migrate, schema_version

__all__ = [
    "RESERVED_SEGMENTS",
    "ControlStore",
    "KeyInfo",
    "SourceExists",
    "SourceInfo",
    "SourceKeys",
    "pair_digest",
]

# First path segments under /v1/ that mean something else: never issued as a key.
RESERVED_SEGMENTS = frozenset(
    {"logs", "metrics", "traces", "batch", "track", "identify", "datasets", "ingest", "ping"}
    | {"test"}
)

_SOURCE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

# 28 characters of 62 are 166 bits. No "-" or "_": a key is one word under a double click and never
# looks like an option on a command line.
_KEY_ALPHABET = string.ascii_letters + string.digits
_KEY_LENGTH = 28
_TAIL_LENGTH = 4

# Another process (a command beside a stopped server) may hold the file for one small transaction.
_BUSY_SECONDS_MAX = 5.0

# Counters of closed hours are of no use; two are kept for a clock that is set back a little.
_QUOTA_HOURS_KEPT = 2

_QUOTA_MAX = 2**53

_TEMPORARY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})


class SourceExists(ValueError):
    """The name is taken (409); other `ValueError`s of this module are ill-formed input (400)."""


class SourceKeys(Struct, frozen=True, kw_only=True):
    """A source with a pair just made: the only moment its keys can be read."""

    source: Source
    auth_key: str
    api_key: str

    def __repr__(self) -> str:
        return f"SourceKeys({self.source.name!r}, …{self.api_key[-_TAIL_LENGTH:]})"


class KeyInfo(Struct, frozen=True, kw_only=True):
    """What can be told of a stored pair; times are epoch seconds."""

    tail: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class SourceInfo(Struct, frozen=True, kw_only=True):
    """A source and its pairs, oldest first."""

    source: Source
    created_at: float
    keys: tuple[KeyInfo, ...]

    def document(self) -> dict[str, object]:
        """The form the API and `source list --json` print; times are RFC 3339, UTC."""
        return {
            "source": self.source.name,
            "lenient_session": self.source.lenient_session,
            "requests_per_hour": self.source.requests_per_hour,
            "created_at": _time_text(self.created_at),
            "keys": [
                {
                    "tail": key.tail,
                    "created_at": _time_text(key.created_at),
                    "expires_at": _time_text(key.expires_at),
                    "revoked_at": _time_text(key.revoked_at),
                }
                for key in self.keys
            ],
        }


def pair_digest(auth_key: str, api_key: str) -> bytes:
    """SHA-256 of a pair. NUL is in no issued key, so the two halves cannot be shifted."""
    return hashlib.sha256(f"{auth_key}\0{api_key}".encode("utf-8", "surrogatepass")).digest()


class ControlStore:
    """The opened file. Blocking: call it from a thread of its own."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, migrations: Sequence[Migration] | None = None) -> ControlStore:
        """Open or create the file and bring its schema up to date."""
        steps = bundled_migrations() if migrations is None else migrations
        with _mapped(path):
            _create_private(path)
            connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS_MAX, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                if 0 < (version := schema_version(connection)) < steps[-1].version:
                    _copy_before_upgrade(connection, path, version)
                migrate(connection, steps, path=str(path))
            except BaseException:
                connection.close()
                raise
        return cls(connection, path)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def create_source(
        self, name: str, *, lenient_session: bool = False, requests_per_hour: int = 0
    ) -> SourceKeys:
        """A new source with its first pair."""
        check_source_name(name)
        if not 0 <= requests_per_hour <= _QUOTA_MAX:
            raise ValueError("requests_per_hour must be a whole number from 0 (no quota)")
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM sources WHERE name = ?", (name,)).fetchone():
                raise SourceExists(f"a source named {name!r} exists already; rotate gives new keys")
            cursor = connection.execute(
                "INSERT INTO sources (name, lenient_session, requests_per_hour, created_at)"
                " VALUES (?, ?, ?, ?)",
                (name, int(lenient_session), requests_per_hour, time.time()),
            )
            assert cursor.lastrowid is not None
            source = Source(
                source_id=cursor.lastrowid,
                name=name,
                lenient_session=lenient_session,
                requests_per_hour=requests_per_hour,
            )
            return _issue_pair(connection, source, time.time())

    def list_sources(self) -> list[SourceInfo]:
        """Every source by name."""
        with self._reading() as connection:
            keys: dict[int, list[KeyInfo]] = {}
            for source_id, *values in connection.execute(
                "SELECT source_id, tail, created_at, expires_at, revoked_at"
                " FROM source_keys ORDER BY key_id"
            ):
                tail, created_at, expires_at, revoked_at = values
                keys.setdefault(source_id, []).append(
                    KeyInfo(
                        tail=tail,
                        created_at=created_at,
                        expires_at=expires_at,
                        revoked_at=revoked_at,
                    )
                )
            return [
                SourceInfo(
                    source=_source(row[:4]),
                    created_at=row[4],
                    keys=tuple(keys.get(row[0], ())),
                )
                for row in connection.execute(
                    "SELECT source_id, name, lenient_session, requests_per_hour, created_at"
                    " FROM sources ORDER BY name"
                )
            ]

    def rotate_source(self, name: str, *, overlap_seconds: int) -> SourceKeys:
        """A new pair; the pairs in use end after the overlap (0: now)."""
        if not 0 <= overlap_seconds <= _QUOTA_MAX:
            raise ValueError(
                "overlap_seconds must be a whole number from 0 (the old pair ends now)"
            )
        with self._transaction() as connection:
            source = _find(connection, name)
            now_s = time.time()
            ends_at = now_s + overlap_seconds
            connection.execute(
                "UPDATE source_keys SET expires_at = min(coalesce(expires_at, ?1), ?1)"
                " WHERE source_id = ?2 AND revoked_at IS NULL",
                (ends_at, source.source_id),
            )
            return _issue_pair(connection, source, now_s)

    def revoke_source(self, name: str) -> int:
        """End every pair of the source now; returns how many were still valid. Data stays."""
        with self._transaction() as connection:
            source = _find(connection, name)
            now_s = time.time()
            cursor = connection.execute(
                "UPDATE source_keys SET revoked_at = ?1 WHERE source_id = ?2"
                " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?1)",
                (now_s, source.source_id),
            )
            return cursor.rowcount

    def key_table(self, now_s: float) -> dict[bytes, tuple[Source, float | None]]:
        """Valid pairs: digest → (source, valid until, None for no end)."""
        with self._reading() as connection:
            return {
                row[0]: (_source(row[2:]), row[1])
                for row in connection.execute(
                    "SELECT digest, expires_at, sources.source_id, name, lenient_session,"
                    " requests_per_hour FROM source_keys JOIN sources USING (source_id)"
                    " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)",
                    (now_s,),
                )
            }

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

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._lock, _mapped(self._path):
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                # SQLite itself has ended the transaction after some errors (full, I/O).
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """One snapshot; in WAL mode a reader waits for no writer."""
        return self._transaction("BEGIN DEFERRED")


def check_source_name(name: str) -> None:
    if not _SOURCE_NAME.fullmatch(name):
        raise ValueError(
            "a source name is 1 to 64 characters of A-Z a-z 0-9 . _ -"
            + (f", got {name!r}" if len(name) <= 80 else f", got {len(name)} characters")
        )


def new_key(choice: Callable[[str], str] = secrets.choice) -> str:
    """A fresh key; `choice` is replaced in tests only."""
    while (key := "".join(choice(_KEY_ALPHABET) for _ in range(_KEY_LENGTH))) in RESERVED_SEGMENTS:
        continue
    return key


def _issue_pair(connection: sqlite3.Connection, source: Source, now_s: float) -> SourceKeys:
    auth_key, api_key = new_key(), new_key()
    connection.execute(
        "INSERT INTO source_keys (source_id, digest, tail, created_at) VALUES (?, ?, ?, ?)",
        (source.source_id, pair_digest(auth_key, api_key), api_key[-_TAIL_LENGTH:], now_s),
    )
    return SourceKeys(source=source, auth_key=auth_key, api_key=api_key)


def _find(connection: sqlite3.Connection, name: str) -> Source:
    row = connection.execute(
        "SELECT source_id, name, lenient_session, requests_per_hour FROM sources WHERE name = ?",
        (name,),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no source named {name!r}")
    return _source(row)


def _source(row: Sequence[object]) -> Source:
    source_id, name, lenient_session, requests_per_hour = row
    assert isinstance(source_id, int)
    assert isinstance(name, str)
    assert isinstance(requests_per_hour, int)
    return Source(
        source_id=source_id,
        name=name,
        lenient_session=bool(lenient_session),
        requests_per_hour=requests_per_hour,
    )


def _time_text(epoch_s: float | None) -> str | None:
    if epoch_s is None:
        return None
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _create_private(path: Path) -> None:
    """The file exists with mode 0600 before SQLite writes to it; an existing one is not opened."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        path.chmod(0o600)


def _copy_before_upgrade(connection: sqlite3.Connection, path: Path, version: int) -> None:
    copy_path = path.with_name(f"{path.name}.v{version}.bak")
    partial_path = path.with_name(f"{copy_path.name}.partial")
    partial_path.unlink(missing_ok=True)
    _create_private(partial_path)
    with closing(sqlite3.connect(partial_path)) as copy:
        connection.backup(copy)
    partial_path.replace(copy_path)


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """SQLite's and the file system's errors as ours: worth another try, or not."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # The low byte is the primary result code (sqlite.org/rescode.html).
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _TEMPORARY_CODES:
            raise StoreBusy(f"{path}: {error}") from error
        raise StoreFailed(
            f"{path}: {error}; if the file is damaged, put back a backup of it, or move it away to"
            " start with no sources (event data is kept elsewhere)"
        ) from error
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error
