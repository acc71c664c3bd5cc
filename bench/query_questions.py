"""The questions of the bench of queries, each in both languages.

Ours is asked as a client asks it, in LQL over HTTP; the rival's is the SQL that a person who knows
ClickHouse would write for the same answer: typed subcolumns, exact counts, a sorted key. Both
answers are brought to the same rows, which must be equal.

Two questions differ in what they cost. A page of ours carries the payloads: the rival is asked
with them and without (`lean_sql`). Our fields tell of all fields of the newest thousand logs; the
rival counts the values of one of them in the same logs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from bench.query_corpus import DAYS, FIRST_DAY, QueryCorpus

__all__ = ["Question", "questions", "whole_range"]

_PAGE_ROWS = 100
_SAMPLED = 1_000
_TOP_VALUES = 5
_TEXT_BYTES_MAX = 65_536  # a longer one is left out of our lists
_HOUR = timedelta(hours=1)
# A day that starts and ends at noon: two files of seven.
_DAY_START = FIRST_DAY + timedelta(days=DAYS // 2, hours=12)
_DAY_END = _DAY_START + timedelta(days=1)
_TIME = "formatDateTime(time, '%Y-%m-%dT%H:%i:%S.%fZ')"
_ACTION = "attributes.context.action.:String"
_USER = "attributes.context.user.id.:String"

_Rows = list[list[Any]]


class Question(Struct, frozen=True, kw_only=True):
    """`rows` of our decoded answer; `sql` may depend on it. `logs` are those of the span. Rows that
    are not ordered by the question are compared sorted by their text.
    """

    name: str
    target: str
    logs: int
    rows: Callable[[Any], _Rows]
    sql: Callable[[Any], str]
    lean_sql: Callable[[Any], str] | None = None
    is_ordered: bool = False


def questions(corpus: QueryCorpus) -> tuple[Question, ...]:
    """All of them, in the order of the table."""
    action = corpus.action
    by_action = "c:count(*) c:group_by(m.context.action)"
    users = "c:countd(m.context.user.id) c:group_by(t::day)"
    return (
        _bare_word(corpus, "usual word", corpus.usual_word),
        _bare_word(corpus, "rare word", corpus.rare_word),
        _chart(
            corpus,
            "nested field equals",
            f'm.context.action:"{action}" c:count(*)',
            f"SELECT count() FROM logs WHERE {_ACTION} = '{action}'",
        ),
        _histogram(corpus),
        _chart(
            corpus,
            "top values of a nested field",
            by_action,
            f"SELECT {_ACTION} AS value, count() FROM logs GROUP BY value",
        ),
        _fields(corpus),
        _chart(
            corpus,
            "distinct users a day",
            users,
            "SELECT formatDateTime(toStartOfDay(time), '%Y-%m-%dT%H:%i:%S.000000Z') AS day, "
            f"uniqExact({_USER}) FROM logs GROUP BY day",
        ),
    )


def whole_range(path: str, **parameters: str) -> str:
    """A target that asks about all days."""
    span = {"since": _spelled(FIRST_DAY), "until": _spelled(FIRST_DAY + timedelta(days=DAYS))}
    return f"{path}?{urlencode({**parameters, **span})}"


def _spelled(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")[:-6] + "Z"


def _sql_time(moment: datetime) -> str:
    return f"toDateTime64('{moment:%Y-%m-%d %H:%M:%S}', 6, 'UTC')"


def _bare_word(corpus: QueryCorpus, name: str, word: str) -> Question:
    parameters = {"q": word, "since": _spelled(_DAY_START), "until": _spelled(_DAY_END)}
    message = f"if(length(message) <= {_TEXT_BYTES_MAX}, message, NULL)"

    def select(*more: str) -> str:
        return (
            f"SELECT {', '.join((_TIME, 'level', message, *more))} FROM logs "
            f"WHERE time >= {_sql_time(_DAY_START)} AND time < {_sql_time(_DAY_END)} "
            f"AND position(message, '{word}') > 0 ORDER BY time DESC LIMIT {_PAGE_ROWS}"
        )

    return Question(
        name=f"{name}, 24 h, newest {_PAGE_ROWS}",
        target=f"/api/v1/logs?{urlencode({**parameters, 'limit': _PAGE_ROWS})}",
        logs=corpus.days[0].events,
        rows=lambda found: [[row["time"], row["level"], row["message"]] for row in found["rows"]],
        sql=lambda _: select("attributes"),
        lean_sql=lambda _: select(),
        is_ordered=True,
    )


def _chart(corpus: QueryCorpus, name: str, lql: str, sql: str) -> Question:
    return Question(
        name=name,
        target=whole_range("/api/v1/logs", q=lql),
        logs=corpus.logs,
        rows=lambda found: sorted(found["chart"]["rows"], key=str),
        sql=lambda _: sql,
    )


def _histogram(corpus: QueryCorpus) -> Question:
    def rows(found: Any) -> _Rows:
        counts: _Rows = [
            [int(datetime.fromisoformat(bucket["time"]).timestamp()), level, count]
            for bucket in found["buckets"]
            for level, count in bucket["groups"].items()
        ]
        return sorted(counts, key=str)

    def sql(found: Any) -> str:
        seconds = int(found["bucket_seconds"])
        return (
            f"SELECT intDiv(toUnixTimestamp(time), {seconds}) * {seconds} AS bucket, level, "
            "count() FROM logs GROUP BY bucket, level"
        )

    return Question(
        name="histogram by level",
        target=whole_range("/api/v1/logs/histogram"),
        logs=corpus.logs,
        rows=rows,
        sql=sql,
    )


def _fields(corpus: QueryCorpus) -> Question:
    def rows(found: Any) -> _Rows:
        (field,) = (one for one in found["fields"] if one["name"] == "m.context.action")
        return [[each["value"], each["count"]] for each in field["values"]]

    newest = f"SELECT {_ACTION} AS value FROM logs ORDER BY time DESC LIMIT {_SAMPLED}"
    return Question(
        name=f"fields of the newest {_SAMPLED:,} (theirs: one)",
        target=whole_range("/api/v1/logs/fields"),
        logs=min(_SAMPLED, corpus.logs),
        rows=rows,
        sql=lambda _: (
            f"SELECT value, count() AS n FROM ({newest}) WHERE value IS NOT NULL "
            f"GROUP BY value ORDER BY n DESC, value LIMIT {_TOP_VALUES}"
        ),
        is_ordered=True,
    )
