"""`check`: everything that is stored is read once; what is wrong is said in sentences.

1. Nothing is changed.
2. Beside a running server, parts are read through its own instance and control data through its
   own SQLite library, never by other descriptors of live files.
3. What is counted while rows come in is counted in one read transaction, and the journal's end is
   compared with a mark taken before it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from ..errors import IngesterError, NotFound, StoreBusy
from ..journal.check import JournalCheck, check_journal
from ..store.check import PartsCheck, inspect_folder, inspect_store
from ..store.check_files import export_problems
from ..store.control.copying import control_problems
from ..store.lock import FolderLock
from ..store.store import Store
from .folder import strangers

__all__ = ["FolderCheck", "check_folder", "check_running", "look_at_folder"]

# A segment that retention deletes between its listing and its reading.
_JOURNAL_TRIES = 5


class FolderCheck(Struct, kw_only=True):
    """A stopped folder, looked at: what repair goes by."""

    parts: PartsCheck
    journal: JournalCheck
    problems: list[str]


def check_folder(data_dir: Path) -> list[str]:
    """Problems of a stopped folder. Raises NotFound, and StoreBusy when a server has it."""
    if not (data_dir / "control.sqlite").exists() and not (data_dir / "open").is_dir():
        raise NotFound(f"{data_dir} holds no data; `ingester serve` makes it")
    lock = FolderLock(data_dir)
    lock.acquire()
    try:
        return look_at_folder(data_dir).problems
    finally:
        lock.release()


def look_at_folder(data_dir: Path) -> FolderCheck:
    """The same for who holds the lock already."""
    parts = inspect_folder(data_dir)
    journal = _check_journal(data_dir, parts.applied_seq)
    problems = [
        *control_problems(data_dir / "control.sqlite"),
        *parts.problems,
        *journal.problems,
        *export_problems(data_dir / "export", is_running=False),
        *strangers(data_dir),
    ]
    return FolderCheck(parts=parts, journal=journal, problems=problems)


def check_running(store: Store, data_dir: Path, *, at_start: Iterable[str]) -> list[str]:
    """Problems beside a running server; `at_start` are those that its start has met."""
    applied_seq = store.ledger.applied_seq
    journal = _check_journal(data_dir, applied_seq)
    parts = inspect_store(store)
    return [
        *at_start,
        *control_problems(data_dir / "control.sqlite"),
        *parts.problems,
        *journal.problems,
        *export_problems(data_dir / "export", is_running=True),
        *strangers(data_dir),
    ]


def _check_journal(data_dir: Path, applied_seq: int) -> JournalCheck:
    for tries_left in range(_JOURNAL_TRIES, -1, -1):
        try:
            return check_journal(data_dir / "journal", applied_seq=applied_seq)
        except FileNotFoundError:
            if not tries_left:
                raise StoreBusy("journal segments are being deleted; try again") from None
        except IngesterError as error:
            return JournalCheck(problems=[f"journal/: {error}"])
        except OSError as error:
            return JournalCheck(problems=[f"journal/: it cannot be read ({error})"])
    raise AssertionError
