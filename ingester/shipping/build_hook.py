"""What a build of the wheel or the sdist refuses: a program without its pages.

A wheel whose console is empty installs, starts, and answers every page with an error; nobody sees
that before a user does. So a build fails when a kind of file is missing, or when a bundle is not
the one that was made (`console/vendor/SHA256SUMS`). `tests/shipping/test_wheel.py` compares file by
file and runs what was installed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["PagesThere", "faults"]

# Each must match something.
_NEEDED = (
    "console/templates/*.html",
    "console/static/*.css",
    "console/static/*.js",
    "console/static/icon.svg",
    "console/static/screens/*.js",
    "console/vendor/LICENCES.txt",
    "samples/*.ndjson.gz",
    "shipping/ingester.service",
    "shipping/Containerfile",
    "shipping/launcher.sh",
    "store/migrations/0001_*.sql",
    "watch/example.toml",
)


def faults(package: Path) -> list[str]:
    """What keeps the folder `package` from being shipped, as sentences."""
    found = [f"{pattern} is not there" for pattern in _NEEDED if not any(package.glob(pattern))]
    vendor = package / "console" / "vendor"
    sums = vendor / "SHA256SUMS"
    if not sums.is_file():
        return [*found, "console/vendor/SHA256SUMS is not there"]
    for line in sums.read_text("ascii").splitlines():
        digest, _, name = line.partition("  ")
        path = vendor / name
        if not path.is_file():
            found.append(f"console/vendor/{name} is not there")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            found.append(f"console/vendor/{name} is not the one that SHA256SUMS names")
    return found


class PagesThere(BuildHookInterface[Any]):
    """Runs before each build but an editable one, which has the files where they are."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        found = faults(Path(self.root) / "ingester")
        if version != "editable" and found:
            raise SystemExit("not built: " + "; ".join(found))
