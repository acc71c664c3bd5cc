"""How a command shows the use of a credential."""

from __future__ import annotations

from typing import Any

import click

from ingester.cli.common import print_json

__all__ = ["print_usage"]

_REFUSED_SHOWN = 10


def print_usage(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    last = document["last_used_at"]
    where = f" from {document['last_address']}" if document["last_address"] else ""
    click.echo(f"last used {last}{where}" if last else "never used")
    if document["quota_left"] is not None:
        limit = document["requests_per_hour"]
        click.echo(f"quota: {document['quota_left']} of {limit} requests left this hour")
    if document["hours"]:
        click.echo("hour\trequests\taccepted\trejected\trefused")
    for row in document["hours"]:
        cells = (row["hour"], row["requests"], row["accepted"], row["rejected"], row["refused"])
        click.echo("\t".join(map(str, cells)))
    for one in document["refused"][:_REFUSED_SHOWN]:
        click.echo(f"refused {one['time']} {one['status']} {one['address']}: {one['reason']}")
