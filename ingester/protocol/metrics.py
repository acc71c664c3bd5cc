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

A change of a metric's name or unit is no fault (`doors/metric_labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from ..errors import MalformedBody
from .event_lines import (
    BACKSLASH,
    CREATED_AT_MS_END,
    GZIP_HEAD,
    ZSTD_HEAD,
    lone_surrogate_at,
    wrong_encoding,
)
from .json_text import (
    LONG_BYTES_MIN,
    WHITE_SPACE,
    any_value,
    array_elements,
    json_fault,
    kind_of,
    kind_of_text,
    text_fault,
)
from .value_framer import BOM

__all__ = [
    "METRICS_MAX",
    "NO_RAW",
    "Metric",
    "MetricRequest",
    "MetricRules",
    "MetricsBody",
    "decode_metrics",
]

METRICS_MAX = 100
# Looked at only to say how many there are; sixteen megabytes may hold eight million.
_COUNTED_MAX = 10_000
NAME_CHARACTERS_MAX = 256

_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
_Unit = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
_Millis = Annotated[float, Meta(ge=0, lt=CREATED_AT_MS_END)]
NO_RAW = msgspec.Raw()
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
    metadata: _ObjectRaw = field(default_factory=lambda: NO_RAW)

    def __repr__(self) -> str:
        return "Metric(…)"


class MetricsBody(Struct, gc=False):
    """What is sent: the metrics of one project."""

    projectId: _Name
    metrics: Annotated[list[Metric], Meta(min_length=1, max_length=METRICS_MAX)]

    def __repr__(self) -> str:
        return f"Body({len(self.metrics)} metrics)"


class _Decoded(Metric, gc=False):
    """The same, spared the call of the factory."""

    metadata: _ObjectRaw = NO_RAW

    def __repr__(self) -> str:
        return "Metric(…)"


class _DecodedBody(Struct, gc=False):
    projectId: _Name
    metrics: Annotated[list[_Decoded], Meta(min_length=1, max_length=METRICS_MAX)]

    def __repr__(self) -> str:
        return f"Body({len(self.metrics)} metrics)"


class _BodyParts(Struct, gc=False):
    """A body whose properties are looked at one by one; others are passed over, not held."""

    projectId: msgspec.Raw = NO_RAW
    metrics: msgspec.Raw = NO_RAW

    def __repr__(self) -> str:
        return "BodyParts(…)"


class _MetricParts(Struct, gc=False):
    """The same of a metric."""

    metricId: msgspec.Raw = NO_RAW
    metricName: msgspec.Raw = NO_RAW
    value: msgspec.Raw = NO_RAW
    unit: msgspec.Raw = NO_RAW
    timestamp: msgspec.Raw = NO_RAW
    metadata: msgspec.Raw = NO_RAW

    def __repr__(self) -> str:
        return "MetricParts(…)"


class MetricRequest(Struct, gc=False):
    """An accepted body and what it came with: what its rows are made of."""

    request_number: int
    received_at_us: int
    project_id: str
    metrics: Sequence[Metric]

    def __repr__(self) -> str:
        return f"MetricRequest({len(self.metrics)} metrics)"


_decoder = msgspec.json.Decoder(_DecodedBody)
_body_parts = msgspec.json.Decoder(_BodyParts)
_metric_parts = msgspec.json.Decoder(_MetricParts)
_ABSENT = (b"", b"null")


def decode_metrics(
    body: bytes,
    rules: MetricRules,
    *,
    project_id: str,
    received_at_us: int,
    request_number: int = 0,
) -> MetricRequest:
    """The metrics of `body`. Raises MalformedBody with the sentence the client is told."""
    body = body.removeprefix(BOM)
    latest_ms = received_at_us // 1000 + rules.future_seconds_max * 1000
    metrics = _decode_whole(body, rules, project_id, latest_ms)
    if metrics is None:
        metrics = _decode_closely(body, rules, project_id, latest_ms)
    return MetricRequest(request_number, received_at_us, project_id, metrics)


