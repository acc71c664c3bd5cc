"""The plan of a set of rules: which rules match which rows of a batch, many rules at once.

Rules are rows of a table joined with the batch, not texts of SQL. Of each rule one part is its
**anchor**, the one that leaves the fewest rows: a needle, else an equality, else the columns of few
values, else nothing. Anchors give pairs of rule and row for all rules in a few passes over arrays;
what is left of a rule is asked only of its pairs.

1. Equal to the compiled SQL of each rule on each row (property test).
2. Counts are exact; of matching rows the first `rows_max` of each rule are named.
3. Blocking and pure but for `RuleRows`, in whose database conditions run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from ..lql.ast import Column, Node, Path, Query
from ..lql.compiler import condition_of
from ..lql.schema import Schema
from ..lql.sql import Fragment
from ..store.rule_rows import LIST, RuleRows
from .anchors import COMBINED, Equality, Parts, parts_of
from .needles import Haystack, Needles, Pairs, runs

__all__ = ["Match", "Plan"]

Ints = npt.NDArray[np.int64]
# Combinations whose verdicts are remembered; a batch with more is judged all the same.
_COMBINATIONS_MAX = 8_192
# Conditions in one statement.
_STATEMENT_CONDITIONS = 50
_NONE: Ints = np.empty(0, np.int64)


class Match(Struct, frozen=True):
    """What one rule found in a batch."""

    rule: int
    count: int
    rows: Ints


class _Lookup:
    """The values of one path or column that rules ask for, and which rules ask for each.

    `needles`: bytes of which one stands in every payload that may satisfy, unless it has escapes;
    `is_open`: a value has no such bytes, so every row is read. `users`: rules that ask for it.
    """

    def __init__(self, field: Path | Column) -> None:
        self.field = field
        self.literals: dict[str, int] = {}
        self.rules: list[list[int]] = []
        self.anchored: list[int] = []
        self.users: list[int] = []
        self.needles: set[str] = set()
        self.is_open = False

    def add(self, texts: Sequence[str]) -> tuple[int, ...]:
        """Numbers of the literals."""
        for text in texts:
            if text not in self.literals:
                self.literals[text] = len(self.literals)
                self.rules.append([])
        return tuple(self.literals[text] for text in texts)

    def anchor(self, rule: int, numbers: Sequence[int]) -> None:
        self.anchored.append(rule)
        for number in set(numbers):
            self.rules[number].append(rule)


class _Rule(Struct):
    """A rule's parts, compiled to numbers of the plan's tables."""

    parts: Parts
    needles: list[int]
    equalities: list[tuple[int, tuple[int, ...]]]
    whole: Fragment
    rest: Fragment | None
    anchor: str


class _Batch(Struct):
    """What is known of the batch under way. `codes`: the combination of each row; `passes`: by
    rule and combination.
    """

    rows: pa.Table
    codes: npt.NDArray[np.int64]
    counts: Ints
    passes: npt.NDArray[np.bool_]
    pairs: Pairs
    values: list[Ints]


class Plan:
    """Made once for a set of rules over one relation."""

    def __init__(self, queries: Sequence[Query], schema: Schema, rule_rows: RuleRows) -> None:
        self._schema = schema
        self._sql = rule_rows
        self._columns = COMBINED[schema.relation]
        self._lookups: list[_Lookup] = []
        self._needle_numbers: dict[str, int] = {}
        self._atoms: dict[Node, int] = {}
        self._rules = [self._rule(number, query) for number, query in enumerate(queries)]
        self._needles = Needles([text.encode() for text in self._needle_numbers])
        texts = {text for lookup in self._lookups for text in lookup.needles}
        self._value_texts = sorted(texts)
        self._value_needles = Needles([text.encode() for text in self._value_texts])
        self._needle_rules: list[list[int]] = [[] for _ in self._needle_numbers]
        for number, rule in enumerate(self._rules):
            if rule.anchor == "needle":
                self._needle_rules[rule.needles[0]].append(number)
        # Which atoms a rule needs, as a matrix of rules by atoms.
        self._needs = np.zeros((len(self._rules), len(self._atoms)), np.float32)
        for number, rule in enumerate(self._rules):
            for node in rule.parts.combined:
                self._needs[number, self._atoms[node]] = 1
        self._verdicts: dict[tuple[object, ...], npt.NDArray[np.bool_]] = {}

    @property
    def columns(self) -> list[str]:
        """The columns that a batch must have, `request_number` and `line_number` aside."""
        wanted = {*self._columns}
        if self._needle_numbers:
            wanted.add(self._message)
        for lookup in self._lookups:
            is_path = isinstance(lookup.field, Path)
            wanted.add(
                self._schema.attributes if is_path else lookup.field.name  # type: ignore[union-attr]
            )
        if any(rule.rest is not None or rule.equalities for rule in self._rules):
            wanted |= {self._message, self._schema.attributes}
            wanted |= {one for one in self._schema.columns.values() if "::" not in one}
        return sorted(wanted)

    def matches(self, rows: pa.Table, *, rows_max: int) -> list[Match]:
        """Of each rule that matches any of `rows`, in the order of the rules."""
        if not rows.num_rows or not self._rules:
            return []
        batch = self._look(rows)
        found: dict[int, tuple[int, Ints]] = {}
        self._match_pairs(batch, found)
        self._match_columns(batch, rows_max, found)
        self._match_rest(batch, found)
        return [
            Match(rule, count, np.sort(matching)[:rows_max])
            for rule, (count, matching) in sorted(found.items())
            if count
        ]

    @property
    def _message(self) -> str:
        return self._schema.columns[self._schema.message_name].removesuffix("::VARCHAR")

    def _rule(self, number: int, query: Query) -> _Rule:
        assert query.where is not None
        parts = parts_of(query, self._schema)
        texts = sorted(set(parts.needles), key=lambda text: -len(text))
        needles = [
            self._needle_numbers.setdefault(text, len(self._needle_numbers)) for text in texts
        ]
        for node in parts.combined:
            self._atoms.setdefault(node, len(self._atoms))
        equalities = [self._equality(each, number) for each in parts.equalities]
        rest = None if parts.rest is None else condition_of(parts.rest, self._schema)
        anchor = "needle" if needles else "value" if equalities else "rest" if rest else "columns"
        if anchor == "value":
            lookup, literals = equalities[0]
            self._lookups[lookup].anchor(number, literals)
        whole = condition_of(query.where, self._schema)
        return _Rule(parts, needles, equalities, whole, rest, anchor)

    def _equality(self, equality: Equality, rule: int) -> tuple[int, tuple[int, ...]]:
        fields = [lookup.field for lookup in self._lookups]
        if equality.field not in fields:
            fields.append(equality.field)
            self._lookups.append(_Lookup(equality.field))
        number = fields.index(equality.field)
        doubles = self._sql.spelled(equality.doubles) if equality.doubles else []
        lookup = self._lookups[number]
        lookup.users.append(rule)
        if equality.needle is None:
            lookup.is_open = True
        else:
            lookup.needles.add(equality.needle)
        return number, lookup.add([*equality.texts, *doubles])

    def _look(self, rows: pa.Table) -> _Batch:
        """Everything that is read of a batch for all rules together."""
        codes, combinations = _combined([rows.column(name) for name in self._columns])
        passes = self._passes(combinations)
        if self._needle_numbers:
            pairs = self._needles.pairs(Haystack(_text(rows.column(self._message))))
        else:
            pairs = Pairs(_NONE, _NONE)
        counts = np.bincount(codes, minlength=len(combinations))
        return _Batch(rows, codes, counts, passes, pairs, self._values(rows, codes, passes))

    def _passes(self, combinations: Sequence[tuple[object, ...]]) -> npt.NDArray[np.bool_]:
        """By rule and combination whether the clauses on its columns hold."""
        if len(self._verdicts) > _COMBINATIONS_MAX:
            self._verdicts.clear()
        new = [each for each in combinations if each not in self._verdicts]
        if new:
            listed = zip(*new, strict=True)
            table = pa.table({
                name: pa.array(values, pa.string())
                for name, values in zip(self._columns, listed, strict=True)
            })
            holds = np.zeros((len(self._atoms), len(new)), np.float32)
            atoms = list(self._atoms)
            for begin in range(0, len(atoms), _STATEMENT_CONDITIONS):
                some = atoms[begin : begin + _STATEMENT_CONDITIONS]
                conditions = [condition_of(node, self._schema) for node in some]
                for n, found in enumerate(self._sql.which(table, conditions)):
                    holds[begin + n, found] = 1
            needed = self._needs.sum(axis=1, keepdims=True)
            verdicts = (self._needs @ holds) >= needed
            for n, each in enumerate(new):
                self._verdicts[each] = verdicts[:, n]
        return np.stack([self._verdicts[each] for each in combinations], axis=1)

    def _values(self, rows: pa.Table, codes: Ints, passes: npt.NDArray[np.bool_]) -> list[Ints]:
        """For each lookup and row the number of its literal; -1: another value or none, -2: a
        list is on the way. A payload is read only where it may hold one of the values.
        """
        paths = [lookup for lookup in self._lookups if isinstance(lookup.field, Path)]
        wanted = np.zeros(rows.num_rows, bool)
        masks = self._may_hold(rows, paths)
        for lookup, mask in zip(paths, masks, strict=True):
            mask &= np.any(passes[lookup.users], axis=0)[codes]
            wanted |= mask
        read = np.flatnonzero(wanted)
        texts: list[pa.Array] = []
        if len(read):
            document = rows.select([self._schema.attributes])
            texts = self._sql.values(
                document if len(read) == rows.num_rows else document.take(read),
                [_spelled(lookup.field) for lookup in paths],
            )
        found = []
        for lookup in self._lookups:
            if isinstance(lookup.field, Column):
                found.append(_numbers(lookup, _text(rows.column(lookup.field.name))))
                continue
            numbers = np.full(rows.num_rows, -1, np.int64)
            if len(read):
                values = texts[paths.index(lookup)]
                some = _numbers(lookup, values)
                lists = pc.fill_null(pc.equal(values, LIST), False)
                some[lists.to_numpy(zero_copy_only=False)] = -2
                numbers[read] = some
                numbers[~masks[paths.index(lookup)]] = -1
            found.append(numbers)
        return found

    def _may_hold(self, rows: pa.Table, lookups: Sequence[_Lookup]) -> list[npt.NDArray[np.bool_]]:
        """For each lookup of a path the rows whose payload may hold one of its values."""
        if not lookups:
            return []
        if all(lookup.is_open for lookup in lookups):
            return [np.ones(rows.num_rows, bool) for _ in lookups]
        document = _text(rows.column(self._schema.attributes))
        haystack = Haystack(document)
        pairs = self._value_needles.pairs(haystack)
        # What is spelt with escapes may be anything.
        has_slash = any("/" in text for text in self._value_texts)
        escaped = np.zeros(rows.num_rows, bool)
        escaped[haystack.rows_with(ord("\\"), b"u/" if has_slash else b"u")] = True
        number_of = {text: n for n, text in enumerate(self._value_texts)}
        masks = []
        for lookup in lookups:
            if lookup.is_open:
                masks.append(np.ones(rows.num_rows, bool))
                continue
            mask = escaped.copy()
            wanted = np.zeros(len(self._value_texts), bool)
            wanted[[number_of[text] for text in lookup.needles]] = True
            mask[pairs.rows[wanted[pairs.needles]]] = True
            masks.append(mask)
        return masks

    def _match_pairs(self, batch: _Batch, found: dict[int, tuple[int, Ints]]) -> None:
        """Rules anchored by a needle or a value."""
        rules, rows = self._pairs(batch)
        keeps = batch.passes[rules, batch.codes[rows]]
        rules, rows = rules[keeps], rows[keeps]
        order = np.argsort(rules, kind="stable")
        rules, rows = rules[order], rows[order]
        for rule, low, high in runs(rules):
            left = self._rest_of(batch, self._rules[rule], rows[low:high])
            found[rule] = len(left), left

    def _pairs(self, batch: _Batch) -> tuple[Ints, Ints]:
        """Rule and row numbers that the anchors leave."""
        rules, rows = [_NONE], [_NONE]
        expanded = _expand(self._needle_rules, batch.pairs.needles, batch.pairs.rows)
        rules.append(expanded[0])
        rows.append(expanded[1])
        for lookup, codes in zip(self._lookups, batch.values, strict=True):
            if not lookup.anchored:
                continue
            known = np.flatnonzero(codes >= 0)
            expanded = _expand(lookup.rules, codes[known], known)
            rules.append(expanded[0])
            rows.append(expanded[1])
            lists = np.flatnonzero(codes == -2)
            if len(lists):
                rules.append(np.repeat(np.array(lookup.anchored, np.int64), len(lists)))
                rows.append(np.tile(lists, len(lookup.anchored)))
        return np.concatenate(rules), np.concatenate(rows)

    def _rest_of(self, batch: _Batch, rule: _Rule, rows: Ints) -> Ints:
        """Of rows that the anchor and the columns have left, those that match."""
        for needle in rule.needles[1:]:
            rows = rows[np.isin(rows, batch.pairs.rows_of(needle))]
        unsure = np.zeros(len(rows), bool)
        for lookup, literals in rule.equalities:
            codes = batch.values[lookup][rows]
            keeps = np.isin(codes, literals) | (codes == -2)
            rows, unsure, codes = rows[keeps], unsure[keeps], codes[keeps]
            unsure |= codes == -2
        if not len(rows) or (rule.rest is None and not unsure.any()):
            return rows
        asked = rows if rule.rest is not None else rows[unsure]
        condition = rule.rest if rule.rest is not None and not unsure.any() else rule.whole
        (which,) = self._sql.which(batch.rows.take(asked), [condition])
        if rule.rest is not None:
            return rows[which]
        return np.sort(np.concatenate([rows[~unsure], asked[which]]))

    def _match_columns(
        self, batch: _Batch, rows_max: int, found: dict[int, tuple[int, Ints]]
    ) -> None:
        """Rules that look at nothing but columns of few values: no row is looked at."""
        order: Ints | None = None
        starts = np.concatenate([[0], np.cumsum(batch.counts)])
        for number, rule in enumerate(self._rules):
            if rule.anchor != "columns":
                continue
            passing = np.flatnonzero(batch.passes[number])
            count = int(batch.counts[passing].sum())
            if not count:
                continue
            if order is None:
                order = np.argsort(batch.codes, kind="stable")
            first = [order[starts[n] : starts[n + 1]][:rows_max] for n in passing]
            found[number] = count, np.sort(np.concatenate(first))[:rows_max]

    def _match_rest(self, batch: _Batch, found: dict[int, tuple[int, Ints]]) -> None:
        """Rules with no anchor: SQL over the rows whose columns pass."""
        everywhere: list[int] = []
        for number, rule in enumerate(self._rules):
            if rule.anchor != "rest":
                continue
            passing = batch.passes[number]
            if passing.all():
                everywhere.append(number)
                continue
            rows = np.flatnonzero(passing[batch.codes])
            assert rule.rest is not None
            if len(rows):
                (which,) = self._sql.which(batch.rows.take(rows), [rule.rest])
                found[number] = len(which), rows[which]
        for begin in range(0, len(everywhere), _STATEMENT_CONDITIONS):
            some = everywhere[begin : begin + _STATEMENT_CONDITIONS]
            conditions = [rest for n in some if (rest := self._rules[n].rest) is not None]
            for number, which in zip(some, self._sql.which(batch.rows, conditions), strict=True):
                found[number] = len(which), which


def _expand(rules_by_key: Sequence[Sequence[int]], keys: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Each row once for each rule of its key."""
    if not len(keys):
        return _NONE, _NONE
    sizes = np.array([len(rules) for rules in rules_by_key], np.int64)
    starts = np.cumsum(sizes) - sizes
    flat = np.array([rule for rules in rules_by_key for rule in rules], np.int64)
    counts = sizes[keys]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return flat[np.repeat(starts[keys], counts) + within], np.repeat(rows, counts)


