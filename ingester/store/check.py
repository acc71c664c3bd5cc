"""Whether the parts and upload files of a store are sound and add up; nothing is changed, but for
metadata that a checkpoint has torn which did not end: it is put back, as any opening does.

Why two ways to the same questions: beside a running server only its own instance may open a part
(another descriptor, when closed, would drop DuckDB's lock), and a stopped folder must be looked at
without what an opening does to it (removing unlisted uploads, migrating). There each part is
attached read-only to an instance of our own.

1. Every value is read once. DuckDB's blocks and WAL carry checksums, so what reads is what was
   written; blocks that the running instance holds in memory are not read from the disk again.
2. Rows, ledger and list of uploads of a part come from one read transaction.
3. A part or file that cannot be read is a problem with its name; the rest is checked all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import duckdb

from ..errors import StoreBusy, StoreFailed
from .check_files import (
    STRANGER,
    file_problem,
    first_line,
    footer_problem,
    part_strangers,
    sealed_ledgers,
    sealed_problems,
    sealed_strangers,
)
from .check_ledger import (
    ADVICE,
    MARKS,
    NAMED_MAX,
    Ask,
    AttachedPart,
    Interval,
    PartsCheck,
    Rows,
    Unreadable,
    check_losses,
    check_numbers,
    check_sequences,
)
from .check_rollups import attach_rollups, recount_problems
from .commit_mark import CommitMark
from .control.copying import maybe_manifest
from .control.sealed_files import Manifest, SealedFile
from .database import StoreBroken
from .frozen import Frozen, frozen
from .ledger import is_sealed
from .lost import missing_numbers, newest_number, numbers_named
from .metadata_copy import put_back_metadata
from .put_back import REPLACED, doubled_parts
from .relations import Snapshot
from .rollup_file import ROLLUPS, view_of
from .schema import DATA_TABLES, SCHEMA_VERSION, VIEW_NAMES, parquet_relation
from .store import Store
from .upload_files import table_of

__all__ = [
    "Interval",
    "PartsCheck",
    "check_copied_part",
    "check_parts",
    "inspect_folder",
    "inspect_store",
    "parts_read_only",
    "sequence_gaps",
]

_TABLES = ("part_info", "applied", "upload_files", "dedup_keys", *VIEW_NAMES)
_PART = re.compile(r"(\d{6})\.duckdb")


def check_parts(store: Store) -> list[str]:
    """Problems of an open store's rows, ledger and uploads."""
    found = PartsCheck()
    _inspect(_open_parts(store), _ask_store(store), store.uploads_directory, found, deep=False)
    _check_sealed(store, found, deep=False)
    return found.problems


def inspect_store(store: Store) -> PartsCheck:
    """The same and all else, beside a running server. Raises StoreBusy, StoreBroken."""
    found = PartsCheck()
    with store.hold() as held:
        parts = [AttachedPart(p.number, p.name, p.path.name) for p in held.parts]
        ask = _ask_store(store)
        for part in parts:
            _inspect_part(part, ask, store.uploads_directory, found, deep=True)
        _check_sealed(store, found, deep=True)
        found.missing, found.doubled = store.missing_parts, store.doubled_parts
        found.problems += [f"open/{n:06d}.duckdb: {REPLACED}" for n in store.parts.replaced]
        check_losses(
            found,
            store.sealed.manifest.read_manifest(),
            store.uploads_directory,
            attached=[part.number for part in parts],
            newest_commit=store.ledger.commit_number,
            last_known=0,
        )
    # What concerns several parts is asked at one moment: a statement over parts of which one was
    # touched before a commit, and the next behind it, would see a gap.
    with frozen(store, share_rollups=True) as at_once:
        sound = [
            AttachedPart(part.number, part.name, f"{part.number:06d}.duckdb")
            for part in at_once.parts
            if part.number not in found.damaged
        ]
        if sound:
            check_numbers(sound, at_once.ask, found)
            files = _sound_files(at_once.manifest.files, found)
            ledgers = sealed_ledgers(store.sealed.directory, files, sound[0].number)
            check_sequences(sound, at_once.ask, found, ledgers)
        _check_rollups(store, at_once, found)
    return found


def _check_rollups(store: Store, at_once: Frozen, found: PartsCheck) -> None:
    _read_rollups(_ask_store(store), found)
    if found.problems:
        return  # a recount would only say the same again
    found.problems += recount_problems(
        at_once.ask,
        at_once.snapshot,
        at_once.manifest,
        name_of=view_of,
        where="memory.main",
    )


