"""`ingester connection` and `ingester project`: who may send metrics, and under which project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ingester.cli.common import (
    EXIT_USAGE,
    Command,
    CommandFailed,
    end_text,
    manager_options,
    overlap_option,
    print_json,
    settings,
)
from ingester.cli.local import Manager, open_manager
from ingester.cli.usage import print_usage
from ingester.config_load import Loaded

__all__ = ["connection", "project"]

_TIERS = click.Choice(["free", "pro", "scale", "unlimited"])
_TIER_HELP = "free 100, pro 1,000, scale 10,000 requests an hour."


@click.group()
def connection() -> None:
    """Make, list, rotate and revoke connections for metrics.

    \b
      ingester connection create cron
      ingester connection create zapier --project acme --tier pro
      ingester connection list
      ingester connection rotate cron --overlap 24h
      ingester connection reveal cron
      ingester connection revoke con_1

    A connection is named by its name or its id.
    """


@connection.command(cls=Command)
@click.argument("name")
@click.option(
    "--project", "project_id", default="default", show_default=True, help="Made when it is new."
)
@click.option("--tier", type=_TIERS, default="unlimited", show_default=True, help=_TIER_HELP)
@click.option(
    "--requests-per-hour",
    type=click.IntRange(min=0),
    metavar="N",
    help="Its own limit, instead of the tier's; 0: none.",
)
@click.option("--not-copyable", is_flag=True, help="Keep a hash only: `reveal` cannot show it.")
@manager_options
def create(
    name: str,
    project_id: str,
    tier: str,
    requests_per_hour: int | None,
    not_copyable: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a connection: a webhook URL, an API key and a project id.

    \b
      ingester connection create cron --project acme
      ingester connection create cron --json | jq -r .api_key
    """
    request: dict[str, object] = {"name": name, "project_id": project_id, "tier": tier}
    if requests_per_hour is not None:
        request["requests_per_hour"] = requests_per_hour
    if not_copyable:
        request["copyable"] = False
    with open_manager(_loaded(config_path, data_dir), create=True) as manager:
        document = manager("POST", "/api/v1/connections", request)
    _print_connection(document, as_json=as_json)


@connection.command("list", cls=Command)
@manager_options
def list_connections(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List connections; of their keys the last four characters."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", "/api/v1/connections")
    if as_json:
        print_json(document)
        return
    if not document["connections"]:
        click.echo("no connections yet; make one with: ingester connection create NAME", err=True)
    for entry in document["connections"]:
        limit = f"{entry['limit']} requests an hour" if entry["limit"] else "no limit"
        used = f"last used {entry['last_used_at']}" if entry["last_used_at"] else "never used"
        click.echo(
            f"{entry['id']}  {entry['name']}  project {entry['project_id']}  {limit}  {used}"
        )
        for key in entry["keys"]:
            click.echo(f"  …{key['tail']}  made {key['created_at']}{end_text(key)}")


