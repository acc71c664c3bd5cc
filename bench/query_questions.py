"""The questions of the bench of queries, each in both languages.

Ours is asked as a client asks it, in LQL over HTTP; the rival's is the SQL that a person who knows
ClickHouse would write for the same answer: typed subcolumns, exact counts, a sorted key. Both
answers are brought to the same rows, which must be equal.

Where a person may want less than we answer, the rival is asked in a second way: for a page without
the payloads, and for the values of one field instead of all. Of fields the values of one are
compared.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from bench.query_corpus import DAYS, FIRST_DAY, QueryCorpus

__all__ = ["Question", "Way", "questions", "whole_range"]

_PAGE_ROWS = 100
_SAMPLED = 1_000
_TOP_VALUES = 5
_TEXT_BYTES_MAX = 65_536  # a longer one is left out of our lists
_HOUR = timedelta(hours=1)
# A day that starts and ends at noon: two files of seven.
_DAY_START = FIRST_DAY + timedelta(days=DAYS // 2, hours=12)
_DAY_END = _DAY_START + timedelta(days=1)
_TIME = "formatDateTime(time, '%Y-%m-%dT%H:%i:%S.%fZ')"
_DAY = "formatDateTime(toStartOfDay(time), '%Y-%m-%dT%H:%i:%S.000000Z')"
_ACTION = "attributes.context.action.:String"
_USER = "attributes.context.user.id.:String"

_Rows = list[list[Any]]


class Way(Struct, frozen=True, kw_only=True):
    """How the rival is asked. `sql` may depend on our answer; `bring` makes its rows ours."""

    name: str = ""
    sql: Callable[[Any], str]
    bring: Callable[[_Rows], _Rows]


class Question(Struct, frozen=True, kw_only=True):
    """`rows` of our decoded answer. `logs` are those of the span."""

    name: str
    target: str
    logs: int
    rows: Callable[[Any], _Rows]
    ways: tuple[Way, ...]


def questions(corpus: QueryCorpus) -> tuple[Question, ...]:
    """All of them, in the order of the table."""
    action = corpus.action
    return (
        _bare_word(corpus, "usual word", corpus.usual_word),
        _bare_word(corpus, "rare word", corpus.rare_word),
        _chart(
            corpus,
            "nested field equals, count a day",
            f'm.context.action:"{action}" c:count(*) c:group_by(t::day)',
            f"SELECT {_DAY} AS day, count() FROM logs WHERE {_ACTION} = '{action}' GROUP BY day",
        ),
        _histogram(corpus),
        _chart(
            corpus,
            "values of a nested field, counts a day",
            "c:count(*) c:group_by(t::day, m.context.action)",
            f"SELECT {_DAY} AS day, {_ACTION} AS value, count() FROM logs GROUP BY day, value",
        ),
        _fields(corpus),
        _chart(
            corpus,
            "distinct users a day",
            "c:countd(m.context.user.id) c:group_by(t::day)",
            f"SELECT {_DAY} AS day, uniqExact({_USER}) FROM logs GROUP BY day",
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
        ways=(
            Way(sql=lambda _: select("attributes"), bring=lambda rows: [row[:3] for row in rows]),
            Way(name="without payloads", sql=lambda _: select(), bring=list),
        ),
    )


def _chart(corpus: QueryCorpus, name: str, lql: str, sql: str) -> Question:
    return Question(
        name=name,
        target=whole_range("/api/v1/logs", q=lql),
        logs=corpus.logs,
        rows=lambda found: _sorted(found["chart"]["rows"]),
        ways=(Way(sql=lambda _: sql, bring=_sorted),),
    )


def _histogram(corpus: QueryCorpus) -> Question:
    def rows(found: Any) -> _Rows:
        counts: _Rows = [
            [int(datetime.fromisoformat(bucket["time"]).timestamp()), level, count]
            for bucket in found["buckets"]
            for level, count in bucket["groups"].items()
        ]
        return _sorted(counts)

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
        ways=(Way(sql=sql, bring=_sorted),),
    )


def _fields(corpus: QueryCorpus) -> Question:
    def rows(found: Any) -> _Rows:
        (field,) = (one for one in found["fields"] if one["name"] == "metadata.context.action")
        return [[each["value"], each["count"]] for each in field["values"]]

    newest = f"FROM logs ORDER BY time DESC LIMIT {_SAMPLED}"
    every = (
        f"SELECT path, value, count() AS n FROM (SELECT attributes {newest}) "
        "ARRAY JOIN JSONAllPaths(attributes) AS path, JSONAllValues(attributes) AS value "
        f"GROUP BY path, value ORDER BY path, n DESC, value LIMIT {_TOP_VALUES} BY path"
    )
    one = (
        f"SELECT value, count() AS n FROM (SELECT {_ACTION} AS value {newest}) "
        f"WHERE value IS NOT NULL GROUP BY value ORDER BY n DESC, value LIMIT {_TOP_VALUES}"
    )
    return Question(
        name=f"fields of the newest {_SAMPLED:,}",
        target=whole_range("/api/v1/logs/fields"),
        logs=min(_SAMPLED, corpus.logs),
        rows=rows,
        ways=(
            Way(
                sql=lambda _: every,
                bring=lambda found: [row[1:] for row in found if row[0] == "context.action"],
            ),
            Way(name="of one field", sql=lambda _: one, bring=list),
        ),
    )


def _sorted(rows: _Rows) -> _Rows:
    """Rows whose order was not asked for."""
    return sorted(rows, key=str)
