"""`ingester upload`: bulk files to the Natero or the honest door, in parts, safely repeatable."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import click
import msgspec

from ingester.cli.common import (
    EXIT_PARTLY,
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
from ingester.cli.http_client import Target
from ingester.cli.upload_parts import Compression
from ingester.cli.upload_run import Options, Outcome, Reporter, upload_files
from ingester.cli.upload_target import Destination, target_of
from ingester.config_load import parse_bytes

__all__ = ["outcome_document", "upload"]

# Below this, requests cost more than their content.
_PART_BYTES_MIN = 1024


def _size(ctx: click.Context, param: click.Parameter, text: str) -> int:
    size = parse_bytes(text)
    if size is None or size < _PART_BYTES_MIN:
        raise click.BadParameter(f"{text!r} is no size from 1KiB; write 67108864 or 64MiB")
    return size


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILE...|-")
@click.option("--url", metavar="URL", help="Full URL of the door: http://…/v1/AUTH_KEY/API_KEY.")
@click.option("--source", metavar="NAME", help="Events for a source of the server on this machine.")
@click.option(
    "--auth-key",
    envvar="INGESTER_AUTH_KEY",
    metavar="KEY",
    help="With --source, when its keys cannot be shown again.",
)
@click.option("--api-key", envvar="INGESTER_API_KEY", metavar="KEY", help="The same.")
@click.option("--ingest", metavar="NAME", help="Any JSON for /ingest/NAME on this machine.")
@click.option(
    "--token",
    envvar="INGESTER_TOKEN",
    metavar="KEY",
    help="An ingest token: with --ingest, or a --url of that door.",
)
@click.option(
    "--as", "kind", type=click.Choice(["logs", "events"]), help="With --ingest; default logs."
)
@click.option(
    "--compress",
    "compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    help="Default: zstd; small .gz and .zst files are sent as they are.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    metavar="N",
    help="Parts on their way at once.",
)
@click.option(
    "--part-bytes",
    callback=_size,
    default="64MiB",
    show_default=True,
    metavar="SIZE",
    help="Split at the line end after so much, decoded.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 1000),
    default=8,
    show_default=True,
    metavar="N",
    help="Further attempts per part after 408, 429, 5xx or a lost connection.",
)
@click.option("--resume", is_flag=True, help="Go on where an earlier upload of the file stopped.")
@click.option("--again", is_flag=True, help="Store a file that was uploaded before a second time.")
@config_option
@data_dir_option
@json_option
def upload(
    files: tuple[str, ...],
    url: str | None,
    source: str | None,
    auth_key: str | None,
    api_key: str | None,
    ingest: str | None,
    token: str | None,
    kind: str | None,
    compression: str | None,
    parallel: int,
    part_bytes: int,
    retries: int,
    resume: bool,
    again: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Upload newline-delimited JSON: plain, .gz or .zst files, or `-` for standard input.

    \b
      ingester upload events.ndjson --url http://127.0.0.1:8080/v1/AUTH_KEY/API_KEY
      ingester upload day-*.ndjson.gz --url "$URL" --parallel 4
      ingester upload huge.ndjson.zst --url "$URL" --resume
      zcat old/*.gz | ingester upload - --url "$URL"
      ingester upload events.ndjson --source shop
      INGESTER_TOKEN=… ingester upload app.log.ndjson --ingest web

    Every part carries an idempotency key made from the file and its place in it, so retries,
    --resume, and the same command once more within 24 hours store nothing twice; --again does.
    Progress is kept in FILE.ingester-upload.json until the file is through.

    Exit codes: 0 all accepted, 4 some lines rejected, 3 server not reachable, 1 failed.
    """
    if files.count("-") > 1 or (resume and "-" in files):
        raise CommandFailed("standard input can be read once, and not resumed", EXIT_USAGE)
    destination = Destination(
        url=url,
        source=source,
        auth_key=auth_key,
        api_key=api_key,
        ingest=ingest,
        token=token,
        kind=kind,
    )
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    target = target_of(destination, loaded)
    options = Options(
        compression=cast("Compression | None", compression),
        parallel=parallel,
        part_bytes=part_bytes,
        retries=retries,
        resume=resume,
        again=again,
    )
    started = time.monotonic()
    with _reporter(files) as reporter:
        outcome = run_upload(files, target, options, reporter)
    document = outcome_document(outcome, time.monotonic() - started)
    if as_json:
        print_json(document)
    else:
        click.echo(_sentence(document))
    if outcome.rejected:
        click.echo(
            'why: ingester query "SELECT line_number, reason, field, detail FROM rejects'
            ' ORDER BY received_at DESC LIMIT 20"',
            err=True,
        )
        click.get_current_context().exit(EXIT_PARTLY)


def run_upload(
    files: Sequence[str], target: Target, options: Options, reporter: Reporter
) -> Outcome:
    async def run() -> Outcome:
        return await upload_files(files, target, options, reporter)

    return run_trio(run)


def outcome_document(outcome: Outcome, seconds: float) -> dict[str, object]:
    lines = outcome.accepted + outcome.rejected
    document: dict[str, object] = msgspec.to_builtins(outcome)
    if not outcome.counted:
        document["accepted"] = document["rejected"] = None
    document["seconds"] = round(seconds, 3)
    document["lines_per_second"] = round(lines / seconds) if seconds > 0 else 0
    return document


def _sentence(document: dict[str, object]) -> str:
    if document["accepted"] is None:
        return f"{document['parts']} part(s) sent; the server gave no counts"
    retries = f", {document['retries']} retries" if document["retries"] else ""
    return (
        f"{document['accepted']:,} accepted, {document['rejected']:,} rejected"
        f" in {document['seconds']:.1f} s ({document['lines_per_second']:,} lines/s,"
        f" {document['bytes_sent']:,} bytes in {document['parts']} requests{retries})"
    )


@contextmanager
def _reporter(files: Sequence[str]) -> Iterator[Reporter]:
    """A progress bar on a terminal, sentences only elsewhere."""
    if not sys.stderr.isatty():
        yield _Sentences()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    name = files[0] if len(files) == 1 else f"{len(files)} files"
    task = progress.add_task(name, total=_total_bytes(files))

    class Bar(Reporter):
        def progress(self, source_bytes: int) -> None:
            progress.update(task, completed=source_bytes)

        def notice(self, sentence: str) -> None:
            progress.console.print(sentence, markup=False, highlight=False)

    with progress:
        yield Bar()


class _Sentences(Reporter):
    def notice(self, sentence: str) -> None:
        click.echo(sentence, err=True)


def _total_bytes(files: Sequence[str]) -> int | None:
    """Size on disk of all files; None (no ETA) when one of them has none."""
    sizes = [os.stat(file).st_size if os.path.isfile(file) else None for file in files]
    return None if None in sizes else sum(size for size in sizes if size is not None)
