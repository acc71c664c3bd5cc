"""Log door: `POST /api/v1/webhook/event/log`, any JSON as logs (contract 3.2).

Compatible with Metoro's event ingestion: service and environment come from the token, the answer is
`{"success": true, "logsStored": n}`. One bad line refuses the request.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from ..messages import Credential
from ..protocol.forms import LogForm, Origin
from ..protocol.http1 import RequestHead
from .admission import Admission
from .bearer import Admitted, BearerDoor, serve
from .exchange import Request, Response
from .once import Stored
from .receive import AdmittedRequest

__all__ = ["DOOR", "PATH", "LogsStored", "handle", "is_form", "log_answer", "origin_of"]

DOOR = "logs"
PATH = "/api/v1/webhook/event/log"

_FORM_TYPE = b"application/x-www-form-urlencoded"


class LogsStored(Struct, frozen=True):
    """The answer to a stored request."""

    success: bool
    logsStored: int


async def handle(request: Request, admission: Admission) -> Response:
    return await serve(request, admission, _DOOR)


def origin_of(credential: Credential, *, is_form: bool = False) -> Origin:
    """Requests are listed under the token's service."""
    form = LogForm(credential.service, credential.environment, is_form)
    return Origin(DOOR, credential.service, credential.credential, form=form)


def is_form(head: RequestHead) -> bool:
    content_type = head.get(b"content-type") or b""
    return content_type.partition(b";")[0].strip().lower() == _FORM_TYPE


def log_answer(count: int) -> bytes:
    return msgspec.json.encode(LogsStored(True, count))


def _admit(request: Request, credential: Credential, admission: Admission) -> Admitted:
    return Admitted(origin_of(credential, is_form=is_form(request.head)))


def _answer(asked: AdmittedRequest, stored: Stored) -> bytes:
    return log_answer(stored.accepted)


_DOOR = BearerDoor(DOOR, ("token",), ("POST",), _admit, _answer)
