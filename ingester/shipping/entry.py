"""Where the one-file program begins: the command line, or the process of a query."""

from __future__ import annotations

import sys

from ingester.executable import QUERY_PROCESS

if __name__ == "__main__":
    if sys.argv[1:2] == [QUERY_PROCESS]:
        from ingester.sandbox.child import main as query_process

        query_process()
    else:
        from ingester.cli import main

        main(prog_name="ingester")
