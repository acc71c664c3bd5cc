"""`ingester member` and `ingester audit`: who may open the console, and who changed what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from ingester.cli.common import Command, manager_options, print_json, settings
from ingester.cli.local import Manager, open_manager
from ingester.config_load import Loaded

__all__ = ["audit", "member"]

_ROLES = click.Choice(["admin", "viewer"])


@click.group()
def member() -> None:
    """Invite, list and delete members of the console.

    \b
      ingester member create ada@example.org --role admin
      ingester member list
      ingester member invite ada@example.org      # a new link, also for a forgotten password
      ingester member role ada@example.org viewer
      ingester member delete ada@example.org

    A member is named by e-mail address or id.
    """


@member.command(cls=Command)
@click.argument("email")
@click.option(
    "--role",
    type=_ROLES,
    default="viewer",
    show_default=True,
    help="A viewer sees everything but keys, members and settings.",
)
@manager_options
def create(
    email: str, role: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Make a member and a one-time link to choose a password."""
    with open_manager(_loaded(config_path, data_dir), create=True) as manager:
        document = manager("POST", "/api/v1/members", {"email": email, "role": role})
    _print_link(document, as_json=as_json)


@member.command("list", cls=Command)
@manager_options
def list_members(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List members."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", "/api/v1/members")
    if as_json:
        print_json(document)
        return
    for entry in document["members"]:
        state = "" if entry["is_active"] else "  (has no password yet)"
        seen = f"  seen {entry['last_seen_at']}" if entry["last_seen_at"] else ""
        click.echo(
            f"{entry['id']}  {entry['email'] or '(not set up)'}  {entry['role']}{seen}{state}"
        )


@member.command(cls=Command)
@click.argument("named", metavar="EMAIL")
@manager_options
def invite(named: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Make a new one-time link; earlier ones end."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(manager, named, "invite"), {})
    _print_link(document, as_json=as_json)


@member.command(cls=Command)
@click.argument("named", metavar="EMAIL")
@click.argument("new_role", metavar="ROLE", type=_ROLES)
@manager_options
def role(
    named: str, new_role: str, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Make a member an admin or a viewer."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("PATCH", _path(manager, named), {"role": new_role})
    if as_json:
        print_json(document)
    else:
        click.echo(f"{named}: {document['role']}")


@member.command(cls=Command)
@click.argument("named", metavar="EMAIL")
@manager_options
def delete(named: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete a member; sessions end now."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("DELETE", _path(manager, named))
    if as_json:
        print_json(document)
    else:
        click.echo(f"{named}: deleted")


@click.command(cls=Command)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="The newest this many.",
)
@manager_options
def audit(limit: int, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List changes of keys and members, newest first.

    \b
      ingester audit
      ingester audit --limit 1000 --json
    """
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", f"/api/v1/audit?limit={limit}")
    if as_json:
        print_json(document)
        return
    for entry in document["entries"]:
        detail = msgspec.json.encode(entry["detail"]).decode() if entry["detail"] else ""
        click.echo(
            f"{entry['time']}  {entry['actor']}  {entry['action']}  {entry['object']}  {detail}"
        )


def _loaded(config_path: Path | None, data_dir: str | None) -> Loaded:
    return settings(config_path, {"store.data_dir": data_dir}, env=os.environ)


def _path(manager: Manager, named: str, action: str = "") -> str:
    """The path of a member given by e-mail address or id."""
    listed = manager("GET", "/api/v1/members")["members"]
    ids = {entry["email"]: entry["id"] for entry in listed if entry["email"]}
    found = quote(ids.get(named.strip().lower(), named), safe="", errors="replace") or "-"
    return f"/api/v1/members/{found}" + (f"/{action}" if action else "")


def _print_link(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    click.echo(f"id    {document['id']}")
    click.echo(f"link  {document['link']}")
    click.echo(f"The link works once, until {document['expires_at']}.", err=True)
