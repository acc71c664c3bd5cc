"""The console's own routes, beside those of the management room: what each takes and answers.

Why it exists: `app.py` registers functions; this table says the same for `openapi.json`, with the
types that decode and encode there. A test holds the two together. Screens (`screens.py`) and the
files that they load are no part of it: they are for browsers, and change with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from ingester.doors.metric_labels import LabelWarning
from ingester.doors.router import NotReady, Ready
from ingester.doors.viewer import ViewerRequest
from ingester.management.calls import NeededRole, Nothing
from ingester.management.requests import AcceptInvitation, SetUp, SignIn
from ingester.sandbox.messages import CONTENT_TYPES, EXPORT_FORMATS, FORMATS
from ingester.store.retention import Retention
from ingester.store.rollup_schema import ROLLUP_VIEW_NAMES
from ingester.store.schema import VIEW_NAMES

__all__ = [
    "CONSOLE_ROUTES",
    "BackUp",
    "CheckAnswer",
    "ConsoleRoute",
    "Export",
    "MetricWarnings",
    "Query",
    "QueryRows",
    "Status",
    "ViewerAnswer",
    "ViewerQuery",
]

JSON = "application/json"
HTML = "text/html"
FORM = "application/x-www-form-urlencoded"


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One SELECT over the public views, and the format of its rows."""

    sql: Annotated[str, Meta(min_length=1)]
    format: Annotated[str, Meta(extra_json_schema={"enum": list(FORMATS)})] = "json"


