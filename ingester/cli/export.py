"""`ingester export`: rows to files that any engine reads, beside a running server or on a stopped
folder.

1. Into a folder, a file for each day: `<table>/day=YYYY-MM-DD/rows.parquet` (hive partitioning).
   A day is written under another name and renamed when it is whole: exporting it again replaces it.
2. Into a file or a pipe, all rows in one.
3. Rows are streamed: memory does not grow with their number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from ingester.cli.common import (
    EXIT_USAGE,
    Command,
    CommandFailed,
    config_option,
    data_dir_option,
    json_option,
    print_json,
    run_trio,
    settings,
)
from ingester.cli.local import settled_server
from ingester.cli.progress import Line, progress_line, size_text
from ingester.cli.rows import run_query, stream_query
from ingester.config import StoreConfig
from ingester.sandbox.messages import EXPORT_FORMATS, Format, maybe_format

__all__ = ["export"]

# The first bytes wait for the newest rows to be made readable; each later piece comes soon.
_PIECE_SECONDS_MAX = 600.0
_ENDINGS: dict[str, Format] = {".parquet": "parquet", ".csv": "csv", ".ndjson": "ndjson"}


@click.command(cls=Command)
@click.argument("table", required=False)
@click.option("--sql", help="Export the result of this SELECT instead, into a file or a pipe.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(EXPORT_FORMATS),
    help="Default: as the file's name ends, else parquet into a folder and ndjson into a pipe.",
)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="DIR|FILE|-",
    help="A folder (a file for each day), one file, or standard output.",
)
@click.option("--since", metavar="TIME", help="From: 1h, 7d, yesterday, 2026-11-21, …")
@click.option("--until", metavar="TIME", help="Up to, in the same spellings.")
@click.option(
    "--by",
    type=click.Choice(["received_at", "time"]),
    default="received_at",
    show_default=True,
    help="What counts for --since, --until and the days: the arrival, or the event's own time.",
)
@click.option(
    "--where",
    metavar="SQL",
    help="Only rows that meet this condition over the table's columns: \"level = 'error'\".",
)
@click.option(
    "--spreadsheet",
    is_flag=True,
    help="In CSV, put an apostrophe before texts that a spreadsheet would run as formulas.",
)
@config_option
@data_dir_option
@json_option
def export(
    table: str | None,
    sql: str | None,
    format_name: str | None,
    target: str,
    since: str | None,
    until: str | None,
    by: str,
    where: str | None,
    spreadsheet: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Export events, logs, metrics, rejects or requests as Parquet, CSV or NDJSON.

    \b
      ingester export events --to ./archive
      ingester export events --to ./archive --since yesterday --until today
      ingester export logs --format ndjson --to - --since 1h | zstd > last-hour.ndjson.zst
      ingester export logs --where "level = 'error' AND service = 'web'" --to errors.csv
      ingester export events --to sheet.csv --since 7d --spreadsheet
      ingester export --sql "SELECT action, count(*) FROM events GROUP BY ALL" --to actions.csv
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    if (table is None) == (sql is None):
        raise CommandFailed("name either a table or --sql", EXIT_USAGE)
    if sql is not None and (since, until, where) != (None, None, None):
        raise CommandFailed(
            "--since, --until and --where are for a table; write them into the SQL", EXIT_USAGE
        )
    wanted = _format(format_name, target)
    if spreadsheet and wanted != "csv":
        raise CommandFailed("--spreadsheet is for CSV", EXIT_USAGE)
    if target == "-" and as_json:
        raise CommandFailed("--json and --to - both want standard output", EXIT_USAGE)
    run = _Export(loaded.config.store, wanted, since, until, by, where, spreadsheet)
    with progress_line() as line:
        if sql is not None:
            if target != "-" and _is_folder(target):
                raise CommandFailed("--sql goes into a file or a pipe: it has no days", EXIT_USAGE)
            document = run.result(sql, target, line)
        else:
            assert table is not None
            document = run.table(table, target, line)
    if as_json:
        print_json(document)
    elif target != "-":
        rows = document["rows"]
        counted = "" if rows is None else f"{rows:,} row{'' if rows == 1 else 's'}, "
        size = size_text(document["bytes"])
        count = len(document["files"])
        click.echo(f"{counted}{size} in {count} file{'' if count == 1 else 's'}", err=True)


class _Export:
    """One run: where it reads, and what it has written."""

    def __init__(
        self,
        config: StoreConfig,
        format_name: Format,
        since: str | None,
        until: str | None,
        by: str,
        where: str | None,
        spreadsheet: bool,
    ) -> None:
        self._config = config
        self._folder = Path(config.data_dir)
        self._format = format_name
        self._by = by
        self._where = where
        from ingester.search.times import instant

        # Once: "1h" must mean the same for every day.
        now = datetime.now(UTC)
        self._since = None if since is None else instant("since", since, now)
        self._until = None if until is None else instant("until", until, now)
        self._spreadsheet = spreadsheet
        self._files: list[str] = []
        self._bytes = 0

    def result(self, sql: str, target: str, line: Line) -> dict[str, Any]:
        with self._writer(target, line, "result") as write:
            stream_query(self._folder, self._config, sql, self._format, write)
        return self._document(None)

    def table(self, table: str, target: str, line: Line) -> dict[str, Any]:
        from ingester.safekeeping.export import export_sql, time_column

        since, until = self._span
        # Refuses what cannot be, before a file is made.
        export_sql(table, since=since, until=until, by=self._by, where=self._where)
        if target == "-" or not _is_folder(target) or time_column(table, self._by) is None:
            path = target
            if target != "-" and _is_folder(target):
                path = str(Path(target) / table / f"rows.{self._format}")
            with self._writer(path, line, table) as write:
                self._stream(table, since, until, write)
            return self._document(None)
        rows = 0
        days = self._days(table)
        for number, (day, row_count) in enumerate(days, 1):
            path = str(Path(target) / table / f"day={day}" / f"rows.{self._format}")
            with self._writer(path, line, f"{table}: day {number} of {len(days)}, {day}") as write:
                self._stream(table, *self._within(day), write)
            rows += row_count
        return self._document(rows)

    def _within(self, day: date) -> tuple[str, str]:
        """The day, as far as `--since` and `--until` leave it."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = start + timedelta(days=1)
        return (
            (start if self._since is None else max(start, self._since)).isoformat(),
            (end if self._until is None else min(end, self._until)).isoformat(),
        )

    @property
    def _span(self) -> tuple[str | None, str | None]:
        since, until = self._since, self._until
        return (
            None if since is None else since.isoformat(),
            None if until is None else until.isoformat(),
        )

    def _days(self, table: str) -> Sequence[tuple[date, int]]:
        from ingester.safekeeping.export import days_sql

        since, until = self._span
        sql = days_sql(table, since=since, until=until, by=self._by, where=self._where)
        found = run_query(self._folder, self._config, sql).values()
        return [(date.fromisoformat(str(day)[:10]), int(str(count))) for day, count in found]

    def _stream(
        self, table: str, since: str | None, until: str | None, write: Callable[[bytes], object]
    ) -> None:
        server = settled_server(self._folder)
        if server is not None:
            request = {
                "table": table,
                "format": self._format,
                "since": since,
                "until": until,
                "by": self._by,
                "where": self._where,
                "spreadsheet": self._spreadsheet,
            }
            for piece in server.stream(
                "POST", "/api/v1/export", request, timeout_s=_PIECE_SECONDS_MAX
            ):
                write(piece)
            return
        from msgspec import structs

        from ingester.safekeeping.export import export_sql
        from ingester.sandbox.offline import query
        from ingester.sandbox.queries import EXPORT_LIMITS

        sql = export_sql(table, since=since, until=until, by=self._by, where=self._where)
        limits = structs.replace(EXPORT_LIMITS, is_for_spreadsheets=self._spreadsheet)
        folder, config, wanted = self._folder, self._config, self._format
        run_trio(lambda: query(folder, config, sql, wanted, write, limits))

    @contextmanager
    def _writer(self, target: str, line: Line, what: str) -> Iterator[Callable[[bytes], object]]:
        """Where pieces go; a file has its name only when it is whole."""
        if target == "-":
            yield self._counted(sys.stdout.buffer.write, line, what)
            sys.stdout.buffer.flush()
            return
        path = Path(target)
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield self._counted(file.write, line, what)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            raise CommandFailed(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)
        self._files.append(str(path))

    def _counted(
        self, write: Callable[[bytes], object], line: Line, what: str
    ) -> Callable[[bytes], object]:
        def counted(piece: bytes) -> None:
            write(piece)
            self._bytes += len(piece)
            line.show(f"{what}  {size_text(self._bytes)}")

        return counted

    def _document(self, rows: int | None) -> dict[str, Any]:
        return {"files": self._files, "rows": rows, "bytes": self._bytes}


def _is_folder(target: str) -> bool:
    path = Path(target)
    return path.is_dir() or target.endswith("/") or path.suffix not in _ENDINGS


def _format(name: str | None, target: str) -> Format:
    wanted = maybe_format(name or "")
    if wanted is None:
        default: Format = "ndjson" if target == "-" else "parquet"
        wanted = _ENDINGS.get(Path(target).suffix, default)
    if target == "-" and wanted == "parquet" and sys.stdout.isatty():
        raise CommandFailed("parquet is not for a terminal; send it to a file", EXIT_USAGE)
    return wanted
