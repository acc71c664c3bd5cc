"""A control store for each test of the routes, and the dispatcher over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingester.store.control import ControlStore
from tests.management.desk import Desk


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlStore]:
    with closing(ControlStore.open(tmp_path / "control.sqlite")) as control:
        yield control


@pytest.fixture
def desk(control: ControlStore) -> Desk:
    return Desk(control)
