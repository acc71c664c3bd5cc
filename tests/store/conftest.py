"""A small disk for the store's tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

__all__ = ["Disk", "disk"]

MiB = 1024 * 1024

# `disk(mib)` makes a tmpfs of that size, or gives the one there is another size; its folder.
Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"

    def sized(mib: int) -> Path:
        is_new = not folder.exists()
        folder.mkdir(exist_ok=True)
        options = f"size={mib}m" if is_new else f"remount,size={mib}m"
        result = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if result.returncode != 0:
            pytest.skip(f"cannot mount a tmpfs: {result.stderr.decode().strip()}")
        return folder

    yield sized
    if folder.exists():
        subprocess.run(["umount", "-l", str(folder)], check=False)
