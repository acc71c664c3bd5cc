"""The control store's file: opened, upgraded, one transaction at a time.

See the package's docstring for the invariants; this module holds those of the file itself.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from ingester.errors import StoreBusy, StoreFailed
from ingester.store.control.keys import KeyOwner
from ingester.store.control.secret_box import NotRetrievable, SecretBox
from ingester.store.migrations import Migration, bundled_migrations, migrate, schema_version

__all__ = ["ControlFile"]

# Another process (a command beside a stopped server) may hold the file for one small transaction.
_BUSY_SECONDS_MAX = 5.0

_BUSY_POLL_SECONDS = 0.02

_AUDIT_ENTRIES_MAX = 10_000

_TEMPORARY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})


class ControlFile:
    """The opened file. Blocking: call it from a thread of its own."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._lock = threading.Lock()
        self._box = SecretBox(path.with_name("secret.key"))

    @classmethod
    def open(cls, path: Path, *, migrations: Sequence[Migration] | None = None) -> Self:
        """Open or create the file and bring its schema up to date."""
        steps = bundled_migrations() if migrations is None else migrations
        with _mapped(path):
            _create_private(path)
            connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS_MAX, isolation_level=None, check_same_thread=False
            )
            try:
                _switch_to_wal(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                # A dead process may have left a commit there whose sync had failed. It counts from
                # now on, so it must not be in the page cache only. Without room it stays there.
                with suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
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

    def _sealed(self, plain: str, digest: bytes, *, copyable: bool) -> bytes | None:
        return self._box.seal(plain, context=digest) if copyable else None

    def _newest_plain(
        self, connection: sqlite3.Connection, owner: KeyOwner, owner_id: int, *, copyable: bool
    ) -> str:
        """The newest valid key as it was sealed. Raises NotRetrievable."""
        table, _, column = owner.partition(".")
        row = connection.execute(
            f"SELECT digest, sealed FROM {table} WHERE {column} = ?1 AND revoked_at IS NULL"
            " AND (expires_at IS NULL OR expires_at > ?2) ORDER BY key_id DESC LIMIT 1",
            (owner_id, time.time()),
        ).fetchone()
        if row is None:
            raise NotRetrievable("it has no valid key; rotate to get a new one")
        digest, sealed = row
        if sealed is None:
            why = (
                "only a hash of this key is stored"
                if copyable
                else "this kind of key is shown once and stored as a hash only"
            )
            raise NotRetrievable(f"{why}; rotate to get a new one")
        return self._box.open(sealed, context=digest)

    def _note(
        self,
        connection: sqlite3.Connection,
        actor: str,
        action: str,
        object_name: str,
        **detail: object,
    ) -> None:
        """An entry of the audit list, in the transaction of what it tells."""
        cursor = connection.execute(
            "INSERT INTO audit (time, actor, action, object, detail) VALUES (?, ?, ?, ?, ?)",
            (time.time(), actor, action, object_name, msgspec.json.encode(detail).decode()),
        )
        assert cursor.lastrowid is not None
        connection.execute(
            "DELETE FROM audit WHERE audit_id <= ?", (cursor.lastrowid - _AUDIT_ENTRIES_MAX,)
        )


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait here by itself when another opens the new file at the same moment."""
    deadline = time.monotonic() + _BUSY_SECONDS_MAX
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() >= deadline:
                raise
        time.sleep(_BUSY_POLL_SECONDS)


def _create_private(path: Path) -> None:
    """The file exists with mode 0600 before SQLite writes to it; an existing one is not opened."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        path.chmod(0o600)


def _copy_before_upgrade(connection: sqlite3.Connection, path: Path, version: int) -> None:
    copy_path = path.with_name(f"{path.name}.v{version}.bak")
    # Two that open a file at once may both come here: the last whole copy stays.
    partial_path = path.with_name(f"{copy_path.name}.{secrets.token_hex(4)}.partial")
    _create_private(partial_path)
    try:
        with closing(sqlite3.connect(partial_path)) as copy:
            connection.backup(copy)
        partial_path.replace(copy_path)
    finally:
        partial_path.unlink(missing_ok=True)


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
