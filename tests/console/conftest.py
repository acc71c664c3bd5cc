"""A console that is served, for the tests of its door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.console.fakes import Console, served


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    async with served(tmp_path) as console:
        yield console