def _decode_whole(
    body: bytes, rules: MetricRules, project_id: str, latest_ms: int
) -> Sequence[Metric] | None:
    """All metrics, or None if only a close look can tell."""
    try:
        if not body.isascii():
            body.decode()
        decoded = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if decoded.projectId != project_id or lone_surrogate_at(body):
        return None
    metrics = decoded.metrics
    # A whole millisecond later at the earliest: fractions are cut.
    times = [metric.timestamp for metric in metrics if metric.timestamp is not None]
    if times and max(times) >= latest_ms + 1:
        return None
    # Half as many brackets open as there are bytes, at most; a surrogate needs an escape.
    plain_bytes_max = 0 if BACKSLASH in body else 2 * rules.depth_max
    for metric in [metric for metric in metrics if metric.metadata is not NO_RAW]:
        text = bytes(metric.metadata)
        if text == b"null":
            metric.metadata = NO_RAW
        elif text[0] != 0x7B or (
            len(text) > plain_bytes_max and text_fault(text, rules.depth_max) is not None
        ):
            return None
    return metrics


def _decode_closely(
    body: bytes, rules: MetricRules, project_id: str, latest_ms: int
) -> list[Metric]:
    """The slow, exact way: what is wrong, and where."""
    if not body.strip(WHITE_SPACE):
        raise MalformedBody("the body is empty; send one JSON object")
    if body.startswith((GZIP_HEAD, ZSTD_HEAD)):
        raise MalformedBody(wrong_encoding(body).detail)
    # Depth counts where something is kept: in metadata.
    fault = json_fault(body, len(body))
    if fault is not None:
        place = f" (byte {fault.column})" if fault.column else ""
        raise MalformedBody(f"the body is not valid JSON: {fault.detail}{place}")
    text = body.strip(WHITE_SPACE)
    if text[0] != 0x7B:
        raise MalformedBody(f"the body must be an object, got {kind_of_text(text)}")
    fields = _body_parts.decode(text)
    found = _value_of(fields.projectId)
    _require_text("projectId", found, 1)
    if found != project_id:
        raise MalformedBody("projectId is not the project of this API key")
    listed = bytes(fields.metrics)
    if listed in _ABSENT:
        raise MalformedBody("metrics is missing")
    if listed[0] != 0x5B:
        raise MalformedBody(f"metrics must be an array, got {kind_of_text(listed)}")
    metrics = list(islice(array_elements(listed), _COUNTED_MAX))
    if not 1 <= len(metrics) <= METRICS_MAX:
        count = len(metrics) if len(metrics) < _COUNTED_MAX else f"at least {_COUNTED_MAX}"
        raise MalformedBody(f"metrics must hold 1 to {METRICS_MAX} metrics, got {count}")
    return [
        _decode_one(metric, f"metrics[{place}]", rules, latest_ms)
        for place, metric in enumerate(metrics)
    ]


def _decode_one(text: bytes, place: str, rules: MetricRules, latest_ms: int) -> Metric:
    if text[0] != 0x7B:
        raise MalformedBody(f"{place} must be an object, got {kind_of_text(text)}")
    fields = _metric_parts.decode(text)
    metric_id = _value_of(fields.metricId)
    _require_text(f"{place}.metricId", metric_id, 1)
    name = _value_of(fields.metricName)
    _require_text(f"{place}.metricName", name, 1)
    value = _value_of(fields.value)
    _require_number(f"{place}.value", value)
    unit = _value_of(fields.unit)
    if unit is not None:
        _require_text(f"{place}.unit", unit, 0)
    timestamp = _value_of(fields.timestamp)
    if timestamp is not None:
        _require_time(f"{place}.timestamp", timestamp, rules, latest_ms)
        timestamp = float(timestamp)
    metadata = fields.metadata
    kept = bytes(metadata)
    if kept in _ABSENT:
        metadata = NO_RAW
    elif kept[0] != 0x7B:
        raise MalformedBody(f"{place}.metadata must be an object, got {kind_of_text(kept)}")
    elif (fault := text_fault(kept, rules.depth_max)) is not None:
        raise MalformedBody(f"{place}.metadata: {fault.detail}")
    return Metric(metric_id, name, float(value), unit, timestamp, metadata)


def _value_of(raw: msgspec.Raw) -> Any:
    text = bytes(raw)
    if text in _ABSENT:
        return None
    # What is long and no string is the wrong kind, whatever is in it.
    is_wrong = len(text) >= LONG_BYTES_MIN and text[0] in b"[{"
    return ([] if text[0] == 0x5B else {}) if is_wrong else any_value(raw)


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
