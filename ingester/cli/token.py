"""`ingester token`: bearer tokens for logs and events, and for the console's API."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ingester.cli.common import (
    Command,
    duration_seconds,
    end_text,
    manager_options,
    overlap_option,
    print_json,
    settings,
)
from ingester.cli.local import open_manager
from ingester.cli.usage import print_usage
from ingester.config_load import Loaded

__all__ = ["token"]


@click.group()
def token() -> None:
    """Make, list, rotate and revoke tokens.

    \b
      ingester token create --service web --environment prod
      ingester token create --service ci --environment test --source github
      ingester token create --scope read --expires 30d
      ingester token list
      ingester token rotate tok_1 --overlap 24h
      ingester token reveal tok_1
      ingester token revoke tok_1

    A token cannot be edited: rotate gives it a new key, delete removes it.
    """


@token.command(cls=Command)
@click.option("--service", default="", metavar="S", help="Stamped on every log.")
@click.option("--environment", default="", metavar="E", help="Stamped on every log.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["ingest", "read", "admin"]),
    help="What it may do; several times. Default: ingest.",
)
@click.option("--source", metavar="NAME", help="The event source for /ingest/…?as=events.")
@click.option(
    "--requests-per-hour",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Quota per UTC hour; 0 (default): none.",
)
@click.option("--expires", callback=duration_seconds, metavar="TIME", help="Ends after 12h, 30d, …")
@click.option("--not-copyable", is_flag=True, help="Keep a hash only: `reveal` cannot show it.")
@manager_options
def create(
    service: str,
    environment: str,
    scopes: tuple[str, ...],
    source: str | None,
    requests_per_hour: int,
    expires: int | None,
    not_copyable: bool,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a token.

    \b
      ingester token create --service web --environment prod
      ingester token create --scope admin --expires 8h --json | jq -r .token
    """
    request: dict[str, object] = {
        "service": service,
        "environment": environment,
        "scopes": scopes or ("ingest",),
        "requests_per_hour": requests_per_hour,
    }
    if source is not None:
        request["source"] = source
    if expires is not None:
        request["expires_at"] = (datetime.now(UTC) + timedelta(seconds=expires)).isoformat()
    if not_copyable:
        request["copyable"] = False
    with open_manager(_loaded(config_path, data_dir), create=True) as manager:
        document = manager("POST", "/api/v1/tokens", request)
    _print_token(document, as_json=as_json)


@token.command("list", cls=Command)
@manager_options
def list_tokens(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List tokens; of their keys the last four characters."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", "/api/v1/tokens")
    if as_json:
        print_json(document)
        return
    if not document["tokens"]:
        click.echo("no tokens yet; make one with: ingester token create", err=True)
    for entry in document["tokens"]:
        where = "/".join(filter(None, (entry["service"], entry["environment"])))
        used = f"last used {entry['last_used_at']}" if entry["last_used_at"] else "never used"
        click.echo(f"{entry['id']}  {entry['scope']}  {where}  {entry['masked']}  {used}")
        for key in entry["keys"]:
            click.echo(f"  …{key['tail']}  made {key['created_at']}{end_text(key)}")


@token.command(cls=Command)
@click.argument("token_id", metavar="ID")
@overlap_option
@manager_options
def rotate(
    token_id: str, overlap: int, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Make a new key for a token; the old one ends after the overlap."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(token_id, "rotate"), {"overlap_seconds": overlap})
    _print_token(document, as_json=as_json)


@token.command(cls=Command)
@click.argument("token_id", metavar="ID")
@manager_options
def revoke(token_id: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """End every key of a token now; `rotate` gives it a new one."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(token_id, "revoke"), {})
    if as_json:
        print_json(document)
    else:
        click.echo(f"{token_id}: {document['revoked']} key(s) revoked")


@token.command(cls=Command)
@click.argument("token_id", metavar="ID")
@manager_options
def reveal(token_id: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Show the newest key again, when it was kept so that it can be."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(token_id, "reveal"), {})
    _print_token(document, as_json=as_json)


@token.command(cls=Command)
@click.argument("token_id", metavar="ID")
@manager_options
def delete(token_id: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete a token; what was sent with it stays."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("DELETE", _path(token_id))
    if as_json:
        print_json(document)
    else:
        click.echo(f"{token_id}: deleted")


@token.command(cls=Command)
@click.argument("token_id", metavar="ID")
@click.option(
    "--hours", type=click.IntRange(1, 1176), default=24, show_default=True, help="How far back."
)
@manager_options
def usage(
    token_id: str, hours: int, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Requests, rows and refusals by hour."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", _path(token_id, f"usage?hours={hours}"))
    print_usage(document, as_json=as_json)


def _loaded(config_path: Path | None, data_dir: str | None) -> Loaded:
    return settings(config_path, {"store.data_dir": data_dir}, env=os.environ)


def _path(token_id: str, action: str = "") -> str:
    base = f"/api/v1/tokens/{quote(token_id, safe='', errors='replace') or '-'}"
    return base + (f"/{action}" if action else "")


def _print_token(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    click.echo(f"id     {document['id']}")
    click.echo(f"token  {document['token']}")
    click.echo(f"scope  {document['scope']}")
    if document["url"]:
        click.echo(f"url    {document['url']}")
    if document["expires_at"]:
        click.echo(f"ends   {document['expires_at']}")
    if not document["copyable"]:
        click.echo("Keep it now: only a hash of it is stored.", err=True)
