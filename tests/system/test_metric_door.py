"""The metric door as a client sees it: what is taken, the first fault, quotas (contract 3, 3.3)."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.doors import (
    METRICS,
    Doors,
    error_of,
    metric,
    open_doors,
    quota_headers,
)

_NOW_MS = int(time.time() * 1000)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("metrics")) as doors:
        yield doors


def stored(doors: Doors, request_id: str, columns: str) -> list[tuple[Any, ...]]:
    return doors.rows(f"SELECT {columns} FROM metrics WHERE id LIKE '{request_id}-%' ORDER BY id")


def test_the_sample_of_the_source_is_stored_with_everything(doors: Doors) -> None:
    sample = b"""{
    "projectId": "default",
    "metrics": [{
      "metricId": "daily_signups",
      "metricName": "Daily Signups",
      "value": 42,
      "unit": "count",
      "timestamp": 1234567890000
    }]
  }"""
    answer = doors.post(METRICS, sample, {"Content-Type": "application/json"})
    assert (answer.status, answer.body) == (200, b'{"success":true,"metricsStored":1}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.counts == (1, 0)
    assert "x-ratelimit-limit" not in answer.headers
    columns = "project_id, metric_id, metric_name, value, unit, time, metadata"
    found = ("default", "daily_signups", "Daily Signups", 42.0, "count")
    assert stored(doors, answer.request_id, columns) == [
        (*found, "2009-02-13T23:31:30.000000Z", None)
    ]
    request = doors.row(
        "SELECT door, source, accepted, rejected FROM requests"
        f" WHERE request_id = '{answer.request_id}'"
    )
    assert request == ("metrics", "default", 1, 0)


def test_what_is_optional_may_be_null_absent_or_unknown(doors: Doors) -> None:
    answer = doors.send(
        metric(value=-0.5),
        metric() | {"unit": None, "timestamp": None, "metadata": None},
        metric(timestamp=1_700_000_000_000.9, metadata={"b": [1], "a": "é"}, unit=""),
        metric(other=1, timestamp=_NOW_MS + 299_000),
        metric(value=10**299, metricId="x" * 256),
        metric(value=1e-320),
        metric(),
        metric(),
    )
    assert answer.counts == (8, 0)
    rows = stored(doors, answer.request_id, "time = received_at, value, unit, metadata, time")
    assert [row[0] for row in rows] == [True, True, False, False, True, True, True, True]
    assert [row[1] for row in rows[:2]] == [-0.5, 1.0]
    assert rows[1][2:4] == (None, None)
    assert rows[2][2:] == ("", {"b": [1], "a": "é"}, "2023-11-14T22:13:20.000000Z")
    assert rows[4][1] == 1e299
    assert rows[5][1] == 1e-320


def test_equal_metrics_of_equal_time_are_separate_rows(doors: Doors) -> None:
    same = metric(metricId="same", timestamp=1_700_000_000_000)
    answer = doors.send(same, same, {**same, "value": 2})
    assert [v for (v,) in stored(doors, answer.request_id, "value")] == [1.0, 1.0, 2.0]
    assert len(doors.rows("SELECT DISTINCT id FROM metrics WHERE metric_id = 'same'")) == 3


_FAULTS: list[tuple[Any, str]] = [
    (metric(value="42"), "metrics[3].value must be a number, got a string"),
    (metric(value=True), "metrics[3].value must be a number, got a boolean"),
    (metric(value=None), "metrics[3].value is missing"),
    (metric(value=[1]), "metrics[3].value must be a number, got an array"),
    (metric(metricId=None), "metrics[3].metricId is missing"),
    (metric(metricId=""), "metrics[3].metricId is empty"),
    (metric(metricId=7), "metrics[3].metricId must be a string, got a number"),
    (metric(metricName="n" * 257), "metrics[3].metricName has 257 characters"),
    (metric(metricName=None, value="x"), "metrics[3].metricName is missing"),
    (metric(unit=1), "metrics[3].unit must be a string"),
    (metric(timestamp="now"), "metrics[3].timestamp must be a number"),
    (metric(timestamp=-1), "metrics[3].timestamp must be epoch milliseconds"),
    (metric(timestamp=_NOW_MS + 3_600_000), "metrics[3].timestamp is more than 300 seconds"),
    (metric(metadata="x"), "metrics[3].metadata must be an object, got a string"),
    (metric(metadata=[1]), "metrics[3].metadata must be an object, got an array"),
    ("text", "metrics[3] must be an object, got a string"),
]


def test_the_first_fault_is_told_with_its_place_and_refuses_all(doors: Doors) -> None:
    before = doors.counts()
    for fault, words in _FAULTS:
        answer = doors.send(*[metric()] * 3, fault, metric(value="later"))
        assert answer.status == 400
        assert error_of(answer).startswith(words), (fault, answer.body)
        assert "ingester-accepted" not in answer.headers
    assert doors.counts() == before


def test_the_checks_come_in_their_order(doors: Doors) -> None:
    bad = {"projectId": "other", "metrics": [{"value": "x"}]}
    body = json.dumps(bad).encode()
    assert doors.post(METRICS, body + b"}", key="nobody").status == 401
    assert "not valid JSON" in error_of(doors.post(METRICS, body + b"}"))
    assert "projectId is not the project" in error_of(doors.post(METRICS, body))
    bad["projectId"] = "default"
    assert "metrics[0].metricId" in error_of(doors.post(METRICS, json.dumps(bad).encode()))
    for sent, words in (
        ({"metrics": [metric()]}, "projectId is missing"),
        ({"projectId": 7, "metrics": [metric()]}, "projectId must be a string, got a number"),
        ({"projectId": "default"}, "metrics is missing"),
        ({"projectId": "default", "metrics": {}}, "metrics must be an array, got an object"),
        ([], "the body must be an object, got an array"),
    ):
        assert words in error_of(doors.post(METRICS, json.dumps(sent).encode()))


def test_one_to_a_hundred_metrics_are_taken(doors: Doors) -> None:
    before = doors.counts()
    assert "got 0" in error_of(doors.send())
    assert "got 101" in error_of(doors.send(*[metric()] * 101))
    assert doors.counts() == before
    answer = doors.send(*[metric()] * 100)
    assert json.loads(answer.body) == {"success": True, "metricsStored": 100}
    assert len(stored(doors, answer.request_id, "1")) == 100


def test_large_and_packed_bodies_follow_the_same_rules(doors: Doors) -> None:
    wide = metric(metadata={"pad": "x" * 20_000}, metricId="wide")
    body = json.dumps({"projectId": "default", "metrics": [wide] * 100}).encode()
    assert len(body) > 1 << 20
    packed = gzip.compress(body)
    for sent, headers in ((body, {}), (packed, {"Content-Encoding": "gzip"})):
        answer = doors.post(METRICS, sent, headers)
        assert (answer.status, answer.counts) == (200, (100, 0))
        found = stored(doors, answer.request_id, "length(metadata->>'pad'), project_id")
        assert found == [(20_000, "default")] * 100
    before = doors.counts()
    headers = {"Content-Encoding": "gzip"}
    assert doors.post(METRICS, packed[:-4], headers).status == 400
    answer = doors.post(METRICS, gzip.compress(body.replace(b": 1,", b': "1",')), headers)
    assert "metrics[0].value must be a number" in error_of(answer)
    many = b"[" + b"1," * 2_000_000 + b"1]"
    answer = doors.post(METRICS, b'{"projectId":"default","metrics":' + many + b"}")
    assert "metrics must hold 1 to 100 metrics" in error_of(answer)
    answer = doors.post(METRICS, b" " * (17 << 20))
    assert answer.status == 413
    assert "send fewer" in error_of(answer)
    answer = doors.post(METRICS, packed, {"Content-Encoding": "br"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate, zstd")
    assert doors.counts() == before


def test_another_method_is_405(doors: Doors) -> None:
    for method in ("GET", "HEAD", "PUT", "OPTIONS"):
        answer = doors.connection.request(method, METRICS)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_repeat_stores_nothing_and_another_body_is_422(doors: Doors) -> None:
    first = doors.send(metric(metricId="once"), Idempotency_Key="k1")
    for _ in range(2):
        again = doors.send(metric(metricId="once"), Idempotency_Key="k1")
        assert (again.status, again.body, again.counts) == (200, first.body, (1, 0))
        assert again.request_id == first.request_id
    other = doors.send(metric(metricId="once", value=2), Idempotency_Key="k1")
    assert other.status == 422
    assert "Idempotency-Key" in error_of(other)
    assert doors.send(metric(value="x"), Idempotency_Key="k2").status == 400
    assert doors.send(metric(), Idempotency_Key="k2").status == 200, "only 2xx is remembered"
    for key in ("", "x" * 129, "a b", "\x80"):
        assert doors.send(metric(), Idempotency_Key=key).status == 400, key
    assert doors.row("SELECT count(*) FROM metrics WHERE metric_id = 'once'") == (1,)


def test_a_tier_is_an_hourly_quota_that_every_request_counts_against(doors: Doors) -> None:
    key = doors.make_connection("free", tier="free")["api_key"]
    began_hour = int(time.time()) // 3600
    if time.time() % 3600 > 3590:
        pytest.skip("the hour ends now")
    answers = [
        doors.send(metric(metricId="free", value=1 if n % 2 else "bad"), key=key)
        for n in range(101)
    ]
    assert [answer.status for answer in answers] == [400, 200] * 50 + [429]
    quotas = [quota_headers(answer) for answer in answers]
    reset = (began_hour + 1) * 3600
    assert quotas == [(100, 99 - n, reset) for n in range(100)] + [(100, 0, reset)]
    told = doors.connection.request("GET", METRICS, headers={"Authorization": f"Bearer {key}"})
    assert (told.status, quota_headers(told)) == (405, quotas[-1]), "told on every answer"
    over = answers[-1]
    document = json.loads(over.body)
    assert list(document) == ["error", "retryAfter"]
    assert "100 requests an hour" in document["error"]
    assert document["retryAfter"] == int(over.headers["retry-after"])
    assert 0 <= reset - document["retryAfter"] - time.time() + 2 <= 4
    # Counted before anything else is looked at.
    for body, headers in (
        (b"", {}),
        (b"x", {"Content-Encoding": "br"}),
        (b"", {"Expect": "100-continue"}),
    ):
        assert doors.post(METRICS, body, headers, key=key).status == 429
    assert doors.row("SELECT count(*) FROM metrics WHERE metric_id = 'free'") == (50,)
    assert doors.send(metric()).status == 200, "another key has its own"


def test_a_tier_is_kept_over_a_restart_and_so_is_an_idempotency_key(tmp_path: Path) -> None:
    with open_doors(tmp_path) as doors:
        tiers = {
            tier: doors.make_connection(tier, tier=tier)["api_key"]
            for tier in ("pro", "scale", "unlimited")
        }
        limits = {}
        for tier, key in tiers.items():
            answer = doors.send(metric(metricId="kept"), key=key, Idempotency_Key="once")
            limits[tier] = answer.headers.get("x-ratelimit-limit")
        assert limits == {"pro": "1000", "scale": "10000", "unlimited": None}
        if time.time() % 3600 > 3580:
            pytest.skip("the hour ends now")
        assert doors.server.stop() == 0
        doors.start_again()
        answer = doors.send(metric(metricId="kept"), key=tiers["pro"], Idempotency_Key="once")
        assert answer.status == 200
        assert quota_headers(answer)[:2] == (1000, 998)
        assert doors.row("SELECT count(*) FROM metrics WHERE metric_id = 'kept'") == (3,)


def test_tokens_carry_quotas_too(doors: Doors) -> None:
    if time.time() % 3600 > 3590:
        pytest.skip("the hour ends now")
    token = doors.make_token(requests_per_hour=2)["token"]
    paths = ("/ingest/web", "/api/v1/webhook/event/log", "/ingest/web")
    answers = [doors.post(path, b"{}", key=token) for path in paths]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert quota_headers(answers[1])[:2] == (2, 0)
    assert json.loads(answers[2].body)["retryAfter"] >= 1
    head = doors.connection.request(
        "HEAD", "/ingest/web", headers={"Authorization": f"Bearer {token}"}
    )
    assert (head.status, quota_headers(head)[1]) == (429, 0)


def test_a_change_of_name_or_unit_is_a_warning_on_the_metric(doors: Doors) -> None:
    doors.send(metric(metricId="w", metricName="W", unit="ms"))
    doors.send(metric(metricId="w", metricName="W", unit="ms"))
    doors.send(metric(metricId="w", metricName="Wait", unit="s"))
    doors.send(metric(metricId="w", metricName="Wait", unit="s"), Prefer="wait=query")
    doors.send(metric(metricId="calm", metricName="Calm"))
    listed = doors.api("GET", "metrics/warnings")["warnings"]
    (found,) = [entry for entry in listed if entry["metric_id"] == "w"]
    assert found["project"] == "default"
    assert (found["name_changes"], found["unit_changes"]) == (1, 1)
    assert (found["name"], found["unit"]) == ("Wait", "s")
    assert (found["previous_name"], found["previous_unit"]) == ("W", "ms")
    assert "calm" not in {entry["metric_id"] for entry in listed}
    text = doors.text("/metrics")
    assert re.search(
        r'^ingester_metric_labels_changes_total\{project="default"\} [1-9]', text, re.M
    )
