"""The console's routes: health, metrics, and the JSON API; pages are registered by `pages.py`.

Invariants:

1. Routes are closed by default: over TCP everything under `/api/` is 401 without a token or a
   session (`auth.py`), but for signing in. The control socket (`guard.py`) may do all. A viewer
   reads; the management routes look at the role themselves.
2. Errors are `{"error": sentence}` with `field` or `column` where one is meant; 500 is a fault of
   ours, logged, and says nothing about it.
3. Bodies are decoded into typed structs; an unknown field is an error that names it. No
   Content-Type is demanded.
4. Answers are never cached and load nothing, but for pages and their files (`shell.py`).

It refuses to know what runs behind `Services`.
"""

from __future__ import annotations

import itertools
from typing import cast

import msgspec
import structlog
from msgspec import UNSET
from quart import Response, g, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

import ingester
from ingester.console.auth import actor_of, address_of, refuse_cross_site, set_session
from ingester.console.connection import ConsoleLimits
from ingester.console.guard import is_local_admin
from ingester.console.metrics import METRICS_CONTENT_TYPE
from ingester.console.openapi import openapi_json
from ingester.console.pages import OPEN_PAGES, add_pages, error_page, harden_page, wants_page
from ingester.console.results import result_response
from ingester.console.routes import (
    BackUp,
    CheckAnswer,
    Export,
    MetricWarnings,
    Query,
    Status,
    ViewerQuery,
)
from ingester.console.search import add_search_routes, parameters
from ingester.console.services import Services
from ingester.console.shell import Pages
from ingester.doors.router import NotReady, Ready
from ingester.errors import (
    Forbidden,
    InvalidField,
    Overloaded,
    RequestError,
    StoreBusy,
    Unauthorized,
)
from ingester.management import ROUTES, Answer, Route
from ingester.management.calls import NOBODY
from ingester.management.dispatch import decode_body, decode_query
from ingester.messages import ErrorBody
from ingester.sandbox.messages import EXPORT_FORMATS, FORMATS, maybe_format

__all__ = ["make_app"]

_PUBLIC_ENDPOINTS = frozenset({"healthz", "readyz", "metrics", "openapi"})

_RETRY_AFTER_SECONDS = 1

_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"

_SIGN_IN_SENTENCE = (
    'sign in, or send the header "Authorization: Bearer <admin or read token>"; the command line'
    " on the server's machine needs neither (it goes through control.sock in the data folder)"
)
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


