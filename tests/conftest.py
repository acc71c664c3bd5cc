"""Options of the whole test run.

`--long` turns on the long forms of the fault runs (hundreds of kill rounds, larger disks).
Tests marked `long` are skipped without it; tests that have both forms ask `long_form`.
`--screenshots DIR` writes pictures of the console's screens.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["long_form", "pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]

_SYSTEM_TESTS = Path(__file__).parent / "system"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        default=False,
        help="run the long forms of the fault tests (hours of machine time, not minutes)",
    )
    parser.addoption(
        "--screenshots",
        metavar="DIR",
        default=None,
        help="write pictures of the console's screens into this folder",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Whole modules go to a process each: what starts servers and waits for them begins first, so
    # that no long module is left to one process at the end.
    items.sort(key=lambda item: not item.path.is_relative_to(_SYSTEM_TESTS))
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="long form; run with --long")
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether this run was started with `--long`."""
    return bool(request.config.getoption("--long"))


def pytest_configure() -> None:
    """Let servers and commands that tests start keep their bytecode.

    Where the environment forbids that, each of them compiled two hundred modules anew.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
