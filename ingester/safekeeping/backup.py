"""`backup`: a consistent copy of a data folder, beside a running server or of a stopped one.

The order makes that nothing in it is ahead of the rows: control data first, then the store at one
moment (`store/frozen.py`) with rollups, upload files and sealed files, the journal last. Requests
that were acknowledged before the backup began are in it exactly once: rows up to the moment, behind
it as journal records, which the first start of a restored folder loads.

1. A backup is complete when `backup.json` was renamed into place. Until then the one before it is
   the backup, with all of its files.
2. Files that never change (uploads, sealed ones) lie under `files/` and are copied once, however
   many backups name them. They are copies, never links: a backup must outlive damage of the
   original. Everything else lies under `sets/<id>/`.
3. Before it counts, the copy is opened: rows of each batch against the ledger, digests while
   writing, SQLite's own check, every frame of the journal.
4. Journal segments are not deleted meanwhile, and sealing removes nothing that is to be copied.
5. `secret.key` is left out unless it is asked for: without it who has the backup cannot see keys.
   After a restore they work, but those that could be copied cannot be shown any more.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from .. import __version__
from ..errors import StoreBusy
from ..journal.recovery import recover
from ..protocol.frames import SegmentHeader, encode_frame, encode_segment_header
from ..store.control.copying import control_problems, copy_control, put_manifest
from ..store.copy_check import copy_problems
from ..store.frozen import Frozen, FrozenPart, frozen
from ..store.schema import VIEW_NAMES
from ..store.store import Store
from ..store.syncing import sync_path
from ..store.upload_files import table_of
from .copies import Pace, SlowFile, copy_file, digest_of
from .manifest import (
    MANIFEST_NAME,
    Backup,
    BackupFailed,
    BackupFile,
    BackupPart,
    FileKind,
    read_manifest,
    write_manifest,
)

__all__ = ["BackupSource", "back_up", "is_backup_folder", "told"]

_SET = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
_OURS = frozenset({MANIFEST_NAME, f".{MANIFEST_NAME}.partial", "files", "sets", "lock"})
_SEGMENT_NAME = "00000000000000000001.seg"
_ALWAYS_LEFT_OUT = (
    "the configuration file and TLS certificates: they are not in the data folder",
    "export/: made again when somebody asks",
)
_NO_SECRET = (
    "secret.key: keys work after a restore, but none of them can be shown any more until it is put"
    " back (--with-secrets takes it along)"
)


class BackupSource(Struct, kw_only=True):
    """What is backed up. `next_seq`: every journal record below it was acknowledged; None when no
    server runs. `keep_above` holds journal segments back.
    """

    store: Store
    data_dir: Path
    next_seq: Callable[[], int] | None = None
    keep_above: Callable[[int | None], None] = lambda _: None


def back_up(
    source: BackupSource, directory: Path, *, with_secrets: bool, pace: Pace
) -> tuple[Backup, int]:
    """The backup, and how many of its bytes were copied now. Raises BackupFailed, StoreBusy,
    StoreBroken, and what `pace` does.
    """
    data_dir = source.data_dir.absolute()
    if directory == data_dir or data_dir in directory.parents or directory in data_dir.parents:
        raise BackupFailed(f"{directory} and the data folder {data_dir} lie in one another")
    try:
        with _locked(directory):
            previous = read_manifest(directory)
            store = source.store
            is_less = store.missing_parts or store.doubled_parts or store.sealed.lost
            if previous is not None and is_less:
                raise BackupFailed(
                    f"rows of this store are lost (`ingester check` tells which), and {directory}"
                    " holds a backup that may have them: it is left as it is; repair first, or back"
                    " up into another folder"
                )
            _sweep(directory, previous)
            return _Run(source, directory, previous, with_secrets, pace).run()
    except StoreBusy as error:
        raise StoreBusy(
            f"the backup was interrupted ({error}); it does not count, run it again"
        ) from error
    except OSError as error:
        name = error.filename or directory
        raise BackupFailed(f"{name}: {error.strerror or error}; nothing was changed") from error


def is_backup_folder(directory: Path) -> bool:
    """Whether a backup may be made there: empty, not there yet, or one of ours."""
    if not directory.exists():
        return True
    return all(path.name in _OURS for path in directory.iterdir())


class _Run:
    """One backup under way."""

    def __init__(
        self,
        source: BackupSource,
        directory: Path,
        previous: Backup | None,
        with_secrets: bool,
        pace: Pace,
    ) -> None:
        self._source = source
        self._directory = directory
        self._with_secrets = with_secrets
        self._pace = pace
        now = datetime.now(UTC)
        self._begun_at = now
        self._id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._set = directory / "sets" / self._id
        self._kept = {file.path: file for file in previous.files} if previous else {}
        self._files: list[BackupFile] = []
        self._parts: list[BackupPart] = []
        self._rollups: BackupPart | None = None
        self._rows = dict.fromkeys(VIEW_NAMES, 0)
        self._notes: list[str] = []
        self._copied_bytes = 0

    def run(self) -> tuple[Backup, int]:
        source = self._source
        self._set.mkdir(mode=0o700, parents=True)
        try:
            source.keep_above(source.store.ledger.applied_seq)
            self._copy_control()
            with frozen(source.store) as found:
                put_manifest(self._set / "control.sqlite", found.manifest)
                self._note("control", self._set / "control.sqlite", "control.sqlite")
                self._copy_files(found)
                self._rollups = self._copy_part(found, found.rollups)
                found.release_rollups()
                for part in found.parts:
                    self._parts.append(self._copy_part(found, part))
                # What was acknowledged by now is in the journal, or was seen.
                next_seq = None if source.next_seq is None else source.next_seq()
                records, last_seq = self._copy_journal(found.applied_seq, next_seq)
            self._verify(found)
            backup = self._backup(found, records, last_seq)
            _sync_folders(self._directory)
            write_manifest(self._directory, backup)
        except BaseException:
            shutil.rmtree(self._set, ignore_errors=True)
            raise
        finally:
            source.keep_above(None)
        _sweep(self._directory, backup)
        return backup, self._copied_bytes

    def _copy_control(self) -> None:
        data_dir = self._source.data_dir
        copy_control(data_dir / "control.sqlite", self._set / "control.sqlite")
        if self._with_secrets and (data_dir / "secret.key").exists():
            self._copy("secret", data_dir / "secret.key", "secret.key")
        for path in sorted((data_dir / "dead-letter").glob("*.entry")):
            self._copy("dead-letter", path, f"dead-letter/{path.name}")

    def _copy_files(self, found: Frozen) -> None:
        """Uploads and sealed files: those that are here already stay."""
        uploads = self._source.store.uploads_directory
        for part in found.parts:
            for name, (row_count, byte_count) in sorted(part.upload_files.items()):
                self._keep_or_copy("upload", uploads / name, f"uploads/{name}", byte_count)
                self._rows[table_of(name)] += row_count
        for file in found.manifest.files:
            path = found.snapshot.sealed_directory / file.name
            self._keep_or_copy("sealed", path, f"sealed/{file.name}", file.byte_count)
            if file.table in self._rows:
                self._rows[file.table] += file.row_count

    def _keep_or_copy(self, kind: FileKind, path: Path, name: str, byte_count: int) -> None:
        target = self._directory / "files" / name
        known = self._kept.get(f"files/{name}")
        with suppress(FileNotFoundError):
            if known and known.bytes == byte_count == target.stat().st_size:
                self._files.append(known)
                return
        try:
            size, digest = copy_file(path, target, self._pace)
        except FileNotFoundError:
            raise BackupFailed(
                f"{name} is missing from the data folder, or damaged: `ingester check` tells more"
            ) from None
        if size != byte_count:
            raise BackupFailed(f"{name} has {size} bytes, not {byte_count}: see `ingester check`")
        self._add(kind, target, name, size, digest)

    def _copy_part(self, found: Frozen, part: FrozenPart) -> BackupPart:
        folder = f"parts/{part.number:06d}" if part.number else part.name
        files: dict[str, list[str]] = {}
        for table in part.row_counts:
            for rows in found.files_of(part, table):
                path = self._set / folder / f"{table}-{rows.start}.parquet"
                with SlowFile(path, self._pace) as file:
                    found.write(part, table, rows, file)  # type: ignore[arg-type]
                    digest = file.finish()
                    self._add("rows", path, "", file.byte_count, digest)
                files.setdefault(table, []).append(path.relative_to(self._directory).as_posix())
            if part.number and table in self._rows:
                self._rows[table] += part.row_counts[table]
        return BackupPart(
            number=part.number,
            schema_version=part.schema_version,
            created_at=part.created_at,
            rows=part.row_counts,
            files=files,
            ddl=part.ddl,
        )

    def _copy_journal(self, applied_seq: int, next_seq: int | None) -> tuple[int, int]:
        """Records behind the store's, as one new segment: how many, and the last."""
        recovery = recover(self._source.data_dir / "journal", after_seq=applied_seq)
        path = self._set / "journal" / _SEGMENT_NAME
        count, last_seq = 0, applied_seq
        with SlowFile(path, self._pace) as file:
            file.write(encode_segment_header(SegmentHeader(1, applied_seq + 1)))
            for seq, payload in recovery:
                if seq != last_seq + 1 or (next_seq is not None and seq >= next_seq):
                    break
                file.write(encode_frame(seq, payload))
                count, last_seq = count + 1, seq
            digest = file.finish()
            self._add("journal", path, f"journal/{_SEGMENT_NAME}", file.byte_count, digest)
        if next_seq is not None and last_seq + 1 < next_seq:
            raise BackupFailed(
                f"journal records {last_seq + 1} to {next_seq - 1} cannot be read: `ingester check`"
                " tells more"
            )
        self._notes += [f"journal/{problem}" for problem in recovery.report.problems]
        return count, last_seq

    def _copy(self, kind: FileKind, path: Path, name: str) -> None:
        target = self._set / name
        size, digest = copy_file(path, target, self._pace)
        self._add(kind, target, name, size, digest)

    def _note(self, kind: FileKind, target: Path, name: str) -> None:
        """A file that is there by other means."""
        size, digest = digest_of(target, self._pace)
        self._add(kind, target, name, size, digest)

    def _add(self, kind: FileKind, target: Path, name: str, size: int, digest: str) -> None:
        path = target.relative_to(self._directory).as_posix()
        self._files.append(
            BackupFile(path=path, kind=kind, restored_as=name, bytes=size, sha256=digest)
        )
        self._copied_bytes += size

    def _verify(self, found: Frozen) -> None:
        """Open the copy and count."""
        problems = control_problems(self._set / "control.sqlite")
        problems += copy_problems(
            {part.number: part.files for part in self._parts},
            {part.number: part.rows for part in self._parts},
            self._directory,
            sealed=[(f"files/sealed/{f.name}", f.row_count) for f in found.manifest.files],
            temporary=self._set / "tmp",
        )
        shutil.rmtree(self._set / "tmp", ignore_errors=True)
        if problems:
            raise BackupFailed(f"the copy does not add up: {'; '.join(problems[:3])}")

    def _backup(self, found: Frozen, records: int, last_seq: int) -> Backup:
        left_out = list(_ALWAYS_LEFT_OUT)
        if not self._with_secrets:
            left_out.insert(0, _NO_SECRET)
        return Backup(
            release=__version__,
            id=self._id,
            begun_at=_text(self._begun_at),
            finished_at=_text(datetime.now(UTC)),
            commit_number=found.commit_number,
            applied_seq=found.applied_seq,
            journal_records=records,
            journal_last_seq=last_seq,
            rows=self._rows,
            parts=self._parts,
            rollups=self._rollups,
            files=self._files,
            left_out=left_out,
            notes=self._notes,
        )


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One backup at a time into a folder. Raises BackupFailed."""
    if directory.exists() and not directory.is_dir():
        raise BackupFailed(f"{directory} is no folder")
    if not is_backup_folder(directory):
        raise BackupFailed(
            f"{directory} holds files that are no backup; name an empty folder, or that of an"
            " earlier backup"
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise BackupFailed(f"another backup into {directory} is under way") from None
    try:
        yield
    finally:
        os.close(descriptor)


def _sweep(directory: Path, backup: Backup | None) -> None:
    """Remove what no complete backup names: older sets, and what an interruption has left."""
    named: Mapping[str, BackupFile] = {f.path: f for f in backup.files} if backup else {}
    for path in (directory / "sets").glob("*"):
        if _SET.fullmatch(path.name) and not (backup and backup.id == path.name):
            shutil.rmtree(path, ignore_errors=True)
    files = directory / "files"
    for path in sorted(files.rglob("*"), reverse=True):
        if path.is_dir():
            with suppress(OSError):  # others are in it
                path.rmdir()
        elif path.relative_to(directory).as_posix() not in named:
            path.unlink(missing_ok=True)


def _sync_folders(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if path.is_dir():
            sync_path(path)


def told(backup: Backup, copied_bytes: int) -> dict[str, object]:
    """What who asked for the backup is told."""
    return {
        "id": backup.id,
        "begun_at": backup.begun_at,
        "finished_at": backup.finished_at,
        "rows": dict(backup.rows),
        "journal_records": backup.journal_records,
        "commit_number": backup.commit_number,
        "files": len(backup.files),
        "bytes": backup.byte_count,
        "copied_bytes": copied_bytes,
        "left_out": backup.left_out,
        "notes": backup.notes,
    }
