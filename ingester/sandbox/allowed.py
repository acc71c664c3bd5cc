"""What a query may be: one SELECT over the public tables, made of parts that are known.

`refuse_unless_allowed` walks the tree that DuckDB's own parser made (`json_serialize_sql`).
Everything is an allow-list: a kind of node, a table or a function that is not named here is
refused, so what a later DuckDB brings is refused too. The walk knows no scopes: a name that any
CTE of the query has counts as a table everywhere. That is safe because such a name may be none
that DuckDB's catalogue has (`catalogue`, read before), and none that could be taken for a file
(`_CTE_NAME`).

It refuses to judge cost: that is bounded by the limits of the process (`confine.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from .functions import FUNCTIONS, TABLE_FUNCTIONS
from .messages import QueryRefused
from .tree import cte_names

__all__ = ["refuse_unless_allowed"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A node of an expression has a class, every other node only a type.
_CLASSES = _words(
    """
    BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA
    LAMBDA_REF OPERATOR POSITIONAL_REFERENCE STAR SUBQUERY WINDOW
    """
)
_TYPES = _words(
    """
    SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE BASE_TABLE EMPTY EXPRESSION_LIST
    JOIN PIVOT SUBQUERY TABLE_FUNCTION DISTINCT_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER
    ORDER_MODIFIER ASCENDING DESCENDING ORDER_DEFAULT ANY_TYPE_INFO ARRAY_TYPE_INFO
    DECIMAL_TYPE_INFO LIST_TYPE_INFO STRING_TYPE_INFO STRUCT_TYPE_INFO UNBOUND_TYPE_INFO
    """
)
_SENTENCES = {
    "PARAMETER": "parameters have no value here; write it into the query",
    "SHOW_REF": "only DESCRIBE and SUMMARIZE of a query are taken besides SELECT",
}
_DESCRIPTIONS = frozenset({"DESCRIBE", "SUMMARY"})
# Where the system's functions live.
_SCHEMAS = frozenset({"", "main"})
_CATALOGUES = frozenset({"", "system"})
# No dot, slash or star: nothing that DuckDB would look for on a disk.
_CTE_NAME = re.compile(r"[^\W\d][\w $-]*")
# How DuckDB names what it brings.
_RESERVED = ("duckdb_", "pg_", "pragma_", "sqlite_")
_UNKNOWN_PLACE = 2**64 - 1


def refuse_unless_allowed(
    tree: Mapping[str, Any], sql: str, *, tables: Collection[str], catalogue: Collection[str]
) -> None:
    """Raises QueryRefused. `tree` is what `json_serialize_sql` made of `sql`; `tables` may be read,
    `catalogue` are all names of tables and views that DuckDB would find (lower case).
    """
    statements = tree["statements"]
    if len(statements) != 1:
        raise QueryRefused(f"one SELECT is taken, got {len(statements)} statements")
    _Walk(sql, tables, catalogue, cte_names(statements[0])).visit(statements[0])


class _Walk:
    def __init__(
        self,
        sql: str,
        tables: Collection[str],
        catalogue: Collection[str],
        cte_names: Collection[str],
    ) -> None:
        self._sql = sql.encode()
        self._tables = tables
        self._known = frozenset(tables) | frozenset(cte_names)
        for name in cte_names:
            is_free = name in tables or not (name in catalogue or name.startswith(_RESERVED))
            if not is_free or not _CTE_NAME.fullmatch(name):
                raise QueryRefused(f'"{name}" cannot be the name of a WITH query; choose another')

    def visit(self, root: object) -> None:
        # No recursion: the depth of the tree is the client's.
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, list):
                waiting += node
            elif isinstance(node, dict):
                self._check(node)
                if node.get("class") == "CONSTANT":
                    continue  # its value holds no node, whatever the keys are
                waiting += node.values()
                if node.get("type") == "TABLE_FUNCTION":
                    # Checked by the rule for FROM; what it is given is looked at like the rest.
                    waiting.remove(node["function"])
                    waiting += node["function"].values()

    def _check(self, node: Mapping[str, Any]) -> None:
        node_class = node.get("class")
        node_type = node.get("type")
        if node_class is not None:
            if node_class not in _CLASSES:
                self._refuse_kind(node_class, node)
        elif isinstance(node_type, str) and not self._is_known(node_type, node):
            self._refuse_kind(node_type, node)
        if node_type == "TABLE_FUNCTION":
            function = node["function"]
            if function.get("class") != "FUNCTION":
                self._refuse_kind(node_type, node)
            self._check_function(function, TABLE_FUNCTIONS)
        elif "function_name" in node:
            self._check_function(node, FUNCTIONS)
        elif node_type == "BASE_TABLE":
            self._check_table(node)
        if node.get("export_state"):
            raise QueryRefused("EXPORT_STATE is not available in queries", self._column(node))
        if node.get("pivot_enum"):
            raise QueryRefused("a PIVOT lists its values here", self._column(node))

    def _check_function(self, node: Mapping[str, Any], names: Collection[str]) -> None:
        name = str(node["function_name"]).lower()
        is_ours = node.get("schema", "") in _SCHEMAS and node.get("catalog", "") in _CATALOGUES
        if not is_ours or name not in names:
            raise QueryRefused(
                f'the function "{name}" is not available in queries', self._column(node)
            )

    def _check_table(self, node: Mapping[str, Any]) -> None:
        name = str(node["table_name"]).lower()
        column = self._column(node)
        if node.get("at_clause"):
            raise QueryRefused("there are no older versions to read", column)
        is_qualified = node.get("schema_name") or node.get("catalog_name")
        if name not in self._known or is_qualified:
            full = ".".join(
                str(node[key])
                for key in ("catalog_name", "schema_name", "table_name")
                if node.get(key)
            )
            known = ", ".join(sorted(self._tables))
            raise QueryRefused(f'there is no table "{full}"; there are {known}', column)

    def _is_known(self, node_type: str, node: Mapping[str, Any]) -> bool:
        if node_type == "SHOW_REF":
            return node.get("query") is not None and node.get("show_type") in _DESCRIPTIONS
        return node_type in _TYPES

    def _refuse_kind(self, kind: str, node: Mapping[str, Any]) -> None:
        sentence = _SENTENCES.get(kind, f"{kind} is not available in queries")
        raise QueryRefused(sentence, self._column(node))

    def _column(self, node: Mapping[str, Any]) -> int | None:
        """The 1-based character of the query where the node begins."""
        place = node.get("query_location", _UNKNOWN_PLACE)
        if not isinstance(place, int) or place >= len(self._sql):
            return None
        return len(self._sql[:place].decode("utf-8", "ignore")) + 1
