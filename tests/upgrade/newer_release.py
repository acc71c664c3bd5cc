"""A program that is a release ahead: every file that has tables has one column or table more.

Stands in for a release that is not made yet: migrations run in a server of its own, and what they
leave is met by the present one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingester.store import increments, parts, rebuilt_part, rollup_file, schema
from ingester.store.control import file as control_file
from ingester.store.migrations import Migration, bundled_migrations

__all__ = ["become_newer"]

NEWEST_CONTROL = bundled_migrations()[-1].version + 1
_NEWER_PART = ("ALTER TABLE {part}.logs ADD COLUMN colour VARCHAR",)
_NEWER_ROLLUPS = ("CREATE TABLE {rollups}.notes_g1(note VARCHAR)",)
_NEWER_CONTROL = "CREATE TABLE colours (name TEXT PRIMARY KEY) STRICT;"


def become_newer() -> None:
    newer = schema.SCHEMA_VERSION + 1
    for module in (parts, rebuilt_part, schema, increments):
        module.SCHEMA_VERSION = newer  # type: ignore[attr-defined]
    parts.VERSION_DDL = {**parts.VERSION_DDL, newer: _NEWER_PART}
    parts.PART_DDL = (*parts.PART_DDL, *_NEWER_PART)
    rollup_file._VERSION_DDL = {rollup_file.ROLLUPS_VERSION + 1: _NEWER_ROLLUPS}
    rollup_file.ROLLUPS_VERSION += 1
    known: Callable[[], Sequence[Migration]] = control_file.bundled_migrations
    steps = (*known(), Migration(NEWEST_CONTROL, "newer", _NEWER_CONTROL))
    control_file.bundled_migrations = lambda: steps


if __name__ == "__main__":
    from ingester.cli import main

    become_newer()
    main(prog_name="ingester")
