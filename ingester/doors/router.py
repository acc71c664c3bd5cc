"""The intake door's routes: which door a path belongs to. Nothing of the console is here."""

from __future__ import annotations

from msgspec import json

from . import honest, logs, metrics, natero
from .admission import Admission
from .exchange import JSON_TYPE, Handler, Request, Response, error_response

__all__ = ["make_handler"]

_GET = (b"Allow", b"GET, HEAD")


def make_handler(admission: Admission) -> Handler:
    async def handle(request: Request) -> Response:
        path = request.head.path
        if path.startswith(("/v1/", "/test/v1/")):
            return await natero.handle(request, admission)
        if path == logs.PATH:
            return await logs.handle(request, admission)
        if path == metrics.PATH:
            return await metrics.handle(request, admission)
        if path.startswith(honest.PREFIX):
            return await honest.handle(request, admission)
        if path in ("/healthz", "/readyz"):
            if request.head.method not in ("GET", "HEAD"):
                answer = error_response(405, f"{path} answers GET")
                answer.headers = (*answer.headers, _GET)
            else:
                answer = _health(admission) if path == "/readyz" else _json(200, {"status": "ok"})
            answer.door = "health"
            return answer
        answer = error_response(404, "no such path on the intake door")
        answer.door = "none"
        return answer

    return handle


def _health(admission: Admission) -> Response:
    reasons = admission.readiness()
    if reasons:
        answer = _json(503, {"status": "not ready", "reasons": reasons})
        answer.headers = ((b"Retry-After", b"5"),)
        return answer
    return _json(200, {"status": "ready"})


def _json(status: int, document: dict[str, object]) -> Response:
    return Response(status=status, body=json.encode(document), content_type=JSON_TYPE)
