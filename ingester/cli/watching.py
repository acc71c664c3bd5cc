"""What commands of rules, alerts, monitors, incidents, silences and labels share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from ingester.cli.common import EXIT_USAGE, CommandFailed, duration_seconds, print_json, settings
from ingester.cli.destination import destination_id_of
from ingester.cli.local import Manager, open_manager

__all__ = [
    "common_options",
    "dry_run_option",
    "given",
    "id_of",
    "item_path",
    "managed",
    "query_text",
    "rules_from",
    "seconds_option",
    "show",
]

_MATCHES = (("^=", "prefix"), ("$=", "suffix"), ("~", "regex"), ("=", "exact"))
_FIELDS = ("service", "monitor", "table", "label")


@contextmanager
def managed(config_path: Path | None, data_dir: str | None) -> Iterator[Manager]:
    loaded = settings(config_path, {"store.data_dir": data_dir}, env=os.environ)
    with open_manager(loaded) as manager:
        yield manager


def common_options(function: Any) -> Any:
    """The settings that rules, alerts and monitors have alike."""
    for option in (
        click.option(
            "--enable/--disable", "enabled", default=None, help="A disabled one looks at nothing."
        ),
        click.option(
            "--incident-group", metavar="NAME", help="Those with the same name share an incident."
        ),
        click.option("--label", "labels", multiple=True, metavar="NAME", help="Several times."),
        click.option(
            "--destination",
            "destinations",
            multiple=True,
            metavar="NAME|ID",
            help="Who is told, besides whom routes reach; several times.",
        ),
        click.option("--description", help="For people; sent along where a destination takes it."),
    ):
        function = option(function)
    return function


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what it would find in stored data, and save nothing."
)


def seconds_option(*names: str, **options: Any) -> Callable[[Any], Any]:
    return click.option(*names, callback=duration_seconds, metavar="TIME", **options)


def given(manager: Manager, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as the API takes them."""
    found = {name: value for name, value in fields.items() if value not in (None, ())}
    if "destinations" in found:
        found["destinations"] = [destination_id_of(manager, one) for one in found["destinations"]]
    return found


def query_text(text: str | None) -> str | None:
    """A query, or what `@FILE` holds."""
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise CommandFailed(f"{text[1:]} cannot be read: {error}", EXIT_USAGE) from None


def id_of(manager: Manager, kind: str, named: str) -> str:
    """The id of one that is named by name or id."""
    listed = manager("GET", f"/api/v1/{kind}s")[f"{kind}s"]
    return next((str(one["id"]) for one in listed if one["name"] == named), named)


def item_path(manager: Manager, kind: str, named: str, action: str = "") -> str:
    found = quote(id_of(manager, kind, named), safe="", errors="replace") or "-"
    return f"/api/v1/{kind}s/{found}" + (f"/{action}" if action else "")


def rules_from(texts: Iterable[str]) -> list[dict[str, str]]:
    """`service=web`, `monitor^=prod`, `table$=_raw`, `label~sev[12]`."""
    return [_rule(text) for text in texts]


def _rule(text: str) -> dict[str, str]:
    for field in _FIELDS:
        if not text.startswith(field):
            continue
        rest = text.removeprefix(field)
        for sign, match in _MATCHES:
            if rest.startswith(sign) and len(rest) > len(sign):
                return {"field": field, "match": match, "value": rest[len(sign) :]}
    raise CommandFailed(
        f"{text!r} is no matcher; write service=web, monitor^=prod, table$=_raw or label~sev[12]",
        EXIT_USAGE,
    )


def show(document: Mapping[str, Any], *, as_json: bool, lines: Iterable[str]) -> None:
    """The document, or lines for people."""
    if as_json:
        print_json(document)
        return
    for line in lines:
        click.echo(line)
