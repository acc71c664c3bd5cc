"""`ingester rejects` on a stopped folder: what is printed, and what is no proper request."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingester.cli import main
from tests.actors.requests import event_line
from tests.doors.test_replay import Folder, late


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stray ./config.toml or variable of the developer counts."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INGESTER_")]:
        monkeypatch.delenv(name)


def run(*arguments: str, text: bytes | None = None) -> Result:
    command = ["rejects", *arguments, "--data-dir", "data"]
    return CliRunner().invoke(main, command, input=text)


def test_a_reject_is_listed_mended_from_standard_input_and_counted(tmp_path: Path) -> None:
    Folder(tmp_path, [late("a"), b'{"x": "\x1b[31m\xff'])
    listed = run("list", "--reason", "invalid_utf8", "--since", "2020-01-01")
    assert listed.exit_code == 0, listed.output
    first, excerpt = listed.stdout.splitlines()
    assert "line 2 column 13  invalid_utf8" in first
    assert "\\x1b[31m" in excerpt
    name = first.split()[0]
    assert run("list", "--since", "1h").stdout == ""
    refused = run("replay", "--all")
    assert refused.exit_code == 4
    assert f"{name}  refused  invalid_utf8" in refused.stdout
    assert "1 replayed, 1 stay rejects" in refused.stderr
    mended = run("replay", "--edit", f"{name}=-", text=event_line(7))
    assert (mended.exit_code, mended.stderr) == (0, "1 replayed, 0 stay rejects\n")
    assert f"{name}  replayed  " in mended.stdout
    again = run("replay", name, "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["results"][0]["outcome"] == "already_replayed"
    assert "[replayed " in run("list").stdout
    counts = run("counts", "--source", "test")
    assert [line.split()[:4] for line in counts.stdout.splitlines()] == [
        ["1", "natero", "test", "invalid_utf8"],
        ["1", "natero", "test", "missing_field"],
    ]
    assert "2 rejects, 2 replayed" in counts.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay",),
        ("replay", "--all", "0000000000000001-1"),
        ("replay", "--source", "s", "--edit", "0000000000000001-1=x"),
        ("replay", "--edit", "0000000000000001-1"),
        ("replay", "--edit", "0000000000000001-1=nowhere"),
        ("replay", "--edit", "0000000000000001-1=binary"),
        ("replay", "--reason", "dislike"),
        ("list", "--since", "yesterday"),
        ("list", "--since", "20260101"),
        ("list", "--limit", "0"),
    ],
)
def test_what_is_no_proper_request_is_a_usage_error(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff")
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [("list",), ("counts",), ("replay", "--all")])
def test_a_folder_without_data_is_named(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for sentence in ("no data folder at data", "data holds no data"):
        result = run(*arguments)
        assert result.exit_code == 1
        assert sentence in result.stderr
        (tmp_path / "data").mkdir(exist_ok=True)
    assert list((tmp_path / "data").glob("*.sqlite")) == []


def test_an_id_that_is_none_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    Folder(tmp_path, [b"{"])
    result = run("replay", "7")
    assert result.exit_code == 1
    assert "ids" in result.stderr
    unknown = run("replay", "0000000000000001-1")
    assert (unknown.exit_code, unknown.stdout) == (4, "0000000000000001-1  unknown\n")
