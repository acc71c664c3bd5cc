"""The tree that DuckDB makes of a statement (`json_serialize_sql`): its nodes and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["cte_names", "nodes"]


def nodes(root: object) -> Iterator[Mapping[str, Any]]:
    """All of a tree, without recursion: its depth is the client's. The value of a constant holds
    none, whatever its keys are.
    """
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            if node.get("class") != "CONSTANT":
                waiting += node.values()


def cte_names(root: object) -> set[str]:
    """Names of WITH queries, in lower case."""
    found: set[str] = set()
    for node in nodes(root):
        if isinstance(node.get("cte_map"), dict):
            found |= {str(entry["key"]).lower() for entry in node["cte_map"]["map"]}
        if node.get("cte_name"):
            found.add(str(node["cte_name"]).lower())
    return found
