"""Commands beside a server (a fake one on the socket) and on a stopped folder; exit codes."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

import ingester.topology
from ingester.cli import local, main
from ingester.cli.common import CommandFailed, intake_base, run_trio
from ingester.cli.rows import ESCAPES, Rows, _decoded, _Lines, rows_table
from ingester.cli.serve import first_run_text
from ingester.config import Config, IntakeConfig
from ingester.errors import StoreFailed
from ingester.messages import Source
from ingester.sandbox.values import csv_field
from ingester.store.control import ControlStore, SourceKeys
from tests.cli.doors import open_door, write_events

PAIR = {"source": "shop", "auth_key": "A1", "api_key": "K1", "url": "http://x/v1/A1/K1"}
LISTED = {
    "sources": [
        {
            "source": "shop",
            "lenient_session": True,
            "requests_per_hour": 5,
            "created_at": "2026-01-01T00:00:00Z",
            "keys": [
                {
                    "tail": "uvwx",
                    "created_at": "2026-01-01T00:00:00Z",
                    "expires_at": None,
                    "revoked_at": "2026-01-02T00:00:00Z",
                }
            ],
        }
    ]
}


class FakeServer:
    """Answers on `control.sock` by (method, path); keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, object]] = {}
        self.asked: list[tuple[str, str, Any]] = []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fake.asked.append((self.command, self.path, json.loads(body) if body else None))
            status, document = fake.answers.get((self.command, self.path), (404, {"error": "no"}))
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = reply

        def address_string(self) -> str:
            return "local"

        def log_message(self, format: str, *args: object) -> None:
            pass

    # The test's folder may be longer than a socket path: bind beside it, link by a short name.
    os.chdir(tmp_path)
    with ThreadingUnixStreamServer("control.sock", Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stray ./config.toml or variable of the developer counts."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INGESTER_")]:
        monkeypatch.delenv(name)


def run(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), **options)


def test_a_running_server_makes_lists_rotates_and_revokes(
    server: FakeServer, tmp_path: Path
) -> None:
    server.answers = {
        ("POST", "/api/v1/sources"): (201, PAIR),
        ("GET", "/api/v1/sources"): (200, LISTED),
        ("POST", "/api/v1/sources/shop/rotate"): (200, PAIR),
        ("POST", "/api/v1/sources/shop/revoke"): (200, {"source": "shop", "revoked": 2}),
    }
    where = ("--data-dir", tmp_path)
    made = run("source", "create", "shop", "--requests-per-hour", 5, *where, "--json")
    assert (made.exit_code, json.loads(made.stdout)) == (0, PAIR)
    assert "A1" in run("source", "create", "shop", *where).stdout
    listed = run("source", "list", *where)
    assert "shop  (lenient session, 5 requests an hour)" in listed.stdout
    assert "…uvwx" in listed.stdout
    assert "revoked 2026-01-02" in listed.stdout
    assert json.loads(run("source", "list", *where, "--json").stdout) == LISTED
    assert run("source", "rotate", "shop", "--overlap", "30m", *where).exit_code == 0
    assert "2 key pairs revoked" in run("source", "revoke", "shop", *where).stdout
    bodies = [body for method, path, body in server.asked if method == "POST"]
    assert bodies[0] == {"name": "shop", "lenient_session": False, "requests_per_hour": 5}
    assert {"overlap_seconds": 1800} in bodies
    assert not (tmp_path / "control.sqlite").exists()


def test_what_the_server_refuses_is_told_and_is_exit_code_1(
    server: FakeServer, tmp_path: Path
) -> None:
    server.answers = {
        ("POST", "/api/v1/sources"): (409, {"error": "a source named 'shop' exists already"}),
        ("GET", "/api/v1/check"): (500, b"oops"),
    }
    result = run("source", "create", "shop", "--data-dir", tmp_path, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"error": "a source named 'shop' exists already"}
    assert "the server answered 500" in run("check", "--data-dir", tmp_path).stderr


def test_query_prints_the_rows_of_the_server(server: FakeServer, tmp_path: Path) -> None:
    asked = ("POST", "/api/v1/query")
    long = '{""k"": 123456789012345678901234567890}'
    server.answers[asked] = (200, f'a,n\r\n"x\ty\\\r\n",0.10\r\n,"{long}"\r\n'.encode())
    plain = run("query", "SELECT 1", "--data-dir", tmp_path)
    assert plain.stdout == (
        'a\tn\nx\\ty\\\\\\r\\n\t0.10\n\t{"k": 123456789012345678901234567890}\n'
    )
    server.answers[asked] = (
        200,
        b'{"columns":["a","n"],"types":["VARCHAR","DOUBLE"],'
        b'"rows":[["x\\ty\\\\",0.10],[null,123456789012345678901234567890],[{"k":[1]},2]]}\n',
    )
    as_json = run("query", "-", "--data-dir", tmp_path, "--json", input="SELECT 2")
    assert as_json.stdout == (
        '[{"a":"x\\ty\\\\","n":0.10},{"a":null,"n":123456789012345678901234567890},'
        '{"a":{"k":[1]},"n":2}]\n'
    )
    assert [(body["sql"], body["format"]) for _, _, body in server.asked] == [
        ("SELECT 1", "csv"),
        ("SELECT 2", "json"),
    ]
    assert run("query", " ", "--data-dir", tmp_path).exit_code == 2


