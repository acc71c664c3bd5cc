"""CPU and memory of other processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench import process

_CHILD = """
import subprocess, sys, threading, time
block = b"x" * 50_000_000; del block
def burn():
    while time.thread_time() < 0.1: pass
thread = threading.Thread(target=burn); thread.start(); thread.join()
subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.2: pass"])
print("done", flush=True); sys.stdin.read()
"""


def test_cpu_time_covers_threads_and_ended_children_and_peak_memory_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert process.cpu_seconds(child.pid) >= 0.27
        assert process.memory_mb(child.pid) - process.memory_mb(child.pid, "VmRSS") > 40
        process.reset_peak_memory(child.pid)
        assert process.memory_mb(child.pid) - process.memory_mb(child.pid, "VmRSS") < 10
        assert child.pid in process.process_tree(os.getpid())
        process.wait_quiet(child.pid)
        child.communicate()
    with pytest.raises(ProcessLookupError):
        process.cpu_seconds(child.pid)
