"""The console's routes: health, metrics, one plain page, and the JSON API of the command line.

Invariants:

1. Routes are closed by default: over TCP only the public ones answer, everything else under
   `/api/` is 401. The control socket (`guard.py`) may do all.
2. Errors are `{"error": sentence}` with `field` or `column` where one is meant; 500 is a fault of
   ours, logged, and says nothing about it.
3. Bodies are decoded into typed structs; an unknown field is an error that names it. No
   Content-Type is demanded.
4. Answers are never cached and load nothing: the page has no script and no outside reference.

It refuses to know what runs behind `Services`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from typing import Annotated, TypeVar, cast

import msgspec
import structlog
import trio
from msgspec import Meta, Struct
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

import ingester
from ingester.console.connection import ConsoleLimits
from ingester.console.guard import is_local_admin
from ingester.console.metrics import METRICS_CONTENT_TYPE
from ingester.console.rows import answer_json
from ingester.console.services import InvalidField, Services
from ingester.errors import Overloaded, RequestError, StoreBusy

__all__ = ["make_app"]

_PUBLIC_ENDPOINTS = frozenset({"index", "healthz", "readyz", "metrics"})

_RETRY_AFTER_SECONDS = 1

# Larger answers are written in a thread, so that the loop goes on meanwhile.
_ROWS_INLINE_MAX = 1_000
_ENCODERS_MAX = 1

_COUNT_MAX = 2**53

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;"
    "color:#1b1f24;background:#fff}code{background:#f3f4f6;padding:.1em .3em}"
    "@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#14171a}"
    "code{background:#23282e}a{color:#8ab4f8}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"

_ADMIN_SENTENCE = (
    "this needs an administrator: use the command line on the server's machine "
    "(it talks to the server through control.sock in the data folder)"
)

# "Object contains unknown field `x` - at `$.y[...]`"
_FIELD_IN_BACKTICKS = re.compile(r"field `([^`]+)`")
_PLACE = re.compile(r" - at `\$\.?([^`]*)`")

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
Count = Annotated[int, Meta(ge=0, le=_COUNT_MAX)]


class CreateSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/sources."""

    name: Name
    lenient_session: bool = False
    requests_per_hour: Count = 0


class RotateSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/sources/{name}/rotate; 0: the old pair ends now."""

    overlap_seconds: Count = 0


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/query."""

    sql: Annotated[str, Meta(min_length=1)]
    format: str = "json"