def _read_rollups(ask: Ask, found: PartsCheck) -> None:
    for table, columns in _columns_of(ROLLUPS, ask).items():
        try:
            ask(f"SELECT bit_xor(hash({', '.join(columns)})) FROM {ROLLUPS}.{table}")
        except Unreadable as error:
            _lose_rollups(str(error), found)
            return


def _lose_rollups(reason: str, found: PartsCheck) -> None:
    found.are_rollups_lost = True
    found.problems.append(
        f"rollups.duckdb: it cannot be read ({reason}); `ingester check --repair` makes the rollups"
        " anew from the rows"
    )


def sequence_gaps(store: Store) -> list[Interval]:
    """Journal sequences that are in no batch of an open store."""
    found = PartsCheck()
    parts, sealed = _open_parts(store), store.sealed
    ledgers = sealed_ledgers(sealed.directory, sealed.all_files(), parts[0].number)
    check_sequences(parts, _ask_store(store), found, ledgers)
    return found.gaps


def inspect_folder(data_dir: Path) -> PartsCheck:
    """The same on a stopped folder, whose lock the caller holds."""
    found = PartsCheck()
    manifest = maybe_manifest(data_dir / "control.sqlite") or Manifest()
    sealed = {part.part_number: part for part in manifest.parts}
    for name, problem in sealed_problems(data_dir / "sealed", manifest.files, deep=True):
        found.lost_files.append(f"sealed/{name}")
        found.problems.append(problem)
    found.strangers = sealed_strangers(data_dir / "sealed", manifest)
    found.problems += [f"sealed/{name}: {STRANGER}" for name in found.strangers]
    with parts_read_only(data_dir) as (connection, attached, refused):
        # What a sealing has left is no part any more.
        parts = [part for part in attached if part.number not in sealed]
        for part in attached:
            with suppress(duckdb.Error):
                told = sealed.get(part.number)
                if told is not None and not is_sealed(connection, part.name, told):
                    found.problems.append(f"open/{part.file_name}: {REPLACED}")
        refused = {number: why for number, why in refused.items() if number not in sealed}
        for number, reason in refused.items():
            found.damaged[number] = reason
            found.problems.append(
                f"open/{number:06d}.duckdb: the part cannot be opened ({reason}){ADVICE}"
            )
        numbers = {*(part.number for part in parts), *refused}
        # A part that was the newest is missed only by what else bears its number.
        newest = newest_number(manifest, data_dir / "uploads", data_dir / "sealed")
        named = numbers_named(data_dir / "export")
        found.missing = missing_numbers(numbers, sealed, max([newest, *named]))
        found.problems += part_strangers(data_dir / "open")

        def ask(sql: str) -> Rows:
            try:
                return connection.execute(sql).fetchall()
            except duckdb.Error as error:
                raise Unreadable(first_line(error)) from error

        uploads, directory = data_dir.absolute() / "uploads", data_dir.absolute() / "sealed"
        files = _sound_files(manifest.files, found)
        there = [part.number for part in parts]
        found.doubled = doubled_parts(connection, there, files, directory)
        parts = [part for part in parts if part.number not in found.doubled]
        _inspect(parts, ask, uploads, found, deep=True)
        sound = [part for part in parts if part.number not in found.damaged]
        if sound:
            ledgers = sealed_ledgers(directory, files, sound[0].number)
            check_sequences(sound, ask, found, ledgers)
        marks = [found.applied_seq, *(part.seq_high for part in manifest.parts)]
        found.applied_seq = max(marks)
        name_of = _attach_rollups_of_folder(connection, data_dir / "rollups.duckdb", found)
        _check_losses_of_folder(ask, name_of, uploads, sound, manifest, found)
        if name_of is not None:
            _check_rollups_of_folder(ask, name_of, data_dir, sound, manifest, found)
    return found


def _attach_rollups_of_folder(
    connection: duckdb.DuckDBPyConnection, path: Path, found: PartsCheck
) -> Callable[[str], str] | None:
    """The names of their tables."""
    if not path.exists():
        return None
    try:
        return attach_rollups(connection, path)
    except duckdb.Error as error:
        _lose_rollups(first_line(error), found)
        return None


def _check_losses_of_folder(
    ask: Ask,
    name_of: Callable[[str], str] | None,
    uploads: Path,
    sound: Sequence[AttachedPart],
    manifest: Manifest,
    found: PartsCheck,
) -> None:
    marks = [part.commit_high for part in manifest.parts]
    seen = [manifest.evaluated.commit_number, CommitMark(uploads.parent).read()]
    with suppress(Unreadable):
        marks += [
            number or 0
            for part in sound
            for ((number,),) in [ask(f"SELECT max(commit_number) FROM {part.name}.applied")]
        ]
        if name_of is not None:
            ((number,),) = ask(f"SELECT coalesce(max(commit_number), 0) FROM {name_of('progress')}")
            seen.append(number)
    check_losses(
        found,
        manifest,
        uploads,
        attached=[part.number for part in sound],
        newest_commit=max(marks, default=0),
        last_known=max(seen),
    )


