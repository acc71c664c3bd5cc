"""What a server leaves out and lets go: it goes on as before, with less."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from ingester.process_memory import bound_arenas, forget_loading, leave_out

leave_out()
import duckdb, pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet, structlog
bound_arenas()

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("RssFile:"):
            return int(line.split()[1])

before = resident()
looked_at = forget_loading()
after = resident()
# Code and constants come back from the files, what was relocated is still there.
rows = duckdb.connect().execute("SELECT 'a' || i AS t, now() AS at FROM range(3) r(i)").arrow()
rows = rows.read_all() if hasattr(rows, "read_all") else rows
assert pc.max(rows.column("t")).as_py() == "a2"
# Arrow looks whether a value is one of pandas'.
assert pa.array(iter([1, 2])).to_pylist() == [1, 2]
assert not [name for name in ("pandas", "rich", "pyarrow._s3fs") if sys.modules.get(name)]
structlog.get_logger().info("still here")
print(looked_at > 0, after < before / 2)
"""


def test_libraries_work_after_their_pages_were_let_go() -> None:
    if sys.platform != "linux":
        pytest.skip("there is no /proc")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True True"
