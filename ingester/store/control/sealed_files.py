"""The manifest: which Parquet files hold the rows of sealed parts. It is the truth about them.

1. A change is one transaction (`swap_sealed`): files in, parts and older files out. Whatever a
   crash leaves is either named by it, or known to lie elsewhere.
2. What went out is named as a removal until its file is gone.
3. A name is never given twice, nor is the number of a part: the highest one is kept here.
4. Commits that a start found to be gone are named until a repair has looked for their rows.
5. A COMMIT whose sync failed did not happen for this process, and may have happened for the next
   one, which finds its frames in SQLite's WAL. It is undone for good when another one has written
   over them (`settle`); until then nothing is removed that it speaks of.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence

import msgspec
from msgspec import Struct

from ingester.store.control.file import ControlFile

__all__ = [
    "Evaluated",
    "LostCommits",
    "Manifest",
    "SealedFile",
    "SealedFiles",
    "SealedPart",
    "read_numbers",
]


class SealedFile(Struct, frozen=True, kw_only=True):
    """One file under `sealed/` and what it may hold, ends included; times in microseconds.

    `time` is the event time, by which its rows are sorted. A table without batches or requests has
    zeros there. `line_bytes`: of refused lines.
    """

    name: str
    table: str
    day: str
    first_part: int
    last_part: int
    row_count: int
    byte_count: int
    line_bytes: int = 0
    time_low_us: int
    time_high_us: int
    received_low_us: int
    received_high_us: int
    batch_low: int = 0
    batch_high: int = 0
    request_low: int = 0
    request_high: int = 0
    sealed_at: float


class SealedPart(Struct, frozen=True, kw_only=True):
    """A part that is sealed: its commits, the rows of its batches, and its high water marks."""

    part_number: int
    commit_low: int
    commit_high: int
    row_count: int
    batch_high: int
    seq_high: int
    request_high: int
    sealed_at: float


class LostCommits(Struct, frozen=True):
    """Commits above `low` up to `high` are gone; `through` is the newest part that was left, and
    `evaluated_ms` how far rules were (`Evaluated`).
    """

    low: int
    high: int
    through: int
    evaluated_ms: int
    found_at: float


class Evaluated(Struct, frozen=True):
    """The last commit that rules have evaluated, the newest journal record up to there, and when
    that commit began (epoch milliseconds).
    """

    commit_number: int = 0
    seq: int = 0
    began_ms: int = 0


class Manifest(Struct, frozen=True):
    """All of it at one moment. `newest_part`: the highest number given; 0 when not known."""

    files: tuple[SealedFile, ...] = ()
    parts: tuple[SealedPart, ...] = ()
    removals: frozenset[str] = frozenset()
    newest_part: int = 0
    lost: tuple[LostCommits, ...] = ()
    evaluated: Evaluated = Evaluated()


# Below the data folder there is no such file.
_NO_PATH = "/"
_FILE_FIELDS = SealedFile.__struct_fields__
_PART_FIELDS = SealedPart.__struct_fields__


def read_numbers(
    connection: sqlite3.Connection,
) -> tuple[int, tuple[LostCommits, ...], Evaluated]:
    """`newest_part`, `lost` and `evaluated` of a manifest."""
    ((newest,),) = connection.execute("SELECT coalesce(max(number), 0) FROM newest_part")
    lost = connection.execute(
        "SELECT low, high, through, evaluated_ms, found_at FROM lost_commits ORDER BY low"
    )
    read = dict(connection.execute("SELECT reader, position FROM read_cursors").fetchall())
    evaluated = Evaluated(*(read.get(name, 0) for name in ("rules", "rules_seq", "rules_ms")))
    return newest, tuple(LostCommits(*row) for row in lost.fetchall()), evaluated


class SealedFiles(ControlFile):
    """The part of the control store that keeps the manifest."""

    def read_manifest(self) -> Manifest:
        with self._reading() as connection:
            files = connection.execute(
                "SELECT name, table_name, day, first_part, last_part, row_count, byte_count,"
                " line_bytes, time_low_us, time_high_us, received_low_us, received_high_us,"
                " batch_low, batch_high, request_low, request_high, sealed_at FROM sealed_files"
                " ORDER BY table_name, day, first_part, last_part, name"
            ).fetchall()
            parts = connection.execute(
                "SELECT part_number, commit_low, commit_high, row_count, batch_high, seq_high,"
                " request_high, sealed_at FROM sealed_parts ORDER BY part_number"
            ).fetchall()
            removals = connection.execute("SELECT path FROM sealed_removals").fetchall()
            newest, lost, evaluated = read_numbers(connection)
        return Manifest(
            tuple(SealedFile(**dict(zip(_FILE_FIELDS, row, strict=True))) for row in files),
            tuple(SealedPart(**dict(zip(_PART_FIELDS, row, strict=True))) for row in parts),
            frozenset(path for (path,) in removals),
            newest,
            lost,
            evaluated,
        )

    def note_part(self, number: int) -> None:
        """A part of this number is there; no other will have it."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO newest_part VALUES (1, ?1)"
                " ON CONFLICT DO UPDATE SET number = max(number, ?1)",
                (number,),
            )

    def note_lost(self, low: int, high: int, through: int, evaluated_ms: int) -> None:
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO lost_commits VALUES (?, ?, ?, ?, ?)",
                (low, high, through, evaluated_ms, time.time()),
            )

    def forget_lost(self) -> None:
        """Their rows were looked for."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM lost_commits")

    def swap_sealed(
        self,
        *,
        added: Sequence[SealedFile] = (),
        part: SealedPart | None = None,
        dropped: Collection[str] = (),
        removals: Collection[str] = (),
    ) -> None:
        """Files in, and what they replace out: the files `dropped` by name, and one part.
        `removals` are what is to be unlinked then, as paths below the data folder.
        """
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO sealed_files VALUES"
                " (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [msgspec.structs.astuple(file) for file in added],
            )
            if part is not None:
                connection.execute(
                    "INSERT INTO sealed_parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    msgspec.structs.astuple(part),
                )
            for name in dropped:
                cursor = connection.execute("DELETE FROM sealed_files WHERE name = ?", (name,))
                assert cursor.rowcount == 1, name
            connection.executemany(
                "INSERT OR IGNORE INTO sealed_removals VALUES (?)", [(path,) for path in removals]
            )

    def settle(self) -> None:
        """A change that changes nothing. When it returns, what `read_manifest` says is what the
        next process will find, also behind a change that has failed.
        """
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO sealed_removals VALUES (?)", (_NO_PATH,))
            connection.execute("DELETE FROM sealed_removals WHERE path = ?", (_NO_PATH,))

    def forget_removals(self, paths: Collection[str]) -> None:
        """They are gone."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM sealed_removals WHERE path = ?", [(path,) for path in paths]
            )