def _check_rollups_of_folder(
    ask: Ask,
    name_of: Callable[[str], str],
    data_dir: Path,
    parts: Sequence[AttachedPart],
    manifest: Manifest,
    found: PartsCheck,
) -> None:
    _read_rollups(ask, found)
    if found.problems or not parts:
        return
    files: dict[str, tuple[Path, ...]] = {}
    for name in sorted(found.listed):
        table = table_of(name)
        files[table] = (*files.get(table, ()), (data_dir / "uploads" / name).absolute())
    sealed: dict[str, tuple[SealedFile, ...]] = {}
    for file in manifest.files:
        sealed[file.table] = (*sealed.get(file.table, ()), file)
    snapshot = Snapshot(
        0, tuple(p.name for p in parts), files, (data_dir / "sealed").absolute(), sealed
    )
    found.problems += recount_problems(
        ask,
        snapshot,
        manifest,
        name_of=name_of,
        where="memory.main",
    )
    found.are_rollups_wrong = bool(found.problems)


@contextmanager
def parts_read_only(
    data_dir: Path,
) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[AttachedPart], dict[int, str]]]:
    """An instance with every part that can be attached; the others by number, with the reason."""
    parts: list[AttachedPart] = []
    refused: dict[int, str] = {}
    with closing(duckdb.connect(":memory:", config={"threads": 1})) as connection:
        for path in sorted((data_dir / "open").glob("*.duckdb")):
            if (match := _PART.fullmatch(path.name)) is None:
                continue
            part = AttachedPart(int(match[1]), f"part_{match[1]}", path.name)
            quoted = str(path).replace("'", "''")
            try:
                with suppress(OSError):  # of a folder that may only be read
                    put_back_metadata(path)
                connection.execute(f"ATTACH '{quoted}' AS {part.name} (READ_ONLY)")
                version = connection.execute(
                    f"SELECT max(schema_version) FROM {part.name}.part_info"
                ).fetchall()[0][0]
            except duckdb.Error as error:
                refused[part.number] = first_line(error)
                continue
            except StoreFailed as error:
                refused[part.number] = str(error)
                continue
            if version is None or version > SCHEMA_VERSION:
                refused[part.number] = f"it has schema version {version}: a newer release wrote it"
                continue
            parts.append(part)
        yield connection, parts, refused


def check_copied_part(
    connection: duckdb.DuckDBPyConnection, number: int, uploads: Path
) -> list[str]:
    """Rows of each batch of a part that was copied against its ledger, footers of its uploads."""
    found = PartsCheck()
    name = f"part_{number:06d}"
    part = AttachedPart(number, name, f"part {number}")
    _check_batches(part, lambda sql: connection.execute(sql).fetchall(), uploads, found, deep=False)
    return found.problems


def _check_sealed(store: Store, found: PartsCheck, *, deep: bool) -> None:
    sealed = store.sealed
    lost = set(sealed.missing)
    found.problems += [
        f"sealed/{name}: it is missing or cut; put it back from a backup" for name in sealed.missing
    ]
    found.problems += [f"sealed/{name}: {STRANGER}" for name in sealed.strangers]
    files = [file for file in sealed.all_files() if file.name not in lost]
    found.lost_files += [f"sealed/{name}" for name in sealed.missing]
    for name, problem in sealed_problems(sealed.directory, files, deep=deep):
        found.lost_files.append(f"sealed/{name}")
        found.problems.append(problem)


def _sound_files(files: Iterable[SealedFile], found: PartsCheck) -> list[SealedFile]:
    lost = set(found.lost_files)
    return [file for file in files if f"sealed/{file.name}" not in lost]


def _open_parts(store: Store) -> list[AttachedPart]:
    return [AttachedPart(p.number, p.name, p.path.name) for p in store.parts.parts]


def _ask_store(store: Store) -> Ask:
    """Each statement on a lease of its own, so that a reopening never waits for a whole check."""

    def ask(sql: str) -> Rows:
        try:
            with store.database.lease() as lease, lease.using() as cursor:
                return cursor.execute(sql).fetchall()
        except StoreBroken:
            raise
        except StoreBusy as error:
            if "orrupt" in str(error) or "checksum" in str(error):
                raise Unreadable(str(error)) from error
            raise

    return ask


