"""What every command has in common: `--json`, and one document whatever goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from ingester.cli import main


def commands(group: click.Group, context: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, context)
        elif found is not None:
            yield found


def test_every_command_takes_json() -> None:
    found = list(commands(main, click.Context(main)))
    assert len(found) > 60
    without = [
        command.name
        for command in found
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == []


@pytest.mark.parametrize(
    "arguments",
    [("source", "create"), ("token", "create", "--scope", "x"), ("nothing",), ("query", "1", "-x")],
)
def test_wrong_usage_is_one_json_document_too(arguments: tuple[str, ...]) -> None:
    refused = CliRunner().invoke(main, [*arguments, "--json"])
    assert (refused.exit_code, list(json.loads(refused.stdout))) == (2, ["error"])
    assert CliRunner().invoke(main, arguments).stdout == ""


@pytest.mark.parametrize("arguments", [("unit", "container"), ("completion", "bash")])
def test_a_text_is_a_document_when_asked(arguments: tuple[str, ...]) -> None:
    text = CliRunner().invoke(main, arguments).stdout
    document = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert document["text"].strip() == text.strip()
