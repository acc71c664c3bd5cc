"""The intake door's routes and what the probes say; admission's counters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingester.doors.exchange import Response
from ingester.doors.router import make_handler
from ingester.errors import Overloaded

from .rig import API, AUTH, GOOD_LINE, Rig, head_of, open_rig


async def ask(rig: Rig, path: str, method: str = "GET") -> Response:
    handler = make_handler(rig.admission)
    return await handler(rig.request(GOOD_LINE, head_of(path, method=method)))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_and_readiness_of_a_working_server(tmp_path: Path, method: str) -> None:
    async with open_rig(tmp_path) as rig:
        for path, status in [("/healthz", "ok"), ("/readyz", "ready")]:
            response = await ask(rig, path, method)
            assert (response.status, response.door) == (200, "health")
            assert json.loads(response.body) == {"status": status}
            assert response.content_type == b"application/json"


async def test_readiness_names_every_reason_against_it(tmp_path: Path) -> None:
    async with open_rig(tmp_path, backlog_bytes_max=0) as rig:
        rig.admission.is_draining = True
        rig.admission.fail()
        rig.admission.disk._reserve_bytes = 1 << 62
        response = await ask(rig, "/readyz")
        assert response.status == 503
        assert dict(response.headers)[b"Retry-After"].isdigit()
        assert json.loads(response.body) == {
            "status": "not ready",
            "reasons": [
                "the store has failed",
                "draining",
                "the journal's backlog is full",
                "the disk is nearly full",
            ],
        }
        assert (await ask(rig, "/healthz")).status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_probes_answer_get_only(tmp_path: Path, path: str, method: str) -> None:
    async with open_rig(tmp_path) as rig:
        response = await ask(rig, path, method)
        assert (response.status, response.door) == (405, "health")
        assert dict(response.headers)[b"Allow"] == b"GET, HEAD"
        assert json.loads(response.body) == {"error": f"{path} answers GET"}


@pytest.mark.parametrize(
    "path", ["/", "", "/v1", "/V1/ping", "/v2/ping", "/test", "/test/", "/test/v1", "/metrics",
             "/api/v1/query", "/healthz/", "/healthzz", "*"],
)  # fmt: skip
async def test_nothing_else_is_on_this_door(tmp_path: Path, path: str) -> None:
    async with open_rig(tmp_path) as rig:
        for method in ("GET", "POST"):
            response = await ask(rig, path, method)
            assert (response.status, response.door) == (404, "none")
            assert json.loads(response.body) == {"error": "no such path on the intake door"}


@pytest.mark.parametrize("path", ["/v1/ping", "/v1/x", "/test/v1/ping", f"/v1/{AUTH}/{API}"])
async def test_v1_belongs_to_the_natero_door(tmp_path: Path, path: str) -> None:
    async with open_rig(tmp_path) as rig:
        response = await ask(rig, path, "POST")
        assert (response.status, response.body, response.door) == (
            400 if path == "/v1/x" else 200,
            b"",
            "natero",
        )


async def test_admission_counts_by_source_and_reason(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.ask(GOOD_LINE + b"\nbad\n[]\nbad")
        rig.set_source(source_id=2, name="other")
        await rig.ask(b"{}")
        statistics = rig.admission.statistics()
        assert statistics["accepted_total"] == 1
        assert statistics["rejects_total"] == {
            "by_source": {
                "shop": {"by_reason": {"invalid_json": 2, "not_an_object": 1}},
                "other": {"by_reason": {"missing_field": 1}},
            }
        }


async def test_an_open_admission_refuses_nothing(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.admission.refuse_if_closed()
        rig.admission.fail()
        with pytest.raises(Overloaded):
            rig.admission.refuse_if_closed()
