"""The intake door's routes, as its documentation shows them: what is sent, answered and refused.

Why it exists: doors read their paths and bodies by hand, for speed, so nothing but a table can tell
what they take. The types in it are those the doors decode or encode; `openapi.json` is made of it.

1. Every path the router serves is here, and nothing else (a test compares the two).
2. Every example is taken by the door it stands at (a test sends them).
3. Statuses of broken HTTP (400, 414, 417, 431, 501, 505 of the framing) are the connection's and no
   route's; they are told once, for all.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from ingester.doors import honest, logs, metrics
from ingester.doors.router import NotReady, Ready
from ingester.messages import ErrorBody, QuotaErrorBody
from ingester.protocol.event_lines import Event
from ingester.protocol.metrics import Metric, MetricsBody

__all__ = ["INTAKE_ROUTES", "Answered", "Example", "IntakeRoute", "Key", "Sent"]

Method = Literal["GET", "HEAD", "POST"]
# How a request says who sends it: not at all, by the key pair in its path, by the bearer key of an
# ingest token or of a connection.
Key = Literal["none", "pair", "token", "connection"]

JSON = "application/json"
NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"


class WaitQuery(Struct, frozen=True, kw_only=True):
    """`query`: answer when the rows can be queried, at the latest after `wait_seconds_max`; also as
    the header `Prefer: wait=query`.
    """

    wait: Literal["query"] | UnsetType = UNSET


class IngestQuery(WaitQuery, frozen=True, kw_only=True):
    """`atomic`: one rejected line refuses the request. `as`: the table the lines land in; `events`
    needs a token bound to the event source of the path.
    """

    atomic: bool = False
    as_: Literal["logs", "events"] = field(default="logs", name="as")


class Example(Struct, frozen=True):
    """A body as it can be sent: text, or a value that is sent as JSON."""

    name: str
    value: Any


class Sent(Struct, frozen=True, kw_only=True):
    """One way to write the body. `shape` is the type of the whole, None for lines of text; `line`
    is the type of each line.
    """

    content_type: str
    summary: str
    examples: tuple[Example, ...]
    shape: Any = None
    line: Any = None


class Answered(Struct, frozen=True, kw_only=True):
    """One status: what it means, the types of its body (none: it is empty), and its headers."""

    status: int
    meaning: str
    bodies: tuple[type[Struct], ...] = ()
    headers: tuple[str, ...] = ()


class IntakeRoute(Struct, frozen=True, kw_only=True):
    """One path of the intake door, for each of `methods`."""

    name: str
    methods: tuple[Method, ...]
    pattern: str
    summary: str
    answers: tuple[Answered, ...]
    text: str = ""
    key: Key = "none"
    query: type[Struct] | None = None
    sent: tuple[Sent, ...] = ()


_COUNTS = ("Ingester-Accepted", "Ingester-Rejected", "Ingester-Queryable")
_QUOTA = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_RETRY = "Retry-After"

_LINE = (
    '{"accountId": "acme", "userId": "ada", "createdAt": 1790000000000, "action": "login",'
    ' "sessionId": "s1", "plan": "pro"}\n'
)
_PING_TEXT = "Answers 200 whatever the state of the server: a client asks whether it is there."
_EVENTS_TEXT = (
    "One event a line. Lines that are no event are kept as rejects, and the answer is 200 all the"
    " same; its headers count both. The key pair in the path says whose events they are. Content"
    " codings other than gzip, x-gzip, deflate and zstd are plain text."
)
_EVENTS = Sent(
    content_type=NDJSON,
    summary="Lines, ended by LF or CRLF; blank ones do not count.",
    line=Event,
    examples=(Example("event", _LINE), Example("two events", _LINE * 2)),
)
_EVENT_ANSWERS = (
    Answered(
        status=200,
        meaning="Every line was classified and is safe on disk.",
        headers=(*_COUNTS, *_QUOTA),
    ),
    Answered(
        status=400,
        meaning="Not this door's path, method or key pair, or a body that cannot be read.",
        headers=_QUOTA,
    ),
    Answered(status=408, meaning="The sender stopped.", headers=(*_QUOTA, _RETRY)),
    Answered(
        status=413,
        meaning="Larger than `body_bytes_max`, or packed beyond `ratio_max`: split it.",
        headers=_QUOTA,
    ),
    Answered(status=429, meaning="Over the source's quota.", headers=(*_QUOTA, _RETRY)),
    Answered(
        status=503,
        meaning="Full, shutting down, or out of disk; nothing was stored.",
        headers=(*_QUOTA, _RETRY),
    ),
)


def _natero(prefix: str, name: str, suffix: str, text: str) -> tuple[IntakeRoute, ...]:
    """The two routes of the Natero door under one prefix."""
    return (
        IntakeRoute(
            name=f"send_{name}",
            methods=("POST",),
            pattern=prefix + "/v1/{authKey}/{apiKey}",
            summary=f"Send product events{suffix}.",
            text=f"{_EVENTS_TEXT}{text}",
            key="pair",
            query=WaitQuery,
            sent=(_EVENTS,),
            answers=_EVENT_ANSWERS,
        ),
        IntakeRoute(
            name=f"ping_{name}",
            methods=("POST",),
            pattern=prefix + "/v1/ping",
            summary=f"Is the events door there{suffix}?",
            text=_PING_TEXT,
            answers=(
                Answered(status=200, meaning="It is."),
                Answered(status=400, meaning="Another method than POST."),
            ),
        ),
    )


def _bearer(
    stored: type[Struct], refused: tuple[type[Struct], ...] = (), *, forbidden: str = ""
) -> tuple[Answered, ...]:
    """What a door with bearer keys answers to POST."""
    return (
        Answered(
            status=200,
            meaning="Stored, and safe on disk.",
            bodies=(stored,),
            headers=(*_COUNTS, *_QUOTA),
        ),
        Answered(
            status=400,
            meaning="The body or a parameter cannot be taken; the sentence says which, and where.",
            bodies=(*refused, ErrorBody),
            headers=_QUOTA,
        ),
        *_key_refusals(forbidden),
        Answered(status=408, meaning="The sender stopped.", bodies=(ErrorBody,), headers=(_RETRY,)),
        Answered(
            status=413,
            meaning="Larger than a limit, or packed beyond `ratio_max`: split it.",
            bodies=(ErrorBody,),
            headers=_QUOTA,
        ),
        Answered(
            status=415,
            meaning="A Content-Encoding that is not decoded here.",
            bodies=(ErrorBody,),
            headers=("Accept-Encoding", *_QUOTA),
        ),
        Answered(
            status=422,
            meaning="The Idempotency-Key came before, with another body.",
            bodies=(ErrorBody,),
            headers=_QUOTA,
        ),
        Answered(
            status=503,
            meaning="Full, shutting down, or out of disk; nothing was stored.",
            bodies=(ErrorBody,),
            headers=(*_QUOTA, _RETRY),
        ),
    )


def _key_refusals(forbidden: str) -> tuple[Answered, ...]:
    return (
        Answered(
            status=401,
            meaning="No key, or none that opens this door.",
            bodies=(ErrorBody,),
            headers=("WWW-Authenticate",),
        ),
        Answered(
            status=403,
            meaning=forbidden or "A key of this door without the scope `ingest`.",
            bodies=(ErrorBody,),
            headers=("WWW-Authenticate",),
        ),
        Answered(
            status=429,
            meaning="Over the quota of this key: a fixed UTC hour.",
            bodies=(QuotaErrorBody,),
            headers=(*_QUOTA, _RETRY),
        ),
    )


_LOGS = IntakeRoute(
    name="send_logs",
    methods=("POST",),
    pattern=logs.PATH,
    summary="Send logs: any JSON.",
    text=(
        "An array of objects is a log for each; any other value is one log; several values stand on"
        " a line each. Level, message and time are found in the payload, service and environment"
        " are the token's. One bad line refuses the request. No Content-Type is asked for: JSON is"
        " tried first, then form fields if the type says so."
    ),
    key="token",
    query=WaitQuery,
    sent=(
        Sent(
            content_type=JSON,
            summary="Any JSON value.",
            shape=Any,
            examples=(
                Example("one log", {"level": "error", "message": "no route", "request": 7}),
                Example("two logs", [{"msg": "up", "ts": 1790000000}, {"msg": "down"}]),
                Example("a text", "plain words"),
            ),
        ),
        Sent(
            content_type=NDJSON,
            summary="One JSON value a line.",
            examples=(Example("lines", '{"msg": "up"}\n{"msg": "down", "level": "warn"}\n'),),
        ),
        Sent(
            content_type=FORM,
            summary="The fields of one log, as Python's `logging.handlers.HTTPHandler` sends them.",
            shape=dict[str, str],
            examples=(
                Example("a record", {"levelname": "WARNING", "msg": "low", "created": "1.5"}),
            ),
        ),
    ),
    answers=_bearer(logs.LogsStored),
)

_METRICS = IntakeRoute(
    name="send_metrics",
    methods=("POST",),
    pattern=metrics.PATH,
    summary="Send 1 to 100 metrics of one project.",
    text=(
        "The first fault refuses the request and is told with its place. Times are epoch"
        " milliseconds, not further ahead than `future_seconds_max`; without one it is the arrival."
    ),
    key="connection",
    query=WaitQuery,
    sent=(
        Sent(
            content_type=JSON,
            summary="The project of the connection, and its metrics.",
            shape=MetricsBody,
            examples=(
                Example(
                    "one metric",
                    MetricsBody("default", [Metric("mrr", "Revenue", 1299.5, "EUR")]),
                ),
            ),
        ),
    ),
    answers=_bearer(metrics.MetricsStored),
)

_INGEST_TEXT = (
    "`source` is a label of 1 to 64 letters, digits, dots, dashes or underscores that requests and"
    " rejects are listed under; settings of an event source of that name apply. Every rejected line"
    " is reported; 400 with the same report when all were."
)
_INGEST = (
    IntakeRoute(
        name="ingest",
        methods=("POST",),
        pattern=honest.PREFIX + "{source}",
        summary="Send JSON of any shape, and be told what became of every line.",
        text=_INGEST_TEXT,
        key="token",
        query=IngestQuery,
        sent=(
            Sent(
                content_type=NDJSON,
                summary="One JSON object a line.",
                examples=(Example("lines", '{"message": "up"}\n{"message": "down"}\n'),),
            ),
            Sent(
                content_type=JSON,
                summary="One object, or an array of objects.",
                shape=dict[str, Any] | list[Any],
                examples=(
                    Example("an object", {"message": "up", "level": "notice"}),
                    Example("an array", [{"message": "up"}, {"message": "down"}]),
                ),
            ),
        ),
        answers=_bearer(
            honest.Report,
            (honest.Report,),
            forbidden="A key without the scope `ingest`, or one not bound to this event source.",
        ),
    ),
    IntakeRoute(
        name="check_ingest",
        methods=("HEAD",),
        pattern=honest.PREFIX + "{source}",
        summary="Does this key open the door?",
        key="token",
        answers=(
            Answered(status=200, meaning="It does.", headers=_QUOTA),
            Answered(status=400, meaning="Not a name for a source, or not its parameters."),
            *(
                Answered(status=one.status, meaning=one.meaning, headers=one.headers)
                for one in _key_refusals("")
            ),
        ),
    ),
)

_METHODS: tuple[Method, ...] = ("GET", "HEAD")
_PROBES = (
    IntakeRoute(
        name="healthz",
        methods=_METHODS,
        pattern="/healthz",
        summary="The process answers.",
        answers=(Answered(status=200, meaning="It does.", bodies=(Ready,)),),
    ),
    IntakeRoute(
        name="readyz",
        methods=_METHODS,
        pattern="/readyz",
        summary="Requests are taken.",
        answers=(
            Answered(status=200, meaning="They are.", bodies=(Ready,)),
            Answered(
                status=503, meaning="They are not, and why.", bodies=(NotReady,), headers=(_RETRY,)
            ),
        ),
    ),
)

INTAKE_ROUTES: tuple[IntakeRoute, ...] = (
    *_natero("", "events", "", ""),
    *_natero(
        "/test", "test_events", " to the test door", " Nothing is stored: the viewer shows it."
    ),
    _LOGS,
    _METRICS,
    *_INGEST,
    *_PROBES,
)
