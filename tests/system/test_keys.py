"""Keys on a running server, over its real sockets: at once, over a restart, and never in a log."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.client import event_line, head_bytes
from tests.system.server import Server, SourceKeys, running, wait_until

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("keys")) as server:
        yield server


class Refused(Exception):
    def __init__(self, status: int, document: Any, headers: Any) -> None:
        super().__init__(status, document)
        self.status, self.document, self.headers = status, document, headers


def api(
    server: Server, method: str, path: str, body: object = None, **headers: str
) -> tuple[Any, Any]:
    """Document and headers of the console's answer over TCP."""
    request = urllib.request.Request(
        server.ready["console"] + path,
        None if body is None else json.dumps(body).encode(),
        {name.replace("_", "-"): value for name, value in headers.items()},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(error.code, json.load(error), error.headers) from None


def post_event(server: Server, keys: SourceKeys) -> int:
    with server.connect() as connection:
        return connection.post(keys.path, event_line("acme")).status


def keys_of(made: dict[str, str]) -> SourceKeys:
    return SourceKeys(made["source"], made["auth_key"], made["api_key"], made["url"])


def test_an_admin_token_made_by_the_command_line_manages_over_tcp(server: Server) -> None:
    admin = server.command("token", "create", "--scope", "admin")["token"]
    reader = server.command("token", "create", "--scope", "read")["token"]
    bearer = f"Bearer {admin}"
    made, _ = api(server, "POST", "/api/v1/sources", {"name": "tcp"}, Authorization=bearer)
    assert post_event(server, keys_of(made)) == 200
    rows, _ = api(
        server, "POST", "/api/v1/query", {"sql": "SELECT 1 AS n"}, Authorization=f"bearer {reader}"
    )
    assert rows["rows"] == [[1]]
    for header, status in ((f"Bearer {reader}", 403), ("Bearer nope", 401), (admin, 401)):
        with pytest.raises(Refused) as caught:
            api(server, "GET", "/api/v1/tokens", Authorization=header)
        assert caught.value.status == status
    ingest = server.command("token", "create", "--service", "s", "--environment", "e")["token"]
    metric = server.command("connection", "create", "tcp")["api_key"]
    for key, status in ((ingest, 403), (metric, 401)):
        with pytest.raises(Refused) as caught:
            api(server, "GET", "/api/v1/status", Authorization=f"Bearer {key}")
        assert caught.value.status == status
    listed = server.command("token", "list")["tokens"]
    assert [entry["last_address"] for entry in listed if entry["scope"] == "admin"] == ["127.0.0.1"]


def test_changes_of_keys_are_in_effect_when_the_command_returns(server: Server) -> None:
    keys = server.create_source("change")
    assert post_event(server, keys) == 200
    new = keys_of(server.command("source", "rotate", "change", "--overlap", "1h"))
    assert (post_event(server, keys), post_event(server, new)) == (200, 200)
    last = keys_of(server.command("source", "rotate", "change", "--overlap", "0"))
    assert [post_event(server, one) for one in (keys, new, last)] == [400, 400, 200]
    assert keys_of(server.command("source", "reveal", "change")) == last
    server.command("source", "set", "change", "--requests-per-hour", "1")
    assert [post_event(server, last) for _ in range(2)] == [200, 429]
    server.command("source", "set", "change", "--requests-per-hour", "0")
    assert post_event(server, last) == 200
    server.command("source", "revoke", "change")
    assert post_event(server, last) == 400
    again = keys_of(server.command("source", "rotate", "change"))
    assert post_event(server, again) == 200
    server.command("source", "delete", "change")
    assert post_event(server, again) == 400
    assert server.value("SELECT count(*) FROM events WHERE source = 'change'") >= 5
    usage_path = "source", "usage", "change"
    with pytest.raises(Exception, match="no source named"):
        server.command(*usage_path)


def test_a_rotation_in_the_middle_of_traffic_refuses_nobody(server: Server) -> None:
    keys = server.create_source("busy")
    stop = threading.Event()
    statuses: list[int] = []

    def send() -> None:
        with server.connect() as connection:
            while not stop.is_set():
                statuses.append(connection.post(keys.path, event_line("acme")).status)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(3):
            server.command("source", "rotate", "busy", "--overlap", "1h")
    finally:
        stop.set()
        sender.join()
    assert set(statuses) == {200}
    usage = server.command("source", "usage", "busy")
    assert sum(hour["requests"] for hour in usage["hours"]) == len(statuses)
    assert sum(hour["accepted"] for hour in usage["hours"]) == len(statuses)


def test_usage_and_refusals_are_shown_and_survive_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        keys = server.create_source("shop")
        with server.connect() as connection:
            connection.post(keys.path, event_line("acme") + b"\nbad\n")
        with server.connect() as connection:
            head = head_bytes(
                "POST", keys.path, {"Content-Encoding": "gzip", "Content-Length": "4"}
            )
            connection.send_raw(head + b"junk")
            assert connection.read_answer().status == 400
        token = server.command("token", "create", "--service", "s", "--environment", "e")
        for _ in range(2):
            usage = server.command("source", "usage", "shop")
            (hour,) = usage["hours"]
            counts = [hour[name] for name in ("requests", "accepted", "rejected", "refused")]
            assert counts == [2, 1, 1, 1]
            assert usage["last_address"] == "127.0.0.1"
            assert usage["refused"][0]["path"] == "/v1/***/***"
            assert server.command("token", "reveal", token["id"])["token"] == token["token"]
            assert server.stop() == 0
            server.start()
        (Path(server.data_dir) / "secret.key").unlink()
        with pytest.raises(Exception, match=r"secret\.key is missing"):
            server.command("token", "reveal", token["id"])
        assert post_event(server, keys) == 200


def test_the_first_start_is_set_up_by_its_link_once(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        path = Path(server.data_dir) / "first-run.txt"
        assert path.stat().st_mode & 0o777 == 0o600
        found = re.search(r"http://\S+/setup\?token=(\S+)", path.read_text())
        assert found is not None
        assert found[0].startswith(server.ready["console"])
        with urllib.request.urlopen(found[0], timeout=20) as page:
            assert b"Set up this server" in page.read()
        body = {"token": found[1], "email": "ada@example.org", "password": PASSWORD}
        _, headers = api(server, "POST", "/api/v1/setup", body)
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert not path.exists()
        with pytest.raises(Refused) as caught:
            api(server, "POST", "/api/v1/setup", body)
        assert caught.value.status == 401
        me, _ = api(server, "GET", "/api/v1/session", Cookie=cookie)
        assert me["role"] == "admin"
        with pytest.raises(Refused) as caught:
            api(
                server,
                "POST",
                "/api/v1/sources",
                {"name": "x"},
                Cookie=cookie,
                Origin="http://evil",
            )
        assert caught.value.status == 403
        assert server.stop() == 0
        server.start()
        assert not path.exists()
        me, _ = api(server, "GET", "/api/v1/session", Cookie=cookie)
        assert me["email"] == "ada@example.org"
        body = {"email": "ada@example.org", "password": PASSWORD}
        api(server, "POST", "/api/v1/session", body)
        actions = [entry["action"] for entry in server.command("audit")["entries"]]
        assert actions == ["member joined", "source created"]


def test_no_key_reaches_log_metrics_or_the_control_file(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        pair = server.create_source("shop")
        token = server.command("token", "create", "--service", "s", "--environment", "e")
        admin = server.command("token", "create", "--scope", "admin")
        metric = server.command("connection", "create", "cron")
        post_event(server, pair)
        with server.connect() as connection:
            connection.post(f"/v1/{admin['token']}/{metric['api_key']}", b"{}")
        for key in (token["token"], metric["api_key"]):
            with pytest.raises(Refused):
                api(server, "GET", f"/api/v1/status?key={key}", Authorization=f"Bearer {key}")
            with pytest.raises(Refused):
                api(
                    server, "GET", f"/api/v1/tokens/{key}", Authorization=f"Bearer {admin['token']}"
                )
        with urllib.request.urlopen(f"{server.ready['console']}/metrics", timeout=20) as answer:
            shown = answer.read().decode()
        shown += json.dumps([
            server.command("audit"),
            server.command("token", "list"),
            server.command("connection", "list"),
            server.command("source", "list"),
        ])
        refused, _ = api(server, "GET", "/api/v1/refused", Authorization=f"Bearer {admin['token']}")
        shown += json.dumps(refused)
        wait_until(lambda: server.stop() == 0, 1, "stopped")
        shown += server.log_text()
        secrets = [pair.auth_key, pair.api_key, token["token"], admin["token"], metric["api_key"]]
        files = [file for file in Path(server.data_dir).glob("control.sqlite*") if file.is_file()]
        assert files
        for secret in secrets:
            assert secret not in shown
            assert not any(secret.encode() in file.read_bytes() for file in files)


def failed_attempts(server: Server) -> float:
    with urllib.request.urlopen(f"{server.ready['console']}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found = re.search(r"^ingester_admission_attempts_failed_total (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


def test_failed_attempts_are_counted_on_every_door_and_others_are_not(server: Server) -> None:
    keys = server.create_source("slow")
    before = failed_attempts(server)
    with server.connect() as connection:
        assert connection.post("/v1/no/such", b"{}").status == 400
    for attempt in (
        lambda: api(server, "GET", "/api/v1/status", Authorization="Bearer nope"),
        lambda: api(server, "POST", "/api/v1/session", {"email": "a@b", "password": "wrong"}),
    ):
        with pytest.raises(Refused) as caught:
            attempt()
        assert caught.value.status == 401
    assert failed_attempts(server) == before + 3
    assert post_event(server, keys) == 200
    with pytest.raises(Refused):
        api(server, "GET", "/api/v1/status")
    assert failed_attempts(server) == before + 3
