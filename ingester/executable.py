"""How this program is started again: as itself, or as the process of a query.

Installed with pip it is a module of an interpreter; built as one file (`shipping/binary.py`) there
is no interpreter to ask, and the program starts itself with a first argument of its own.
"""

from __future__ import annotations

import os
import sys

__all__ = ["QUERY_PROCESS", "ingester_command", "is_one_file", "query_process_command"]

# No command's name starts with a dash.
QUERY_PROCESS = "--query-process"

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from ingester.sandbox.child import main; main()"


def is_one_file() -> bool:
    return bool(getattr(sys, "frozen", False))


def ingester_command() -> list[str]:
    """`ingester`, to be followed by a command of it."""
    return [sys.executable] if is_one_file() else [sys.executable, "-m", "ingester"]


def query_process_command() -> list[str]:
    """Takes nothing from the environment: the module path is this process's."""
    if is_one_file():
        return [sys.executable, QUERY_PROCESS]
    return [sys.executable, "-I", "-c", _PROGRAM, *map(os.path.abspath, sys.path)]
