"""The console's part of the document: its own routes and those of the management room."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from ingester.console.openapi.intake import without_defaults
from ingester.console.openapi.parts import (
    CONSOLE_ERRORS,
    component,
    error_response,
    header_references,
)
from ingester.console.openapi.schemas import Json, Schemas
from ingester.console.routes import (
    CONSOLE_ROUTES,
    FORM,
    HTML,
    JSON,
    ConsoleRoute,
    Export,
    Query,
)
from ingester.delivery.routing import RouteRule
from ingester.management import ROUTES, Route, dashboards, widgets
from ingester.management import requests as sent
from ingester.management import watch_requests as watch_sent
from ingester.management.calls import NeededRole, Nothing
from ingester.management.searches import CreateSavedSearch
from ingester.messages import ErrorBody
from ingester.sandbox.messages import CONTENT_TYPES
from ingester.search import ROUTES as SEARCH_ROUTES
from ingester.search import SearchRoute
from ingester.watch.settings import Alert, MetricTarget, Monitor, Rule

__all__ = [
    "EXAMPLES",
    "console_operation",
    "console_types",
    "management_operation",
    "search_operation",
]

# Bodies that are taken as they stand by a server that is new; typed, so that they cannot be wrong.
EXAMPLES: dict[type[Struct], Struct] = {
    Query: Query(sql="SELECT action, count(*) FROM events GROUP BY ALL"),
    Export: Export(table="events", since="2026-11-20", until="2026-11-21"),
    sent.CreateSource: sent.CreateSource(name="shop", requests_per_hour=10_000),
    sent.PatchSource: sent.PatchSource(lenient_session=True),
    sent.CreateToken: sent.CreateToken(service="checkout", environment="production"),
    sent.CreateConnection: sent.CreateConnection(name="billing", tier="pro"),
    sent.PatchConnection: sent.PatchConnection(tier="scale"),
    sent.CreateProject: sent.CreateProject(id="web", name="The shop on the web"),
    sent.CreateMember: sent.CreateMember(email="ada@example.org", role="viewer"),
    sent.PatchMember: sent.PatchMember(role="admin"),
    sent.Rotate: sent.Rotate(overlap_seconds=3600),
    CreateSavedSearch: CreateSavedSearch(
        name="slow checkouts", query="service:checkout m.ms:>500", since="now-1h"
    ),
    Rule: Rule(name="disk full", lql='level:>=error "disk full"', labels=("storage",)),
    Alert: Alert(
        name="errors",
        cron="*/5 * * * *",
        query="SELECT count(*) AS errors FROM logs WHERE level = 'error' AND received_at >="
        " $window_start AND received_at < $window_end HAVING count(*) > 10",
    ),
    Monitor: Monitor(
        name="queue length",
        target=MetricTarget(metric_id="queue_length", aggregate="max"),
        operator=">=",
        threshold=100,
        recovery=50,
        datapoints=(2, 3),
        group_by=("metadata.host",),
    ),
    dashboards.CreateDashboard: dashboards.CreateDashboard(
        name="Checkout",
        widgets=(
            widgets.Widget(title="Orders", source=widgets.EventSource(q="action:order")),
            widgets.Widget(
                title="Queue",
                kind="number",
                source=widgets.MetricSource(metric_id="queue_length", value="last"),
            ),
        ),
    ),
    dashboards.PatchDashboard: dashboards.PatchDashboard(revision=1, refresh_seconds=30),
    watch_sent.CreateSilence: watch_sent.CreateSilence(
        matchers=(RouteRule(field="service", value="web"),), reason="new disks", seconds=7200
    ),
}

_ROLES: dict[NeededRole, str] = {
    "anyone": "",
    "viewer": "",
    "admin": "Only for administrators.",
}
_SIGNED_IN_ONLY = "For members who are signed in: a read token changes nothing."
EVENTS = "text/event-stream"
_TAIL_TEXT = (
    "Each event is one row, its `id` the position behind it: sent as `Last-Event-ID` the stream"
    " goes on there, without a gap and without a repeat. It begins with the last minutes. An event"
    " `missed` tells a slow client how many matching lines were left out (`lines`), and how many"
    " rows were not even looked at (`unread_rows`)."
)
_SIGNED_IN: list[Json] = [{"consoleToken": []}, {"session": []}]
# Functions after which the browser keeps another session.
_SESSIONS = frozenset({"set_up", "accept_invitation", "sign_in", "sign_out"})
_OF_MEMBERS = frozenset({"create_saved_search", "patch_saved_search", "delete_saved_search"})


def console_types() -> Iterable[Any]:
    """Every type the routes name."""
    yield ErrorBody
    for own in CONSOLE_ROUTES:
        parts = (own.request, own.query, own.answer, own.unready)
        yield from (one for one in parts if one is not None)
    for route in ROUTES:
        yield from (route.request, route.query, route.answer)
    for search in SEARCH_ROUTES:
        yield from (search.query, search.answer)


def management_operation(route: Route, schemas: Schemas) -> Json:
    name = route.function.__name__
    statuses = {422, *_role_statuses(route.role)}
    if "{" in route.pattern:
        statuses.add(404)
    if route.role == "anyone" or name == "change_password":
        statuses |= {401, 403}
    answer: Json = {
        "description": "Done." if route.status == 200 else "Made.",
        "content": {JSON: {"schema": schemas.of(route.answer)}},
    }
    if name in _SESSIONS:
        answer["headers"] = header_references("Set-Cookie")
    operation: Json = {
        "operationId": name,
        "summary": route.summary,
        "tags": [route.pattern.split("/")[3]],
        "security": [] if route.role == "anyone" else _SIGNED_IN,
        "responses": {str(route.status): answer, **_errors(statuses)},
    }
    if route.conflict:
        operation["responses"]["409"] = error_response(schemas.of(ErrorBody), 409, route.conflict)
    text = _ROLES[route.role]
    if name in _OF_MEMBERS:
        text = _SIGNED_IN_ONLY
    if text:
        operation["description"] = text
    if parameters := _parameters(route.pattern, route.query, schemas):
        operation["parameters"] = parameters
    if route.request is not Nothing:
        operation["requestBody"] = _body(route.request, JSON, schemas)
    return operation


def console_operation(route: ConsoleRoute, schemas: Schemas) -> Json:
    statuses = {*route.errors, *_role_statuses(route.role)}
    schema = {"type": "string"} if route.answer is None else schemas.of(route.answer)
    if route.name == "openapi":
        schema = {"type": "object"}
    # The schema of bytes in a format of their own is empty.
    content = {route.content_type: {"schema": schema}, **{one: {} for one in route.other_types}}
    answer: Json = {"description": "Done.", "content": content}
    if route.status == 303:
        answer = {
            "description": route.sends_on or "Signed in.",
            "headers": header_references("Location", "Set-Cookie"),
        }
        statuses |= {403} if route.method == "POST" else set()
    responses = {str(route.status): answer, **_errors(statuses)}
    if route.request_type == FORM:
        for status in route.errors:
            responses[str(status)] = {
                "description": "The form again, with what is wrong; or the sentence as JSON.",
                "content": {
                    route.content_type: {"schema": {"type": "string"}},
                    JSON: {"schema": schemas.of(ErrorBody)},
                },
            }
    if route.unready is not None:
        responses["503"] = {
            "description": "They are not, and why.",
            "content": {JSON: {"schema": schemas.of(route.unready)}},
        }
    operation: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": ["data" if route.name in ("query", "export", "backup") else _tag(route)],
        "security": [] if route.role == "anyone" else _SIGNED_IN,
        "responses": responses,
    }
    if text := _ROLES[route.role]:
        operation["description"] = text
    if parameters := _parameters(route.pattern, route.query, schemas):
        operation["parameters"] = parameters
    if route.request is not None:
        operation["requestBody"] = _body(route.request, route.request_type, schemas)
    return operation


def search_operation(route: SearchRoute, schemas: Schemas) -> Json:
    """400 is a query that is refused, with its `column`; 408 one that took too long."""
    statuses = {422, *_role_statuses(route.role)}
    if "{" in route.pattern:
        statuses.add(404)
    content: Json = {JSON: {"schema": schemas.of(route.answer)}}
    operation: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.table],
        "security": _SIGNED_IN,
    }
    if route.name == "tail":
        # OpenAPI 3.2 will call it `itemSchema`; 3.1 has no word for the events of a stream.
        schema = {"type": "string"}
        content = {EVENTS: {"schema": schema, "x-itemSchema": schemas.of(route.answer)}}
        operation["description"] = _TAIL_TEXT
    if route.name == "export":
        line = {"type": "string", "x-itemSchema": schemas.of(route.answer)}
        content = {CONTENT_TYPES["ndjson"]: {"schema": line}}
        content[CONTENT_TYPES["csv"]] = {"schema": {"type": "string"}}
    answer = {"description": "Found.", "content": content}
    operation["responses"] = {"200": answer, **_errors(statuses)}
    if parameters := _parameters(route.pattern, route.query, schemas):
        operation["parameters"] = parameters
    if route.name == "tail":
        operation["parameters"].append(component("parameters", "LastEventID"))
    return operation


def _parameters(pattern: str, query: type[Struct], schemas: Schemas) -> list[Json]:
    found = [component("parameters", one) for one in re.findall(r"{(\w+)}", pattern)]
    for name, schema, is_required in schemas.properties(query):
        found.append({"name": name, "in": "query", "required": is_required, "schema": schema})
    return found


def _tag(route: ConsoleRoute) -> str:
    return "pages" if route.content_type == HTML else "state"


def _role_statuses(role: NeededRole) -> set[int]:
    return set() if role == "anyone" else {401, 403}


def _errors(statuses: set[int]) -> Json:
    every = sorted({*statuses, *CONSOLE_ERRORS})
    return {str(status): component("responses", f"Error{status}") for status in every}


def _body(request: type[Struct], content_type: str, schemas: Schemas) -> Json:
    content: Json = {"schema": schemas.of(request)}
    if request in EXAMPLES:
        content["examples"] = {"example": {"value": without_defaults(EXAMPLES[request])}}
    return {
        "required": any(is_required for _, _, is_required in schemas.properties(request)),
        "content": {content_type: content},
    }
