"""What routes have in common: headers, parameters, refusals, ways to say who asks."""

from __future__ import annotations

from ingester.console.auth import COOKIE
from ingester.console.openapi.schemas import Json
from ingester.protocol.inflate import ENCODING_NAMES

__all__ = [
    "CONSOLE_ERRORS",
    "ERROR_MEANINGS",
    "HEADERS",
    "PARAMETERS",
    "SECURITY_SCHEMES",
    "component",
    "header_references",
]

_LABEL = "^[A-Za-z0-9._-]{1,64}$"

ALWAYS_THERE = frozenset({"Ingester-Request-Id", "Ingester-Accepted", "Ingester-Rejected"})


def _count(text: str, minimum: int = 0) -> Json:
    return {"description": text, "schema": {"type": "integer", "minimum": minimum}}


def _text(text: str, **schema: object) -> Json:
    return {"description": text, "schema": {"type": "string", **schema}}


# Of answers.
HEADERS: dict[str, Json] = {
    "Ingester-Request-Id": _text(
        "The request's id, as in the tables `requests` and `rejects`; of a repeat, the first's.",
        pattern="^[0-9a-f]{16}$",
    ),
    "Ingester-Accepted": _count("Rows that were stored."),
    "Ingester-Rejected": _count("Lines that were refused and kept as rejects."),
    "Ingester-Queryable": _text(
        "Whether the rows can be queried already; only when the request asked to wait for it.",
        enum=["true", "false"],
    ),
    "Retry-After": _count("Seconds after which the same request may be sent again."),
    "X-RateLimit-Limit": _count("Requests an hour; only for keys that have a quota.", 1),
    "X-RateLimit-Remaining": _count("Requests left in this UTC hour."),
    "X-RateLimit-Reset": _count("The epoch second at which the hour ends."),
    "WWW-Authenticate": _text("How to say who asks: Bearer."),
    "Accept-Encoding": _text("Content codings that are decoded here."),
    "Location": _text("Where the browser goes on."),
    "Set-Cookie": _text("The session, or its removal."),
}
for _name in ALWAYS_THERE:
    HEADERS[_name]["required"] = True

# Of requests. The key of the table is the component's name.
PARAMETERS: dict[str, Json] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": (
            "A repeat under the same key stores nothing and is answered with the first's counts,"
            " for 24 hours. The same key with another body is refused."
        ),
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    },
    "ContentEncoding": {
        "name": "Content-Encoding",
        "in": "header",
        "description": "How the body is packed; names in any case.",
        "schema": {"type": "string", "enum": list(ENCODING_NAMES)},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=query` is the same as `?wait=query`.",
        "schema": {"type": "string"},
    },
    "LastEventID": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The `id` of the last event that was read; browsers send it by themselves.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,18}[.][0-9]{1,19}[.][0-9]{1,19}$"},
    },
    "authKey": {
        "name": "authKey",
        "in": "path",
        "required": True,
        "description": "The first key of a source's pair. The two are who sends: keep them secret.",
        "schema": {"type": "string", "minLength": 1},
    },
    "apiKey": {
        "name": "apiKey",
        "in": "path",
        "required": True,
        "description": "The second key of the pair.",
        "schema": {"type": "string", "minLength": 1},
    },
    "source": {
        "name": "source",
        "in": "path",
        "required": True,
        "description": "The label the request is stored under.",
        "schema": {"type": "string", "pattern": _LABEL},
    },
    "name": {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "The name of a source.",
        "schema": {"type": "string", "minLength": 1},
    },
    "metricId": {
        "name": "metricId",
        "in": "path",
        "required": True,
        "description": "The id of a metric as it was sent.",
        "schema": {"type": "string", "minLength": 1},
    },
    "id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The id as the list shows it.",
        "schema": {"type": "string", "minLength": 1},
    },
}

SECURITY_SCHEMES: dict[str, Json] = {
    "ingestToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token with the scope `ingest`: logs, and the honest door.",
    },
    "connectionKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "The API key of a connection: metrics.",
    },
    "consoleToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token with the scope `admin` or `read`.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "The session of a member who signed in; from our own pages only.",
    },
}

ERROR_MEANINGS: dict[int, str] = {
    400: "The request or its body is malformed.",
    401: "Nobody signed in, or the key, link or password is wrong.",
    403: "Whoever asks may not do this, or the request comes from a page of another site.",
    404: "There is nothing of that name.",
    408: "The request did not arrive in time.",
    409: "The state of things forbids it.",
    413: "The body is too large.",
    414: "The request target is too long.",
    422: "A field has a value that cannot be taken; `field` names it.",
    431: "The request head is too large. Without a body.",
    500: "A fault of ours.",
    503: "Not now; the same request may be sent again.",
}
# Any request to the console can come to these, before or beside what its route says.
CONSOLE_ERRORS = (400, 408, 413, 414, 431, 500, 503)

_ERROR_HEADERS = {401: ("WWW-Authenticate",), 503: ("Retry-After",)}


def component(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def header_references(*names: str) -> Json:
    return {name: component("headers", name) for name in names}


def error_response(schema: Json, status: int, meaning: str = "") -> Json:
    """A refusal of the console."""
    response: Json = {"description": meaning or ERROR_MEANINGS[status]}
    if status != 431:  # sent by Hypercorn, before there is a request
        response["content"] = {"application/json": {"schema": schema}}
    if headers := _ERROR_HEADERS.get(status):
        response["headers"] = header_references(*headers)
    return response
