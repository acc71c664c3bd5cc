"""Every route of the console by every role, and by a page of another site: no hole between them.

The routes are those that the application has registered, so that a new one cannot be left out; what
each demands stands in the route tables, and what viewers may send that is no mere question, here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from ingester.console.app import make_app
from ingester.console.routes import CONSOLE_ROUTES
from ingester.console.screens import SCREENS
from ingester.errors import StoreBusy
from ingester.management import ROUTES
from ingester.management.calls import NeededRole
from ingester.search import ROUTES as SEARCH_ROUTES
from tests.console.fakes import Answer, Console, FakeServices, ask, served
from tests.console.test_auth import ADMIN, PASSWORD, READER, cookie_of, post, set_up

FOREIGN = "Sec-Fetch-Site: cross-site"
STATIC = ("GET", "/static/{version}/{path}")
# Only through the control socket, whoever asks.
LOCAL = {("POST", "/api/v1/backup")}
# What a viewer sends that is not read with GET: questions, their own session, their own searches.
OF_VIEWERS = {
    ("POST", "/api/v1/alerts/test"),
    ("POST", "/api/v1/alerts/{id}/test"),
    ("POST", "/api/v1/export"),
    ("POST", "/api/v1/monitors/backtest"),
    ("POST", "/api/v1/monitors/{id}/backtest"),
    ("POST", "/api/v1/query"),
    ("POST", "/api/v1/routes/test"),
    ("POST", "/api/v1/silences/preview"),
    ("DELETE", "/api/v1/session"),
    ("POST", "/api/v1/session/password"),
    ("POST", "/api/v1/saved-searches"),
    ("PATCH", "/api/v1/saved-searches/{id}"),
    ("DELETE", "/api/v1/saved-searches/{id}"),
}
# What anybody may send: forms and their routes, which sign in or out.
OF_ANYONE = {
    ("POST", path)
    for path in (
        *("/login", "/logout", "/setup", "/invite"),
        *("/api/v1/session", "/api/v1/setup", "/api/v1/invites/accept"),
    )
}


class Served(Struct, frozen=True):
    method: str
    pattern: str
    role: NeededRole

    @property
    def pair(self) -> tuple[str, str]:
        return self.method, self.pattern

    @property
    def path(self) -> str:
        return re.sub(r"{\w+}", "x", self.pattern)


def routes(folder: Path) -> Iterator[Served]:
    """What is registered, with the role that its table names; KeyError for what is in none."""
    roles: dict[tuple[str, str], NeededRole] = {STATIC: "anyone"}
    for table in (CONSOLE_ROUTES, ROUTES, SEARCH_ROUTES):
        for route in table:
            roles[route.method, route.pattern] = route.role
    # Pages send to the form instead of refusing; `test_pages` has them.
    pages = {("GET", screen.path) for screen in SCREENS}
    for rule in make_app(FakeServices(folder)).url_map.iter_rules():
        pattern = re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if (method, pattern) not in pages:
                yield Served(method, pattern, roles[method, pattern])


class NoSearches:
    """What is let in ends here."""

    async def answer(self, *_: object) -> bytes:
        raise StoreBusy("let in")

    export = answer

    async def tail(self, *_: object, **__: object) -> AsyncIterator[bytes]:
        yield b":\n\n"


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    async with served(tmp_path) as console:
        console.services.searches = NoSearches()
        yield console


@pytest.fixture
def served_routes(tmp_path: Path) -> list[Served]:
    found = list(routes(tmp_path / "routes"))
    assert len(found) > 150
    return found


class Asked:
    """Requests over one connection, as long as it lasts."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stream: trio.SocketStream | None = None

    async def __call__(self, route: Served, *headers: str) -> Answer:
        stream = self._stream or await self._console.connect()
        self._stream = stream
        answer = await ask(stream, route.method, route.path, headers=headers)
        if answer.headers.get("connection") == "close":
            await stream.aclose()
            self._stream = None
        return answer

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()


@pytest.fixture
async def asked(console: Console) -> AsyncIterator[Asked]:
    asked = Asked(console)
    yield asked
    await asked.aclose()


def test_what_may_be_changed_without_administering_is_known(served_routes: list[Served]) -> None:
    changing = [route for route in served_routes if route.method != "GET"]
    assert {route.pair for route in changing if route.role == "viewer"} == OF_VIEWERS
    assert {route.pair for route in changing if route.role == "anyone"} == OF_ANYONE


async def test_a_route_is_open_to_its_role_and_closed_to_those_below(
    console: Console, asked: Asked, served_routes: list[Served]
) -> None:
    await set_up(console)
    viewer = await session_of_viewer(console)
    for route in served_routes:
        if route.role == "anyone":
            # Without the fields that sign in it is refused for what is missing, not for who asks.
            assert (await asked(route)).status != 403, route
            continue
        nobody = await asked(route)
        assert nobody.status == 401, route
        assert "error" in nobody.document
        is_theirs = route.role == "viewer" and route.pair not in LOCAL
        # A read token saves no searches; its refusal comes behind the look for what is changed.
        if "saved-searches" not in route.pattern:
            assert ((await asked(route, READER)).status != 403) == is_theirs, route
        if route.pattern != "/api/v1/session":
            assert ((await asked(route, viewer)).status != 403) == is_theirs, route
        allowed = await asked(route, ADMIN)
        assert (allowed.status in {401, 403}) == (route.pair in LOCAL), route


async def test_a_page_of_another_site_changes_nothing_by_any_route(
    console: Console, asked: Asked, served_routes: list[Served]
) -> None:
    cookie = f"Cookie: {await set_up(console)}"
    before = console.services.control.audit(limit=1_000)
    for route in served_routes:
        if route.method != "GET":
            for headers in ([FOREIGN], ["Origin: http://evil.example"], ["Origin: null"]):
                answer = await asked(route, cookie, *headers)
                assert answer.status == 403, (route, headers)
    assert console.services.control.audit(limit=1_000) == before
    assert (await console.get("/api/v1/session", headers=[cookie])).status == 200


async def session_of_viewer(console: Console) -> str:
    made = console.services.control.create_member("vic@example.org", "viewer")
    body = {"token": made.token, "password": PASSWORD}
    return f"Cookie: {cookie_of(await post(console, '/api/v1/invites/accept', body))}"
