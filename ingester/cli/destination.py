"""`ingester destination`: where incidents are told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from ingester.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    Command,
    CommandFailed,
    manager_options,
    overlap_option,
    print_json,
    settings,
)
from ingester.cli.local import Manager, open_manager
from ingester.config_load import Loaded

__all__ = ["destination", "destination_id_of"]


@click.group()
def destination() -> None:
    """Make, verify and watch over destinations of incidents.

    \b
      ingester destination create ops --url https://example.org/hook --secret generate
      ingester destination create pager --type incident_io --api-token KEY \\
        --alert-source-config-id 01ABC --metadata team=data
      ingester destination verify ops
      ingester destination list
      ingester destination set ops --enable
      ingester destination rotate ops --overlap 24h

    A destination is named by its name or its id. What is sent: an incident webhook with Metaplane's
    keys (webhook), an event for incident.io (incident_io), or Logflare's webhook (generic).
    """


def _setting_options(function: Any) -> Any:
    for option in (
        click.option(
            "--key-mode",
            type=click.Choice(["incident", "logflare"]),
            help="incident.io: one alert for each incident, or for each run as Logflare did.",
        ),
        click.option("--base-url", metavar="URL", help="incident.io elsewhere."),
        click.option(
            "--metadata",
            metavar="JSON|K=V,…",
            help='Sent with each event: {"team": "data"} or team=data,priority=high.',
        ),
        click.option(
            "--alert-source-config-id", metavar="ID", help="incident.io: of the HTTP alert source."
        ),
        click.option("--api-token", metavar="KEY", help="incident.io: the alert source's token."),
        click.option("--gzip/--no-gzip", default=None, help="Compress bodies."),
        click.option(
            "--secret",
            metavar="whsec_…",
            help='Sign with it (Standard Webhooks); "generate" makes one.',
        ),
        click.option(
            "--header",
            "headers",
            multiple=True,
            metavar="NAME:VALUE",
            help="Sent along; several times.",
        ),
        click.option("--url", metavar="URL", help="Where to POST (webhook, generic)."),
    ):
        function = option(function)
    return function


@destination.command(cls=Command)
@click.argument("name")
@click.option(
    "--type",
    "type_",
    type=click.Choice(["webhook", "incident_io", "generic"]),
    default="webhook",
    show_default=True,
    help="What it gets: Metaplane's incident webhook, incident.io's events, or Logflare's webhook.",
)
@_setting_options
@manager_options
def create(
    name: str,
    type_: str,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Make a destination; then try it with `verify`.

    \b
      ingester destination create ops --url https://example.org/hook --secret generate
      ingester destination create log --type generic --url https://example.org --header X-Api-Key:k
    """
    request, secret = _settings(given)
    with open_manager(_loaded(config_path, data_dir), create=True) as manager:
        document = manager("POST", "/api/v1/destinations", {"name": name, "type": type_, **request})
    if secret is not None:
        document["secret"] = secret
    if as_json:
        print_json(document)
        return
    _print_destination(document)
    if secret is not None:
        click.echo(f"  secret {secret}")
        click.echo("Keep the secret now: it is not shown again.", err=True)


@destination.command("list", cls=Command)
@manager_options
def list_destinations(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List destinations; secrets read REDACTED."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", "/api/v1/destinations")
    if as_json:
        print_json(document)
        return
    if not document["destinations"]:
        click.echo("no destinations yet; make one with: ingester destination create", err=True)
    for entry in document["destinations"]:
        _print_destination(entry)