def _inspect(
    parts: Sequence[AttachedPart], ask: Ask, uploads: Path, found: PartsCheck, *, deep: bool
) -> None:
    sound = [part for part in parts if _inspect_part(part, ask, uploads, found, deep=deep)]
    if sound:
        check_numbers(sound, ask, found)


def _inspect_part(
    part: AttachedPart, ask: Ask, uploads: Path, found: PartsCheck, *, deep: bool
) -> bool:
    """Whether it can be read."""
    if deep and not _is_readable(part, ask, found):
        return False
    with suppress(Unreadable):
        _check_batches(part, ask, uploads, found, deep=deep)
    return True


def _is_readable(part: AttachedPart, ask: Ask, found: PartsCheck) -> bool:
    """Read all of its tables; the first that cannot be read counts for the part."""
    columns = _columns_of(part.name, ask)
    for table in _TABLES:
        if table not in columns:
            if table in ("logs", "metrics", "dedup_keys"):
                continue  # a part of the first schema, which is given them when it is opened
            reason = f"it has no table {table}"
        else:
            try:
                ask(f"SELECT bit_xor(hash({', '.join(columns[table])})) FROM {part.name}.{table}")
                continue
            except Unreadable as error:
                reason = f"the table {table} cannot be read: {error}"
        found.damaged[part.number] = reason
        found.problems.append(f"open/{part.file_name}: {reason}{ADVICE}")
        return False
    return True


def _columns_of(database: str, ask: Ask) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {}
    for table, column in ask(
        "SELECT table_name, column_name FROM duckdb_columns() "
        f"WHERE database_name = '{database}' ORDER BY column_index"
    ):
        columns.setdefault(table, []).append(f'"{column}"')
    return columns


def _check_batches(
    part: AttachedPart, ask: Ask, uploads: Path, found: PartsCheck, *, deep: bool
) -> None:
    """Rows of each batch against the ledger, uploads against their list."""
    listed = ask(f"SELECT file_name, row_count, byte_count FROM {part.name}.upload_files")
    readable: dict[str, list[Path]] = {}
    readable_names: list[str] = []
    for name, row_count, byte_count in listed:
        found.listed.add(name)
        path = uploads / name
        if deep:
            reason = file_problem(path, row_count, byte_count)
        else:
            reason = footer_problem(path, row_count)
        if reason is None:
            readable.setdefault(table_of(name), []).append(path)
            readable_names.append(name)
        else:
            found.lost_files.append(name)
            found.problems.append(
                f"uploads/{name}: {reason}; put it back from a backup, {row_count} rows are in it"
            )
    relations = [
        relation
        for table in DATA_TABLES
        for relation in (
            f"{part.name}.{table}",
            *([parquet_relation(readable[table])] if table in readable else []),
        )
        if _exists(part, table, ask)
    ]
    # Of an upload whose file is damaged, or came after the list was read, neither side is counted.
    absent = (
        f"(SELECT request_number FROM {part.name}.upload_files WHERE {_not_in(readable_names)})"
    )
    rows = " UNION ALL ".join(
        f"SELECT batch_id FROM {relation} WHERE request_number NOT IN {absent}"
        for relation in relations
    )
    for batch_id, expected, stored in ask(
        "SELECT batch_id, coalesce(a.row_count, 0), coalesce(e.rows, 0) FROM "
        f"(SELECT batch_id, sum(row_count) AS row_count FROM {part.name}.applied "
        f"WHERE lane NOT IN {MARKS} AND NOT (lane LIKE 'bulk%' AND request_number_max IN {absent}) "
        "GROUP BY ALL) a FULL JOIN "
        f"(SELECT batch_id, count(*) AS rows FROM ({rows}) GROUP BY ALL) e "
        "USING (batch_id) WHERE coalesce(a.row_count, 0) <> coalesce(e.rows, 0) "
        f"ORDER BY batch_id LIMIT {NAMED_MAX}"
    ):
        found.problems.append(
            f"{part.file_name}: batch {batch_id} has {stored} rows, the ledger says {expected}"
        )


def _not_in(names: Sequence[str]) -> str:
    if not names:
        return "true"
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"file_name NOT IN ({quoted})"


def _exists(part: AttachedPart, table: str, ask: Ask) -> bool:
    found = ask(
        "SELECT count(*) FROM duckdb_columns() "
        f"WHERE database_name = '{part.name}' AND table_name = '{table}'"
    )
    return bool(found[0][0])
