"""The document against a running server: its examples are taken, its promises kept.

Why: a description nobody checks is wrong within a month. The examples are sent as they stand; then
schemathesis makes up requests from the schemas, fitting ones and broken ones, and every answer must
be one the document names. It is bounded, and the same requests at every run.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from ingester.store.control import ControlStore
from ingester.store.control.incidents import IncidentBook
from ingester.store.control.outbox import append_revision
from tests.delivery.incidents import revision
from tests.system.client import event_line
from tests.system.server import Server, SourceKeys, running
from tests.watch.test_incidents import data, firer

EVENTS = "text/event-stream"
METHODS = ("get", "head", "post", "patch", "delete")
# To the few operations of the intake, and to the many of the console.
INTAKE_EXAMPLES_MAX = 5
EXAMPLES_MAX = 3
# Signing in and the like: each attempt costs a quarter of a second of scrypt.
SLOW_EXAMPLES_MAX = 2
# All of schemathesis that look at one answer.
CHECK_NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)

load_all_checks()


@schemathesis.serializer("application/x-ndjson")
def ndjson(context: Any, value: Any) -> bytes:
    """Schemathesis sends lines as they are."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


class World:
    """A server, its document, and keys of every kind."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.intake, self.console = server.ready["intake"], server.ready["console"]
        self.session = requests.Session()
        self.document = self.session.get(f"{self.console}/openapi.json", timeout=20).json()
        self.pair: SourceKeys = server.create_source("door")
        self.keys = {
            "consoleToken": server.command("token", "create", "--scope", "admin")["token"],
            "reader": server.command("token", "create", "--scope", "read")["token"],
            "connectionKey": server.command("connection", "create", "door")["api_key"],
            "ingestToken": server.command(
                "token", "create", "--service", "s", "--environment", "e"
            )["token"],
        }
        self._count = 0
        # Rows that are there: a log, and an event beside a line that was refused.
        self._post("/api/v1/webhook/event/log", b'{"message": "x"}')
        self._post(self.pair.path, event_line("x") + b"\nbroken\n")
        self.row_ids = {
            kind: self._newest(f"/api/v1/{kind}?since=1970-01-01T00:00:00Z", member)
            for kind, member in (("logs", "rows"), ("events", "rows"), ("rejects", "rejects"))
        }
        # An incident that was told, to nobody who answers.
        told = {"name": "told", "type": "webhook", "url": "http://127.0.0.1:9/"}
        self.destination: str = self.make("destinations", told)["id"]
        with (
            closing(ControlStore.open(server.data_dir / "control.sqlite")) as control,
            control._transaction() as connection,
        ):
            append_revision(connection, revision(), destinations=[self.destination])
            book = IncidentBook(connection, now_ms=1_795_262_400_000, console_base="")
            self.row_ids["incidents"] = book.fire(firer(destinations=()), title="x", data=data())
        self.row_ids["deliveries"] = self._newest("/api/v1/deliveries", "deliveries")

    def _post(self, path: str, body: bytes) -> None:
        headers = {"Authorization": f"Bearer {self.keys['ingestToken']}"}
        url = f"{self.intake}{path}?wait=query"
        self.session.post(url, data=body, headers=headers, timeout=20).raise_for_status()

    def _newest(self, path: str, member: str) -> str:
        headers = {"Authorization": f"Bearer {self.keys['reader']}"}
        answer = self.session.get(f"{self.console}{path}", headers=headers, timeout=20)
        row_id = answer.json()[member][0]["id"]
        assert isinstance(row_id, str)
        return row_id

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    yield method.upper(), path, item[method]

    def base_of(self, path: str) -> str:
        """Both doors have the probes; they are asked at the intake door."""
        servers = [one["url"] for one in self.document["paths"][path].get("servers", ())]
        assert not servers or servers[0] == self.intake
        return self.intake if servers else self.console

    def headers_of(self, operation: dict[str, Any]) -> dict[str, str]:
        """The right key. Every request comes from another address: no wrong key slows the next."""
        self._count += 1
        address = f"10.0.{self._count // 250}.{self._count % 250 + 1}"
        headers = {"X-Forwarded-For": address}
        for scheme in operation["security"][:1]:
            headers["Authorization"] = f"Bearer {self.keys[next(iter(scheme))]}"
        return headers

    def names_of(self, path: str) -> dict[str, str]:
        """Names for the variable parts of a path: of things that are there, made anew."""
        self._count += 1
        new = f"new{self._count}"
        if "{authKey}" in path:
            return {"authKey": self.pair.auth_key, "apiKey": self.pair.api_key}
        if "{source}" in path:
            return {"source": new}
        if "{" not in path:
            return {}
        kind = path.split("/")[3]
        if "{metricId}" in path:
            return {"metricId": "m"}
        if kind in self.row_ids:
            return {"id": self.row_ids[kind]}
        body: dict[str, object] = {
            "sources": {"name": new},
            "tokens": {"service": new, "environment": "e"},
            "connections": {"name": new},
            "projects": {"id": new},
            "members": {"email": f"{new}@example.org"},
            "destinations": {"name": new, "type": "webhook", "url": "http://127.0.0.1:9/"},
            "routes": {"destination": self.destination},
            "rules": {"name": new, "lql": "x"},
            "alerts": {"name": new, "language": "lql", "query": "x", "cron": "0 0 1 1 *"},
            "monitors": {"name": new, "target": {"kind": "logs"}, "no_data": "alert"},
            "labels": {"name": new},
            "dashboards": {"name": new},
            "saved-searches": {"name": new, "query": "x"},
            "silences": {"matchers": [{"field": "label", "value": new}]},
        }[kind]
        made = self.make(kind, body)
        return {"name": new} if kind == "sources" else {"id": made["id"]}

    def make(self, kind: str, body: dict[str, object]) -> dict[str, Any]:
        answer = self.session.post(
            f"{self.console}/api/v1/{kind}",
            json=body,
            headers={"Authorization": f"Bearer {self.keys['consoleToken']}"},
            timeout=20,
        )
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> requests.Response:
        url = self.base_of(path) + path.format(**self.names_of(path))
        # A live tail never ends: its body is not read.
        with self.session.request(
            method, url, headers=headers, data=body, timeout=20, allow_redirects=False, stream=True
        ) as answer:
            if answer.headers.get("Content-Type") != EVENTS:
                _ = answer.content
        return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    environment = {"INGESTER_INTAKE_TRUSTED_PROXIES": "127.0.0.1/32"}
    with running(tmp_path_factory.mktemp("openapi"), environment) as server:
        world = World(server)
        with world.session:
            yield world


def encoded(content_type: str, value: Any) -> bytes:
    if content_type == "application/json":
        return json.dumps(value).encode()
    return (urlencode(value) if isinstance(value, dict) else str(value)).encode()


def test_every_example_is_taken(world: World) -> None:
    sent = Counter[str]()
    for method, path, operation in world.operations():
        (success,) = [status for status in operation["responses"] if status < "400"]
        for content_type, media in operation.get("requestBody", {}).get("content", {}).items():
            for name, example in media.get("examples", {}).items():
                headers = {**world.headers_of(operation), "Content-Type": content_type}
                body = encoded(content_type, example["value"])
                answer = world.ask(method, path, headers, body)
                place = f"{method} {path} {name}: {answer.status_code} {answer.text}"
                assert answer.status_code == int(success), place
                if world.base_of(path) == world.intake:
                    assert int(answer.headers["Ingester-Accepted"]) > 0, place
                    assert answer.headers["Ingester-Rejected"] == "0", place
                sent[path.split("/")[1]] += 1
    assert sent.keys() == {"v1", "test", "api", "ingest"}
    assert sent.total() >= 24


def test_an_answer_over_a_quota_has_what_the_document_names(world: World) -> None:
    limit = {"requests_per_hour": 1}
    pair = world.make("sources", {"name": "limited", **limit})
    token = world.make("tokens", {"service": "limited", "environment": "e", **limit})["token"]
    metric = world.make("connections", {"name": "limited", **limit})["api_key"]
    for path, names, key in (
        ("/v1/{authKey}/{apiKey}", {"authKey": pair["auth_key"], "apiKey": pair["api_key"]}, ""),
        ("/ingest/{source}", {"source": "limited"}, token),
        ("/api/webhooks/custom", {}, metric),
    ):
        for _ in range(2):
            answer = world.session.post(
                world.intake + path.format(**names),
                data=b"{}",
                headers={"Authorization": f"Bearer {key}"},
                timeout=20,
            )
        assert answer.status_code == 429, path
        told = world.document["paths"][path]["post"]["responses"]["429"]
        assert told["headers"].keys() <= answer.headers.keys(), path
        if key:
            (media,) = told["content"].values()
            schema = world.document["components"]["schemas"][media["schema"]["$ref"][21:]]
            assert answer.json().keys() == schema["properties"].keys()
        else:
            assert answer.content == b""


def test_who_may_ask_is_as_the_document_says(world: World) -> None:
    for method, path, operation in world.operations():
        address = {"X-Forwarded-For": world.headers_of(operation)["X-Forwarded-For"]}
        place = f"{method} {path}"
        wrong = {**address, "Authorization": "Bearer nobody"}
        if operation["security"]:
            for headers in (address, wrong):
                answer = world.ask(method, path, headers)
                assert answer.status_code == 401, place
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        else:
            assert world.ask(method, path, address).status_code != 401 or method == "POST", place
        if {"consoleToken": []} in operation["security"]:
            reading = {**address, "Authorization": f"Bearer {world.keys['reader']}"}
            answer = world.ask(method, path, reading)
            text = operation.get("description", "")
            if "a read token changes nothing" in text:  # the body is looked at first
                assert answer.status_code in {403, 422}, (place, answer.text)
                continue
            is_refused = "administrators" in text
            assert (answer.status_code == 403) is is_refused, (place, answer.text)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("door", ["intake", "console"])
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_answers_are_what_the_document_says(world: World, mode: GenerationMode, door: str) -> None:
    """Broken requests to the console must be refused, too: it takes nothing it does not know."""
    schema = schemathesis.openapi.from_dict(world.document)
    is_strict = door == "console" and mode is GenerationMode.NEGATIVE
    faults: list[str] = []
    statuses = Counter[int]()
    for found in schema.get_all_operations():
        operation = found.ok()
        if (world.base_of(operation.path) == world.intake) is not (door == "intake"):
            continue
        described = world.document["paths"][operation.path][operation.method.lower()]
        if EVENTS in described["responses"].get("200", {}).get("content", {}):
            continue  # `test_search.py` follows them
        try:
            run_operation(world, operation, described, mode, is_strict, statuses, faults)
        except Unsatisfiable:
            # Without parameters and body there is nothing to break.
            assert mode is GenerationMode.NEGATIVE, operation.label
    assert faults == [], "\n".join(faults)
    assert world.server.process is not None
    assert world.server.process.poll() is None
    # Not vacuous: what fits is mostly taken, what is broken mostly not.
    assert statuses.total() >= 30, statuses
    taken = sum(count for status, count in statuses.items() if status < 400)
    share = taken if mode is GenerationMode.POSITIVE else statuses.total() - taken
    assert share * 3 >= statuses.total(), statuses
    assert statuses.keys() & {400, 422}, statuses


def run_operation(
    world: World,
    operation: Any,
    described: dict[str, Any],
    mode: GenerationMode,
    is_strict: bool,
    statuses: Counter[int],
    faults: list[str],
) -> None:
    """A few requests to one operation; every second one to a thing that is there."""
    turns = itertools.count()
    is_intake = world.base_of(operation.path) == world.intake
    is_slow = not described["security"] and not is_intake
    is_slow |= operation.path == "/api/v1/export"  # a process for each

    @hypothesis.settings(
        max_examples=SLOW_EXAMPLES_MAX
        if is_slow
        else INTAKE_EXAMPLES_MAX
        if is_intake
        else EXAMPLES_MAX,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        if "{" in operation.path and next(turns) % 2:
            case.path_parameters = world.names_of(operation.path)
        base_url = world.base_of(operation.path)
        answer = case.call(base_url=base_url, headers=world.headers_of(described))
        statuses[answer.status_code] += 1
        checks = [CHECKS.get_one(name) for name in CHECK_NAMES]
        if is_strict and answer.status_code < 400:
            checks.append(CHECKS.get_one("negative_data_rejection"))
        try:
            case.validate_response(answer, checks=checks)
        except BaseExceptionGroup as error:
            faults.extend(f"{operation.label}: {one}" for one in error.exceptions)

    run()
