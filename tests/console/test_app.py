"""Routes of the console, asked over its two real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import ingester
from tests.console.fakes import Answer, Console, ask, eventually, served


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    async with served(tmp_path) as console:
        yield console


async def test_healthz_answers_whatever_the_state(console: Console) -> None:
    console.services.reasons = ["draining"]
    answer = await console.get("/healthz")
    assert (answer.status, answer.document) == (200, {"status": "ok"})


async def test_readyz_gives_reasons(console: Console) -> None:
    assert (await console.get("/readyz")).status == 200
    console.services.reasons = ["the journal is being replayed"]
    answer = await console.get("/readyz")
    assert answer.status == 503
    assert answer.document == {
        "status": "not ready",
        "reasons": ["the journal is being replayed"],
    }


async def test_metrics_are_prometheus_text(console: Console) -> None:
    answer = await console.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b"\ningester_journal_lag_records 2.0\n" in answer.body
    assert b"process_open_fds" in answer.body


async def test_every_answer_is_hardened_and_names_no_server(console: Console) -> None:
    for path in ("/", "/login", "/healthz", "/metrics", "/nothing", "/api/v1/status"):
        headers = (await console.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers
        assert "date" in headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/viewer"),
        ("GET", "/api/v1/sources"),
        ("POST", "/api/v1/sources"),
        ("POST", "/api/v1/sources/shop/rotate"),
        ("POST", "/api/v1/sources/shop/revoke"),
        ("POST", "/api/v1/query"),
        ("GET", "/api/v1/check"),
        ("GET", "/api/v1/"),
        ("GET", "/api"),
        ("DELETE", "/api/v1/query"),
        ("OPTIONS", "/api/v1/query"),
        ("GET", "/api/v1/nothing"),
        ("GET", "/%61pi/v1/status"),
    ],
)
async def test_over_tcp_the_api_is_closed(console: Console, method: str, path: str) -> None:
    answer = await console.get(path, method=method)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "control.sock" in answer.document["error"]


@pytest.mark.parametrize(
    "header",
    [
        "ingester.listener: control",
        "Ingester-Listener: control",
        "X-Forwarded-For: 127.0.0.1",
        "Authorization: Bearer control",
        "X-Forwarded-Host: control.sock",
    ],
)
async def test_no_header_makes_an_administrator(console: Console, header: str) -> None:
    async with await console.connect() as stream:
        answer = await ask(stream, "GET", "/api/v1/status", headers=[header])
        assert answer.status == 401


@pytest.mark.parametrize(
    "path", ["//api/v1/status", "/./api/v1/status", "/x/../api/v1/status", "/API/v1/status"]
)
async def test_odd_paths_do_not_reach_the_api(console: Console, path: str) -> None:
    assert (await console.get(path)).status in {401, 404}


async def test_unknown_path_and_method_have_sentences(console: Console) -> None:
    answer = await console.get("/nothing")
    assert (answer.status, list(answer.document)) == (404, ["error"])
    answer = await console.get("/healthz", method="POST")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    answer = await console.control("GET", "/api/v1/nothing")
    assert answer.status == 404


async def test_head_has_the_headers_of_get(console: Console) -> None:
    answer = await console.get("/healthz", method="HEAD")
    assert answer.status == 200
    assert answer.headers["content-length"] == "15"


async def test_control_socket_is_the_administrator(console: Console) -> None:
    answer = await console.control("GET", "/api/v1/status")
    assert answer.status == 200
    assert answer.document == {
        "version": ingester.__version__,
        "intake": "http://intake.example:8080",
        "ready": True,
        "reasons": [],
        "actors": {"journal": {"lag_records": 2}},
    }
    answer = await console.control("GET", "/api/v1/viewer")
    assert answer.document == {"requests": [{"request_id": "01", "accepted": 1, "rejected": 0}]}
    assert (await console.control("GET", "/api/v1/viewer?after=01")).document == {"requests": []}
    assert (await console.control("GET", "/api/v1/viewer?limit=0")).status == 422
    assert (await console.control("GET", "/api/v1/viewer?after=1&after=2")).status == 422
    assert (await console.control("GET", "/logs")).status == 200


async def test_status_shows_what_is_no_number_as_text(console: Console) -> None:
    console.services.snapshot = {"store": {"path": Path("open/1"), "nan": float("nan")}}
    answer = await console.control("GET", "/api/v1/status")
    assert answer.document["actors"] == {"store": {"path": "open/1", "nan": None}}


async def test_retention_is_told(console: Console) -> None:
    answer = await console.control("GET", "/api/v1/store/retention")
    assert answer.document == {
        "days": {"events": 7},
        "stored_bytes": 1,
        "store_bytes_max": 0,
        "purges": [],
    }


async def test_check_reports_problems(console: Console) -> None:
    assert (await console.control("GET", "/api/v1/check")).document == {"ok": True, "problems": []}
    console.services.problems = ["segment 2 is cut"]
    answer = await console.control("GET", "/api/v1/check")
    assert answer.document == {"ok": False, "problems": ["segment 2 is cut"]}


async def test_sources_are_made_listed_rotated_and_revoked(console: Console) -> None:
    answer = await console.control("POST", "/api/v1/sources", {"name": "shop"})
    assert answer.status == 201
    made = answer.document
    assert made["url"] == f"http://x/v1/{made['auth_key']}/{made['api_key']}"
    answer = await console.control("POST", "/api/v1/sources", {"name": "shop"})
    assert answer.status == 409
    answer = await console.control("GET", "/api/v1/sources")
    assert [source["source"] for source in answer.document["sources"]] == ["shop"]
    answer = await console.control("POST", "/api/v1/sources/shop/rotate", {"overlap_seconds": 60})
    assert answer.status == 200
    answer = await console.control("POST", "/api/v1/sources/shop/rotate")
    assert answer.status == 200
    answer = await console.control("POST", "/api/v1/sources/shop/revoke", {})
    assert answer.document == {"source": "shop", "revoked": 1}
    answer = await console.control("POST", "/api/v1/sources/other/revoke", {})
    assert (answer.status, answer.document) == (
        404,
        {"error": "there is no source named 'other'"},
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a" * 65}, "name"),
        ({}, "name"),
        ({"name": "a", "colour": 1}, "colour"),
        ({"name": "a", "requests_per_hour": -1}, "requests_per_hour"),
        ({"name": "a", "requests_per_hour": 1.5}, "requests_per_hour"),
        ({"name": "a", "lenient_session": "yes"}, "lenient_session"),
    ],
)
async def test_wrong_field_is_named(console: Console, body: object, field: str) -> None:
    answer = await console.control("POST", "/api/v1/sources", body)
    assert answer.status == 422
    assert answer.document["field"] == field
    assert field in answer.document["error"]
    assert console.services.control.list_sources() == []


@pytest.mark.parametrize("body", [b"{", b"nonsense", b"\xff\xfe", b'{"name": "\xff"}', b"[" * 9999])
async def test_a_body_that_is_no_json_is_400(console: Console, body: bytes) -> None:
    async with await console.connect_control() as stream:
        answer = await ask(stream, "POST", "/api/v1/sources", body)
        assert answer.status in {400, 422}
        assert set(answer.document) == {"error"}


async def test_query_answers_columns_types_and_rows(console: Console) -> None:
    answer = await console.control("POST", "/api/v1/query", {"sql": "select", "format": "json"})
    assert answer.status == 200
    assert answer.document == {
        "columns": ["n", "x"],
        "types": ["BIGINT", "DOUBLE"],
        "rows": [[1, None]],
    }
    answer = await console.control("POST", "/api/v1/query", {"sql": "rows 5000"})
    assert answer.document["rows"][-1] == [4999]


async def answer_to(console: Console, sql: str) -> Answer:
    return await console.control("POST", "/api/v1/query", {"sql": sql})


async def test_errors_of_a_query_have_their_status(console: Console) -> None:
    answer = await answer_to(console, "bad")
    assert answer.status == 400
    assert answer.document == {"error": 'there is no column "x"', "column": 8}
    for sql in ("busy", "group"):
        answer = await answer_to(console, sql)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    answer = await answer_to(console, "full")
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")
    answer = await console.control("POST", "/api/v1/query", {"sql": "x", "format": "xml"})
    assert (answer.status, answer.document["field"]) == (422, "format")
    assert "ndjson" in answer.document["error"]
    answer = await answer_to(console, "cut early")
    assert (answer.status, answer.document) == (400, {"error": "the process ended"})


async def test_a_result_that_is_cut_does_not_look_whole(console: Console) -> None:
    async with await console.connect_control() as stream:
        body = b'{"sql":"cut"}'
        await stream.send_all(
            b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        received = b"".join([piece async for piece in stream])
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b"200" in head.split(b"\r\n")[0]
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"a" * 1000 in rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert (await console.get("/healthz")).status == 200


async def test_the_format_is_passed_on(console: Console) -> None:
    for name in ("json", "csv", "ndjson", "parquet", "arrow"):
        await console.control("POST", "/api/v1/query", {"sql": "x", "format": name})
    assert console.services.formats == ["json", "csv", "ndjson", "parquet", "arrow"]


async def test_a_fault_is_500_and_says_nothing(
    console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await answer_to(console, "bug")
    assert (answer.status, answer.document) == (500, {"error": "internal error"})
    assert "RuntimeError" in "".join(capfd.readouterr())
    assert (await console.get("/healthz")).status == 200


async def test_a_client_that_leaves_cancels_its_query(console: Console) -> None:
    stream = await console.connect_control()
    await stream.send_all(
        b'POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{"sql":"wait"}'
    )
    await console.services.entered.wait()
    await stream.aclose()
    await eventually(lambda: console.services.cancelled)
