"""`ingester check`: is the stored data sound?"""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from ingester.cli.common import (
    EXIT_FAILED,
    Command,
    config_option,
    data_dir_option,
    json_option,
    print_json,
    settings,
)
from ingester.cli.local import settled_server

__all__ = ["check"]

# A check reads everything that is stored once; this bounds a server that hangs, not a slow disk.
_CHECK_SECONDS_MAX = 3600.0


@click.command(cls=Command)
@config_option
@data_dir_option
@json_option
def check(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Check journal, store and control files of a data folder. Exit code 0 only when all is well.

    \b
      ingester check --data-dir ./ingester-data
      ingester check --json
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    folder = Path(loaded.config.store.data_dir)
    server = settled_server(folder)
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
