"""The document of all routes: complete, valid, and open to anyone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from ingester.console.app import make_app
from ingester.console.openapi import openapi_document, openapi_json
from ingester.console.openapi.schemas import Schemas
from ingester.console.screens import SCREENS
from ingester.doors.router import DOORS_BY_PATH, DOORS_BY_PREFIX, PROBES, make_handler
from ingester.management.answers import Token
from tests.console.fakes import FakeServices, served
from tests.doors.rig import head_of, open_rig

INTAKE, CONSOLE = "https://in.example.org", "https://console.example.org"
METHODS = frozenset({"get", "head", "post", "put", "patch", "delete", "options", "trace"})


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(openapi_json(INTAKE, CONSOLE))


def operations(document: dict[str, Any], server: str) -> set[tuple[str, str]]:
    """Method and path of all that one door serves."""
    return {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in METHODS & item.keys()
        if server in [one["url"] for one in item.get("servers", document["servers"])]
    }


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    assert document["openapi"].startswith("3.1")


async def test_the_console_serves_what_the_document_says_and_nothing_else(
    document: dict[str, Any], tmp_path: Path
) -> None:
    app = make_app(FakeServices(tmp_path))
    # GET is answered to HEAD too, and every path answers OPTIONS: HTTP says so, not the document.
    registered = {
        (method, re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    # Screens and their files are for browsers.
    registered -= {("GET", screen.path) for screen in SCREENS}
    registered.remove(("GET", "/static/{version}/{path}"))
    told = {pair for pair in operations(document, CONSOLE) if pair[0] != "HEAD"}
    assert told == registered


async def test_the_intake_router_serves_what_the_document_says_and_nothing_else(
    document: dict[str, Any], tmp_path: Path
) -> None:
    told = operations(document, INTAKE)
    paths = {path for _, path in told}
    served = {*DOORS_BY_PATH, *PROBES, *(prefix for prefix, _ in DOORS_BY_PREFIX)}
    for one in served:
        assert any(path == one or (one.endswith("/") and path.startswith(one)) for path in paths)
    async with open_rig(tmp_path) as rig:
        handler = make_handler(rig.admission)
        for path in paths:
            plain = re.sub(r"{\w+}", "x", path)
            taken = set()
            for method in ("GET", "HEAD", "POST"):
                answer = await handler(rig.request(b"", head_of(plain, method=method)))
                assert answer.door != "none", path
                # The events door refuses another method with 400, but 400 is for a pair, too.
                is_refused = answer.status == 405 or ("/v1/" in plain and method != "POST")
                if not is_refused:
                    taken.add((method, path))
            assert taken == {pair for pair in told if pair[1] == path}


async def test_anyone_may_read_the_document_and_it_holds_no_data(tmp_path: Path) -> None:
    async with served(tmp_path) as console:
        made = console.services.control.create_source("very-secret-shop")
        answer = await console.get("/openapi.json")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert "www-authenticate" not in answer.headers
        text = answer.body.decode()
        for secret in (made.auth_key, made.api_key, "very-secret-shop"):
            assert secret not in text
        assert answer.body == openapi_json("http://intake.example:8080", "")
        assert (await console.get("/openapi.json", method="HEAD")).status == 200
        assert (await console.get("/openapi.json", method="POST")).status == 405
        assert b"/openapi.json" in (await console.get("/login")).body


def test_servers_are_the_public_addresses(document: dict[str, Any]) -> None:
    assert [server["url"] for server in document["servers"]] == [CONSOLE]
    by_path = {path: item.get("servers") for path, item in document["paths"].items()}
    assert [server["url"] for server in by_path["/ingest/{source}"]] == [INTAKE]
    assert [server["url"] for server in by_path["/healthz"]] == [INTAKE, CONSOLE]
    assert by_path["/api/v1/tokens"] is None
    # Without an address of its own the console is where the document was read.
    assert openapi_document(INTAKE, "")["servers"][0]["url"] == "/"


def test_schemas_are_those_of_the_types_that_validate(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    metric = schemas["Metric"]
    assert metric["required"] == ["metricId", "metricName", "value"]
    assert metric["properties"]["metricId"]["maxLength"] == 256
    assert metric["properties"]["metadata"] == {"type": ["object", "null"]}
    assert schemas["MetricsBody"]["properties"]["metrics"]["maxItems"] == 100
    # Python's end of a text is no pattern elsewhere.
    assert schemas["CreateSource"]["properties"]["name"]["pattern"] == "^[A-Za-z0-9._-]{1,64}$"
    assert r"\\Z" not in json.dumps(document)
    assert set(Schemas([Token]).components) == {"Token", "Key"}


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/v1/{authKey}/{apiKey}", "post", "200 400 408 413 429 503"),
        ("/v1/ping", "post", "200 400"),
        ("/api/v1/webhook/event/log", "post", "200 400 401 403 408 413 415 422 429 503"),
        ("/api/webhooks/custom", "post", "200 400 401 403 408 413 415 422 429 503"),
        ("/ingest/{source}", "post", "200 400 401 403 408 413 415 422 429 503"),
        ("/ingest/{source}", "head", "200 400 401 403 429"),
        ("/readyz", "get", "200 503"),
        ("/api/v1/tokens", "post", "201 400 401 403 408 413 414 422 431 500 503"),
        ("/api/v1/tokens/{id}", "get", "200 400 401 403 404 408 413 414 422 431 500 503"),
        ("/api/v1/sources", "post", "201 400 401 403 408 409 413 414 422 431 500 503"),
        ("/api/v1/session", "post", "200 400 401 403 408 413 414 422 431 500 503"),
    ],
)
def test_every_route_tells_its_statuses(
    document: dict[str, Any], path: str, method: str, statuses: str
) -> None:
    assert sorted(document["paths"][path][method]["responses"]) == statuses.split()


def test_what_a_request_may_carry_is_told(document: dict[str, Any]) -> None:
    ingest = document["paths"]["/ingest/{source}"]["post"]
    names = {one.get("name") or one["$ref"].rpartition("/")[2]: one for one in ingest["parameters"]}
    assert list(names) == [
        "source", "wait", "atomic", "as", "IdempotencyKey", "ContentEncoding", "Prefer",
    ]  # fmt: skip
    assert names["as"]["schema"] == {"default": "logs", "enum": ["events", "logs"]}
    coding = document["components"]["parameters"]["ContentEncoding"]["schema"]["enum"]
    assert coding == ["identity", "gzip", "x-gzip", "deflate", "zstd"]
    limited = ingest["responses"]["429"]
    assert {"Retry-After", "X-RateLimit-Limit", "Ingester-Request-Id"} <= limited["headers"].keys()
    schemes = document["components"]["securitySchemes"]
    assert schemes["session"]["name"] == "ingester_session"
    assert ingest["security"] == [{"ingestToken": []}]
    assert document["paths"]["/v1/{authKey}/{apiKey}"]["post"]["security"] == []
    assert document["paths"]["/api/v1/audit"]["get"]["security"] == [
        {"consoleToken": []},
        {"session": []},
    ]