class Nothing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that has nothing to say."""


Body = TypeVar("Body", bound=Struct)


def make_app(services: Services) -> QuartTrio:
    """The application of one process; it is served by `server.serve_console`."""
    app = QuartTrio("ingester.console", static_folder=None, template_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    # The guard has bounded body and time; Quart's own limits would only add a second opinion.
    app.config["MAX_CONTENT_LENGTH"] = ConsoleLimits().control_body_bytes_max
    app.config["RESPONSE_TIMEOUT"] = None
    _add_rules(app)
    _add_public_routes(app, services)
    _add_reading_routes(app, services)
    _add_source_routes(app, services)
    return app


def _add_rules(app: QuartTrio) -> None:
    log = structlog.get_logger("ingester.console")

    @app.before_request
    async def admit() -> Response | None:
        if request.endpoint in _PUBLIC_ENDPOINTS or is_local_admin(request.scope):
            return None
        if request.endpoint is None and not _is_api_path(request.path):
            return None  # goes on to 404 or 405
        return _error(401, _ADMIN_SENTENCE, headers={"WWW-Authenticate": "Bearer"})

    @app.after_request
    async def harden(response: Response) -> Response:
        is_page = response.mimetype == "text/html"
        response.headers["Content-Security-Policy"] = _PAGE_POLICY if is_page else _DATA_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        headers = {}
        if status == 405:
            headers["Allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        return _error(status, _SENTENCES.get(status, error.name.lower()), headers=headers)

    @app.errorhandler(RequestError)
    async def refused(error: RequestError) -> Response:
        return _error(
            error.status_hint,
            str(error),
            field=getattr(error, "field", None),
            column=getattr(error, "column", None),
        )

    @app.errorhandler(StoreBusy)
    @app.errorhandler(Overloaded)
    async def busy(error: Exception) -> Response:
        seconds = getattr(error, "retry_after_s", _RETRY_AFTER_SECONDS)
        return _error(503, str(error), headers={"Retry-After": str(seconds)})

    @app.errorhandler(Exception)
    async def fault(error: Exception) -> Response:
        log.error("a console request failed", path=request.path, exc_info=error)
        return _error(500, "internal error")


def _add_public_routes(app: QuartTrio, services: Services) -> None:
    @app.get("/")
    async def index() -> Response:
        return Response(_page(services), content_type="text/html; charset=utf-8")

    @app.get("/healthz")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        ready, reasons = services.ready()
        if ready:
            return _json({"status": "ok"})
        return _json({"status": "not ready", "reasons": reasons}, 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(services.metrics_text(), content_type=METRICS_CONTENT_TYPE)


def _add_reading_routes(app: QuartTrio, services: Services) -> None:
    encoders = trio.CapacityLimiter(_ENCODERS_MAX)

    @app.get("/api/v1/status")
    async def status() -> Response:
        ready, reasons = services.ready()
        return _json({
            "version": ingester.__version__,
            "ready": ready,
            "reasons": reasons,
            "actors": services.statistics(),
        })

    @app.get("/api/v1/viewer")
    async def viewer() -> Response:
        return _json({"requests": list(services.viewer_requests())})

    @app.get("/api/v1/check")
    async def check() -> Response:
        problems = await services.check()
        return _json({"ok": not problems, "problems": problems})

    @app.post("/api/v1/query")
    async def query() -> Response:
        body = await _body(Query)
        if body.format != "json":
            raise InvalidField("format", f"format must be json, got {body.format!r}")
        answer = await services.query(body.sql)
        if len(answer.rows) <= _ROWS_INLINE_MAX:
            return _json_bytes(answer_json(answer))
        return _json_bytes(await trio.to_thread.run_sync(answer_json, answer, limiter=encoders))


def _add_source_routes(app: QuartTrio, services: Services) -> None:
    @app.get("/api/v1/sources")
    async def sources() -> Response:
        return _json({"sources": list(await services.list_sources())})

    @app.post("/api/v1/sources")
    async def create_source() -> Response:
        body = await _body(CreateSource)
        document = await services.create_source(
            body.name,
            lenient_session=body.lenient_session,
            requests_per_hour=body.requests_per_hour,
        )
        return _json(document, 201)

    @app.post("/api/v1/sources/<name>/rotate")
    async def rotate_source(name: str) -> Response:
        body = await _body(RotateSource)
        return _json(await services.rotate_source(name, overlap_seconds=body.overlap_seconds))

    @app.post("/api/v1/sources/<name>/revoke")
    async def revoke_source(name: str) -> Response:
        await _body(Nothing)
        return _json(await services.revoke_source(name))


_SENTENCES = {
    400: "the request is malformed",
    404: "there is nothing at this path",
    405: "this path does not take that method",
}


async def _body(body_type: type[Body]) -> Body:
    """The decoded body; an empty one counts as `{}`."""
    data = cast(bytes, await request.get_data(cache=False))
    try:
        return msgspec.json.decode(data or b"{}", type=body_type)
    except msgspec.ValidationError as error:
        message = str(error)
        place = _PLACE.search(message)
        named = _FIELD_IN_BACKTICKS.search(message)
        field = ".".join(
            part for part in (place and place.group(1), named and named.group(1)) if part
        )
        sentence = _PLACE.sub("", message)
        if named is None and field:
            sentence = f"{field}: {sentence}"
        raise InvalidField(field, sentence) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body must be one JSON object ({error})") from None


def _is_api_path(path: str) -> bool:
    return path == "/api" or path.startswith("/api/")


def _error(
    status: int,
    sentence: str,
    *,
    field: str | None = None,
    column: int | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    document: dict[str, object] = {"error": sentence}
    if column:
        document["column"] = column
    if field:
        document["field"] = field
    response = _json(document, status)
    response.headers.update(headers or {})
    return response


def _json(document: object, status: int = 200) -> Response:
    return _json_bytes(msgspec.json.encode(document, enc_hook=str), status)


def _json_bytes(body: bytes, status: int = 200) -> Response:
    return Response(body, status=status, content_type="application/json")


def _page(services: Services) -> str:
    ready, reasons = services.ready()
    state = "ready" if ready else "not ready: " + "; ".join(reasons)
    parts = "".join(
        f"<li>{html.escape(name.replace('_', ' '))}</li>" for name in sorted(services.statistics())
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ingester</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>ingester {html.escape(ingester.__version__)}</h1>
<p>This server is <strong>{html.escape(state)}</strong>.</p>
<h2>Running here</h2>
<ul>{parts}</ul>
<h2>To look at</h2>
<ul>
<li><a href="/metrics">/metrics</a>: figures in the Prometheus text format</li>
<li><a href="/healthz">/healthz</a>: the process answers</li>
<li><a href="/readyz">/readyz</a>: requests are taken</li>
</ul>
<p>Manage sources and query data with the command line on the server's machine:
<code>ingester --help</code>.</p>
</body>
</html>
"""
