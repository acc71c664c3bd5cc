"""Random logs and queries, drawn from few names and values so that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

from ingester.lql import ast
from ingester.lql.ast import (
    And,
    Boolean,
    Column,
    Contains,
    Filter,
    Not,
    Null,
    Or,
    Path,
    Text,
    TimeFilter,
)
from ingester.lql.directives import AGGREGATES
from ingester.lql.values import classify

KEYS = ["a", "b", "a.b", "level", "0", "*", "", "é", 'q"', "b\\", "user-agent", "x/y", "~1", "$"]

_NUMBERS = [
    0,
    1,
    8,
    8.0,
    -3,
    0.1,
    20000.0,
    30,
    2**53 + 1,
    2**63,
    2**64,
    10**25,
    -(2**63) - 1,
    1e300,
]
_TEXTS = [
    *("", "x", "on", "true", "NULL", "8", "8.0", "-3", "007", "NaN", " 8", "1_0", "1e3", "é", "A"),
    *("error", "WARN", "30", "info", 'a"b', "a\\b", "a\nb", "x/y", "\x00", "\x1f", "😀", "%", "["),
    *("2026-05-01", "2026-05-01T12:00:00Z", "2026-05-01T12:00:00+02:00", "2026-05-01 10:00"),
    *("2026-02-30", "2026-05-01T12:00:00.000001-00:30", "20260501", "9007199254740993"),
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_NUMBERS),
    st.sampled_from(_TEXTS),
    st.text(max_size=3).filter(lambda t: t.isprintable()),
)
keys = st.sampled_from(KEYS) | st.sampled_from(["a", "b"])
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
columns = st.none() | st.sampled_from([*_TEXTS, "warning", "error", "debug"])
logs = st.fixed_dictionaries({
    "message": columns,
    "level": columns,
    "service": columns,
    "attributes": documents,
})

names = st.sampled_from(["event_message", "message", "level", "service", "environment"])


def _path(steps: list[str], is_exact: bool) -> Path:
    is_plain = all(step and (step.isalnum() or step == "_") for step in steps)
    return Path(tuple(steps), len(steps) > 1 and (is_exact or not is_plain))


paths = st.builds(_path, st.lists(keys, min_size=1, max_size=3), st.booleans())
fields = st.one_of(paths, paths, st.builds(Column, names))

operands = st.one_of(
    st.sampled_from(_TEXTS),
    st.sampled_from([
        "8",
        "-3",
        "0",
        "-0",
        "1e3",
        "2e4",
        "0.1",
        "1e999",
        "9007199254740993",
        "8.5",
    ]),
    st.sampled_from(["9223372036854775808", "18446744073709551616", "10000000000000000000000000"]),
    st.sampled_from(["1..9", "a..z", "2026-01-01..2026-06-01", "info..error", "-5..1e30", "9..1"]),
    st.sampled_from(["NULL", "true", "false", "warn", "err", "2026-05-01T12:00:00Z"]),
    st.text(max_size=3).filter(lambda t: t.isprintable()),
)
patterns = st.sampled_from([
    "^8",
    "8",
    "a",
    "^$",
    "tr",
    "[0-9]{2}",
    "x|on",
    "error",
    "b$",
    "é",
    ".",
])


operators: st.SearchStrategy[ast.Operator] = st.sampled_from((
    "=",
    "=",
    "=",
    ">",
    ">=",
    "<",
    "<=",
    "~",
    "@>",
    "@>~",
))


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    field = draw(fields)
    operator = draw(operators)
    text = draw(patterns if operator in {"~", "@>~"} else operands)
    is_level = field == Column("level")
    if is_level and operator in {">", ">=", "<", "<="}:
        text = draw(st.sampled_from(["error", "WARN", "30", "crit", "debug"]))
    # A blank ends what is not quoted.
    is_quoted = (draw(st.booleans()) or " " in text) and not is_level
    found, value = classify(operator, text, is_quoted=is_quoted)
    if is_level and found == "..":
        found, value = "=", Text(text)
    return Filter(field, found, value)


clauses = st.one_of(filters(), filters(), filters(), st.builds(Contains, st.sampled_from(_TEXTS)))
nodes = st.recursive(
    clauses,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda items: And(tuple(items)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda items: Or(tuple(items)), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=5,
)

times = st.builds(
    TimeFilter,
    st.just(""),
    st.sampled_from([
        "today",
        "now",
        "last@5m",
        "this@week",
        "2026-01-01..now",
        "2026-04-{07..09}",
    ]),
) | st.builds(
    TimeFilter,
    st.sampled_from([">", ">=", "<", "<="]),
    st.sampled_from(["2026-04-01", "1781234567", "2026-04-01 10:00", "yesterday"]),
)
charts = st.builds(
    ast.Chart,
    st.just("count"),
    st.none(),
    st.sampled_from(["second", "minute", "day", "month"]),
    st.lists(fields, max_size=2).map(tuple),
) | st.builds(
    ast.Chart,
    st.sampled_from(AGGREGATES),
    fields,
    st.sampled_from(["minute", "hour"]),
    st.lists(fields, max_size=2).map(tuple),
)
selects = st.builds(ast.Select, fields, st.none() | st.sampled_from(["x", "user_id"])) | st.just(
    ast.Select(None)
)
queries = st.builds(
    ast.Query,
    st.none() | nodes,
    st.lists(times, max_size=2).map(tuple),
    st.none() | charts,
    st.lists(selects, max_size=2).map(tuple),
    st.lists(st.sampled_from(["checkout", "two words", "a:b", "5", "("]), max_size=2).map(tuple),
)

__all__ = ["Boolean", "Null", "documents", "logs", "nodes", "queries"]
