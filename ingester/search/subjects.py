"""What can be searched: a table, how the language sees it, and what belongs together in it."""

from __future__ import annotations

from msgspec import Struct

from ..lql import EVENTS, LOGS, Schema

__all__ = ["EVENT_ROWS", "LOG_ROWS", "METRICS", "METRIC_ROWS", "SUBJECTS", "Subject"]

# A point's value is text to the language as every column: `value:>5` compares it as a number.
METRICS = Schema(
    relation="metrics",
    columns={
        "event_message": "metric_name",
        "project_id": "project_id",
        "metric_id": "metric_id",
        "metric_name": "metric_name",
        "unit": "unit",
        "value": "value::VARCHAR",
    },
    message_name="event_message",
    source_name="project_id",
    attributes="coalesce(metadata, '{}')",
    time="time",
    every_column=(
        "id",
        "time",
        "received_at",
        "project_id",
        "metric_id",
        "metric_name",
        "value",
        "unit",
        "metadata",
        "batch_id",
    ),
)


class Subject(Struct, frozen=True, kw_only=True):
    """`group`: what a histogram is stacked by. `context`: the columns that lines around a line
    share with it. `texts`: columns of any length, of which `payload` is JSON. `facets`: columns
    whose values are counted.
    """

    table: str
    schema: Schema
    group: str
    context: tuple[str, ...]
    texts: tuple[str, ...]
    facets: tuple[str, ...]
    payload: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The stored columns; `id` is made of two numbers that are not shown."""
        return tuple(name for name in self.schema.every_column if name != "id")


LOG_ROWS = Subject(
    table="logs",
    payload="attributes",
    schema=LOGS,
    group="level",
    context=("service", "environment"),
    texts=("message", "attributes"),
    facets=("service", "environment", "level"),
)
EVENT_ROWS = Subject(
    table="events",
    payload="body",
    schema=EVENTS,
    group="action",
    context=("source", "account_id", "user_id"),
    texts=("body",),
    facets=("source", "account_id", "user_id", "action"),
)
METRIC_ROWS = Subject(
    table="metrics",
    payload="metadata",
    schema=METRICS,
    group="metric_id",
    context=("project_id", "metric_id"),
    texts=("metadata",),
    facets=("project_id", "metric_id", "metric_name", "unit"),
)

SUBJECTS = {subject.table: subject for subject in (LOG_ROWS, EVENT_ROWS, METRIC_ROWS)}
