"""The Natero door answers as its API does: status, empty bodies, headers (contract 3, 3.1)."""

from __future__ import annotations

import gzip
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import trio
import zstandard
from trio.testing import wait_all_tasks_blocked

from ingester.doors.exchange import Response
from ingester.errors import (
    BodyTooLarge,
    ClientGone,
    MalformedBody,
    MalformedRequest,
    Overloaded,
    RequestStalled,
    StoreFailed,
)

from .rig import API, AUTH, GOOD_LINE, Body, open_rig, packed

MIXED = GOOD_LINE + b"\r\nbad\n\n" + GOOD_LINE


def headers(response: Response) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in response.headers}


def check(response: Response, status: int, **expected: str) -> None:
    """Every answer of this door is empty and carries exactly these headers."""
    assert response.status == status
    assert response.body == b""
    assert response.content_type == b""
    assert response.door == "natero"
    assert headers(response) == {k.replace("_", "-"): v for k, v in expected.items()}


def counts(accepted: int, rejected: int) -> dict[str, str]:
    return {"Ingester_Accepted": str(accepted), "Ingester_Rejected": str(rejected)}


# ----------------------------------------------------------------- 200


@pytest.mark.parametrize(
    ("body", "accepted", "rejected"),
    [(GOOD_LINE, 1, 0), (MIXED, 2, 1), (b"bad", 0, 1), (b"", 0, 0), (b"\n\r\n", 0, 0)],
)
async def test_any_lines_are_200_and_counted(
    tmp_path: Path, body: bytes, accepted: int, rejected: int
) -> None:
    async with open_rig(tmp_path) as rig:
        response = await rig.ask(body)
        check(response, 200, **counts(accepted, rejected))
        assert not response.close
        assert response.request_number == 0
        [entry] = rig.journalled
        assert (entry.body, entry.source, entry.credential) == (body, "shop", "source:1")
        assert entry.idempotency_key is None
        assert entry.fingerprint is None


@pytest.mark.parametrize("path", [f"/v1/{AUTH}/{API}", f"/v1/{AUTH}/{API}/"])
@pytest.mark.parametrize("query", ["", "x=y", "wait", "await=query"])
async def test_a_slash_behind_the_keys_and_a_query_make_no_difference(
    tmp_path: Path, path: str, query: str
) -> None:
    async with open_rig(tmp_path) as rig:
        check(await rig.ask(GOOD_LINE, path=path, query=query), 200, **counts(1, 0))


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"GZip", gzip.compress),
        (b"deflate", zlib.compress),
        (b"deflate", lambda data: zlib.compress(data)[2:-4]),
        (b"zstd", zstandard.compress),
        (b"identity", bytes),
        (b"", bytes),
        (b"br", bytes),
        (b"gzip, gzip", bytes),
        (b"aws-chunked", bytes),
    ],
)
async def test_known_codings_are_decoded_and_others_are_plain_text(
    tmp_path: Path, coding: bytes, pack: Any
) -> None:
    async with open_rig(tmp_path) as rig:
        response = await rig.ask(pack(MIXED), (b"content-encoding", coding))
        check(response, 200, **counts(2, 1))
        assert rig.journalled[0].encoding_name == (coding.decode().lower() or "identity")


@pytest.mark.parametrize("coding", [b"br", b"gzip, gzip", b"identity", b""])
async def test_compressed_bytes_without_a_known_coding_are_one_reject(
    tmp_path: Path, coding: bytes
) -> None:
    async with open_rig(tmp_path) as rig:
        response = await rig.ask(gzip.compress(MIXED), (b"content-encoding", coding))
        check(response, 200, **counts(0, 1))
        assert rig.admission.rejected == {("shop", "wrong_encoding"): 1}


async def test_a_large_body_is_200_with_its_counts(tmp_path: Path) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=2000) as rig:
        check(await rig.ask((MIXED + b"\n") * 20), 200, **counts(40, 20))
        check(await rig.ask(packed(5000), (b"content-encoding", b"gzip")), 200, **counts(1, 0))
        assert len(rig.uploaded) == 2


@pytest.mark.parametrize("path", ["/v1/ping", "/v1/ping/", "/test/v1/ping"])
async def test_ping_is_200_whatever_the_state(tmp_path: Path, path: str) -> None:
    async with open_rig(tmp_path, backlog_bytes_max=0) as rig:
        rig.admission.is_draining = True
        rig.admission.fail()
        check(await rig.ask(path=path), 200, **counts(0, 0))