def _combined(
    columns: Sequence[pa.ChunkedArray],
) -> tuple[npt.NDArray[np.int64], list[tuple[object, ...]]]:
    """The combination of values of each row, and what the combinations are."""
    codes = np.zeros(len(columns[0]), np.int64)
    dictionaries = []
    for column in columns:
        encoded = _text(column).dictionary_encode(null_encoding="encode")
        values = encoded.dictionary.to_pylist()
        codes = codes * max(1, len(values)) + encoded.indices.to_numpy(zero_copy_only=False)
        dictionaries.append(values)
    distinct, numbers = np.unique(codes, return_inverse=True)
    combinations = []
    for code in distinct.tolist():
        values = []
        for dictionary in reversed(dictionaries):
            code, at = divmod(code, max(1, len(dictionary)))
            values.append(dictionary[at])
        combinations.append(tuple(reversed(values)))
    return numbers.astype(np.int64), combinations


def _text(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _spelled(field: Path | Column) -> tuple[tuple[str, ...], bool]:
    """The steps of a path, and whether a key spelt like the whole of it is meant too."""
    assert isinstance(field, Path)
    return field.keys, len(field.keys) > 1 and not field.is_exact


def _numbers(lookup: _Lookup, texts: pa.Array) -> Ints:
    """The number of each text's literal, -1 where it is none."""
    literals = pa.array(list(lookup.literals), texts.type)
    numbers = pc.fill_null(pc.index_in(texts, value_set=literals), -1)
    codes: Ints = numbers.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
