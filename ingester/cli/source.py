"""`ingester source`: event sources and their key pairs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from ingester.cli.common import (
    EXIT_USAGE,
    Command,
    CommandFailed,
    config_option,
    data_dir_option,
    intake_base,
    json_option,
    natero_url,
    print_json,
    settings,
)
from ingester.cli.local import LocalServer, open_control
from ingester.config_load import Loaded

__all__ = ["source"]

_DURATION = re.compile(r"(\d{1,9})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(ctx: click.Context, param: click.Parameter, text: str) -> int:
    """`90`, `30m`, `24h`, `7d` as seconds."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration; write 0, 90s, 30m, 24h or 7d")
    return int(found[1]) * _SECONDS[found[2]]


@click.group()
def source() -> None:
    """Make, list, rotate and revoke the key pairs of event sources.

    \b
      ingester source create shop
      ingester source create kiosk --lenient-session --requests-per-hour 10000
      ingester source list
      ingester source rotate shop --overlap 24h
      ingester source revoke shop
    """


@source.command(cls=Command)
@click.argument("name")
@click.option("--lenient-session", is_flag=True, help="Accept events without a sessionId.")
@click.option(
    "--requests-per-hour",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Quota per UTC hour; 0 (default): none.",
)
@config_option
@data_dir_option
@json_option
def create(
    name: str,
    lenient_session: bool,
    requests_per_hour: int,
    config_path: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a source and its first key pair. The keys are shown this once.

    \b
      ingester source create shop
      ingester source create shop --json | jq -r .url
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    request = {
        "name": name,
        "lenient_session": lenient_session,
        "requests_per_hour": requests_per_hour,
    }
    with open_control(_folder(loaded), create=True) as control:
        if isinstance(control, LocalServer):
            document = msgspec.json.decode(control.call("POST", "/api/v1/sources", request))
        else:
            try:
                made = control.create_source(
                    name, lenient_session=lenient_session, requests_per_hour=requests_per_hour
                )
            except ValueError as error:
                raise CommandFailed(str(error)) from error
            document = _pair_document(loaded, name, made.auth_key, made.api_key)
    _print_pair(document, as_json=as_json)


@source.command(cls=Command)
@click.argument("name")
@click.option(
    "--overlap",
    callback=_seconds,
    default="24h",
    show_default=True,
    help="How long the old pair still works: 0, 90s, 30m, 24h, 7d.",
)
@config_option
@data_dir_option
@json_option
def rotate(
    name: str, overlap: int, config_path: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """Make a new key pair; the old one ends after the overlap.

    \b
      ingester source rotate shop                # both work for a day
      ingester source rotate shop --overlap 0    # a leaked key: the old pair ends now
    """
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    with open_control(_folder(loaded)) as control:
        if isinstance(control, LocalServer):
            document = msgspec.json.decode(
                control.call("POST", _path(name, "rotate"), {"overlap_seconds": overlap})
            )
        else:
            made = control.rotate_source(name, overlap_seconds=overlap)
            document = _pair_document(loaded, name, made.auth_key, made.api_key)
    _print_pair(document, as_json=as_json)


@source.command(cls=Command)
@click.argument("name")
@config_option
@data_dir_option
@json_option
def revoke(name: str, config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """End every key pair of a source now. Its events stay; `rotate` gives it a new pair."""
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    with open_control(_folder(loaded)) as control:
        if isinstance(control, LocalServer):
            document = msgspec.json.decode(control.call("POST", _path(name, "revoke"), {}))
        else:
            document = {"source": name, "revoked": control.revoke_source(name)}
    if as_json:
        print_json(document)
    else:
        count = document["revoked"]
        click.echo(f"{name}: {count} key pair{'' if count == 1 else 's'} revoked")


@source.command("list", cls=Command)
@config_option
@data_dir_option
@json_option
def list_sources(config_path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List sources and their pairs (the last four characters of each api key)."""
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    with open_control(_folder(loaded)) as control:
        if isinstance(control, LocalServer):
            document = msgspec.json.decode(control.call("GET", "/api/v1/sources"))
        else:
            document = {"sources": [info.document() for info in control.list_sources()]}
    if as_json:
        print_json(document)
        return
    if not document["sources"]:
        click.echo("no sources yet; make one with: ingester source create NAME", err=True)
    for entry in document["sources"]:
        notes = ["lenient session"] if entry["lenient_session"] else []
        if entry["requests_per_hour"]:
            notes.append(f"{entry['requests_per_hour']} requests an hour")
        click.echo(entry["source"] + (f"  ({', '.join(notes)})" if notes else ""))
        for key in entry["keys"]:
            click.echo(f"  …{key['tail']}  made {key['created_at']}{_end_text(key)}")


def _folder(loaded: Loaded) -> Path:
    return Path(loaded.config.store.data_dir)


def _path(name: str, action: str) -> str:
    if not name:
        raise CommandFailed("a source name is needed", EXIT_USAGE)
    return f"/api/v1/sources/{quote(name, safe='')}/{action}"


def _pair_document(loaded: Loaded, name: str, auth_key: str, api_key: str) -> dict[str, str]:
    return {
        "source": name,
        "auth_key": auth_key,
        "api_key": api_key,
        "url": natero_url(intake_base(loaded.config), auth_key, api_key),
    }


def _print_pair(document: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    click.echo(f"source    {document['source']}")
    click.echo(f"auth key  {document['auth_key']}")
    click.echo(f"api key   {document['api_key']}")
    click.echo(f"url       {document['url']}")
    click.echo("Keep the keys now: only a hash of them is stored.", err=True)


def _end_text(key: dict[str, str | None]) -> str:
    if key["revoked_at"]:
        return f", revoked {key['revoked_at']}"
    return f", ends {key['expires_at']}" if key["expires_at"] else ""
