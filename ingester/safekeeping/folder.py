"""What may lie in a data folder: the names, and whose they are.

A file nobody knows is a problem only where it can do harm: in our own folders, and beside them when
its name looks like one of ours. A data folder may well be a mounted disk with things of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["strangers"]

_TOP = re.compile(
    r"lock|control\.sock|control\.sqlite(-wal|-shm|-journal|\.v\d+\.bak)?|secret\.key"
    r"|\.secret\.key\.partial|first-run\.txt|rollups\.duckdb(\.wal(\.\w+)?|\.meta(\.partial)?|\.v\d+\.bak(\.partial)?)?"
    r"|rollups(-\w+)?\.duckdb(\.wal(\.\w+)?)?|.*\.damaged-.+"
)
_TOP_FOLDERS = frozenset({
    "journal", "open", "uploads", "sealed", "export", "tmp", "dead-letter", "rollups",
})  # fmt: skip
# Names that somebody could take for data of ours.
_LOOKS_LIKE_OURS = re.compile(r".*\.(duckdb|sqlite|seg|parquet|wal)")
_UPLOADS = re.compile(r"\d{6}-[0-9a-f]{16}(-[a-z_]+)?\.parquet(\.tmp)?|.*\.damaged-.+")


def strangers(data_dir: Path) -> Iterator[str]:
    """Problems: files that are none of ours. `journal/` and `open/` are looked at elsewhere."""
    for path in sorted(data_dir.iterdir()):
        if path.is_dir():
            continue
        if not _TOP.fullmatch(path.name) and _LOOKS_LIKE_OURS.fullmatch(path.name):
            yield f"{path.name}: this is no file of the store; move it elsewhere"
    uploads = data_dir / "uploads"
    for path in sorted(uploads.iterdir()) if uploads.is_dir() else ():
        if not _UPLOADS.fullmatch(path.name):
            yield f"uploads/{path.name}: this is no upload file; move it elsewhere"
    for path in sorted((data_dir / "dead-letter").glob("*.entry")):
        yield (
            f"dead-letter/{path.name}: a journal record that could not be loaded (a bug of"
            " ingester's): report it, and keep the file for the release that mends it"
        )
