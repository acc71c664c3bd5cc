"""`ingester retention`: how long rows are kept, and which ones are removed next."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from ingester.cli.common import (
    Command,
    config_option,
    data_dir_option,
    json_option,
    print_json,
    settings,
)
from ingester.cli.local import settled_server

__all__ = ["retention"]


@click.command(cls=Command)
@config_option
@data_dir_option
@json_option
def retention(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Tell how long rows are kept, and which ones are removed next.

    It removes nothing. Set [store] retention_days and store_bytes_max to change what goes.

    \b
      ingester retention --data-dir ./ingester-data
      INGESTER_STORE_RETENTION_DAYS=events=90,logs=30 ingester retention --json
    """
    from ingester.store.retention import Retention, purge_sentence

    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    folder = Path(loaded.config.store.data_dir)
    server = settled_server(folder)
    if server is not None:
        answer = server.call("GET", "/api/v1/store/retention")
        found = msgspec.json.decode(answer, type=Retention)
    else:
        from ingester.store.offline import retention as offline_retention

        found = offline_retention(
            folder,
            loaded.config.store,
            idempotency_hours=loaded.config.intake.idempotency_hours,
        )
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    kept = [f"{table} {days} days" for table, days in sorted(found.days.items())]
    click.echo(f"kept: {', '.join(kept)}, the rest for ever" if kept else "kept: all for ever")
    limit = f" of {found.store_bytes_max}" if found.store_bytes_max else ", no limit"
    click.echo(f"stored: {found.stored_bytes} bytes{limit}")
    for purge in found.purges:
        click.echo(purge_sentence(purge))
    if not found.purges:
        click.echo("nothing is going to be removed")