@connection.command("set", cls=Command)
@click.argument("connection_id", metavar="NAME")
@click.option("--tier", type=_TIERS, help=_TIER_HELP)
@click.option(
    "--requests-per-hour",
    type=click.IntRange(min=0),
    metavar="N",
    help="Its own limit, instead of the tier's; 0: none.",
)
@manager_options
def set_limits(
    connection_id: str,
    tier: str | None,
    requests_per_hour: int | None,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Change the limits of a connection; a tier alone ends its own limit."""
    changes: dict[str, object] = {}
    if tier is not None:
        changes = {"tier": tier, "requests_per_hour": requests_per_hour}
    elif requests_per_hour is not None:
        changes = {"requests_per_hour": requests_per_hour}
    else:
        raise CommandFailed("name --tier or --requests-per-hour", EXIT_USAGE)
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("PATCH", _path(manager, connection_id), changes)
    if as_json:
        print_json(document)
    else:
        click.echo(f"{document['name']}: {document['limit'] or 'no'} requests an hour")


@connection.command(cls=Command)
@click.argument("connection_id", metavar="NAME")
@overlap_option
@manager_options
def rotate(
    connection_id: str,
    overlap: int,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a new key; the old one ends after the overlap. Project and metrics stay."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        path = _path(manager, connection_id, "rotate")
        document = manager("POST", path, {"overlap_seconds": overlap})
    _print_connection(document, as_json=as_json)


@connection.command(cls=Command)
@click.argument("connection_id", metavar="NAME")
@manager_options
def revoke(
    connection_id: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """End every key of a connection now; `rotate` gives it a new one."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(manager, connection_id, "revoke"), {})
    if as_json:
        print_json(document)
    else:
        click.echo(f"{connection_id}: {document['revoked']} key(s) revoked")


@connection.command(cls=Command)
@click.argument("connection_id", metavar="NAME")
@manager_options
def reveal(
    connection_id: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Show the newest key again, when it was kept so that it can be."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(manager, connection_id, "reveal"), {})
    _print_connection(document, as_json=as_json)


@connection.command(cls=Command)
@click.argument("connection_id", metavar="NAME")
@manager_options
def delete(
    connection_id: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Delete a connection; its metrics stay under their project."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("DELETE", _path(manager, connection_id))
    if as_json:
        print_json(document)
    else:
        click.echo(f"{connection_id}: deleted")


@connection.command(cls=Command)
@click.argument("connection_id", metavar="NAME")
@click.option(
    "--hours", type=click.IntRange(1, 1176), default=24, show_default=True, help="How far back."
)
@manager_options
def usage(
    connection_id: str,
    hours: int,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Requests, rows and refusals by hour."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", _path(manager, connection_id, f"usage?hours={hours}"))
    print_usage(document, as_json=as_json)


@click.group()
def project() -> None:
    """Make, list and delete projects: the names metrics are stored under.

    \b
      ingester project create acme --name "Acme Ltd"
      ingester project list
      ingester project delete acme
    """


@project.command("create", cls=Command)
@click.argument("project_id", metavar="ID")
@click.option("--name", default="", help="For people; default: the id.")
@manager_options
def create_project(
    project_id: str, name: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Make a project. (`connection create --project ID` makes it too.)"""
    with open_manager(_loaded(config_path, data_dir), create=True) as manager:
        document = manager("POST", "/api/v1/projects", {"id": project_id, "name": name})
    if as_json:
        print_json(document)
    else:
        click.echo(f"{document['id']}: made")


@project.command("list", cls=Command)
@manager_options
def list_projects(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List projects and how many connections use each."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", "/api/v1/projects")
    if as_json:
        print_json(document)
        return
    for entry in document["projects"]:
        click.echo(f"{entry['id']}  {entry['name']}  {entry['connections']} connection(s)")


@project.command("delete", cls=Command)
@click.argument("project_id", metavar="ID")
@manager_options
def delete_project(
    project_id: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Delete a project that no connection uses; its metrics stay."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager(
            "DELETE", f"/api/v1/projects/{quote(project_id, safe='', errors='replace') or '-'}"
        )
    if as_json:
        print_json(document)
    else:
        click.echo(f"{project_id}: deleted")


def _loaded(config_path: Path | None, data_dir: str | None) -> Loaded:
    return settings(config_path, {"store.data_dir": data_dir}, env=os.environ)


def _path(manager: Manager, named: str, action: str = "") -> str:
    """The path of a connection given by name or id."""
    listed = manager("GET", "/api/v1/connections")["connections"]
    ids = {entry["name"]: entry["id"] for entry in listed}
    found = quote(ids.get(named, named), safe="", errors="replace") or "-"
    return f"/api/v1/connections/{found}" + (f"/{action}" if action else "")


def _print_connection(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    click.echo(f"id           {document['id']}")
    click.echo(f"name         {document['name']}")
    click.echo(f"webhook url  {document['webhook_url']}")
    click.echo(f"api key      {document['api_key']}")
    click.echo(f"project id   {document['project_id']}")
    if not document["copyable"]:
        click.echo("Keep the key now: only a hash of it is stored.", err=True)
