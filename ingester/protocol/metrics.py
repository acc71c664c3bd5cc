"""A body of the metric door: up to a hundred metrics, or the first fault and its place.

Why it looks like this: one typed decode takes a request without a fault; anything it refuses is
looked at again value by value, only to say what is wrong. Both ways must agree on what is taken (a
test compares them). The rules are contract 3.3.

1. One fault refuses the request. Told is the first, in the order JSON, projectId, metrics; metrics
   by place, and within one in the order of `Metric`.
2. Of duplicate keys the last counts; a null property is an absent one; unknown ones are passed
   over, but all of the body must be JSON and UTF-8.
3. `value` is taken as the nearest double and must be finite: an integer of 300 digits is, one of
   400 is not. Text and booleans are no numbers.
4. `timestamp` is cut to whole milliseconds; it lies between 1970 and 9999 and not more than
   `future_seconds_max` after the arrival, which it is if absent.
5. `metadata` is kept as sent; it passed `json_text.text_fault`.

A change of a metric's name or unit is no fault: `labels` hands out what the store compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from ..errors import MalformedBody
from .event_lines import BACKSLASH, CREATED_AT_MS_END, lone_surrogate_at
from .json_text import any_value, json_fault, kind_of, text_fault

__all__ = [
    "METRICS_MAX",
    "Metric",
    "MetricRequest",
    "MetricRules",
    "MetricsBody",
    "decode_metrics",
    "labels",
]

METRICS_MAX = 100
NAME_CHARACTERS_MAX = 256

_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
_Unit = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
_Millis = Annotated[float, Meta(ge=0, lt=CREATED_AT_MS_END)]
_NO_RAW = msgspec.Raw()
_ObjectRaw = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]


class MetricRules(Struct, frozen=True):
    """What the configuration allows."""

    depth_max: int = 128
    future_seconds_max: int = 300


class Metric(Struct, gc=False):
    """One metric; `timestamp` is epoch ms, None for the arrival; `metadata` empty for none."""

    metricId: _Name
    metricName: _Name
    value: float
    unit: _Unit | None = None
    timestamp: _Millis | None = None
    # A factory, because a JSON schema can show no Raw as a default.
    metadata: _ObjectRaw = field(default_factory=lambda: _NO_RAW)

    def __repr__(self) -> str:
        return "Metric(…)"


class MetricsBody(Struct, gc=False):
    """What is sent: the metrics of one project."""

    projectId: _Name
    metrics: Annotated[list[Metric], Meta(min_length=1, max_length=METRICS_MAX)]

    def __repr__(self) -> str:
        return f"Body({len(self.metrics)} metrics)"


class MetricRequest(Struct, gc=False):
    """An accepted body and what it came with: what its rows are made of."""

    request_number: int
    received_at_us: int
    project_id: str
    metrics: list[Metric]

    def __repr__(self) -> str:
        return f"MetricRequest({len(self.metrics)} metrics)"


_decoder = msgspec.json.Decoder(MetricsBody)
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


def decode_metrics(
    body: bytes,
    rules: MetricRules,
    *,
    project_id: str,
    received_at_us: int,
    request_number: int = 0,
) -> MetricRequest:
    """The metrics of `body`. Raises MalformedBody with the sentence the client is told."""
    latest_ms = received_at_us // 1000 + rules.future_seconds_max * 1000
    metrics = _decode_whole(body, rules, project_id, latest_ms)
    if metrics is None:
        metrics = _decode_closely(body, rules, project_id, latest_ms)
    return MetricRequest(request_number, received_at_us, project_id, metrics)


def labels(request: MetricRequest) -> Iterator[tuple[str, str, str | None]]:
    """Id, name and unit of each metric: a change of the latter two is worth a warning."""
    return ((m.metricId, m.metricName, m.unit) for m in request.metrics)


def _decode_whole(
    body: bytes, rules: MetricRules, project_id: str, latest_ms: int
) -> list[Metric] | None:
    """All metrics, or None if only a close look can tell."""
    try:
        if not body.isascii():
            body.decode()
        decoded = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if decoded.projectId != project_id or lone_surrogate_at(body):
        return None
    # Half as many brackets open as there are bytes, at most; a surrogate needs an escape.
    plain_bytes_max = 0 if BACKSLASH in body else 2 * rules.depth_max
    for metric in decoded.metrics:
        if metric.timestamp is not None and int(metric.timestamp) > latest_ms:
            return None
        if metric.metadata is not _NO_RAW:
            text = bytes(metric.metadata)
            if text == b"null":
                metric.metadata = _NO_RAW
            elif text[0] != 0x7B or (
                len(text) > plain_bytes_max and text_fault(text, rules.depth_max) is not None
            ):
                return None
    return decoded.metrics


def _decode_closely(
    body: bytes, rules: MetricRules, project_id: str, latest_ms: int
) -> list[Metric]:
    """The slow, exact way: what is wrong, and where."""
    # Depth counts where something is kept: in metadata.
    fault = json_fault(body, len(body))
    if fault is not None:
        place = f" (byte {fault.column})" if fault.column else ""
        raise MalformedBody(f"the body is not valid JSON: {fault.detail}{place}")
    text = body.strip(b" \t\r\n")
    if text[0] != 0x7B:
        raise MalformedBody(f"the body must be an object, got {kind_of(any_value(text))}")
    fields = _raw_object.decode(text)
    found = _value_of(fields, "projectId")
    _require_text("projectId", found, 1)
    if found != project_id:
        raise MalformedBody("projectId is not the project of this API key")
    raw = fields.get("metrics")
    if raw is None or bytes(raw) == b"null":
        raise MalformedBody("metrics is missing")
    if bytes(raw)[:1] != b"[":
        raise MalformedBody(f"metrics must be an array, got {kind_of(any_value(raw))}")
    metrics = _raw_list.decode(raw)
    if not 1 <= len(metrics) <= METRICS_MAX:
        raise MalformedBody(f"metrics must hold 1 to {METRICS_MAX} metrics, got {len(metrics)}")
    return [
        _decode_one(bytes(metric), f"metrics[{place}]", rules, latest_ms)
        for place, metric in enumerate(metrics)
    ]


def _decode_one(text: bytes, place: str, rules: MetricRules, latest_ms: int) -> Metric:
    if text[0] != 0x7B:
        raise MalformedBody(f"{place} must be an object, got {kind_of(any_value(text))}")
    fields = _raw_object.decode(text)
    metric_id = _value_of(fields, "metricId")
    _require_text(f"{place}.metricId", metric_id, 1)
    name = _value_of(fields, "metricName")
    _require_text(f"{place}.metricName", name, 1)
    value = _value_of(fields, "value")
    _require_number(f"{place}.value", value)
    unit = _value_of(fields, "unit")
    if unit is not None:
        _require_text(f"{place}.unit", unit, 0)
    timestamp = _value_of(fields, "timestamp")
    if timestamp is not None:
        _require_time(f"{place}.timestamp", timestamp, rules, latest_ms)
        timestamp = float(timestamp)
    metadata = fields.get("metadata", _NO_RAW)
    kept = bytes(metadata)
    if kept in (b"", b"null"):
        metadata = _NO_RAW
    elif kept[0] != 0x7B:
        kind = kind_of(any_value(metadata))
        raise MalformedBody(f"{place}.metadata must be an object, got {kind}")
    elif (fault := text_fault(kept, rules.depth_max)) is not None:
        raise MalformedBody(f"{place}.metadata: {fault.detail}")
    return Metric(metric_id, name, float(value), unit, timestamp, metadata)


def _value_of(fields: dict[str, msgspec.Raw], name: str) -> Any:
    raw = fields.get(name)
    return None if raw is None else any_value(raw)


def _require_text(place: str, value: Any, characters_min: int) -> None:
    if value is None:
        raise MalformedBody(f"{place} is missing")
    if not isinstance(value, str):
        raise MalformedBody(f"{place} must be a string, got {kind_of(value)}")
    if len(value) < characters_min:
        raise MalformedBody(f"{place} is empty")
    if len(value) > NAME_CHARACTERS_MAX:
        raise MalformedBody(
            f"{place} has {len(value)} characters, at most {NAME_CHARACTERS_MAX} are taken"
        )


def _require_number(place: str, value: Any) -> None:
    if value is None:
        raise MalformedBody(f"{place} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedBody(f"{place} must be a number, got {kind_of(value)}")
    try:
        is_finite = abs(float(value)) < float("inf")
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise MalformedBody(f"{place} must be a finite number")


def _require_time(place: str, value: Any, rules: MetricRules, latest_ms: int) -> None:
    _require_number(place, value)
    if not 0 <= value < CREATED_AT_MS_END:
        raise MalformedBody(f"{place} must be epoch milliseconds from 0 to {CREATED_AT_MS_END - 1}")
    if int(value) > latest_ms:
        raise MalformedBody(
            f"{place} is more than {rules.future_seconds_max} seconds in the future"
        )
