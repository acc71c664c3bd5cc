"""Patterns and queries that are meant to take for ever, and places that must not be reached, while
data comes in (F19): each is refused or has an end, intake goes on, and nothing is connected to.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.delivery.test_ssrf import CORPUS
from tests.system.client import NoAnswer
from tests.system.doors import LOGS, Doors, bearer, open_doors
from tests.system.server import SourceKeys, running
from tests.system.test_delivery import append

_QUERY_SECONDS_MAX = 3
_ENVIRONMENT = {"INGESTER_STORE_QUERY_SECONDS_MAX": str(_QUERY_SECONDS_MAX)}
# Each takes an engine that backtracks for ever on what `_LONG` holds, or a compiler much memory.
PATTERNS = [
    "(a+)+$", "(a|aa)+$", "(a|a?)+$", "(.*a){25}$", "(x+x+)+y", "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(a*)*b", "((a+)*)*c", "(?i)(a|A)+$", r"(\w+\s?)+$", "((((((a{10}){10}){10})", "a{1000}{1000}",
    "(a{1,100}){1,100}", r"\p{L}" * 300, "(" * 300 + "a" + ")" * 300, ".*" * 300 + "z", "(?=a)",
    r"(a)\1+", "[" * 200, "(a|b|c|d|e|f)*" * 40,
]  # fmt: skip
_LONG = "a" * 30_000 + "!"


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("abuse"), _ENVIRONMENT) as doors:
        for number in range(20):
            doors.log({"message": _LONG, "level": "error", "number": number})
        assert doors.row("SELECT count(*) FROM logs") == (20,)
        yield doors


@contextmanager
def intake(doors: Doors, waits_s: list[float]) -> Iterator[None]:
    """A sender that posts all the time; every request must be taken."""
    is_over = threading.Event()
    statuses: list[int] = []

    def post() -> None:
        body = json.dumps({"message": "a" * 2_000, "while": "abused"}).encode()
        with doors.server.connect(timeout_s=20) as connection:
            while not is_over.wait(0.01):
                began = time.monotonic()
                try:
                    statuses.append(connection.post(LOGS, body, bearer(doors.token)).status)
                except NoAnswer:
                    statuses.append(0)
                waits_s.append(time.monotonic() - began)

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(30)
    assert set(statuses) == {200}, statuses


def ask(doors: Doors, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Status and sentence; whatever it is, it comes in time."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{doors.server.ready['console']}/api/v1/{path}", data, bearer(doors.admin), method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10 * _QUERY_SECONDS_MAX) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def questions(pattern: str) -> Iterator[tuple[str, str, object]]:
    """One pattern in every place that takes one."""
    query = urlencode({"q": f'"~{pattern}"' if " " in pattern else f"~{pattern}"})
    for path in ("logs", "logs/histogram", "logs/fields", "logs/complete"):
        yield "GET", f"{path}?{query}" + ("&column=1" if "complete" in path else ""), None
    yield "GET", f"logs?{urlencode({'q': f'm.number:~{pattern}'})}", None
    rule = {"field": "label", "match": "regex", "value": pattern[:1024]}
    yield "POST", "silences/preview", {"matchers": [rule]}
    quoted = pattern.replace("'", "''")
    sql = f"SELECT count(*) FROM logs WHERE regexp_matches(message, '{quoted}')"
    yield "POST", "query", {"sql": sql}


def test_no_pattern_holds_up_the_intake_or_outlives_its_time(doors: Doors, long_form: bool) -> None:
    waits_s: list[float] = []
    answered: dict[int, int] = {}
    patterns = PATTERNS if long_form else PATTERNS[::3]
    with intake(doors, waits_s):
        for pattern in patterns:
            for method, path, body in questions(pattern):
                status, text = ask(doors, method, path, body)
                assert status < 500, (path, text)
                answered[status] = answered.get(status, 0) + 1
            # A rule goes over all that comes in, a route over every incident.
            status, text = ask(doors, "POST", "rules", {"name": pattern[:40], "lql": f"~{pattern}"})
            assert status in {201, 400, 422}, text
    waits_s.sort()
    print(
        f"{sum(answered.values())} questions: {answered}; intake meanwhile {len(waits_s)} requests,"
        f" p99 {waits_s[int(len(waits_s) * 0.99)] * 1000:.0f} ms, max {waits_s[-1] * 1000:.0f} ms"
    )
    assert answered[200] > 0
    assert answered.keys() & {400, 422}
    # The rules are at work on what came, and have not stopped.
    doors.log({"message": "aaaaaaaaaaaab", "while": "after"})
    assert doors.row("SELECT count(*) FROM logs WHERE attributes->>'while' = 'after'") == (1,)


@pytest.mark.long
def test_a_build_whose_queries_block_is_found(tmp_path: Path) -> None:
    """Its intake is silent for seconds: more than a sender of the test above ever waits."""
    with open_broken(tmp_path, "blocks") as doors:
        waits_s: list[float] = []
        with intake(doors, waits_s):
            assert ask(doors, "POST", "query", {"sql": "SELECT 1"})[0] == 400
        assert max(waits_s) > 2


@contextmanager
def open_broken(folder: Path, broken: str) -> Iterator[Doors]:
    with running(folder, broken=broken) as server:
        admin = server.command("token", "create", "--scope", "admin")["token"]
        token = server.command("token", "create", "--service", "s", "--environment", "e")
        with server.connect() as connection:
            yield Doors(server, token["token"], "", "", admin, "", connection)


class Trap:
    """Listens where nobody may connect to, on both families, and counts who does."""

    def __init__(self) -> None:
        self.sockets = [socket.create_server(("0.0.0.0", 0))]
        self.port: int = self.sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):  # a machine without IPv6
            self.sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        self.visitors: list[Any] = []

    def __enter__(self) -> Trap:
        for one in self.sockets:
            threading.Thread(target=self._listen, args=(one,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.sockets:
            one.close()

    def _listen(self, one: socket.socket) -> None:
        while True:
            try:
                visitor, address = one.accept()
            except OSError:
                return
            self.visitors.append(address)
            visitor.close()

    def places(self) -> Iterator[str]:
        """The corpus, at this port; and names that lead here."""
        own = os.uname().nodename
        for url in [
            *CORPUS,
            f"http://{own}/",
            "http://localhost.localdomain/",
            "http://127.0.0.1./",
        ]:
            scheme, _, rest = url.partition("://")
            host, _, path = rest.partition("/")
            user, at, name = host.rpartition("@")
            if not name.startswith("[") and ":" in name:
                name = name.partition(":")[0]
            yield f"{scheme}://{user}{at}{name}:{self.port}/{path}"


def visits(folder: Path, broken: str = "") -> tuple[int, list[Any]]:
    """How many destinations were tried, by verification and by delivery; who has come."""
    with Trap() as trap, open_broken(folder, broken) as doors:
        made = []
        # Without the guard it would wait for places that do not answer.
        for number, url in enumerate(islice(trap.places(), 2 if broken else None)):
            pager = {"base_url": url.rstrip("/"), "api_token": "t", "alert_source_config_id": "01A"}
            kind = {"type": "webhook", "url": url}
            if number % 4 == 3:
                kind = {"type": "incident_io", **pager}
            status, text = ask(doors, "POST", "destinations", {"name": f"d{number}", **kind})
            assert status in {201, 422}, text
            if status == 201:
                made.append(json.loads(text)["id"])
        for number, identity in enumerate(made):
            if number % 2 or broken:
                status, text = ask(doors, "POST", f"destinations/{identity}/verify", {})
                assert status == 200, text
                assert broken or not json.loads(text)["ok"], text
            else:
                append(doors.server, f"inc_{number}", identity)
        if not broken:
            _wait_tried(doors, (len(made) + 1) // 2)
        # The door is no way to reach others either.
        keys = SourceKeys("none", "a", "b", "")
        doors.connection.post(f"http://127.0.0.1:{trap.port}{keys.path}", b"{}")
        doors.connection.close()
        return len(made), trap.visitors


def _wait_tried(doors: Doors, count: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        _, text = ask(doors, "GET", "deliveries?limit=200")
        tried = [one for one in json.loads(text)["deliveries"] if one["attempts"]]
        if len(tried) >= count:
            assert not any(one["state"] == "delivered" for one in tried)
            return
        time.sleep(0.3)
    raise AssertionError(f"{len(tried)} of {count} deliveries were tried")


def test_nothing_is_connected_to_that_is_not_public(tmp_path: Path) -> None:
    tried, visitors = visits(tmp_path)
    print(f"{tried} destinations, {len(visitors)} connections")
    assert tried >= len(CORPUS) - 3
    assert visitors == []


@pytest.mark.long
def test_a_build_without_the_guard_is_found(tmp_path: Path) -> None:
    assert visits(tmp_path, "guardless")[1] != []