# ----------------------------------------------------------------- 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"])
@pytest.mark.parametrize("path", ["/v1/ping", f"/v1/{AUTH}/{API}", "/v1/x"])
async def test_another_method_is_400(tmp_path: Path, method: str, path: str) -> None:
    async with open_rig(tmp_path) as rig:
        check(await rig.ask(GOOD_LINE, path=path, method=method), 400)
        assert not rig.journalled


@pytest.mark.parametrize(
    "path",
    [
        "/v1/",
        "/v1//",
        "/v1/x",
        f"/v1/{AUTH}",
        f"/v1/{AUTH}/",
        f"/v1/{AUTH}/wrong",
        f"/v1/wrong/{API}",
        f"/v1/{API}/{AUTH}",
        f"/v1/{AUTH}/{API}/more",
        f"/v1/{AUTH}/{API}//",
        f"/v1//{AUTH}/{API}",
        f"/v1/{AUTH.upper()}/{API}",
        "/v1/ping/ping",
        "/v1/batch",
        "/v1/logs/x",
    ],
)
async def test_an_unknown_path_or_pair_is_400(tmp_path: Path, path: str) -> None:
    async with open_rig(tmp_path) as rig:
        check(await rig.ask(GOOD_LINE, path=path), 400)
        check(await rig.ask(GOOD_LINE, path="/test" + path), 400)
        assert not rig.journalled


async def test_a_rotated_pair_works_to_the_end_of_its_overlap(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_source(valid_until_s=time.time() + 100)
        check(await rig.ask(GOOD_LINE), 200, **counts(1, 0))
        rig.set_source(valid_until_s=time.time() - 0.001)
        check(await rig.ask(GOOD_LINE), 400)


@pytest.mark.parametrize("size", [0, 5, 5000])
@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"zstd"])
async def test_broken_compression_is_400_in_both_lanes(
    tmp_path: Path, coding: bytes, size: int
) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=2000) as rig:
        response = await rig.ask(b"x" * size, (b"content-encoding", coding))
        check(response, 400)
        assert not response.close
        assert not rig.journalled
        assert not rig.uploaded


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 129, b"caf\xc3\xa9"])
async def test_an_ill_formed_idempotency_key_is_400(tmp_path: Path, key: bytes) -> None:
    async with open_rig(tmp_path) as rig:
        check(await rig.ask(GOOD_LINE, (b"idempotency-key", key)), 400)
        check(await rig.ask(GOOD_LINE, (b"idempotency-key", key), listener="test"), 400)
        assert not rig.journalled


# ----------------------------------------------------------------- 408, 413, 503, no answer


@pytest.mark.parametrize(
    ("error", "status", "close", "retry_after"),
    [
        (RequestStalled("x"), 408, True, "1"),
        (BodyTooLarge("x"), 413, False, None),
        (MalformedRequest("x"), 400, True, None),
        (MalformedRequest("x", 431), 431, True, None),
    ],
)
@pytest.mark.parametrize("announced", [None, 100, 5000])
@pytest.mark.parametrize("listener", ["intake", "test"])
async def test_a_body_that_ends_badly(
    tmp_path: Path,
    error: Exception,
    status: int,
    close: bool,
    retry_after: str | None,
    announced: int | None,
    listener: str,
) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=2000) as rig:
        body = Body(b"\n" * 50, error=error)
        response = await rig.ask(body, content_length=announced, listener=listener)
        check(response, status, **({} if retry_after is None else {"Retry_After": retry_after}))
        assert response.close is close
        assert not rig.journalled
        assert not rig.uploaded


