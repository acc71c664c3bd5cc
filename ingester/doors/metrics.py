"""Metric door: `POST /api/webhooks/custom`, up to a hundred metrics a request (contract 3.3).

Compatible with Dashtray's custom-metrics webhook: the key is a connection's API key, `projectId`
must be the connection's project, the answer is `{"success": true, "metricsStored": n}`. The first
fault refuses the request and is told with its place.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from ..messages import Credential
from ..protocol.forms import MetricForm, Origin
from .admission import Admission
from .bearer import Admitted, BearerDoor, serve
from .exchange import Request, Response
from .once import Stored
from .receive import AdmittedRequest

__all__ = ["DOOR", "PATH", "MetricsStored", "handle", "metric_answer", "origin_of"]

DOOR = "metrics"
PATH = "/api/webhooks/custom"


class MetricsStored(Struct, frozen=True):
    """The answer to a stored request."""

    success: bool
    metricsStored: int


async def handle(request: Request, admission: Admission) -> Response:
    return await serve(request, admission, _DOOR)


def origin_of(credential: Credential, future_seconds_max: int) -> Origin:
    """Requests are listed under the connection's project."""
    form = MetricForm(credential.project_id, future_seconds_max)
    return Origin(DOOR, credential.project_id, credential.credential, form=form)


def metric_answer(count: int) -> bytes:
    return msgspec.json.encode(MetricsStored(True, count))


def _admit(request: Request, credential: Credential, admission: Admission) -> Admitted:
    return Admitted(origin_of(credential, admission.metrics.future_seconds_max))


def _answer(asked: AdmittedRequest, stored: Stored) -> bytes:
    return metric_answer(stored.accepted)


_DOOR = BearerDoor(DOOR, ("connection",), ("POST",), _admit, _answer)