@given(
    rows=st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=2)
    ),
    cuts=st.lists(st.integers(0, 400)),
)
def test_lines_are_the_records_however_the_csv_is_cut(rows: list[list[str]], cuts: Any) -> None:
    data = "".join(",".join(map(csv_field, row)) + "\r\n" for row in rows).encode()
    written: list[str] = []
    lines = _Lines(written.append)
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in itertools.pairwise(places):
        lines.add(data[start:end])
    assert written == ["\t".join(field.translate(ESCAPES) for field in row) + "\n" for row in rows]


def test_rows_may_also_be_objects_and_a_table_shows_no_control_characters() -> None:
    rows = _decoded(b' [{"a":"\\u001b[31m","n":1},{"a":null,"n":2}]')
    assert rows.columns == ["a", "n"]
    assert rows_table(rows).row_count == 2
    assert "\x1b" not in str(list(rows_table(rows).columns[0].cells))
    assert _decoded(b"[]") == Rows([], [])
    assert Rows(["a", "a"], [[Raw(b"1"), Raw(b"2")]]).objects() == [{"a": Raw(b"2")}]


def test_an_upload_goes_where_the_running_server_listens(
    server: FakeServer, tmp_path: Path
) -> None:
    """The settings of the command name another port than the server's."""
    lines = write_events(tmp_path / "a", 3)
    with open_door() as door:
        server.answers = {
            ("GET", "/api/v1/status"): (
                200,
                {"version": "1", "intake": door.url.removesuffix("/v1/authkey/apikey")},
            ),
            ("POST", "/api/v1/sources/shop/reveal"): (200, PAIR),
        }
        where = ("--data-dir", tmp_path)
        assert run("upload", tmp_path / "a", "--source", "shop", *where).exit_code == 0
        sent = run("upload", tmp_path / "a", "--ingest", "web", "--token", "t", *where, "--again")
        assert sent.exit_code == 0, sent.stderr
    assert [request.path for request in door.requests] == ["/v1/A1/K1", "/ingest/web"]
    assert door.requests[0].decoded.splitlines() == lines


def test_check_is_exit_code_0_only_when_all_is_well(server: FakeServer, tmp_path: Path) -> None:
    server.answers[("GET", "/api/v1/check")] = (200, {"ok": True, "problems": []})
    assert run("check", "--data-dir", tmp_path).exit_code == 0
    server.answers[("GET", "/api/v1/check")] = (200, {"ok": False, "problems": ["a part is cut"]})
    result = run("check", "--data-dir", tmp_path, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"ok": False, "problems": ["a part is cut"]}
    assert "a part is cut" in run("check", "--data-dir", tmp_path).stdout


def test_an_upload_checks_the_key_against_the_running_server(
    server: FakeServer, tmp_path: Path
) -> None:
    server.answers[("GET", "/api/v1/sources")] = (200, LISTED)
    server.answers["GET", "/api/v1/status"] = (200, {"intake": "http://127.0.0.1:8080"})
    (tmp_path / "a").write_text("{}\n")
    keys = ("--data-dir", tmp_path, "--auth-key", "k", "--api-key")
    assert "is none of source" in run("upload", "a", "--source", "shop", *keys, "wrong").stderr
    assert "no source named" in run("upload", "a", "--source", "x", *keys, "uvwx").stderr


def test_a_stopped_folder_is_managed_directly(tmp_path: Path) -> None:
    where = ("--data-dir", tmp_path / "new")
    missing = run("source", "list", *where)
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "no data folder" in missing.stderr
    made = json.loads(run("source", "create", "shop", *where, "--json").stdout)
    base = "http://127.0.0.1:8080/v1"
    assert made["url"] == f"{base}/{made['auth_key']}/{made['api_key']}"
    assert run("source", "create", "shop", *where).exit_code == 1
    assert run("source", "create", "a b", *where).exit_code == 1
    listed = json.loads(run("source", "list", *where, "--json").stdout)["sources"]
    assert listed[0]["keys"][0]["tail"] == made["api_key"][-4:]
    rotated = json.loads(run("source", "rotate", "shop", *where, "--json").stdout)
    assert rotated["api_key"] != made["api_key"]
    assert json.loads(run("source", "revoke", "shop", *where, "--json").stdout)["revoked"] == 2
    assert run("source", "revoke", "nope", *where).exit_code == 1
    assert run("source", "rotate", "shop", "--overlap", "soon", *where).exit_code == 2


