"""`ingester search` on a stopped folder and beside a server: lines, colours, JSON, refusals."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ingester.cli import main
from ingester.cli import search as search_module
from ingester.cli.common import CommandFailed
from ingester.cli.local import ServerEvent
from ingester.cli.search_lines import Lines
from tests.search.rows import Rows, event, log, metric
from tests.store.stores import opened

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stray ./config.toml or variable of the developer counts."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INGESTER_")]:
        monkeypatch.delenv(name)


def run(folder: Path, *arguments: object) -> Result:
    given = [*map(str, arguments), "--data-dir", str(folder)]
    return CliRunner().invoke(main, ["search", *given])


def filled(folder: Path) -> list[str]:
    """A folder with three logs, an event and two points; the ids of the logs, oldest first."""
    with opened(folder) as store:
        rows = Rows(store)
        made = [
            log(NOW - timedelta(minutes=3), "one\ttab\\\nline", level="error"),
            log(NOW - timedelta(minutes=2), "two", attributes='{\n"n": 0.10}'),
            log(NOW - timedelta(hours=2), "long ago"),
        ]
        ids = rows.add("logs", made)
        rows.add("events", [event(NOW, "login", body={"plan": "pro"})])
        rows.add("metrics", [metric(NOW, 1.5, unit="ms"), metric(NOW, 2.5)])
    return [ids[2], ids[0], ids[1]]


def test_a_pipe_gets_one_row_a_line_oldest_first(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    filled(folder)
    result = run(folder, "", "--since", "1h")
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[1:] for line in lines] == [
        ["error", "web", "prod", "one\\ttab\\\\\\nline"],
        ["info", "web", "prod", "two"],
    ]
    assert "\x1b" not in result.stdout
    events = run(folder, "body.plan:pro", "--on", "events").stdout.split("\t")
    assert events[1:] == ["login", "acme", "ada", "shop", '{"plan":"pro"}\n']
    points = run(folder, "value:>2", "--on", "metrics").stdout.split("\t")
    assert points[1:4] == ["m1", "2.5", ""]


def test_json_is_one_array_newest_first_with_every_digit(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    ids = filled(folder)
    result = run(folder, "", "--json")
    assert [row["id"] for row in json.loads(result.stdout)] == ids[::-1]
    assert "0.10" in result.stdout
    newest = json.loads(run(folder, "", "--json", "-n", "1").stdout)
    assert [row["id"] for row in newest] == ids[-1:]
    assert json.loads(run(folder, "nothing", "--json").stdout) == []


def test_more_rows_than_a_page_are_fetched_page_by_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_PAGE_ROWS_MAX", 2)
    folder = tmp_path / "data"
    ids = filled(folder)
    found = json.loads(run(folder, "", "--json").stdout)
    assert [row["id"] for row in found] == ids[::-1]
    selected = run(folder, "s:level", "-n", "3").stdout
    assert selected.splitlines() == ["level", "info", "error", "info"]


def test_charts_and_selections_are_tables(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    filled(folder)
    chart = run(folder, "c:count(*) c:group_by(t::month, level)")
    header, *lines = chart.stdout.splitlines()
    assert header == "bucket\tlevel\tvalue"
    assert sum(int(line.split("\t")[2]) for line in lines) == 3
    selected = json.loads(run(folder, "two s:m.n@n s:service", "--json").stdout)
    assert selected == [{"n": 0.1, "service": "web"}]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("level:",), 2, "  level:\n        ^\nError: column 7: "),
        (("x", "--follow", "--until", "now"), 2, "leave out --until"),
        (("x", "--follow", "--on", "metrics"), 2, "cannot be followed"),
        (("c:count(*)", "--follow"), 2, "leave out c: and s:"),
        (("x", "--follow"), 3, "no server runs"),
        (("x", "--since", "soon"), 1, "'soon' is no time"),
        (("x", "--on", "metrics", "c:"), 2, "unexpected extra argument"),
        (("--on", "metrics", "c:"), 1, "column 3: "),
        (("x", "-n", "0"), 2, "range"),
        (("\udcff",), 2, "not valid UTF-8"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_place(
    tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    folder = tmp_path / "data"
    filled(folder)
    result = run(folder, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    result = run(tmp_path / "none", "x", "--json")
    assert result.exit_code == 1
    assert "no data folder" in json.loads(result.stdout)["error"]


def test_a_terminal_gets_colours_columns_and_no_control_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    row: dict[str, Any] = {
        "time": "2026-11-21T10:00:00.123456Z",
        "level": "error",
        "service": "checkout",
        "message": "first\nsecond \x1b[2J",
    }
    lines = Lines("logs", is_terminal=True)
    first = lines.line(row)
    assert "\x1b[31merror" in first
    plain = click.unstyle(first).split("\n")
    assert plain[0] == "2026-11-21 10:00:00.123 error     checkout first"
    assert plain[1] == " " * 43 + "second \\x1b[2J"
    # A shorter service is padded to what was there before.
    second = click.unstyle(lines.line({**row, "service": "api", "message": "x"}))
    assert second == "2026-11-21 10:00:00.123 error     api      x"
    cut = click.unstyle(lines.line({**row, "message": None, "cut": True}))
    assert cut.endswith("(a long text is left out of lists)")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in Lines("logs", is_terminal=True).line(row)


def test_a_payload_is_cut_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = {
        "created_at": "2026-11-21T10:00:00.123456Z",
        "action": "login",
        "account_id": "acme",
        "user_id": "ada",
        "body": {"text": "x" * 200},
    }
    shown = click.unstyle(Lines("events", is_terminal=True).line(row))
    assert len(shown) == 80
    assert shown.endswith("x…")


class Streams:
    """What a server answers to those who follow, connection by connection."""

    def __init__(self, *streams: list[ServerEvent]) -> None:
        self.streams = [*streams]
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, folder: Path, path: str, last: str | None) -> Iterator[ServerEvent]:
        self.asked.append((path, last))
        if not self.streams:
            raise KeyboardInterrupt
        stream = self.streams.pop(0)
        yield from stream


def row_event(row_id: str, position: str) -> ServerEvent:
    return ServerEvent(id=position, data=json.dumps({"id": row_id, "message": row_id}).encode())


def test_following_resumes_behind_the_last_row_and_shows_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = Streams(
        [ServerEvent(), row_event("a", "1.1.1"), row_event("b", "1.1.2"), ServerEvent(id="2.0.0")],
        [],  # nobody listens
        [ServerEvent(kind="missed", data=b'{"lines":1234,"unread_rows":5}'), row_event("c", "3.0")],
    )
    monkeypatch.setattr(search_module, "follow_events", streams)
    monkeypatch.setattr(search_module, "_RETRY_SECONDS", 0)
    shown = search_module._Page(
        rows=[search_module.Raw(b'{"id":"a"}')],
        cursor=None,
        cost=search_module._Cost(1, 1),
        position="0.5.5",
    )
    with pytest.raises(KeyboardInterrupt):
        search_module._follow(tmp_path, "/tail", "x y", shown, search_module._write_json)
    assert streams.asked == [
        ("/tail?q=x+y", "0.5.5"),
        ("/tail?q=x+y", "2.0.0"),
        ("/tail?q=x+y", "2.0.0"),
        ("/tail?q=x+y", "3.0"),
    ]
    told = capsys.readouterr()
    assert [json.loads(line)["id"] for line in told.out.splitlines()] == ["b", "c"]
    assert "1,234 matching rows were left out and 5 rows were not looked at" in told.err


def test_following_ends_when_the_server_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "follow_events", Streams([], [], []))
    monkeypatch.setattr(search_module, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(search_module, "_RETURN_SECONDS_MAX", 0)
    shown = search_module._Page(rows=[], cursor=None, cost=search_module._Cost(0, 0))
    with pytest.raises(CommandFailed) as caught:
        search_module._follow(tmp_path, "/tail", "", shown, search_module._write_json)
    assert caught.value.exit_code == 3
