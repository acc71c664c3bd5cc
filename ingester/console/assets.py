"""The files that pages load: our modules and style sheets, and the bundles built of others.

1. Every address begins with a digest over all files. Modules import each other by relative paths,
   so that a page gets all of one version or, after an upgrade, nothing (404) and says so.
2. Only files that were there at the start are served, by their names: no path is ever joined.
3. Answers may be kept for ever, as their address changes with any of them.

4. A module's page names all that it imports, so that they come at once and not one after another.

It refuses to build anything: what is here is what the repository has.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

__all__ = ["Asset", "Assets"]

_HERE = Path(__file__).parent
_CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# Below this the head of an answer is most of it.
_PACKED_BYTES_MIN = 1_000
_DIGEST_CHARACTERS = 16
# Not `import("…")`: what is loaded lazily is meant to be.
_IMPORT = re.compile(rb'(?:^|[;}])\s*(?:import|export)\b[^;"]*?\bfrom\s*"(\.[^"]+)"', re.MULTILINE)


class Asset:
    """One file, as it is and packed."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body = body
        self.content_type = content_type

    @cached_property
    def packed(self) -> bytes | None:
        """By gzip; None where that is of no use. 14 ms for the largest: not on the event loop."""
        if len(self.body) < _PACKED_BYTES_MIN:
            return None
        return gzip.compress(self.body, 9, mtime=0)


class Assets:
    """All files by name: `api.js`, `screens/logs.js`, `vendor/preact.js`."""

    def __init__(self) -> None:
        self._by_name = {
            name: Asset(path.read_bytes(), _CONTENT_TYPES[path.suffix]) for name, path in _files()
        }
        digest = hashlib.sha256()
        for name in sorted(self._by_name):
            digest.update(f"{name}\0".encode())
            digest.update(hashlib.sha256(self._by_name[name].body).digest())
        self.version = digest.hexdigest()[:_DIGEST_CHARACTERS]

    def maybe_asset(self, version: str, name: str) -> Asset | None:
        return self._by_name.get(name) if version == self.version else None

    def has(self, name: str) -> bool:
        return name in self._by_name

    def url(self, name: str) -> str:
        """Raises KeyError for a file that is not here: a page without it would be broken."""
        if name not in self._by_name:
            raise KeyError(name)
        return f"/static/{self.version}/{name}"

    def imported(self, name: str) -> list[str]:
        """All modules that one imports, and those that they do."""
        found: dict[str, None] = {}
        ways = [name]
        while ways:
            importer = ways.pop()
            folder = posixpath.dirname(importer)
            for target in _IMPORT.findall(self._by_name[importer].body):
                one = posixpath.normpath(posixpath.join(folder, target.decode()))
                if one in self._by_name and one not in found:
                    found[one] = None
                    ways.append(one)
        return sorted(found)


def _files() -> Iterator[tuple[str, Path]]:
    for path in sorted((_HERE / "static").rglob("*")):
        if path.suffix in _CONTENT_TYPES:
            yield path.relative_to(_HERE / "static").as_posix(), path
    for path in sorted((_HERE / "vendor").iterdir()):
        if path.suffix in _CONTENT_TYPES:
            yield f"vendor/{path.name}", path
