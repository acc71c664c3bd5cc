"""`ingester check`: is the stored data sound?"""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from ingester.cli.common import (
    EXIT_FAILED,
    Command,
    CommandFailed,
    config_option,
    data_dir_option,
    json_option,
    print_json,
    settings,
)
from ingester.cli.local import settled_server
from ingester.config import Config

__all__ = ["check"]

# A check reads everything that is stored once; this bounds a server that hangs, not a slow disk.
_CHECK_SECONDS_MAX = 3600.0


@click.command(cls=Command)
@click.option(
    "--repair",
    is_flag=True,
    help="Rebuild what can be rebuilt; only while no server runs. Nothing is deleted.",
)
@config_option
@data_dir_option
@json_option
def check(config_path: Path | None, data_dir: str | None, repair: bool, as_json: bool) -> None:
    """Check journal, store and control files of a data folder. Exit code 0 only when all is well.

    Everything that is stored is read once: checksums, ledger, manifest, and every rollup against a
    recount. With --repair, damaged files are set aside under another name, rows of small requests
    come back from the journal as far as it is kept, uploads whose files are there are listed again,
    rollups are made anew. What is lost then is said; it comes from a backup.

    \b
      ingester check --data-dir ./ingester-data
      ingester check --json
      ingester check --repair
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    folder = Path(loaded.config.store.data_dir)
    server = settled_server(folder)
    if repair:
        if server is not None:
            raise CommandFailed(
                "a server runs on this folder: stop it before a repair (files in use cannot be"
                " replaced)"
            )
        _repair(loaded.config, as_json)
        return
    if server is not None:
        document = msgspec.json.decode(
            server.call("GET", "/api/v1/check", timeout_s=_CHECK_SECONDS_MAX)
        )
    else:
        from ingester.safekeeping.check import check_folder

        problems = check_folder(folder)
        document = {"ok": not problems, "problems": problems}
    if as_json:
        print_json(document)
    else:
        for problem in document["problems"]:
            click.echo(problem)
        click.echo("ok" if document["ok"] else f"{len(document['problems'])} problem(s)", err=True)
    if not document["ok"]:
        click.get_current_context().exit(EXIT_FAILED)


def _repair(config: Config, as_json: bool) -> None:
    from ingester.safekeeping.repair import repair_folder

    found = repair_folder(config)
    is_ok = not found.problems
    if as_json:
        print_json({
            "ok": is_ok,
            "problems": found.problems,
            "repaired": found.done,
            "lost": found.lost,
        })
    else:
        for sentence in found.done:
            click.echo(f"repaired: {sentence}")
        for sentence in found.lost:
            click.echo(f"lost: {sentence}")
        for sentence in found.problems:
            click.echo(sentence)
        click.echo("ok" if is_ok else f"{len(found.problems)} problem(s) left", err=True)
    if not is_ok:
        click.get_current_context().exit(EXIT_FAILED)