class Export(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of a table that arrived (`by` received_at) or happened (`by` time) from `since` up
    to before `until`; without them all. `spreadsheet`: texts in CSV that a spreadsheet would take
    for formulas get an apostrophe in front. `where`: a condition in SQL over the table's columns.
    """

    table: Annotated[str, Meta(extra_json_schema={"enum": [*VIEW_NAMES, *ROLLUP_VIEW_NAMES]})]
    format: Annotated[str, Meta(extra_json_schema={"enum": list(EXPORT_FORMATS)})] = "ndjson"
    since: str | None = None
    until: str | None = None
    by: Literal["received_at", "time"] = "received_at"
    spreadsheet: bool = False
    where: str | None = None


class BackUp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder of the server's machine, as an absolute path."""

    directory: Annotated[str, Meta(min_length=1)]
    with_secrets: bool = False


class ViewerQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only requests that came after the one of this id; all, when it is no longer shown."""

    after: Annotated[str, Meta(max_length=64)] | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 10_000


class QueryRows(Struct, frozen=True, kw_only=True):
    """Rows as arrays: columns keep their order and may share a name. `types` are DuckDB's."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]


class Status(Struct, frozen=True, kw_only=True):
    """The server's version and state, and a snapshot of every part of it. `intake` is the base of
    links to the intake door: its `public_url`, else where it listens.
    """

    version: str
    intake: str
    ready: bool
    reasons: list[str]
    actors: Mapping[str, Mapping[str, Any]]


class ViewerAnswer(Struct, frozen=True, kw_only=True):
    """The last requests of the test door."""

    requests: list[ViewerRequest]


class MetricWarnings(Struct, frozen=True, kw_only=True):
    """Metrics whose name or unit has changed, the newest change first."""

    warnings: Sequence[LabelWarning]


class CheckAnswer(Struct, frozen=True, kw_only=True):
    """Problems found in the data folder, in sentences; none when all is well."""

    ok: bool
    problems: list[str]


class ConsoleRoute(Struct, frozen=True, kw_only=True):
    """One route. `answer` None: text of `content_type`. `other_types`: what it may answer in
    besides. `errors`: statuses of refusals that not every route has; those of a page come as a
    page. `sends_on`: where the browser goes instead (303), in words.
    """

    method: Literal["GET", "POST"]
    pattern: str
    name: str
    summary: str
    answer: type[Struct] | None = None
    content_type: str = JSON
    other_types: tuple[str, ...] = ()
    status: int = 200
    request: type[Struct] | None = None
    request_type: str = JSON
    query: type[Struct] = Nothing
    role: NeededRole = "viewer"
    errors: tuple[int, ...] = ()
    unready: type[Struct] | None = None
    sends_on: str = ""


def _page(name: str, title: str, form: type[Struct], errors: tuple[int, ...]) -> Any:
    return (
        ConsoleRoute(
            method="GET",
            pattern=f"/{name}",
            name=f"show_{name}",
            summary=f"The form: {title}.",
            content_type=HTML,
            role="anyone",
        ),
        ConsoleRoute(
            method="POST",
            pattern=f"/{name}",
            name=f"send_{name}",
            summary=f"Send the form: {title}. On success the browser is sent to the start page.",
            content_type=HTML,
            status=303,
            request=form,
            request_type=FORM,
            role="anyone",
            errors=errors,
        ),
    )


CONSOLE_ROUTES: tuple[ConsoleRoute, ...] = (
    ConsoleRoute(
        method="GET",
        pattern="/",
        name="index",
        summary="The start page.",
        content_type=HTML,
        status=303,
        role="anyone",
        sends_on="To the first screen.",
    ),
    ConsoleRoute(
        method="POST",
        pattern="/logout",
        name="send_logout",
        summary="Send the form: sign out.",
        content_type=HTML,
        status=303,
        role="anyone",
        sends_on="Signed out: to the form.",
        errors=(403,),
    ),
    ConsoleRoute(
        method="GET",
        pattern="/healthz",
        name="healthz",
        summary="The process answers.",
        answer=Ready,
        role="anyone",
    ),
    ConsoleRoute(
        method="GET",
        pattern="/readyz",
        name="readyz",
        summary="Requests are taken.",
        answer=Ready,
        role="anyone",
        unready=NotReady,
    ),
    ConsoleRoute(
        method="GET",
        pattern="/metrics",
        name="metrics",
        summary="Figures in the Prometheus text format.",
        content_type="text/plain",
        role="anyone",
    ),
    ConsoleRoute(
        method="GET",
        pattern="/openapi.json",
        name="openapi",
        summary="This document.",
        content_type=JSON,
        role="anyone",
    ),
    ConsoleRoute(
        method="GET",
        pattern="/api/v1/status",
        name="status",
        summary="The server's state.",
        answer=Status,
    ),
    ConsoleRoute(
        method="GET",
        pattern="/api/v1/viewer",
        name="viewer",
        summary="The last requests of the test door, newest first.",
        answer=ViewerAnswer,
        query=ViewerQuery,
        errors=(422,),
    ),
    ConsoleRoute(
        method="GET",
        pattern="/api/v1/metrics/warnings",
        name="metric_warnings",
        summary="Metrics whose name or unit has changed.",
        answer=MetricWarnings,
    ),
    ConsoleRoute(
        method="GET",
        pattern="/api/v1/check",
        name="check",
        summary="Look for problems in the data folder.",
        answer=CheckAnswer,
        errors=(503,),
    ),
    ConsoleRoute(
        method="GET",
        pattern="/api/v1/store/retention",
        name="store_retention",
        summary="What is kept how long, and which rows are removed next.",
        answer=Retention,
        errors=(503,),
    ),
    ConsoleRoute(
        method="POST",
        pattern="/api/v1/query",
        name="query",
        summary="Run one read-only SELECT.",
        answer=QueryRows,
        other_types=tuple(CONTENT_TYPES[name] for name in FORMATS if name != "json"),
        request=Query,
        errors=(400, 422, 503),
    ),
    ConsoleRoute(
        method="POST",
        pattern="/api/v1/export",
        name="export",
        summary="Stream all rows of a table within a span of time.",
        content_type=CONTENT_TYPES["ndjson"],
        other_types=tuple(CONTENT_TYPES[name] for name in EXPORT_FORMATS if name != "ndjson"),
        request=Export,
        errors=(400, 422, 503),
    ),
    ConsoleRoute(
        method="POST",
        pattern="/api/v1/backup",
        name="backup",
        summary=(
            "Copy everything that is stored into a folder of the server's machine; only through"
            " control.sock (`ingester backup`). The answer is lines: progress, at last `done` or"
            " `error`."
        ),
        content_type=CONTENT_TYPES["ndjson"],
        request=BackUp,
        role="admin",
        errors=(409, 422, 503),
    ),
    *_page("login", "sign in", SignIn, (401, 422, 503)),
    *_page("setup", "set up this server", SetUp, (401, 409, 422, 503)),
    *_page("invite", "choose a password", AcceptInvitation, (401, 422, 503)),
)
