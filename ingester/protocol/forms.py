"""Forms: how the body of a door's request becomes rows, and of which table.

Why it exists: small and large bodies, and those read back from the journal, must come to the same
rows. A form is what is decided once, when the request is admitted, and journalled with it; both
lanes and the replay make their decoders from it.

`None` in place of a form is the Natero door's: lines of product events (contract 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Protocol

import msgspec
import pyarrow as pa
from msgspec import Struct

from ..messages import LineReject
from .body_decoder import BodyLimits
from .columns import EVENT_SCHEMA, event_columns
from .event_lines import EventRules
from .events import EventDecoder
from .honest_events import HonestEventDecoder
from .log_columns import LOG_SCHEMA, LogBatch
from .logs import HonestLogDecoder, LogDoorDecoder
from .mapping import EventMap, compile_map
from .metric_bodies import METRIC_UPLOAD_SCHEMA, MetricDecoder
from .metrics import MetricRules

__all__ = [
    "Decoder",
    "Form",
    "HonestEventForm",
    "HonestLogForm",
    "LogForm",
    "MetricForm",
    "Origin",
    "RowTarget",
    "Rules",
    "event_map_of",
    "form_of_text",
    "form_text",
    "make_decoder",
    "row_target",
    "table_of_form",
]


class LogForm(Struct, frozen=True, array_like=True, tag="log"):
    """A body of the log door. `is_form`: it is labelled as form fields."""

    service: str
    environment: str
    is_form: bool = False


class HonestLogForm(Struct, frozen=True, array_like=True, tag="honest_log"):
    """A body of the honest door, kept as logs. `is_form`: it is labelled as form fields."""

    service: str
    environment: str
    is_form: bool = False


class HonestEventForm(Struct, frozen=True, array_like=True, tag="honest_event"):
    """A body of the honest door, kept as events; `map` is the source's, if it has one."""

    map: dict[str, str] | None = None


class MetricForm(Struct, frozen=True, array_like=True, tag="metric"):
    """A body of the metric door; rows of `project_id` only."""

    project_id: str
    future_seconds_max: int = 300


Form = LogForm | HonestLogForm | HonestEventForm | MetricForm


class Origin(Struct, frozen=True):
    """What all requests under one key of one door have in common.

    `source` is the label that requests and rejects are stored with.
    """

    door: str
    source: str
    credential: str
    lenient_session: bool = False
    form: Form | None = None


class Rules(Struct, frozen=True):
    """What the configuration allows; journalled with the request."""

    line_bytes_max: int = 1024 * 1024
    depth_max: int = 128
    rejects_max: int = 10_000
    value_bytes_max: int = 16 * 1024 * 1024


class Decoder(Protocol):
    """One body: bytes in (already inflated), batches and rejects out. `finish` may yield None where
    a turn can end and there is no batch.
    """

    accepted_count: int
    rejected_count: int
    reasons: Any
    rejects: list[LineReject]

    def feed(self, piece: bytes) -> Sequence[Any]: ...
    def finish(self) -> Iterable[Any]: ...
    def take_rejects(self) -> list[LineReject]: ...


class RowTarget(Struct, frozen=True):
    """Where the batches of a decoder go. `constants` are columns that are the same for all rows."""

    table: str
    schema: pa.Schema
    columns_of: Callable[[Any], pa.RecordBatch]
    constants: dict[str, str]


def table_of_form(form: Form | None) -> str:
    if isinstance(form, LogForm | HonestLogForm):
        return "logs"
    return "metrics" if isinstance(form, MetricForm) else "events"


def form_text(form: Form | None) -> str | None:
    """The form as it is kept with rejects, for a replay."""
    return None if form is None else msgspec.json.encode(form).decode()


def form_of_text(text: str | None) -> Form | None:
    return None if text is None else msgspec.json.decode(text, type=Form)


def row_target(origin: Origin) -> RowTarget:
    """Of uploads; many small requests are gathered by the loader."""
    form = origin.form
    if isinstance(form, LogForm | HonestLogForm):
        constants = {"service": form.service, "environment": form.environment}
        return RowTarget("logs", LOG_SCHEMA, LogBatch.columns, constants)
    if isinstance(form, MetricForm):
        constants = {"project_id": form.project_id}
        return RowTarget("metrics", METRIC_UPLOAD_SCHEMA, attrgetter("columns"), constants)
    return RowTarget("events", EVENT_SCHEMA, event_columns, {"source": origin.source})


def make_decoder(
    form: Form | None,
    rules: Rules,
    *,
    received_at_us: int,
    is_plain: bool,
    lenient_session: bool = False,
    keep_going: bool = True,
) -> Decoder:
    """A fresh decoder for one body. Without `keep_going` it may stop at the first reject."""
    if form is None:
        lines = EventRules(rules.line_bytes_max, rules.depth_max, lenient_session)
        return EventDecoder(lines, rejects_max=rules.rejects_max, is_plain=is_plain)
    limits = BodyLimits(rules.line_bytes_max, rules.value_bytes_max, rules.depth_max)
    if isinstance(form, LogForm):
        return LogDoorDecoder(
            limits, received_at_us=received_at_us, is_plain=is_plain, is_form=form.is_form
        )
    if isinstance(form, HonestLogForm):
        return HonestLogDecoder(
            limits,
            received_at_us=received_at_us,
            rejects_max=rules.rejects_max,
            is_plain=is_plain,
            is_form=form.is_form,
            keep_going=keep_going,
        )
    if isinstance(form, HonestEventForm):
        return HonestEventDecoder(
            limits,
            rejects_max=rules.rejects_max,
            is_plain=is_plain,
            lenient_session=lenient_session,
            event_map=event_map_of(form),
            keep_going=keep_going,
        )
    return MetricDecoder(
        form.project_id,
        MetricRules(rules.depth_max, form.future_seconds_max),
        value_bytes_max=rules.value_bytes_max,
        received_at_us=received_at_us,
    )


def event_map_of(form: HonestEventForm) -> EventMap | None:
    """Compiled once: the same map comes with every request of its source."""
    return None if form.map is None else _compiled(tuple(form.map.items()))


@lru_cache(maxsize=256)
def _compiled(settings: tuple[tuple[str, str], ...]) -> EventMap:
    return compile_map(dict(settings))
