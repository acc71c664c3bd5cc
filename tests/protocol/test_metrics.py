"""The metric door's bodies: what is taken, and the first fault with its place."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.errors import MalformedBody
from ingester.protocol import metrics as module
from ingester.protocol.metrics import MetricRules, decode_metrics

from .log_bodies import depth, has_half
from .plain_logs import Pairs, parsed

NOW_MS = 1_795_262_400_123
RULES = MetricRules(depth_max=6)
GOOD: dict[str, Any] = {"metricId": "daily_signups", "metricName": "Daily Signups", "value": 42}

Taken = list[tuple[str, str, float, str | None, float | None, bytes]]


def taken(body: bytes) -> Taken:
    request = decode_metrics(
        body, RULES, project_id="p", received_at_us=NOW_MS * 1000 + 456, request_number=7
    )
    assert (request.request_number, request.project_id) == (7, "p")
    return [
        (m.metricId, m.metricName, m.value, m.unit, m.timestamp, bytes(m.metadata))
        for m in request.metrics
    ]


def body_of(*metrics: Any, **changes: Any) -> bytes:
    return json.dumps({"projectId": "p", "metrics": metrics, **changes}).encode()


def raw_metric(**values: str) -> bytes:
    """One metric with properties given as JSON text."""
    parts = {key: json.dumps(value) for key, value in GOOD.items()} | values
    inner = ",".join(f'"{key}":{value}' for key, value in parts.items())
    return f'{{"projectId":"p","metrics":[{{{inner}}}]}}'.encode()


def outcome(body: bytes) -> Taken | str:
    try:
        return taken(body)
    except MalformedBody as error:
        return str(error)


def test_the_documents_own_sample_is_taken() -> None:
    sample = {**GOOD, "unit": "count", "timestamp": 1234567890000}
    found = taken(body_of(sample))
    assert found == [("daily_signups", "Daily Signups", 42.0, "count", 1234567890000.0, b"")]
    request = decode_metrics(body_of(sample), RULES, project_id="p", received_at_us=NOW_MS * 1000)
    assert repr(request) + repr(request.metrics) == "MetricRequest(1 metrics)[Metric(…)]"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is empty; send one JSON object"),
        (b"not json", "the body is not valid JSON: invalid character (byte 2)"),
        (b'{"projectId":"p","metrics":[]} x', "the body is not valid JSON: trailing characters"),
        (b"\xff", "the body is not valid JSON: byte 0xff is not UTF-8 (byte 1)"),
        (b'{"x":"\xff"}', "the body is not valid JSON: byte 0xff is not UTF-8 (byte 7)"),
        (b"[" * 100_000 + b"]" * 100_000, "the body is not valid JSON: too many levels"),
        (b"[]", "the body must be an object, got an array"),
        (b"5", "the body must be an object, got a number"),
        (b'"x"', "the body must be an object, got a string"),
        (b"{}", "projectId is missing"),
        (b'{"projectId":null}', "projectId is missing"),
        (b'{"projectId":7}', "projectId must be a string, got a number"),
        (b'{"projectId":""}', "projectId is empty"),
        (body_of(projectId="other"), "projectId is not the project of this API key"),
        (b'{"projectId":"p"}', "metrics is missing"),
        (b'{"projectId":"p","metrics":null}', "metrics is missing"),
        (b'{"projectId":"p","metrics":{}}', "metrics must be an array, got an object"),
        (body_of(), "metrics must hold 1 to 100 metrics, got 0"),
        (body_of(*[GOOD] * 101), "metrics must hold 1 to 100 metrics, got 101"),
        (body_of(GOOD, 5), "metrics[1] must be an object, got a number"),
        (body_of(GOOD, GOOD, GOOD, {**GOOD, "value": "42"}),
         "metrics[3].value must be a number, got a string"),
        (raw_metric(value="true"), "metrics[0].value must be a number, got a boolean"),
        (raw_metric(value="[]"), "metrics[0].value must be a number, got an array"),
        (raw_metric(value="null"), "metrics[0].value is missing"),
        (raw_metric(value="NaN"), "the body is not valid JSON: invalid character"),
        (raw_metric(value="Infinity"), "the body is not valid JSON: invalid character"),
        (raw_metric(value="1e400"), "metrics[0].value must be a finite number"),
        (raw_metric(value="-1e400"), "metrics[0].value must be a finite number"),
        (raw_metric(value="9" * 400), "metrics[0].value must be a finite number"),
        (raw_metric(value="9" * 5000), "metrics[0].value must be a finite number"),
        (body_of({}), "metrics[0].metricId is missing"),
        (raw_metric(metricId="7"), "metrics[0].metricId must be a string, got a number"),
        (raw_metric(metricId='""'), "metrics[0].metricId is empty"),
        (body_of({**GOOD, "metricId": "x" * 257}),
         "metrics[0].metricId has 257 characters, at most 256 are taken"),
        (raw_metric(metricName="null"), "metrics[0].metricName is missing"),
        (raw_metric(unit="7"), "metrics[0].unit must be a string, got a number"),
        (body_of({**GOOD, "unit": "x" * 257}), "metrics[0].unit has 257 characters"),
        (raw_metric(timestamp='"1795262400123"'),
         "metrics[0].timestamp must be a number, got a string"),
        (raw_metric(timestamp="-1"), "metrics[0].timestamp must be epoch milliseconds from 0 to"),
        (raw_metric(timestamp="253402300800000"), "metrics[0].timestamp must be epoch millis"),
        (raw_metric(timestamp="1e400"), "metrics[0].timestamp must be a finite number"),
        (body_of({**GOOD, "timestamp": NOW_MS + 300_001}),
         "metrics[0].timestamp is more than 300 seconds in the future"),
        (raw_metric(metadata="[]"), "metrics[0].metadata must be an object, got an array"),
        (raw_metric(metadata='"x"'), "metrics[0].metadata must be an object, got a string"),
        (raw_metric(metadata="1e400"), "metrics[0].metadata must be an object, got a number"),
        (raw_metric(metadata='{"a":' * 7 + "1" + "}" * 7),
         "metrics[0].metadata: more than 6 levels of nesting"),
        (raw_metric(metadata='{"a":"\\ud800"}'), "the body is not valid JSON: half of a surrogate"),
        (raw_metric(metricId='"\\ud800"'), "the body is not valid JSON: half of a surrogate"),
        (body_of({**GOOD, "value": "x"}, {}), "metrics[0].value must be a number, got a string"),
        (body_of({"value": "x"}), "metrics[0].metricId is missing"),
    ],
)  # fmt: skip
def test_the_first_fault_is_told_with_its_place(body: bytes, error: str) -> None:
    assert str(outcome(body)).startswith(error)


def test_bounds_that_are_still_taken() -> None:
    assert len(taken(body_of(*[GOOD] * 100))) == 100
    [metric] = taken(body_of({**GOOD, "metricId": "é" * 256, "unit": "", "timestamp": 0}))
    assert metric == ("é" * 256, "Daily Signups", 42.0, "", 0.0, b"")
    assert taken(body_of({**GOOD, "timestamp": NOW_MS + 300_000}))
    assert taken(raw_metric(timestamp=f"{NOW_MS + 300_000}.999"))
    for text, value in [("9" * 300, 1e300), ("1e308", 1e308), ("-0", 0.0), ("1e-400", 0.0)]:
        assert taken(raw_metric(value=text))[0][2] == value
    [metric] = taken(raw_metric(unit="null", timestamp="null", metadata="null", extra="[1e400]"))
    assert metric[3:] == (None, None, b"")
    nested = '{"a":' * 6 + "1" + "}" * 6
    for metadata in (
        '{ "b" : 1.50, "b":2 }',
        "{}",
        '{"n":' + "9" * 400 + "}",
        nested,
        '{"é":"\\n"}',
    ):
        assert taken(raw_metric(metadata=metadata))[0][5] == metadata.encode()
    twice = b'{"projectId":"x","projectId":"p","metrics":5,"metrics":[' + (
        b'{"metricId":1,"metricId":"a","metricName":"b","value":"x","value":2}]}'
    )
    assert taken(twice) == [("a", "b", 2.0, None, None, b"")]


_VALUES = [
    '"a"', '""', '"' + "n" * 256 + '"', '"' + "n" * 257 + '"', '"\\u0000"', '"\\ud83d\\ude00"',
    '"\\udc00"', "1", "0", "-1", "1.5", "1e400", "9" * 400, "9" * 310, "true", "null", "[]", "{}",
    "[{}]", '{"a":{"b":[1]}}', '{"a":' * 7 + "1" + "}" * 7, str(NOW_MS), str(NOW_MS + 300_000),
    str(NOW_MS + 300_001), f"{NOW_MS + 300_000}.5", "253402300800000", '{"a":"\\ud800"}', "nul",
    '{"a":"' + "[" * 40 + '"}', '{"a":[' + "[]," * 40 + "[]]}", '"é"', "18446744073709551616",
]  # fmt: skip
_KEYS = [*GOOD, "unit", "timestamp", "metadata", "extra", "v\\u0061lue"]


@st.composite
def metric_bodies(draw: st.DrawFn) -> bytes:
    """A request, valid more often than not."""
    metrics = []
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        parts = [(key, json.dumps(value)) for key, value in GOOD.items()]
        for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
            pair = (draw(st.sampled_from(_KEYS)), draw(st.sampled_from(_VALUES)))
            parts.insert(draw(st.integers(0, len(parts))), pair)
        metrics.append("{" + ",".join(f'"{k}": {v}' for k, v in parts) + "}")
    outer = [("projectId", '"p"'), ("metrics", "[" + " , ".join(metrics) + "]")]
    if draw(st.integers(0, 4)) == 0:
        key = draw(st.sampled_from(["projectId", "metrics", "extra"]))
        outer.insert(draw(st.integers(0, 2)), (key, draw(st.sampled_from(_VALUES))))
    return ("{" + ",".join(f'"{k}":{v}' for k, v in outer) + "}").encode()


@settings(max_examples=800, deadline=None)
@given(metric_bodies())
def test_both_ways_agree_on_what_is_taken(body: bytes) -> None:
    fast = outcome(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_decode_whole", lambda *_: None)
        assert outcome(body) == fast
    assert isinstance(fast, list) == is_valid(body)


def is_valid(body: bytes) -> bool:
    """Contract 3.3 with the standard library's JSON."""
    try:
        whole = parsed(body)
        metrics = whole.last["metrics"]
        return (
            not has_half(whole)
            and whole.last["projectId"] == "p"
            and 1 <= len(metrics) <= 100
            and all(is_valid_metric(metric.last) for metric in metrics)
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        return False


def is_valid_metric(metric: dict[str, Any]) -> bool:
    unit, time, metadata = (metric.get(key) for key in ("unit", "timestamp", "metadata"))
    return (
        all(isinstance(metric[k], str) and 1 <= len(metric[k]) <= 256 for k in list(GOOD)[:2])
        and math.isfinite(float(metric["value"].text))
        and (unit is None or (isinstance(unit, str) and len(unit) <= 256))
        and (time is None or 0 <= float(time.text) < NOW_MS + 300_001)
        and (metadata is None or (isinstance(metadata, Pairs) and depth(metadata) <= 6))
    )


def test_good_requests_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_decode_closely", lambda *_: pytest.fail("looked at closely"))
    for extra in ({}, {"unit": "é", "timestamp": NOW_MS}, {"metadata": {"a": "\n"}, "unit": None}):
        assert taken(body_of({**GOOD, **extra}))
