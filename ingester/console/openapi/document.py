"""The whole document, put together from the parts of both doors."""

from __future__ import annotations

from functools import lru_cache

import msgspec

import ingester
from ingester.console.openapi.console import (
    console_operation,
    console_types,
    management_operation,
    search_operation,
)
from ingester.console.openapi.intake import intake_operation, intake_types
from ingester.console.openapi.parts import (
    ERROR_MEANINGS,
    HEADERS,
    PARAMETERS,
    SECURITY_SCHEMES,
    error_response,
)
from ingester.console.openapi.schemas import Json, Schemas
from ingester.console.routes import CONSOLE_ROUTES
from ingester.doors.routes import INTAKE_ROUTES
from ingester.management import ROUTES
from ingester.messages import ErrorBody
from ingester.search import ROUTES as SEARCH_ROUTES

__all__ = ["openapi_document", "openapi_json"]

_TEXT = (
    "Two doors: **intake**, where data is sent, and the **console**, where it is managed and read;"
    " the `servers` of a path say which one it is at.\n\n"
    'Refusals are one plain sentence, `{"error": …}`; the events door answers without a body.'
    " Another method than those listed is 405 with `Allow` (400 on the events door), another path"
    " 404 (400 under `/v1/`). On the intake door broken HTTP is 400, 408, 414, 417, 431, 501 or"
    " 505, a fault of ours 500, and too many connections 503, on every path, with that"
    " sentence.\n\n"
    "The events door knows who sends by the key pair in the path; all else by bearer keys, and the"
    " console by the session of a member, too. Every answer of the intake door carries"
    " `Ingester-Request-Id`."
)


@lru_cache(maxsize=4)
def openapi_json(intake_url: str, console_url: str) -> bytes:
    """The document as it is served. `console_url` "" is wherever it was read."""
    return msgspec.json.encode(openapi_document(intake_url, console_url))


def openapi_document(intake_url: str, console_url: str) -> Json:
    schemas = Schemas([*intake_types(), *console_types()])
    intake = {"url": intake_url.rstrip("/"), "description": "The intake door."}
    console = {"url": console_url.rstrip("/") or "/", "description": "The console door."}
    paths: Json = {}
    for route in INTAKE_ROUTES:
        for method in route.methods:
            item = paths.setdefault(route.pattern, {"servers": [intake]})
            item[method.lower()] = intake_operation(route, method, schemas)
    for own in CONSOLE_ROUTES:
        item = paths.setdefault(own.pattern, {})
        if "servers" in item:  # both doors have it, with the same answers
            item["servers"] = [intake, console]
        else:
            item[own.method.lower()] = console_operation(own, schemas)
    for managed in ROUTES:
        item = paths.setdefault(managed.pattern, {})
        item[managed.method.lower()] = management_operation(managed, schemas)
    for search in SEARCH_ROUTES:
        item = paths.setdefault(search.pattern, {})
        item[search.method.lower()] = search_operation(search, schemas)
    error = schemas.of(ErrorBody)
    responses = {f"Error{code}": error_response(error, code) for code in ERROR_MEANINGS}
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "ingester",
            "version": ingester.__version__,
            "description": _TEXT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [console],
        "paths": paths,
        "components": {
            "headers": HEADERS,
            "parameters": PARAMETERS,
            "responses": responses,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }
    document["components"]["schemas"] = schemas.without_unused(document)
    return document
