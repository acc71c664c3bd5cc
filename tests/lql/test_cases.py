"""The conformance cases of the language definition."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ingester import lql
from ingester.errors import QueryError

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "lql-cases.jsonl").read_text().splitlines()
]


def _times(found: tuple[datetime | None, datetime | None]) -> list[str | None]:
    return [None if t is None else t.isoformat().replace("+00:00", "Z") for t in found]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_conformance_case_holds(case: dict[str, Any]) -> None:
    query = case["lql"]
    if "match" in case:
        assert lql.matches(query, case["event"]) is case["match"], case["why"]
    elif "time" in case:
        now = datetime.fromisoformat(case["now"])
        assert _times(lql.time_window(query, now)) == case["time"], case["why"]
    elif "chart" in case:
        assert lql.chart(query) == case["chart"], case["why"]
    else:
        contexts: list[lql.Context] = (
            ["search", "rule"] if case["context"] == "both" else [case["context"]]
        )
        for context in contexts:
            with pytest.raises(QueryError) as refusal:
                lql.check(query, context)
            assert 1 <= refusal.value.column <= len(query) + 1
            if "column" in case:
                assert refusal.value.column == case["column"], case["why"]
