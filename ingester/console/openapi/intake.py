"""The intake door's part of the document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ingester.console.openapi.parts import component, header_references
from ingester.console.openapi.schemas import Json, Schemas
from ingester.doors.routes import INTAKE_ROUTES, Answered, IntakeRoute, Sent

__all__ = ["intake_operation", "intake_types"]

_SECURITY: dict[str, list[Json]] = {
    "none": [],
    "pair": [],
    "token": [{"ingestToken": []}],
    "connection": [{"connectionKey": []}],
}
_TAGS = {"none": "state", "pair": "events", "token": "logs", "connection": "metrics"}


def intake_types() -> Iterable[Any]:
    """Every type the routes name."""
    for route in INTAKE_ROUTES:
        if route.query is not None:
            yield route.query
        for sent in route.sent:
            yield from (one for one in (sent.shape, sent.line) if one is not None)
        for answered in route.answers:
            yield from answered.bodies


def intake_operation(route: IntakeRoute, method: str, schemas: Schemas) -> Json:
    operation: Json = {
        "operationId": route.name if len(route.methods) == 1 else f"{route.name}_{method.lower()}",
        "summary": route.summary,
        "tags": ["ingest" if "{source}" in route.pattern else _tag(route)],
        "security": _SECURITY[route.key],
        "responses": {
            str(answered.status): _response(answered, method, schemas) for answered in route.answers
        },
    }
    if route.text:
        operation["description"] = route.text
    if parameters := list(_parameters(route, schemas)):
        operation["parameters"] = parameters
    if route.sent:
        operation["requestBody"] = {
            "description": " ".join(sent.summary for sent in route.sent),
            "required": route.key != "pair",
            "content": {sent.content_type: _content(sent, schemas) for sent in route.sent},
        }
    return operation


def _tag(route: IntakeRoute) -> str:
    return "events" if "/v1/ping" in route.pattern else _TAGS[route.key]


def _parameters(route: IntakeRoute, schemas: Schemas) -> Iterable[Json]:
    for name in re.findall(r"{(\w+)}", route.pattern):
        yield component("parameters", name)
    if route.query is not None:
        for name, schema, is_required in schemas.properties(route.query):
            yield {"name": name, "in": "query", "required": is_required, "schema": schema}
    if route.sent:
        for name in ("IdempotencyKey", "ContentEncoding", "Prefer"):
            yield component("parameters", name)


def _content(sent: Sent, schemas: Schemas) -> Json:
    schema = {"type": "string"} if sent.shape is None else schemas.of(sent.shape)
    content: Json = {"schema": schema, "examples": {}}
    if sent.line is not None:
        # OpenAPI 3.2 will call it `itemSchema`; 3.1 has no word for the lines of a body.
        content["x-itemSchema"] = schemas.of(sent.line)
    for example in sent.examples:
        name = example.name.replace(" ", "-")
        content["examples"][name] = {"value": without_defaults(example.value)}
    return content


def _response(answered: Answered, method: str, schemas: Schemas) -> Json:
    response: Json = {
        "description": answered.meaning,
        "headers": header_references("Ingester-Request-Id", *answered.headers),
    }
    if answered.bodies and method != "HEAD":
        shapes = [schemas.of(body) for body in answered.bodies]
        schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
        response["content"] = {"application/json": {"schema": schema}}
    return response


def without_defaults(value: Any) -> Any:
    """A value as JSON, and what is as it is by default left out."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        tag = {} if config.tag_field is None else {config.tag_field: config.tag}
        return tag | {
            name.encode_name: without_defaults(found)
            for name in msgspec.structs.fields(value)
            if (found := getattr(value, name.name)) is not None
            and found != name.default
            and not isinstance(found, msgspec.Raw)
        }
    if isinstance(value, list | tuple):
        return [without_defaults(item) for item in value]
    return value