def make_app(services: Services) -> QuartTrio:
    """The application of one process; it is served by `server.serve_console`."""
    app = QuartTrio("ingester.console", static_folder=None, template_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    # The guard has bounded body and time; Quart's own limits would only add a second opinion.
    app.config["MAX_CONTENT_LENGTH"] = ConsoleLimits().control_body_bytes_max
    app.config["RESPONSE_TIMEOUT"] = None
    _add_rules(app, services, add_pages(app, services))
    _add_public_routes(app, services)
    _add_reading_routes(app, services)
    add_search_routes(app, services)
    _add_management_routes(app, services)
    return app


def _add_rules(app: QuartTrio, services: Services, pages: Pages) -> None:
    log = structlog.get_logger("ingester.console")

    @app.before_request
    async def admit() -> Response | None:
        g.actor = NOBODY
        if request.endpoint in _PUBLIC_ENDPOINTS or request.endpoint in _OPEN_ENDPOINTS:
            return None
        if request.endpoint is None and not _is_api_path(request.path):
            return None  # goes on to 404 or 405
        g.actor = await actor_of(request, services)
        if g.actor.role is None:
            raise Unauthorized(_SIGN_IN_SENTENCE)
        return None

    @app.after_request
    async def harden(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = _DATA_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers.setdefault("Cache-Control", "no-store")
        if response.mimetype == "text/html":
            harden_page(response)
        return response

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        headers = {}
        if status == 405:
            headers["Allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        sentence = _SENTENCES.get(status, error.name.lower())
        if wants_page():
            response = await error_page(services, pages, status, sentence)
            response.headers.update(headers)
            return response
        return _error(status, sentence, headers=headers)

    @app.errorhandler(RequestError)
    async def refused(error: RequestError) -> Response:
        if wants_page():
            return await error_page(services, pages, error.status_hint, str(error))
        return _error(
            error.status_hint,
            str(error),
            field=getattr(error, "field", None),
            column=getattr(error, "column", None),
            headers=_CHALLENGE if error.status_hint == 401 else None,
        )

    @app.errorhandler(StoreBusy)
    @app.errorhandler(Overloaded)
    async def busy(error: Exception) -> Response:
        seconds = getattr(error, "retry_after_s", _RETRY_AFTER_SECONDS)
        return _error(503, str(error), headers={"Retry-After": str(seconds)})

    @app.errorhandler(Exception)
    async def fault(error: Exception) -> Response:
        log.error("a console request failed", path=request.path, exc_info=error)
        if wants_page():
            told = "The fault is in the server's log."
            return await error_page(services, pages, 500, told)
        return _error(500, "internal error")


def _add_public_routes(app: QuartTrio, services: Services) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return _json(Ready(status="ok"))

    @app.get("/readyz")
    async def readyz() -> Response:
        ready, reasons = services.ready()
        if ready:
            return _json(Ready(status="ok"))
        return _json(NotReady(reasons=reasons), 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(services.metrics_text(), content_type=METRICS_CONTENT_TYPE)

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return _json_bytes(openapi_json(services.intake_url(), services.public_url()))


def _add_reading_routes(app: QuartTrio, services: Services) -> None:
    @app.get("/api/v1/status")
    async def status() -> Response:
        ready, reasons = services.ready()
        actors = services.statistics()
        return _json(
            Status(
                version=ingester.__version__,
                intake=services.intake_url(),
                ready=ready,
                reasons=reasons,
                actors=actors,
            )
        )

    @app.get("/api/v1/viewer")
    async def viewer() -> Response:
        query = decode_query(parameters(), ViewerQuery)
        newer = itertools.takewhile(
            lambda shown: shown["request_id"] != query.after, services.viewer_requests()
        )
        return _json({"requests": list(itertools.islice(newer, query.limit))})

    @app.get("/api/v1/metrics/warnings")
    async def metric_warnings() -> Response:
        return _json(MetricWarnings(warnings=services.metric_warnings()))

    @app.get("/api/v1/check")
    async def check() -> Response:
        problems = await services.check()
        return _json(CheckAnswer(ok=not problems, problems=problems))

    @app.get("/api/v1/store/retention")
    async def store_retention() -> Response:
        return _json(await services.retention())

    @app.post("/api/v1/query")
    async def query() -> Response:
        body = decode_body(cast(bytes, await request.get_data(cache=False)), Query)
        format_name = maybe_format(body.format)
        if format_name is None:
            known = ", ".join(FORMATS)
            raise InvalidField("format", f"format must be one of {known}; got {body.format!r}")
        return await result_response(await services.query(body.sql, format_name))

    @app.post("/api/v1/export")
    async def export() -> Response:
        body = decode_body(cast(bytes, await request.get_data(cache=False)), Export)
        format_name = maybe_format(body.format)
        if format_name not in EXPORT_FORMATS:
            known = ", ".join(EXPORT_FORMATS)
            raise InvalidField("format", f"format must be one of {known}; got {body.format!r}")
        stream = await services.export(
            table=body.table,
            format_name=format_name,
            since=body.since,
            until=body.until,
            by=body.by,
            where=body.where,
            is_for_spreadsheets=body.spreadsheet,
        )
        return await result_response(stream)

    @app.post("/api/v1/backup")
    async def backup() -> Response:
        if not is_local_admin(request.scope):
            raise Forbidden(
                "a backup writes files on the server's machine: start it there, with"
                " `ingester backup DIR`"
            )
        body = decode_body(cast(bytes, await request.get_data(cache=False)), BackUp)
        return await result_response(
            await services.backup(body.directory, with_secrets=body.with_secrets)
        )


def _add_management_routes(app: QuartTrio, services: Services) -> None:
    """Every route of the management room, under its own method and pattern."""

    async def manage(**_names: str) -> Response:
        if g.actor.role is None:
            refuse_cross_site(request, services)
        data = cast(bytes, await request.get_data(cache=False))
        answer = await services.manage(
            request.method,
            bytes(request.scope["raw_path"]).decode("latin-1"),
            request.args.to_dict(),
            data,
            g.actor,
            address_of(request, services),
        )
        return _managed(answer)

    def _managed(answer: Answer) -> Response:
        response = _json(answer.document, answer.status)
        if answer.status == 401:
            response.headers.update(_CHALLENGE)
        elif answer.status == 503:
            response.headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
        if answer.session_secret is not None:
            set_session(response, answer, request, services)
        return response

    for route in ROUTES:
        app.add_url_rule(
            route.pattern.replace("{", "<").replace("}", ">"),
            endpoint=_endpoint(route),
            view_func=manage,
            methods=[route.method],
        )


def _endpoint(route: Route) -> str:
    return f"{route.method} {route.pattern}"


# Endpoints that take a request from nobody: signing in, and pages, which send to the form.
_OPEN_ENDPOINTS = frozenset(
    {_endpoint(route) for route in ROUTES if route.role == "anyone"} | OPEN_PAGES
)


_SENTENCES = {
    400: "the request is malformed",
    404: "there is nothing at this path",
    405: "this path does not take that method",
}


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
    body = ErrorBody(error=sentence, column=column or UNSET, field=field or UNSET)
    response = _json(body, status)
    response.headers.update(headers or {})
    return response


def _json(document: object, status: int = 200) -> Response:
    return _json_bytes(msgspec.json.encode(document, enc_hook=str), status)


def _json_bytes(body: bytes, status: int = 200) -> Response:
    return Response(body, status=status, content_type="application/json")
