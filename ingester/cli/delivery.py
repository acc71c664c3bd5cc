"""`ingester delivery`: what was sent to destinations, and what became of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from ingester.cli.common import (
    EXIT_USAGE,
    Command,
    CommandFailed,
    duration_seconds,
    manager_options,
    print_json,
    settings,
)
from ingester.cli.destination import destination_id_of
from ingester.cli.local import open_manager
from ingester.config_load import Loaded

__all__ = ["delivery"]


@click.group()
def delivery() -> None:
    """See deliveries with their attempts, and send them again.

    \b
      ingester delivery list --state dead
      ingester delivery show dlv_7
      ingester delivery resend dlv_7
      ingester delivery resend --failed-since 2h --destination ops
    """


@delivery.command("list", cls=Command)
@click.option(
    "--state", type=click.Choice(["pending", "delivered", "dead", "superseded"]), help="Only those."
)
@click.option("--destination", metavar="NAME", help="Only to this one.")
@click.option("--incident", metavar="ID", help="Only of this one.")
@click.option("--since", callback=duration_seconds, metavar="TIME", help="Of the last 2h, 7d, …")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="The newest this many.",
)
@manager_options
def list_deliveries(
    state: str | None,
    destination: str | None,
    incident: str | None,
    since: int | None,
    limit: int,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """List deliveries, newest first; dead ones were given up."""
    query: dict[str, object] = {"limit": limit}
    with open_manager(_loaded(config_path, data_dir)) as manager:
        if state is not None:
            query["state"] = state
        if destination is not None:
            query["destination"] = destination_id_of(manager, destination)
        if incident is not None:
            query["incident"] = incident
        if since is not None:
            query["since"] = _ago(since)
        document = manager("GET", f"/api/v1/deliveries?{urlencode(query)}")
    if as_json:
        print_json(document)
        return
    for entry in document["deliveries"]:
        _print_delivery(entry)


@delivery.command(cls=Command)
@click.argument("delivery_id", metavar="ID")
@manager_options
def show(delivery_id: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """One delivery with its body and all attempts."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", _path(delivery_id))
    if as_json:
        print_json(document)
        return
    _print_delivery(document["delivery"])
    click.echo(f"\n{document['body']}\n")
    for one in document["attempt_log"]:
        told = one["error"] or one["status"]
        click.echo(f"{one['time']}  {told}  {one['latency_ms']} ms  {one['answer'][:200]}")


@delivery.command(cls=Command)
@click.argument("delivery_id", metavar="[ID]", required=False)
@click.option(
    "--failed-since",
    callback=duration_seconds,
    metavar="TIME",
    help="All that were given up in the last 2h, 7d, …; what waits for its next attempt goes now.",
)
@click.option("--destination", metavar="NAME", help="With --failed-since: of this one only.")
@manager_options
def resend(
    delivery_id: str | None,
    failed_since: int | None,
    destination: str | None,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Send one delivery again, or all that failed: the same bytes under the same id."""
    if (delivery_id is None) == (failed_since is None):
        raise CommandFailed("name one delivery, or give --failed-since", EXIT_USAGE)
    with open_manager(_loaded(config_path, data_dir)) as manager:
        if delivery_id is not None:
            document = manager("POST", _path(delivery_id, "resend"), {})
        else:
            assert failed_since is not None
            request: dict[str, object] = {"failed_since": _ago(failed_since)}
            if destination is not None:
                request["destination"] = destination_id_of(manager, destination)
            document = manager("POST", "/api/v1/deliveries/resend", request)
    if as_json:
        print_json(document)
    elif delivery_id is not None:
        _print_delivery(document)
    else:
        click.echo(f"{document['resent']} sent again")
        if document["disabled"]:
            click.echo(f"{document['disabled']} not: their destination is disabled", err=True)


def _loaded(config_path: Path | None, data_dir: str | None) -> Loaded:
    return settings(config_path, {"store.data_dir": data_dir}, env=os.environ)


def _path(delivery_id: str, action: str = "") -> str:
    base = f"/api/v1/deliveries/{quote(delivery_id, safe='', errors='replace') or '-'}"
    return base + (f"/{action}" if action else "")


def _ago(seconds: int) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def _print_delivery(entry: dict[str, Any]) -> None:
    told = entry["error"] or entry["status"] or ""
    click.echo(
        f"{entry['id']}  {entry['created_at']}  {entry['state']}  {entry['kind']} of"
        f" {entry['incident_id']} to {entry['destination_name']}  {entry['attempts']} attempt(s)"
        f"  {told}"
    )
