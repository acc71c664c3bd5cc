"""Rollups: at any moment they and the rows behind the cursor are a recount."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingester.store import rollups as rollups_module
from ingester.store.rollups import READER, Rollups
from tests.search.rows import Rows, event
from tests.store.recount import add_some, assert_recounts
from tests.store.stores import opened, rows, value


def finish(rollups: Rollups) -> None:
    rollups.catch_up(gives_up_at=time.monotonic() + 20)


@pytest.mark.parametrize("seed", range(6))
def test_rollups_equal_a_recount_after_each_step(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with opened(tmp_path) as store:
        rollups, made = Rollups(store), Rows(store)
        for _ in range(5):
            for _ in range(chance.randrange(1, 4)):
                add_some(made, chance)
            finish(rollups)
            assert_recounts(store)
        assert store.cursors.positions()[READER] == store.ledger.commit_number
