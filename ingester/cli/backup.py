"""`ingester backup` and `ingester restore`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec

from ingester.cli.common import (
    Command,
    CommandFailed,
    config_option,
    data_dir_option,
    json_option,
    print_json,
    settings,
)
from ingester.cli.local import LocalServer, settled_server
from ingester.cli.progress import Line, progress_line, size_text
from ingester.config import StoreConfig

__all__ = ["backup", "restore"]

# The server tells what it copies every second; nothing while it counts, at the end.
_SILENCE_SECONDS = 3600.0


@click.command(cls=Command, short_help="Copy everything that is stored, beside a running server.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--with-secrets",
    is_flag=True,
    help="Take secret.key along: with it, keys in the backup can be read by who has it.",
)
@config_option
@data_dir_option
@json_option
def backup(
    directory: Path,
    with_secrets: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Copy everything that is stored into DIRECTORY, beside a running server or of a stopped one.

    Again into the same folder, only what is new is copied, and the backup before it stays whole
    until the new one is complete (backup.json). Without --with-secrets the file that stored keys
    are encrypted with is left out: after a restore all keys work, and none can be shown.

    \b
      ingester backup /mnt/backup/ingester
      ingester backup /mnt/backup/ingester --with-secrets --json
      ingester restore /mnt/backup/ingester --data-dir ./restored
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    folder, target = Path(loaded.config.store.data_dir), directory.absolute()
    server = settled_server(folder)
    with progress_line() as line:
        if server is not None:
            document = _through_server(server, target, with_secrets, line)
        else:
            document = _of_folder(folder, loaded.config.store, target, with_secrets, line)
    if as_json:
        print_json(document)
        return
    rows = ", ".join(f"{count:,} {table}" for table, count in document["rows"].items() if count)
    click.echo(f"backup of {document['finished_at']} in {target}", err=True)
    click.echo(
        f"  {rows or 'no rows'}; {document['journal_records']:,} requests more in the journal",
        err=True,
    )
    click.echo(
        f"  {size_text(document['bytes'])} in {document['files']:,} files,"
        f" {size_text(document['copied_bytes'])} of it copied now",
        err=True,
    )
    for sentence in document["notes"]:
        click.echo(f"  {sentence}", err=True)
    for sentence in document["left_out"]:
        click.echo(f"  not in it: {sentence}", err=True)


@click.command(cls=Command, short_help="Put a backup back into a new data folder.")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@config_option
@click.option(
    "--data-dir", required=True, metavar="DIR", help="The folder to be made; new, or empty."
)
@json_option
def restore(directory: Path, config_path: Path | None, data_dir: str, as_json: bool) -> None:
    """Put the backup in DIRECTORY back into a new data folder, on which `serve` can be started.

    \b
      ingester restore /mnt/backup/ingester --data-dir ./restored
      ingester check --data-dir ./restored
      ingester serve --data-dir ./restored
    """
    from ingester.safekeeping.copies import Pace
    from ingester.safekeeping.restore import restore as put_back

    settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    done = 0
    with progress_line() as line:

        def advanced(byte_count: int) -> None:
            nonlocal done
            done += byte_count
            line.show(f"restoring  {size_text(done)}")

        found = put_back(directory.absolute(), Path(data_dir), Pace(advanced=advanced))
    document = {
        "data_dir": data_dir,
        "made_at": found.finished_at,
        "rows": dict(found.rows),
        "journal_records": found.journal_records,
        "left_out": found.left_out,
    }
    if as_json:
        print_json(document)
        return
    rows = ", ".join(f"{count:,} {table}" for table, count in found.rows.items() if count)
    click.echo(f"restored into {data_dir}: {rows or 'no rows'}", err=True)
    if found.journal_records:
        click.echo(
            f"  {found.journal_records:,} requests more are loaded by the first start", err=True
        )
    for sentence in found.left_out:
        click.echo(f"  not restored: {sentence}", err=True)


def _through_server(
    server: LocalServer, target: Path, with_secrets: bool, line: Line
) -> dict[str, Any]:
    request = {"directory": str(target), "with_secrets": with_secrets}
    stream = server.stream("POST", "/api/v1/backup", request, timeout_s=_SILENCE_SECONDS)
    for event in _events(stream):
        if "error" in event:
            raise CommandFailed(str(event["error"]))
        if "done" in event:
            document: dict[str, Any] = event["done"]
            return document
        line.show(f"copying  {size_text(int(event.get('copied_bytes', 0)))}")
    raise CommandFailed("the server ended before the backup was complete; it does not count")


def _events(stream: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    rest = b""
    for piece in stream:
        *lines, rest = (rest + piece).split(b"\n")
        for text in lines:
            with suppress(msgspec.DecodeError):
                yield msgspec.json.decode(text)


def _of_folder(
    folder: Path, config: StoreConfig, target: Path, with_secrets: bool, line: Line
) -> dict[str, Any]:
    from ingester.safekeeping.backup import BackupSource, back_up, told
    from ingester.safekeeping.copies import Pace
    from ingester.store.offline import opened_store

    done = 0

    def advanced(byte_count: int) -> None:
        nonlocal done
        done += byte_count
        line.show(f"copying  {size_text(done)}")

    with opened_store(folder, config) as store:
        source = BackupSource(store=store, data_dir=folder)
        return told(
            *back_up(source, target, with_secrets=with_secrets, pace=Pace(advanced=advanced))
        )