@destination.command(cls=Command)
@click.argument("name")
@manager_options
def show(name: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """One destination."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("GET", _path(destination_id_of(manager, name)))
    if as_json:
        print_json(document)
    else:
        _print_destination(document)


@destination.command("set", cls=Command)
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="Another name.")
@click.option(
    "--enable/--disable",
    "enabled",
    default=None,
    help="What was given up while disabled waits for `delivery resend`.",
)
@_setting_options
@manager_options
def set_destination(
    name: str,
    new_name: str | None,
    enabled: bool | None,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Change settings; what is left out stays. Headers are replaced all together.

    \b
      ingester destination set ops --url https://example.org/new
      ingester destination set ops --enable
    """
    request, secret = _settings(given)
    if new_name is not None:
        request["name"] = new_name
    if enabled is not None:
        request["enabled"] = enabled
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("PATCH", _path(destination_id_of(manager, name)), request)
    if secret is not None:
        document["secret"] = secret
    if as_json:
        print_json(document)
        return
    _print_destination(document)
    if secret is not None:
        click.echo(f"  secret {secret}")


@destination.command(cls=Command)
@click.argument("name")
@overlap_option
@manager_options
def rotate(
    name: str, overlap: int, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Make a new signing secret; both sign until the overlap is over."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        path = _path(destination_id_of(manager, name), "rotate")
        document = manager("POST", path, {"overlap_seconds": overlap})
    if as_json:
        print_json(document)
        return
    click.echo(f"secret {document['secret']}")
    if document["old_until"]:
        click.echo(f"the old one signs beside it until {document['old_until']}")
    click.echo("Keep it now: it is not shown again.", err=True)


@destination.command(cls=Command)
@click.argument("name")
@manager_options
def verify(name: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Send a sample on the way that all deliveries take; it opens no incident. Fails when the
    answer is not 2xx.
    """
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("POST", _path(destination_id_of(manager, name), "verify"), {})
    if as_json:
        print_json(document)
    else:
        _print_verified(document)
    if not document["ok"]:
        click.get_current_context().exit(EXIT_FAILED)


@destination.command(cls=Command)
@click.argument("name")
@manager_options
def delete(name: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Delete a destination with its routes and deliveries."""
    with open_manager(_loaded(config_path, data_dir)) as manager:
        document = manager("DELETE", _path(destination_id_of(manager, name)))
    if as_json:
        print_json(document)
    else:
        click.echo(f"{name}: deleted")


def destination_id_of(manager: Manager, name: str) -> str:
    """The id of a destination given by name or id."""
    entries = manager("GET", "/api/v1/destinations")["destinations"]
    for entry in entries:
        if name == entry["name"]:
            return str(entry["id"])
    for entry in entries:
        if name == entry["id"]:
            return str(entry["id"])
    raise CommandFailed(f"there is no destination {name!r}")


def _loaded(config_path: Path | None, data_dir: str | None) -> Loaded:
    return settings(config_path, {"store.data_dir": data_dir}, env=os.environ)


def _path(destination_id: str, action: str = "") -> str:
    base = f"/api/v1/destinations/{quote(destination_id, safe='')}"
    return base + (f"/{action}" if action else "")


def _settings(given: dict[str, Any]) -> tuple[dict[str, object], str | None]:
    """The fields to send, and the secret that was made."""
    request = {name: value for name, value in given.items() if value not in (None, ())}
    secret = None
    if request.get("secret") == "generate":
        from ingester.delivery.signing import new_secret

        request["secret"] = secret = new_secret()
    if "headers" in request:
        request["headers"] = dict(_header(text) for text in given["headers"])
    if "metadata" in request:
        request["metadata"] = _metadata(given["metadata"])
    return request, secret


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise CommandFailed(f"a header is NAME:VALUE, got {name!r}", EXIT_USAGE)
    return name.strip(), value.strip()


def _metadata(text: str) -> dict[str, object]:
    """A JSON object, or `priority=high,service=logflare` as Logflare's form takes it."""
    if text.lstrip().startswith("{"):
        try:
            return msgspec.json.decode(text, type=dict[str, object])
        except msgspec.MsgspecError as error:
            raise CommandFailed(f"--metadata is no JSON object: {error}", EXIT_USAGE) from None
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(equals and key.strip() for key, equals, _ in pairs):
        raise CommandFailed("--metadata is a JSON object or key=value,key=value", EXIT_USAGE)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _print_destination(entry: dict[str, Any]) -> None:
    where = entry["url"] or f"{entry['base_url']} {entry['alert_source_config_id']}"
    end = f"  (from {entry['file']})" if entry["file"] else ""
    click.echo(f"{entry['id']}  {entry['name']}  {entry['type']}  {where}{end}")
    if not entry["enabled"]:
        click.echo(f"  disabled {entry['disabled_at']}: {entry['disabled_reason']}")
    elif entry["failing_since"]:
        click.echo(f"  failing since {entry['failing_since']}, {entry['pending']} waiting")


def _print_verified(document: dict[str, Any]) -> None:
    request = document["request"]
    click.echo(f"{request['method']} {request['url']}")
    for name, value in request["headers"].items():
        click.echo(f"{name}: {value}")
    click.echo(f"\n{request['body']}\n")
    if document["status"] is None:
        click.echo(f"no answer: {document['error']} ({document['latency_ms']} ms)")
    else:
        click.echo(f"{document['status']} after {document['latency_ms']} ms")
        click.echo(document["body"])
