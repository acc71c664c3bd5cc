"""Every route of both doors asked by everyone (F18), generated from the tables of routes.

Whoever may not is told 401 (nobody, or a key of another door) or 403 (known, and not allowed), and
nothing else; whoever may is not. A session changes nothing for a page of another site. What a
screen shows, its page decides by the same roles.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ingester.console.routes import CONSOLE_ROUTES
from ingester.console.screens import SCREENS
from ingester.doors.routes import INTAKE_ROUTES
from ingester.management import ROUTES
from ingester.search.routes import ROUTES as SEARCH_ROUTES
from tests.system.client import Connection
from tests.system.server import Server, SourceKeys

PASSWORD = "correct horse battery"
# Session and CSRF matter where a session is the reason: a bearer key cannot be sent by a page.
_FOREIGN = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
# By their own words: only over control.sock; of a member and not of a key.
_LOCAL_ONLY = frozenset({"/api/v1/backup"})
# They take a password or end a session: `tests/console/test_auth.py`.
_FORMS = frozenset({"/login", "/setup", "/invite", "/logout", "/api/v1/session", "/api/v1/setup"})


@dataclass
class World:
    """A server, and the headers of everyone."""

    server: Server
    pair: SourceKeys
    who: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    count: int = 0

    @cached_property
    def connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.server.ready["console"])
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> tuple[int, str]:
        """Status, and the place one is sent to. From another address each time: wrong keys slow
        the next attempt of theirs.
        """
        self.count += 1
        address = f"10.{self.count >> 16}.{self.count >> 8 & 255}.{self.count & 255}"
        connection = self.connection
        sent = {**headers, "X-Forwarded-For": address}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):  # it has rested for too long
            connection.close()
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
        if path.endswith("/tail"):
            connection.close()  # it never ends
        else:
            answer.read()
        return answer.status, answer.headers.get("Location", "")

    def sign_in(self, email: str) -> dict[str, str]:
        body = json.dumps({"email": email, "password": PASSWORD})
        return {"Cookie": self._cookie("/api/v1/session", body)}

    def join(self, path: str, body: dict[str, str]) -> None:
        self._cookie(path, json.dumps(body))

    def _cookie(self, path: str, body: str) -> str:
        parts = urlsplit(self.server.ready["console"])
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        connection.request("POST", path, body)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        connection.close()
        return cookie


def make_world(folder: Path, broken: str = "") -> World:
    environment = {"INGESTER_INTAKE_TRUSTED_PROXIES": "127.0.0.1/32", "BROKEN": broken}
    module = "tests.system.broken_server" if broken else "ingester"
    server = Server(folder / "data", folder / "server.log", environment, module=module)
    server.start()
    world = World(server, server.create_source("shop"))
    found = re.search(r"/setup\?token=(\S+)", (server.data_dir / "first-run.txt").read_text())
    assert found is not None
    world.join(
        "/api/v1/setup", {"token": found[1], "email": "ada@example.org", "password": PASSWORD}
    )
    link = server.command("member", "create", "vic@example.org", "--role", "viewer")["link"]
    token = link.partition("token=")[2]
    world.join("/api/v1/invites/accept", {"token": token, "password": PASSWORD})
    world.keys = {
        "admin": server.command("token", "create", "--scope", "admin")["token"],
        "reader": server.command("token", "create", "--scope", "read")["token"],
        "ingest": server.command("token", "create", "--service", "s", "--environment", "e")[
            "token"
        ],
        "connection": server.command("connection", "create", "cron")["api_key"],
        "auth key": world.pair.auth_key,
        "wrong": "ingl_" + "x" * 40,
    }
    world.who = {name: {"Authorization": f"Bearer {key}"} for name, key in world.keys.items()}
    world.who["nobody"] = {}
    world.who["made-up session"] = {"Cookie": "ingester_session=" + "x" * 43}
    world.who["admin's session"] = world.sign_in("ada@example.org")
    world.who["viewer's session"] = world.sign_in("vic@example.org")
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = make_world(tmp_path_factory.mktemp("matrix"))
    try:
        yield world
        assert world.server.stop() == 0
    finally:
        world.connection.close()
        world.server.kill()
    assert "Traceback" not in world.server.log_text()


def console_routes() -> list[tuple[str, str, str]]:
    """Method, path without variables, role. What ends the sessions of the test comes last."""
    found = [
        (route.method, re.sub(r"{\w+}", "none", route.pattern), route.role)
        for table in (CONSOLE_ROUTES, SEARCH_ROUTES, ROUTES)
        for route in table
    ]
    assert len(found) > 120
    return sorted(found, key=lambda one: one[:2] == ("DELETE", "/api/v1/session"))


# What each is told instead of an answer, by the role that a route asks for.
REFUSED = {
    "viewer": {
        "nobody": 401, "wrong": 401, "connection": 401, "auth key": 401, "made-up session": 401,
        "ingest": 403,
    },
    "admin": {
        "nobody": 401, "wrong": 401, "connection": 401, "auth key": 401, "made-up session": 401,
        "ingest": 403, "reader": 403, "viewer's session": 403,
    },
    "anyone": {},
}  # fmt: skip


def console_problems(world: World, routes: Sequence[tuple[str, str, str]]) -> list[str]:
    problems = []
    for method, path, role in routes:
        if role == "anyone" and path in _FORMS and method == "POST":
            continue
        for name, headers in world.who.items():
            told = REFUSED[role].get(name)
            if told is None and "session" not in name:
                continue  # keys that may: `test_openapi.py`
            status, _ = world.ask(method, path, headers, b"{}" if method != "GET" else None)
            place = f"{method} {path} by {name}: {status}"
            if status >= 500 and path != "/api/v1/check":
                problems.append(f"{place}, a fault")
            elif told is not None and status != told:
                problems.append(f"{place}, not {told}")
            elif told is None and status in {401, 403} and not may_refuse(method, path, role, name):
                problems.append(f"{place}, though it may")
    return problems


def may_refuse(method: str, path: str, role: str, name: str) -> bool:
    """Who has the role and is refused for another reason."""
    if path in _LOCAL_ONLY:
        return True
    return role == "viewer" and method != "GET" and name in {"reader", "viewer's session"}


@pytest.mark.timeout(300)
def test_every_route_of_the_console_lets_in_whom_its_table_says(world: World) -> None:
    assert console_problems(world, console_routes()) == []
    # Signing out, the last of the routes, has ended the sessions, and nothing else did before.
    for name in ("admin's session", "viewer's session"):
        assert world.ask("GET", "/api/v1/status", world.who[name])[0] == 401
    world.who["admin's session"] = world.sign_in("ada@example.org")
    world.who["viewer's session"] = world.sign_in("vic@example.org")


def test_a_session_changes_nothing_for_a_page_of_another_site(world: World) -> None:
    asked = 0
    for method, path, _ in console_routes():
        if method == "GET":
            continue
        for name in ("admin's session", "viewer's session"):
            headers = {**world.who[name], **_FOREIGN}
            status, _ = world.ask(method, path, headers, b"{}")
            assert status == 403, f"{method} {path} by {name}: {status}"
            asked += 1
    assert asked > 140
    for name in ("admin's session", "viewer's session"):
        assert world.ask("GET", "/api/v1/status", world.who[name])[0] == 200, "still signed in"


def test_every_screen_is_shown_to_whom_its_table_says(world: World) -> None:
    html = {"Accept": "text/html"}
    for screen in SCREENS:
        path = re.sub(r"{\w+}", "none", screen.path)
        for name in ("nobody", "wrong", "ingest", "connection", "made-up session"):
            status, place = world.ask("GET", path, {**world.who[name], **html})
            told = f"{path} by {name}: {status} {place}"
            assert status in {200, 303, 401, 403}, told
            assert status != 303 or place.startswith("/login"), told
        assert world.ask("GET", path, {**world.who["admin's session"], **html})[0] == 200
        status, _ = world.ask("GET", path, {**world.who["viewer's session"], **html})
        assert status == (403 if screen.role == "admin" else 200), path


# By the kind of key that a route of the intake door asks for.
INTAKE_REFUSED = {
    "token": {"connection": 401, "auth key": 401, "wrong": 401, "nobody": 401, "reader": 403,
              "admin": 403},
    "connection": {"ingest": 401, "auth key": 401, "wrong": 401, "nobody": 401, "reader": 401,
                   "admin": 401},
}  # fmt: skip


def test_every_route_of_the_intake_door_takes_its_own_keys_only(world: World) -> None:
    who = {name: world.who[name] for name in [*world.keys, "nobody"]}
    before = world.server.value("SELECT count(*) FROM requests")
    with world.server.connect() as connection:
        for route in INTAKE_ROUTES:
            path = route.pattern.replace("{source}", "web")
            for method in route.methods:
                if route.key == "pair":
                    for pair in _wrong_pairs(world):
                        status = _post(world, connection, method, path.format(**pair))
                        assert status == 400, (path, pair)
                    continue
                for name, headers in who.items():
                    status = _post(world, connection, method, path, headers)
                    told = INTAKE_REFUSED.get(route.key, {}).get(name)
                    place = f"{method} {path} by {name}: {status}"
                    assert status < 500, place
                    assert (status == told) if told else status not in {401, 403}, place
    assert world.server.value("SELECT count(*) FROM requests") >= before
    stored = world.server.value("SELECT count(*) FROM events")
    assert stored == 0, "no wrong pair has stored an event"


def _wrong_pairs(world: World) -> Iterator[dict[str, str]]:
    good, swapped = world.pair.auth_key, world.pair.api_key
    for auth, api in [
        (swapped, good), (good, good), (swapped, swapped), (good, "x"), ("x", swapped),
        (world.keys["admin"], world.keys["ingest"]), (good[:-1], swapped), (good, swapped[:-1]),
        (good.swapcase(), swapped), ("none", "none"),
    ]:  # fmt: skip
        yield {"authKey": auth, "apiKey": api}


def _post(
    world: World,
    connection: Connection,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
) -> int:
    world.count += 1
    address = f"10.{world.count >> 16}.{world.count >> 8 & 255}.{world.count & 255}"
    body = b"{}" if method == "POST" else None
    sent = {**(headers or {}), "X-Forwarded-For": address}
    return connection.request(method, path, body, sent).status


def test_a_build_with_an_open_route_is_found(tmp_path: Path) -> None:
    world = make_world(tmp_path, "open_route")
    try:
        world.who = {"viewer's session": world.who["viewer's session"]}
        routes = [one for one in console_routes() if one[2] == "admin" and one[0] == "GET"]
        found = console_problems(world, routes)
        assert [one.partition(" by")[0] for one in found] == ["GET /api/v1/audit"]
    finally:
        world.connection.close()
        world.server.kill()
