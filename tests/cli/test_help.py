"""`--help` of every command, read as a page: nothing unexplained, and examples that would run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from ingester.cli import main

# They print a text for the shell.
_WITHOUT_JSON = {"unit", "completion"}


def commands(
    group: click.Group = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands())
GROUPS = [path for path, command in COMMANDS.items() if isinstance(command, click.Group)]


def options(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


def test_every_option_says_what_it_does() -> None:
    silent = [
        (*path, *option.opts)
        for path, command in COMMANDS.items()
        for option in options(command)
        if not option.help
    ]
    assert silent == []


def test_every_command_has_a_line_that_is_a_sentence_and_fits() -> None:
    for path, command in COMMANDS.items():
        line = command.get_short_help_str(90)
        assert re.fullmatch(r"[A-Z-].*[.?]", line), (path, line)
        assert not line.endswith("..."), (path, line)


def test_every_command_that_tells_something_takes_json() -> None:
    for path, command in COMMANDS.items():
        if path not in GROUPS and path[0] not in _WITHOUT_JSON:
            assert any("--json" in option.opts for option in options(command)), path


@pytest.mark.parametrize("path", [(), *GROUPS], ids=" ".join)
def test_a_group_teaches_by_examples(path: tuple[str, ...]) -> None:
    assert len(examples(path)) >= 2, path


def test_examples_name_commands_and_options_that_there_are() -> None:
    for path in ((), *COMMANDS):
        for example in examples(path):
            words = shlex.split(example.split("|")[0], comments=True)
            names: tuple[str, ...] = ()
            while (*names, *words[1:2]) in COMMANDS and words[1:]:
                names = (*names, words.pop(1))
            assert names, example
            known = {
                name
                for option in options(COMMANDS[names])
                for name in (*option.opts, *option.secondary_opts)
            }
            used = {word for word in words[1:] if re.fullmatch(r"--[a-z-]+|-[a-z]", word)}
            assert used <= known, (example, used - known)


def examples(path: tuple[str, ...]) -> list[str]:
    """Lines of a page that begin with our name, with those they go on in."""
    done = CliRunner().invoke(main, [*path, "--help"], prog_name="ingester", terminal_width=200)
    assert done.exit_code == 0, path
    text = done.output.partition("Options:")[0].partition("\n")[2]
    text = re.sub(r"\\\n *", "", text)
    lines = [line.strip() for line in text.splitlines()]
    found = [re.sub(r"^(\w+=\S+|zcat \S+ \|) ", "", line) for line in lines]
    return [line for line in found if line.startswith("ingester ") and closes(line)]


def closes(line: str) -> bool:
    """A quotation that goes on in the next line is not looked at."""
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return False
    return True