@pytest.mark.parametrize("arguments", [("source", "list"), ("query", "SELECT 1"), ("check",)])
def test_a_held_lock_without_a_socket_is_exit_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(local, "_STARTING_SECONDS_MAX", 0.0)
    with open(tmp_path / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = run(*arguments, "--data-dir", tmp_path)
    assert result.exit_code == 3
    assert "does not answer" in result.stderr


def test_a_folder_with_a_long_name_is_reached(tmp_path: Path, server: FakeServer) -> None:
    server.answers[("GET", "/api/v1/sources")] = (200, {"sources": []})
    long_name = tmp_path / ("x" * 120)
    long_name.mkdir()
    os.rename("control.sock", long_name / "control.sock")
    result = run("source", "list", "--data-dir", long_name)
    assert result.exit_code == 0
    assert "no sources yet" in result.stderr


def test_config_show_prints_a_loadable_file_and_origins(tmp_path: Path) -> None:
    Path("config.toml").write_text('[store]\nthreads = 2\nbatch_bytes_max = "1MiB"\n')
    shown = run("config", "show", "--data-dir", "d")
    assert shown.exit_code == 0
    assert 'data_dir = "d"\n' in shown.stdout
    assert 'batch_bytes_max = "1MiB"\n' in shown.stdout
    origins = run("config", "show", "--origin", env={"INGESTER_LOG_LEVEL": "debug"}).stdout
    assert "# config.toml" in origins
    assert "# environment INGESTER_LOG_LEVEL" in origins
    document = json.loads(run("config", "show", "--origin", "--json").stdout)
    assert document["store"]["threads"] == {"value": 2, "origin": "config.toml"}
    again = tmp_path / "again.toml"
    again.write_text(shown.stdout)
    assert run("config", "show", "--config", again).stdout == shown.stdout


def test_config_check_and_wrong_settings(tmp_path: Path) -> None:
    assert run("config", "check").exit_code == 0
    assert json.loads(run("config", "check", "--json").stdout) == {"ok": True, "problems": []}
    Path("config.toml").write_text("[intake]\nbidn = 1\n")
    checked = run("config", "check", "--json")
    assert checked.exit_code == 1
    assert "intake.bind" in json.loads(checked.stdout)["problems"][0]
    assert run("config", "check").exit_code == 1
    # Any other command: a wrong setting is wrong usage.
    refused = run("source", "list", "--json")
    assert refused.exit_code == 2
    assert "intake.bind" in json.loads(refused.stdout)["error"]


def test_links_name_an_address_that_can_be_reached() -> None:
    def base(**values: Any) -> str:
        return intake_base(Config(intake=IntakeConfig(**values)))

    assert base(bind="0.0.0.0:80") == "http://127.0.0.1:80"
    assert base(bind="[::]:80", tls_cert_file="c") == "https://[::1]:80"
    assert base(bind="0.0.0.0:80", public_url="https://e.example/in") == "https://e.example/in"


KEYS = SourceKeys(source=Source(source_id=1, name="default"), auth_key="A1", api_key="K1")


def fake_topology(
    monkeypatch: pytest.MonkeyPatch,
    first_run: SourceKeys | None,
    test: str | None,
    setup_url: str | None = None,
) -> list[Any]:
    seen: list[Any] = []

    async def serve(config: Config, *, reload: Any, announce: Any) -> None:
        announcement = ingester.topology.Announcement(
            intake="http://127.0.0.1:1",
            console="http://127.0.0.1:2",
            test=test,
            first_run=first_run,
            setup_url=setup_url,
        )
        announce(announcement)
        seen.extend([config, reload()])
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(ingester.topology, "serve", serve)
    return seen


def test_serve_prints_one_ready_line_and_hides_keys_in_a_private_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_topology(monkeypatch, KEYS, "http://127.0.0.1:3")
    (tmp_path / "d").mkdir()
    options = ("--intake-bind", "127.0.0.1:0", "--test-bind", "127.0.0.1:0", "--data-dir", "d")
    result = run("serve", *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "event": "ready",
        "intake": "http://127.0.0.1:1",
        "console": "http://127.0.0.1:2",
        "test": "http://127.0.0.1:3",
    }
    path = tmp_path / "d" / "first-run.txt"
    assert str(path) in result.stderr
    assert "K1" not in result.output
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert "curl -X POST -T file.json http://127.0.0.1:1/v1/A1/K1\n" in text
    assert seen[0].intake.bind == "127.0.0.1:0"
    assert seen[0] == seen[1]


@pytest.mark.parametrize("first_run", [KEYS, None])
def test_serve_hides_the_set_up_link_in_the_same_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first_run: SourceKeys | None
) -> None:
    link = "http://127.0.0.1:2/setup?token=T1"
    fake_topology(monkeypatch, first_run, None, link)
    (tmp_path / "d").mkdir()
    result = run("serve", "--data-dir", "d")
    assert link not in result.output
    text = (tmp_path / "d" / "first-run.txt").read_text()
    assert f"\n  {link}\n" in text
    assert ("K1" in text) == (first_run is not None)


