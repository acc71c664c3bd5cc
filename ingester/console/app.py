"""The console's routes: health, metrics, plain pages, and the JSON API.

Invariants:

1. Routes are closed by default: over TCP everything under `/api/` is 401 without a token or a
   session (`auth.py`), but for signing in. The control socket (`guard.py`) may do all. A viewer
   reads; the management routes look at the role themselves.
2. Errors are `{"error": sentence}` with `field` or `column` where one is meant; 500 is a fault of
   ours, logged, and says nothing about it.
3. Bodies are decoded into typed structs; an unknown field is an error that names it. No
   Content-Type is demanded.
4. Answers are never cached and load nothing: the page has no script and no outside reference.

It refuses to know what runs behind `Services`.
"""

from __future__ import annotations

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
from ingester.console.pages import PAGE_POLICY, FormName, form_page, index_page
from ingester.console.results import result_response
from ingester.console.routes import BackUp, CheckAnswer, Export, MetricWarnings, Query, Status
from ingester.console.search import add_search_routes
from ingester.console.services import Services
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
from ingester.management.dispatch import decode_body
from ingester.messages import ErrorBody
from ingester.sandbox.messages import EXPORT_FORMATS, FORMATS, maybe_format

__all__ = ["make_app"]

_PUBLIC_ENDPOINTS = frozenset({"index", "healthz", "readyz", "metrics", "openapi"})

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
    _add_rules(app, services)
    _add_public_routes(app, services)
    _add_reading_routes(app, services)
    add_search_routes(app, services)
    _add_management_routes(app, services)
    _add_pages(app, services)
    return app


def _add_rules(app: QuartTrio, services: Services) -> None:
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
        is_page = response.mimetype == "text/html"
        response.headers["Content-Security-Policy"] = PAGE_POLICY if is_page else _DATA_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        # With no-referrer a browser would send `Origin: null` with our own forms.
        response.headers["Referrer-Policy"] = "same-origin" if is_page else "no-referrer"
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
        return _error(500, "internal error")


def _add_public_routes(app: QuartTrio, services: Services) -> None:
    @app.get("/")
    async def index() -> Response:
        _, reasons = services.ready()
        return _html(index_page(reasons=reasons, actors=list(services.statistics())))

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
            Status(version=ingester.__version__, ready=ready, reasons=reasons, actors=actors)
        )

    @app.get("/api/v1/viewer")
    async def viewer() -> Response:
        return _json({"requests": list(services.viewer_requests())})

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


def _add_pages(app: QuartTrio, services: Services) -> None:
    """The forms without script: they go the same way as the API."""

    def add(name: FormName, path: str, fields: tuple[str, ...]) -> None:
        async def show() -> Response:
            return _html(form_page(name, token=request.args.get("token", "")))

        async def send() -> Response:
            refuse_cross_site(request, services)
            form = await request.form
            sent = {field: form.get(field, "") for field in fields}
            address = address_of(request, services)
            body = msgspec.json.encode(sent)
            answer = await services.manage("POST", path, {}, body, NOBODY, address)
            if answer.session_secret is None:
                error = str(answer.document.get("error", ""))
                page = form_page(
                    name, token=sent.get("token", ""), email=sent.get("email", ""), error=error
                )
                return _html(page, answer.status)
            response = Response(b"", status=303, headers={"Location": "/"})
            set_session(response, answer, request, services)
            return response

        app.add_url_rule(f"/{name}", endpoint=f"show {name}", view_func=show, methods=["GET"])
        app.add_url_rule(f"/{name}", endpoint=f"send {name}", view_func=send, methods=["POST"])

    add("login", "/api/v1/session", ("email", "password"))
    add("setup", "/api/v1/setup", ("token", "email", "password"))
    add("invite", "/api/v1/invites/accept", ("token", "password"))


def _endpoint(route: Route) -> str:
    return f"{route.method} {route.pattern}"


# Endpoints that take a request from nobody: signing in, and the pages for it.
_OPEN_ENDPOINTS = frozenset(
    {_endpoint(route) for route in ROUTES if route.role == "anyone"}
    | {f"{what} {name}" for what in ("show", "send") for name in ("login", "setup", "invite")}
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


def _html(page: str, status: int = 200) -> Response:
    return Response(page, status=status, content_type="text/html; charset=utf-8")


def _json(document: object, status: int = 200) -> Response:
    return _json_bytes(msgspec.json.encode(document, enc_hook=str), status)


def _json_bytes(body: bytes, status: int = 200) -> Response:
    return Response(body, status=status, content_type="application/json")
