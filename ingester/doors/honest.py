"""Honest door: `POST /ingest/{source}`, NDJSON, one object or one array, with a report for every
rejected line (contract 3.4).

Rows land in `logs`; with `?as=events` and a token that is bound to the event source, in `events`.
A request is refused (400, with the same report) when every line was rejected, or with
`?atomic=true` when any was; nothing of it is stored then. An empty body or array is 200 with counts
of 0: a client that flushes nothing has done nothing wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Struct

from ..errors import Forbidden, RequestError
from ..messages import Credential, LineReject, RejectReason, request_id_text
from ..protocol.forms import HonestEventForm, HonestLogForm, Origin, table_of_form
from ..protocol.http1 import RequestHead
from .admission import Admission
from .bearer import Admitted, BearerDoor, json_response, serve
from .bulk_lane import LinesRefused
from .exchange import Request, Response
from .logs import is_form
from .once import Stored
from .receive import AdmittedRequest

__all__ = ["DOOR", "PREFIX", "LineError", "Report", "handle", "origin_of"]

DOOR = "ingest"
PREFIX = "/ingest/"

_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EXCERPT_CHARACTERS_MAX = 200
_TRUTHS = {"true": True, "1": True, "": True, "false": False, "0": False}


class LineError(Struct, frozen=True):
    """A rejected line; `column` counts from 1, null where no place in the line is meant."""

    line: int
    column: int | None
    field: str | None
    reason: RejectReason
    detail: str
    excerpt: str


class Report(Struct, frozen=True):
    """The answer. `errors` are the first hundred; `duplicate`: the key came before, and these are
    the counts of then.
    """

    request_id: str
    accepted: int
    rejected: int
    duplicate: bool
    deduplicated: int
    errors: list[LineError]


async def handle(request: Request, admission: Admission) -> Response:
    return await serve(request, admission, _DOOR)


def _admit(request: Request, credential: Credential, admission: Admission) -> Admitted:
    label = unquote(request.head.path.removeprefix(PREFIX))
    if _LABEL.fullmatch(label) is None:
        raise RequestError(
            "the path is /ingest/{source}; a source is 1 to 64 letters, digits, dots, dashes or"
            " underscores"
        )
    query = dict(parse_qsl(request.head.query, keep_blank_values=True))
    atomic = _TRUTHS.get(query.get("atomic", "false").lower())
    if atomic is None:
        raise RequestError("atomic is true or false")
    origin = origin_of(label, query.get("as", "logs"), credential, admission, request.head)
    return Admitted(
        origin,
        "any_rejected" if atomic else "all_rejected",
        admission.dedup.window_of(admission.keys.source_named(label), table_of_form(origin.form)),
    )


def origin_of(
    label: str,
    kind: str,
    credential: Credential,
    admission: Admission,
    head: RequestHead | None = None,
) -> Origin:
    """What `?as=` `kind` makes of requests to `label`. Raises RequestError."""
    key = credential.credential
    if kind == "logs":
        form = HonestLogForm(
            credential.service, credential.environment, head is not None and is_form(head)
        )
        return Origin(DOOR, label, key, form=form)
    if kind != "events":
        raise RequestError("as is logs or events")
    if credential.source != label:
        bound = f"to {credential.source}" if credential.source else "to none"
        raise Forbidden(
            f"?as=events needs a token bound to the event source {label}; this one is bound {bound}"
        )
    source = admission.keys.source_named(label)
    if source is None:
        return Origin(DOOR, label, key, form=HonestEventForm())
    return Origin(DOOR, label, key, source.lenient_session, HonestEventForm(source.map))


def _answer(asked: AdmittedRequest, stored: Stored) -> bytes:
    number = stored.request_number or asked.request.number
    return msgspec.json.encode(
        Report(
            request_id_text(number),
            stored.accepted,
            stored.rejected,
            stored.is_repeat,
            stored.deduplicated,
            _errors([] if stored.is_repeat else asked.first_rejects),
        )
    )


def _refusal(asked: AdmittedRequest, error: RequestError) -> Response | None:
    if not isinstance(error, LinesRefused):
        return None
    number = request_id_text(asked.request.number)
    errors = _errors(error.first_rejects)
    return json_response(400, Report(number, 0, error.rejected, False, 0, errors))


def _errors(rejects: Sequence[LineReject]) -> list[LineError]:
    return [
        LineError(
            reject.line_number,
            reject.column or None,
            reject.field,
            reject.reason,
            reject.detail,
            reject.line[: 4 * _EXCERPT_CHARACTERS_MAX].decode("utf-8", "replace")[
                :_EXCERPT_CHARACTERS_MAX
            ],
        )
        for reject in rejects
    ]


_DOOR = BearerDoor(DOOR, ("token",), ("POST", "HEAD"), _admit, _answer, _refusal)