def test_serve_without_a_first_run_writes_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_topology(monkeypatch, None, None)
    result = run("serve", "--json")
    assert list(json.loads(result.stdout)) == ["event", "intake", "console"]
    assert list(tmp_path.iterdir()) == []


def test_serve_tells_why_it_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(config: Config, *, reload: Any, announce: Any) -> None:
        async with trio.open_nursery():
            raise StoreFailed("the disk is gone")

    monkeypatch.setattr(ingester.topology, "serve", serve)
    result = run("serve")
    assert result.exit_code == 1
    assert result.stderr == "Error: the disk is gone\n"


def test_first_run_lines_are_valid_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ingester"])  # a worker of the test run is called `-c`
    text = first_run_text(KEYS, "https://e.example", tmp_path / "a b", now_ms=5)
    commands = "\n".join(line for line in text.splitlines() if line.startswith("  "))
    stubs = 'curl() { printf "%s\\n" "$*"; }\n' + commands.replace("auth key", "# ").replace(
        "api key", "# "
    )
    lines = [line for line in stubs.splitlines() if "-m ingester" not in line]
    done = subprocess.run(
        ["bash", "-euc", "\n".join(line for line in lines if "ingester" not in line)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert '--data-binary {"accountId":"acme"' in done.stdout
    assert "https://e.example/v1/A1/K1" in done.stdout
    event = json.loads((tmp_path / "file.json").read_text())
    assert event["createdAt"] == 5


def test_ctrl_c_and_our_errors_come_out_of_their_group() -> None:
    async def fail(error: BaseException) -> None:
        async with trio.open_nursery():
            raise error

    with pytest.raises(CommandFailed, match="why"):
        run_trio(lambda: fail(CommandFailed("why")))
    with pytest.raises(KeyboardInterrupt):
        run_trio(lambda: fail(KeyboardInterrupt()))
    with pytest.raises(BaseExceptionGroup):
        run_trio(lambda: fail(ZeroDivisionError()))


def test_help_starts_no_server_library() -> None:
    heavy = ["duckdb", "quart", "hypercorn", "pyarrow", "rich", "numpy"]
    code = (
        "import sys; from ingester.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"assert not set({heavy}) & set(sys.modules), set({heavy}) & set(sys.modules)"
    )
    root = str(Path(ingester.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    commands = ("serve", "demo", "upload", "query", "source", "check", "config")
    for command in (*commands, "token", "connection", "project", "member", "audit"):
        assert f"\n  {command} " in done.stdout


def test_the_server_is_imported_without_pandas_where_it_is_installed() -> None:
    """An Arrow array of Python values made at module level imports it: half a second."""
    code = "import sys, ingester.topology; assert 'pandas' not in sys.modules"
    root = str(Path(ingester.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)


def test_every_command_takes_json_and_shows_an_example() -> None:
    commands = ["serve", "demo", "upload", "query", "check", "audit", "source", "config"]
    for command in [*commands, "token", "connection", "project", "member"]:
        text = run(command, "--help").stdout
        assert f"  ingester {command}" in text
    leaves = [[name] for name in commands[:6]]
    kept = ("create", "list", "rotate", "revoke", "reveal", "delete", "usage")
    leaves += [[group, name] for group in ("source", "token", "connection") for name in kept]
    leaves += [["project", name] for name in ("create", "list", "delete")]
    leaves += [["member", name] for name in ("create", "list", "invite", "role", "delete")]
    leaves += [["config", name] for name in ("show", "check")]
    for leaf in leaves:
        assert "--json" in run(*leaf, "--help").stdout


def test_a_store_left_by_the_cli_opens_in_a_server(tmp_path: Path) -> None:
    run("source", "create", "shop", "--data-dir", tmp_path)
    store = ControlStore.open(tmp_path / "control.sqlite")
    assert [info.source.name for info in store.list_sources()] == ["shop"]
    store.close()
