"""The intake door's routes: which door a path belongs to. Nothing of the console is here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from msgspec import Struct, json

from . import honest, logs, metrics, natero
from .admission import Admission
from .exchange import JSON_TYPE, Handler, Request, Response, error_response

__all__ = ["DOORS_BY_PATH", "DOORS_BY_PREFIX", "PROBES", "NotReady", "Ready", "make_handler"]

_GET = (b"Allow", b"GET, HEAD")

Door = Callable[[Request, Admission], Awaitable[Response]]

DOORS_BY_PREFIX: tuple[tuple[str, Door], ...] = (
    ("/v1/", natero.handle),
    ("/test/v1/", natero.handle),
    (honest.PREFIX, honest.handle),
)
DOORS_BY_PATH: Mapping[str, Door] = {logs.PATH: logs.handle, metrics.PATH: metrics.handle}
PROBES = ("/healthz", "/readyz")


class Ready(Struct, frozen=True, kw_only=True):
    """The process answers; for `/readyz`, it takes requests."""

    status: Literal["ok", "ready"]


class NotReady(Struct, frozen=True, kw_only=True):
    """Requests should go elsewhere for now, and why."""

    reasons: list[str]
    status: Literal["not ready"] = "not ready"


def make_handler(admission: Admission) -> Handler:
    async def handle(request: Request) -> Response:
        path = request.head.path
        door = _door_of(path)
        # The test listener has the Natero door alone: the others would store.
        if door is not None and (request.listener != "test" or door is natero.handle):
            return await door(request, admission)
        if path in PROBES:
            answer = _probe(path, request.head.method, admission)
            answer.door = "health"
            return answer
        answer = error_response(404, "no such path on the intake door")
        answer.door = "none"
        return answer

    return handle


def _door_of(path: str) -> Door | None:
    found = DOORS_BY_PATH.get(path)
    if found is None:
        found = next((door for prefix, door in DOORS_BY_PREFIX if path.startswith(prefix)), None)
    return found


def _probe(path: str, method: str, admission: Admission) -> Response:
    if method not in ("GET", "HEAD"):
        refused = error_response(405, f"{path} answers GET")
        refused.headers = (*refused.headers, _GET)
        return refused
    if path == "/healthz":
        return _json(200, Ready(status="ok"))
    reasons = admission.readiness()
    if reasons:
        answer = _json(503, NotReady(reasons=reasons))
        answer.headers = ((b"Retry-After", b"5"),)
        return answer
    return _json(200, Ready(status="ready"))


def _json(status: int, document: Struct) -> Response:
    return Response(status=status, body=json.encode(document), content_type=JSON_TYPE)
