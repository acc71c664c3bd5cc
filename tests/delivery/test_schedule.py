"""Waits: the schedule, what answers ask for, and what is never tried again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from ingester.delivery.schedule import (
    ATTEMPTS_MAX,
    WAITS_S,
    Delivered,
    Final,
    Gone,
    Outcome,
    Retry,
    judged,
    maybe_retry_after_s,
)

NOW_S = 1_800_000_000.0


def at(offset_s: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW_S + offset_s, UTC), usegmt=True)


def judge(
    status: int | None,
    *,
    attempt: int = 1,
    retry_after: str | None = None,
    body: bytes = b"",
    is_incident_io: bool = False,
    jitter: float = 1.0,
) -> Outcome:
    return judged(
        status,
        {} if retry_after is None else {"retry-after": retry_after},
        body,
        attempt=attempt,
        is_incident_io=is_incident_io,
        now_s=NOW_S,
        uniform=lambda low, high: low + (high - low) * (jitter / 2),
    )


def test_the_waits_are_those_of_the_contract_and_last_three_days() -> None:
    waits = [judge(500, attempt=attempt) for attempt in range(1, ATTEMPTS_MAX)]
    assert waits == [Retry(float(wait)) for wait in WAITS_S[1:]]
    assert WAITS_S == (
        0, 5, 30, 120, 600, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400,
    )  # fmt: skip
    assert isinstance(judge(500, attempt=ATTEMPTS_MAX), Final)


def test_the_jitter_is_a_fifth_both_ways() -> None:
    assert judge(500, attempt=3, jitter=0.0) == Retry(pytest.approx(96.0))
    assert judge(500, attempt=3, jitter=2.0) == Retry(pytest.approx(144.0))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(status: int) -> None:
    assert judge(status) == Delivered()


@pytest.mark.parametrize("status", [None, 101, 300, 301, 307, 400, 401, 403, 404, 408, 422, 502])
def test_everything_else_is_tried_again(status: int | None) -> None:
    assert judge(status) == Retry(5.0)


def test_410_disables_and_400_and_422_of_incident_io_are_final() -> None:
    assert judge(410) == Gone()
    for status in (400, 422):
        assert isinstance(judge(status, is_incident_io=True), Final)
    assert judge(401, is_incident_io=True) == Retry(5.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("99999999999999999999", 86_400.0),
        (at(90), 90.0),
        (at(-90), 0.0),
        (at(10 * 86_400), 86_400.0),
        (datetime.fromtimestamp(NOW_S + 30, UTC).isoformat(), 30.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Wed, 99 Foo 2026", None),
        ("1" * 200, None),
        ("٣", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert maybe_retry_after_s(text, NOW_S) == seconds


def test_what_is_asked_for_counts_when_it_is_longer_than_the_schedule() -> None:
    assert judge(429, retry_after="60") == Retry(60.0, pause_s=60.0)
    assert judge(503, retry_after=at(60)) == Retry(60.0, pause_s=60.0)
    assert judge(500, retry_after="60") == Retry(60.0)
    assert judge(429, retry_after="1", attempt=4) == Retry(600.0, pause_s=1.0)
    assert judge(429, retry_after="garbage") == Retry(5.0)


def test_incident_ios_refusal_is_told_with_its_fields() -> None:
    body = (
        b'{"type":"validation_error","status":422,"errors":[{"code":"is_required","message":'
        b'"must be set","source":{"field":"title"}},{"code":"x","message":"no"}]}'
    )
    assert judge(422, body=body, is_incident_io=True) == Final(
        "incident.io would refuse it again: title must be set; no"
    )
    for garbage in (b"", b"[]", b'{"errors":7}', b'{"errors":[]}', b"\xff"):
        refused = judge(400, body=garbage, is_incident_io=True)
        assert refused == Final("incident.io would refuse it again")


def test_incident_ios_body_tells_the_time_as_a_date() -> None:
    body = b'{"type":"too_many_requests","rate_limit":{"limit":120,"remaining":0,"retry_after":'
    dated = body + f'"{at(45)}"}}}}'.encode()
    assert judge(429, body=dated, is_incident_io=True) == Retry(45.0, pause_s=45.0)
    assert judge(429, body=dated) == Retry(5.0)
    for garbage in (b"", b"[]", b"{}", body + b"null}}", body + b'"later"}}', b"\xff", b"[" * 5000):
        assert judge(429, body=garbage, is_incident_io=True) == Retry(5.0)
