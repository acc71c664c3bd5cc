"""Bundled real events for `ingester demo`, and the mapping they were made with.

`README.md` beside this file names origin and licence.
"""

from __future__ import annotations

import gzip
from calendar import timegm
from importlib.resources import files
from pathlib import Path
from time import strptime
from typing import Any

import msgspec

__all__ = ["SAMPLE_NAME", "map_github_event", "sample_bytes", "write_sample"]

SAMPLE_NAME = "github-events.ndjson.gz"


def sample_bytes() -> bytes:
    """The bundled file: gzip, one product event a line."""
    return files(__name__).joinpath(SAMPLE_NAME).read_bytes()


def map_github_event(event: dict[str, Any]) -> dict[str, Any]:
    """A public GitHub event as a product event.

    The account is the organisation, or the owner of the repository; a session is one person at
    one repository in one hour. The payload stays as it is, beside repository and event id.
    """
    created_s = timegm(strptime(event["created_at"], "%Y-%m-%dT%H:%M:%SZ"))
    repository = event["repo"]["name"]
    login = event["actor"]["login"]
    return {
        "accountId": event.get("org", {}).get("login") or repository.partition("/")[0],
        "userId": login,
        "createdAt": created_s * 1000,
        "action": event["type"],
        "sessionId": f"{login}@{repository}/{created_s // 3600}",
        "repository": repository,
        "githubId": event["id"],
        "payload": event["payload"],
    }


def write_sample(source: Path, target: Path) -> int:
    """Make the bundled file from the original one (NDJSON, gzip); returns the number of events."""
    with gzip.open(source) as file:
        lines = [msgspec.json.encode(map_github_event(msgspec.json.decode(line))) for line in file]
    target.write_bytes(gzip.compress(b"\n".join(lines) + b"\n", 9, mtime=0))
    return len(lines)