async def test_a_client_that_went_away_gets_no_answer(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        with pytest.raises(ClientGone):
            await rig.ask(Body(b"\n", error=ClientGone("x")))


async def test_a_store_that_failed_refuses_until_restart(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        assert (await rig.ask(GOOD_LINE)).status == 200
        rig.admission.fail()
        check(await rig.ask(GOOD_LINE), 503, Retry_After="5")


async def test_full_and_draining_are_503_before_the_body_is_read(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.admission.is_draining = True
        body = Body(GOOD_LINE)
        check(await rig.ask(body), 503, Retry_After="5")
        assert body.received_bytes == 0
        assert not body._whole
        rig.admission.is_draining = False
        rig.gate.backlog_bytes_max = 0
        check(await rig.ask(GOOD_LINE), 503, Retry_After="2")
        rig.gate.backlog_bytes_max = 1 << 30
        rig.admission.disk._reserve_bytes = 1 << 62
        rig.admission.disk._looked_at = 0
        check(await rig.ask(GOOD_LINE), 503, Retry_After="5")
        rig.admission.disk._reserve_bytes = 1
        rig.admission.disk._looked_at = 0
        check(await rig.ask(GOOD_LINE), 200, **counts(1, 0))


async def test_a_refused_journal_write_and_a_full_store_are_503(tmp_path: Path) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=2000) as rig:
        rig.journal_failure = "no space"
        check(await rig.ask(GOOD_LINE), 503, Retry_After="2")
        rig.bulk_refusal = Overloaded("no space", 7)
        check(await rig.ask(b"\n" * 5000), 503, Retry_After="7")


@pytest.mark.parametrize(
    ("refusal", "status"), [(BodyTooLarge("x"), 413), (MalformedBody("x"), 400)]
)
async def test_a_refusal_of_the_bulk_lane_is_told(
    tmp_path: Path, refusal: Any, status: int
) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=2000) as rig:
        rig.bulk_refusal = refusal
        check(await rig.ask(b"\n" * 5000), status)


async def test_a_commit_nobody_knows_of_is_not_answered_and_closes_the_door(tmp_path: Path) -> None:
    """Any answer might be wrong, and the same key again would be stored twice."""
    key = (b"idempotency-key", b"k")
    async with open_rig(tmp_path, small_body_bytes_max=2000) as rig:
        rig.bulk_refusal = StoreFailed("x")
        with pytest.raises(ClientGone):
            await rig.ask(b"\n" * 5000, key)
        assert rig.admission.readiness() == ["the store has failed"]
        rig.bulk_refusal = None
        check(await rig.ask(b"\n" * 5000, key), 503, Retry_After="5")
        assert not rig.uploaded


# ----------------------------------------------------------------- quota


async def test_every_answer_of_a_limited_pair_tells_where_it_stands(tmp_path: Path) -> None:
    limit = 6
    async with open_rig(tmp_path) as rig:
        rig.set_source(requests_per_hour=limit)
        before_s = int(time.time())
        answers = [
            await rig.ask(GOOD_LINE),
            await rig.ask(b"x", (b"content-encoding", b"gzip")),
            await rig.ask(GOOD_LINE, (b"idempotency-key", b"")),
            await rig.ask(Body(error=RequestStalled("x"))),
            await rig.ask(GOOD_LINE, listener="test"),
        ]
        # One that asks for nothing is told, and not counted.
        answers.append(await rig.ask(method="GET"))
        for used, response in enumerate(answers, 1):
            found = headers(response)
            used = min(used, 5)
            assert found["X-RateLimit-Limit"] == str(limit)
            assert found["X-RateLimit-Remaining"] == str(limit - used)
            assert int(found["X-RateLimit-Reset"]) % 3600 == 0
        rig.admission.is_draining = True
        assert headers(await rig.ask(GOOD_LINE))["X-RateLimit-Remaining"] == "0"
        rig.admission.is_draining = False
        stored = len(rig.journalled)
        response = await rig.ask(GOOD_LINE)
        found = headers(response)
        assert response.status == 429
        assert response.body == b""
        assert found["X-RateLimit-Remaining"] == "0"
        assert 1 <= int(found["Retry-After"]) <= 3600
        assert before_s + int(found["Retry-After"]) <= int(found["X-RateLimit-Reset"]) + 1
        assert len(rig.journalled) == stored


async def test_what_is_not_authenticated_counts_nothing(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.set_source(requests_per_hour=1)
        check(await rig.ask(path="/v1/ping"), 200, **counts(0, 0))
        check(await rig.ask(path=f"/v1/{AUTH}/wrong"), 400)
        assert headers(await rig.ask(method="GET"))["X-RateLimit-Remaining"] == "1"
        assert (await rig.ask(GOOD_LINE)).status == 200
        assert (await rig.ask(GOOD_LINE)).status == 429
        assert rig.admission.statistics()["quota_refused_total"] == 1


# ----------------------------------------------------------------- idempotency

KEY = (b"idempotency-key", b"k-1")
GZIP = (b"content-encoding", b"gzip")


@pytest.mark.parametrize("size", [1, 100])
async def test_a_repeat_stores_nothing_and_carries_the_first_answer(
    tmp_path: Path, size: int
) -> None:
    body = MIXED * size
    async with open_rig(tmp_path, small_body_bytes_max=2000) as rig:
        first = await rig.ask(body, KEY)
        stored = len(rig.journalled) + len(rig.uploaded)
        for repeat in (
            await rig.ask(body, KEY),
            await rig.ask(Body(body[:10], body[10:]), KEY),
            await rig.ask(gzip.compress(body), KEY, GZIP),
        ):
            assert repeat.status == 200
            assert repeat.headers == first.headers
            assert repeat.request_number == 101
        assert len(rig.journalled) + len(rig.uploaded) == stored == 1
        assert rig.admission.accepted_count == int(headers(first)["Ingester-Accepted"])


async def test_the_same_key_with_another_body_is_400(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.ask(GOOD_LINE, KEY)
        for body in (b"", GOOD_LINE + b"\n", MIXED):
            check(await rig.ask(body, KEY), 400)
        check(await rig.ask(b"not gzip", KEY, GZIP), 400)
        assert len(rig.journalled) == 1


async def test_a_key_belongs_to_its_pair(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.ask(GOOD_LINE, KEY)
        rig.set_source(source_id=2, name="other")
        assert (await rig.ask(MIXED, KEY)).request_number == 0
        assert [entry.source for entry in rig.journalled] == ["shop", "other"]


async def test_only_what_was_acknowledged_is_remembered(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        check(await rig.ask(b"x", KEY, GZIP), 400)
        rig.journal_failure = "no space"
        assert (await rig.ask(GOOD_LINE, KEY)).status == 503
        rig.journal_failure = None
        rig.admission.is_draining = True
        assert (await rig.ask(GOOD_LINE, KEY)).status == 503
        rig.admission.is_draining = False
        with pytest.raises(ClientGone):
            await rig.ask(Body(error=ClientGone("x")), KEY)
        check(await rig.ask(MIXED, KEY), 200, **counts(2, 1))
        assert (await rig.ask(MIXED, KEY)).request_number == 105


async def test_a_repeat_is_answered_also_when_nothing_can_be_taken(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.ask(GOOD_LINE, KEY)
        rig.admission.is_draining = True
        check(await rig.ask(GOOD_LINE, KEY), 200, **counts(1, 0))


async def test_a_repeat_in_flight_waits_without_reading_its_body(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.journal_holds = trio.Event()
        answers = []
        body = Body(GOOD_LINE)

        async def ask(body: Body) -> None:
            answers.append(await rig.ask(body, KEY))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, Body(GOOD_LINE, whole=True))
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, body)
            await wait_all_tasks_blocked()
            assert body.received_bytes == 0
            assert rig.admission.statistics()["budget_waiting"] == 0
            rig.journal_holds.set()
        assert [answer.request_number for answer in answers] == [0, 101]
        assert len(rig.journalled) == 1


# ----------------------------------------------------------------- wait=query


WAYS: list[dict[str, Any]] = [
    {"query": "wait=query"},
    {"query": "x=1&wait=query"},
    {"headers": [(b"prefer", b"wait=query")]},
    {"query": "wait=%71uery"},
    {"headers": [(b"prefer", b"Wait=Query")]},
    {"headers": [(b"prefer", b'wait = "query"; now')]},
    {"headers": [(b"prefer", b"respond-async, wait=query")]},
    {"headers": [(b"prefer", b"handling=lenient"), (b"prefer", b"wait=query")]},
]


@pytest.mark.parametrize("way", WAYS)
async def test_wait_query_answers_when_the_rows_can_be_queried(
    tmp_path: Path, way: dict[str, Any]
) -> None:
    async with open_rig(tmp_path) as rig:
        answers: list[Response] = []

        async def ask() -> None:
            answers.append(
                await rig.ask(GOOD_LINE, *way.get("headers", ()), query=way.get("query", ""))
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert len(rig.journalled) == 1
            assert not answers
            rig.admission.applied.rise(1)
        check(answers[0], 200, **counts(1, 0), Ingester_Queryable="true")


async def test_after_the_longest_wait_the_answer_says_not_yet(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_rig(tmp_path, wait_seconds_max=30) as rig:
        response = await rig.ask(GOOD_LINE, query="wait=query")
        check(response, 200, **counts(1, 0), Ingester_Queryable="false")
        assert trio.current_time() >= 30


async def test_a_bulk_upload_is_queryable_when_it_is_answered(tmp_path: Path) -> None:
    async with open_rig(tmp_path, small_body_bytes_max=2000) as rig:
        response = await rig.ask(b"\n" * 5000, query="wait=query")
        check(response, 200, **counts(0, 0), Ingester_Queryable="true")


async def test_a_repeat_that_asks_to_wait_waits(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.ask(GOOD_LINE, KEY)
        answers: list[Response] = []

        async def ask() -> None:
            answers.append(await rig.ask(GOOD_LINE, KEY, query="wait=query"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not rig.admission.applied._waiters:
                await trio.lowlevel.checkpoint()
            assert not answers
            rig.admission.applied.rise(1)
        check(answers[0], 200, **counts(1, 0), Ingester_Queryable="true")
