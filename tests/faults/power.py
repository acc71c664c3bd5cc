"""Power cuts: `python -m` it as root with a folder, a count, a seed, and perhaps `unsynced`.

The data folder lies on an ext4 of its own, on a loop device. A round is one of `killer.py`, but its
end is a power cut: the child is stopped, 20 ms pass (else ext4 may answer a sync under way that it
then loses), the file system is shut down without writing out its log (FS_IOC_SHUTDOWN, flag 2), the
child killed, and all that was not synced is gone with the remount.

`unsynced` is the build that is broken: its journal writes and does not sync.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import structlog

from ingester.journal.segments import FileCalls
from tests.faults.killer import Round, one_round
from tests.faults.life import Book
from tests.faults.points import patching

__all__ = ["NOT_POSSIBLE", "main"]

# What is printed instead of a report where the machine does not allow it.
NOT_POSSIBLE = "not possible here: "
_SHUTDOWN = 0x8004587D
_WITHOUT_LOG = struct.pack("I", 2)
_IMAGE_BYTES = 512 * 1024 * 1024
_PAUSE_S = 0.02


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(NOT_POSSIBLE + done.stderr.decode().strip())


def main(folder: Path, count: int, seed: int, build: str = "") -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    image, mount = folder / "image", folder / "mount"
    mount.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    _run("mkfs.ext4", "-q", "-F", image)
    _run("mount", "-o", "loop", image, mount)
    report: dict[str, Any] = {"seed": seed, "cuts": 0, "acknowledged_rows": 0, "wrong": []}
    book = Book()

    def cut(child: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
        time.sleep(_PAUSE_S)
        descriptor = os.open(mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _WITHOUT_LOG)
        finally:
            os.close(descriptor)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    with ExitStack() as stack:
        if build == "unsynced":
            patch = stack.enter_context(patching())
            patch(FileCalls, "fdatasync", lambda _: lambda *__: None)
        stack.callback(subprocess.run, ["umount", "-l", str(mount)], check=False)
        for number in range(count + 1):
            this = Round(number, None, 0, seed)
            one_round(mount / "data", book, this, cut)
            report["wrong"] += [line for line in this.said if line.startswith("wrong")]
            report["cuts"] += 1
            told = [r for r in book.requests.values() if r.outcome == "acknowledged"]
            report["acknowledged_requests"] = len(told)
            report["acknowledged_rows"] = sum(request.row_count for request in told)
            print(json.dumps(report), flush=True)
            if report["wrong"]:
                break
            _run("umount", mount)
            _run("mount", "-o", "loop", image, mount)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:5])
