"""`backup.json`: what a backup holds, and by what it is proved whole.

1. A backup is complete when this file has been renamed into place, and is what this file names.
   Whatever else lies in the folder is a leaving of one that was interrupted.
2. Every file has its size and SHA-256 (`sha256sum` says the same).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from ..errors import RequestError
from ..store.syncing import sync_path

__all__ = [
    "FORMAT",
    "MANIFEST_NAME",
    "Backup",
    "BackupFailed",
    "BackupFile",
    "BackupPart",
    "read_manifest",
    "write_manifest",
]

FORMAT = 1
MANIFEST_NAME = "backup.json"

FileKind = Literal["control", "secret", "upload", "sealed", "rows", "journal", "dead-letter"]


class BackupFailed(RequestError):
    """A backup or a restore cannot be made, or what is there cannot be trusted."""

    status_hint = 409


class BackupFile(Struct, frozen=True, kw_only=True):
    """One file: where it lies in the backup, and where in a data folder ("" : rows of a part)."""

    path: str
    kind: FileKind
    restored_as: str = ""
    bytes: int
    sha256: str


class BackupPart(Struct, frozen=True, kw_only=True):
    """An open part: the rows of its tables, and the files that hold them in their order. `ddl`: how
    the tables of the rollups are made; a part's are known.
    """

    number: int
    schema_version: int
    created_at: str
    rows: Mapping[str, int]
    files: Mapping[str, list[str]]
    ddl: Mapping[str, str] = {}


class Backup(Struct, frozen=True, kw_only=True):
    """`rows` are those of public tables. The journal's records are behind them: the first start of
    a restored folder loads them.
    """

    format: int = FORMAT
    release: str
    id: str
    begun_at: str
    finished_at: str
    commit_number: int
    applied_seq: int
    journal_records: int
    journal_last_seq: int
    rows: Mapping[str, int]
    parts: list[BackupPart]
    rollups: BackupPart | None = None
    files: list[BackupFile]
    left_out: list[str]
    notes: list[str] = []

    @property
    def byte_count(self) -> int:
        return sum(file.bytes for file in self.files)


def read_manifest(directory: Path) -> Backup | None:
    """None when there is no complete backup. Raises BackupFailed."""
    path = directory / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackupFailed(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        version = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).get("format")
        if version is None or msgspec.json.decode(version) != FORMAT:
            found = "none" if version is None else bytes(version).decode()
            raise BackupFailed(
                f"{path} has format {found}, this release knows {FORMAT}: use the release that"
                " wrote it"
            )
        found_backup = msgspec.json.decode(content, type=Backup)
    except msgspec.DecodeError as error:
        raise BackupFailed(f"{path} is damaged: {error}") from error
    for file in found_backup.files:
        for name in (file.path, file.restored_as):
            if name.startswith("/") or ".." in Path(name).parts:
                raise BackupFailed(f"{path} names {name!r}, which lies outside of it")
    return found_backup


def write_manifest(directory: Path, backup: Backup) -> None:
    """Rename it into place: from now on this is the backup."""
    partial = directory / f".{MANIFEST_NAME}.partial"
    content = msgspec.json.format(msgspec.json.encode(backup), indent=1)
    descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(directory / MANIFEST_NAME)
    sync_path(directory)
