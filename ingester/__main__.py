"""`python -m ingester`: the same as the installed command."""

from __future__ import annotations

from ingester.cli import main

if __name__ == "__main__":
    main(prog_name="ingester")
