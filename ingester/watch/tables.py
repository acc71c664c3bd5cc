"""Which stored tables a SELECT of a user may look at, told by the words in it.

For late rows and for what an incident names; a word in a text or a comment counts too, so a table
may be named that is not read, never the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["table_of", "tables_of"]

_WORDS = re.compile(r"[a-z_]+")
# The public relations by the table whose rows they are made of.
_MADE_OF: Mapping[str, frozenset[str]] = {
    "logs": frozenset({"logs", "logs_hourly", "logs_daily"}),
    "events": frozenset({
        "events",
        "events_hourly",
        "events_daily",
        "users",
        "accounts",
        "accounts_daily",
        "modules_daily",
        "features_daily",
    }),
    "metrics": frozenset({"metrics", "metrics_hourly", "metrics_daily"}),
}


def tables_of(sql: str) -> list[str]:
    """Tables of `search.SUBJECTS`; `requests` and `rejects` are none of them."""
    words = set(_WORDS.findall(sql.lower()))
    return [table for table, names in _MADE_OF.items() if words & names]


def table_of(sql: str) -> str | None:
    """The one table it looks at; None when there are several or none."""
    found = tables_of(sql)
    return found[0] if len(found) == 1 else None
