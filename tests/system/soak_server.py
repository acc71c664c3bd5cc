"""`ingester`, but its clock runs fast: days of retention and of rollups pass in minutes.

`FAULT_CLOCK=1763700000:1440` lets 1,440 seconds pass in each one since that moment (epoch seconds).
Only the wall clock (`time.time`, `time.time_ns`) is fast: waits and deadlines are monotonic. What
is told before rows go, and how often it is looked for, is shortened likewise. `BROKEN` as
`broken_server.py` has it.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

__all__ = ["fast_time", "main"]

_CLOCK = "FAULT_CLOCK"


def fast_time(setting: str, real_s: float) -> float:
    """What such a clock shows at `real_s`."""
    begin, _, factor = setting.partition(":")
    return float(begin) + (real_s - float(begin)) * float(factor)


def main() -> None:
    setting = os.environ[_CLOCK]
    real = time.time
    time.time = lambda: fast_time(setting, real())
    time.time_ns = lambda: int(time.time() * 1e9)
    # Behind the patch: some bind the clock when they are imported.
    from ingester.actors import sealer
    from ingester.cli import main as command
    from ingester.store.control.sealed_files import SealedFile
    from ingester.store.retention import Keeping
    from ingester.store.rollups import Rollups

    sealer.NOTICE_S, sealer._PURGE_LOOK_S = 1.0, 1.0
    # The ledger has DuckDB's clock, which is not fast: it would go before the rows it tells of.
    goes_at = Keeping.goes_at

    def later(self: Keeping, file: SealedFile) -> float | None:
        return None if file.table == "applied" else goes_at(self, file)

    Keeping.goes_at = later  # type: ignore[method-assign]
    purge = Rollups.purge

    def purged(self: Rollups, days: int) -> int:
        return purge(self, days, now=datetime.fromtimestamp(time.time(), UTC))

    Rollups.purge = purged  # type: ignore[assignment,method-assign]
    if name := os.environ.get("BROKEN"):
        from tests.system.broken_server import BROKEN

        BROKEN[name]()
    command(prog_name="ingester")


if __name__ == "__main__":
    main()
