"""The command line: one file per command, loaded when it is called for.

Invariants:

1. `--help` starts no server library: DuckDB, quart, pyarrow and rich are imported by the commands
   that need them, when they need them.
2. With `--json` standard output is exactly one JSON document; everything for people goes to
   standard error.
3. Exit codes: 0 done, 1 failed, 2 usage or a wrong setting, 3 server not reachable, 4 partly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version as distribution_version
from types import MappingProxyType
from typing import Any

import click

import ingester

__all__ = ["main"]

_JSON_ASKED = "ingester.json_asked"


class LazyGroup(click.Group):
    """A group whose commands live in `ingester.cli.<module>` and are imported by name."""

    modules: Mapping[str, str] = MappingProxyType({
        "serve": "serve:serve",
        "demo": "demo:demo",
        "upload": "upload:upload",
        "query": "query:query",
        "search": "search:search",
        "source": "source:source",
        "token": "token:token",
        "connection": "connection:connection",
        "project": "connection:project",
        "member": "member:member",
        "audit": "member:audit",
        "rule": "rule:rule",
        "alert": "rule:alert",
        "monitor": "monitor:monitor",
        "incident": "incident:incident",
        "silence": "incident:silence",
        "label": "incident:label",
        "destination": "destination:destination",
        "route": "route:route",
        "delivery": "delivery:delivery",
        "rejects": "rejects:rejects",
        "check": "check:check",
        "backup": "backup:backup",
        "restore": "backup:restore",
        "export": "export:export",
        "retention": "retention:retention",
        "config": "settings:config",
        "unit": "unit:unit",
        "completion": "unit:completion",
    })

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_JSON_ASKED] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Options that are wrong are found before the command that would print them as JSON."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if ctx.meta[_JSON_ASKED]:
                click.echo(json.dumps({"error": error.format_message()}, ensure_ascii=False))
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        module_name, _, attribute = self.modules[cmd_name].partition(":")
        command = getattr(import_module(f"{__name__}.{module_name}"), attribute)
        assert isinstance(command, click.Command)
        return command


def _show_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        # Not imported: that takes a tenth of a second.
        click.echo(f"{ingester.__version__} (DuckDB {distribution_version('duckdb')})")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, and DuckDB's, and exit.",
)
def main() -> None:
    """Take product events over HTTP, keep them safe, query them with SQL.

    \b
    See it work, with sample data in ./ingester-demo:
      ingester demo
    \b
    Run it, and make keys for a sender:
      ingester serve --data-dir ./ingester-data
      ingester source create shop
      ingester token create --service web --environment prod
      ingester connection create cron
    \b
    Send events, one JSON object a line:
      curl --data-binary @events.ndjson http://127.0.0.1:8080/v1/AUTH_KEY/API_KEY
      ingester upload events.ndjson.gz --url http://127.0.0.1:8080/v1/AUTH_KEY/API_KEY
    \b
    Ask:
      ingester query "SELECT action, count(*) FROM events GROUP BY ALL"
      ingester search "level:>=error timeout" --since 1h --follow

    \b
    Watch, and tell others of incidents:
      ingester rule create disk --lql 'level:>=error "disk full"'
      ingester monitor create errors --logs level:error --operator '>' --threshold 10
      ingester incident list --status opened
      ingester destination create ops --url https://example.org/hook --secret generate
      ingester destination verify ops

    Every command that tells something takes --json and then prints one document. Exit codes: 0
    done, 1 failed, 2 usage or a wrong setting, 3 server not reachable, 4 partly (some lines were
    rejected).
    """
