"""Digests and their marks, packed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ingester.protocol import dedup_ids
from ingester.protocol.chunk_shape import Array
from ingester.protocol.dedup_ids import SHARDS, DedupIds


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.mark.parametrize("shard_count", [1, 64, SHARDS])
def test_it_is_a_dictionary(monkeypatch: pytest.MonkeyPatch, shard_count: int) -> None:
    """Also when all records lie in one array, at places where others seem to begin."""
    monkeypatch.setattr(dedup_ids, "SHARDS", shard_count)
    ids, model = DedupIds(), dict[bytes, int]()
    randomness = random.Random(1)
    for _ in range(4000):
        # Of few bytes: many digests appear across two records.
        key = bytes(randomness.choices((0, 1), k=2)) * 8 if randomness.random() < 0.1 else digest(
            randomness.getrandbits(11)
        )  # fmt: skip
        mark = randomness.choice((0, 1, -1, 2**63 - 1, -(2**63), randomness.getrandbits(60)))
        assert ids.get(key) == model.get(key)
        ids.put(key, mark)
        model[key] = mark
        assert ids.get(key) == mark
        assert ids.count == len(model)
    assert all(ids.get(key) == mark for key, mark in model.items())


def test_a_match_across_two_records_is_no_match() -> None:
    ids = DedupIds()
    ids._shards = [bytearray(bytes(24 * 3))] * SHARDS
    assert ids.get(bytes(16)) == 0
    ids._shards = [bytearray(b"\1" + bytes(23) + b"\1" + bytes(23))] * SHARDS
    assert ids.get(bytes(16)) is None
    assert ids.get(b"\1" + bytes(15)) == 0


def test_a_sweep_changes_marks_and_drops_records() -> None:
    ids = DedupIds()
    for number in range(5000):
        ids.put(digest(number), number)

    def renew(marks: Array) -> Array:
        marks[marks % 2 == 0] += 1_000_000
        kept: np.ndarray[Any, Any] = marks % 5 != 0
        return kept

    for shard in range(SHARDS):
        ids.sweep(shard, renew)
    wanted = {n: n + 1_000_000 if n % 2 == 0 else n for n in range(5000) if n % 5}
    assert ids.count == len(wanted)
    assert {n: ids.get(digest(n)) for n in range(5000)} == {n: wanted.get(n) for n in range(5000)}
    ids.put(digest(0), 7)
    assert ids.get(digest(0)) == 7
