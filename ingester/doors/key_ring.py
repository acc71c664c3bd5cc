"""Key ring: valid keys and the settings of sources, as the doors look them up.

Replaced whole when keys change, so a look-up never waits and never sees half of a change. Keys are
found by SHA-256: how long that takes tells nothing about them. An end that lies in the future is
looked at with every use.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

import trio

from ingester.errors import Unauthorized
from ingester.messages import Credential, Source
from ingester.store.control import KeyTables, key_digest, pair_digest

__all__ = ["KeyRing", "UnknownKey"]

Pairs = Mapping[bytes, tuple[Source, float | None]]
Bearers = Mapping[bytes, tuple[Credential, float | None]]

_NO_BEARERS: Bearers = MappingProxyType({})


class UnknownKey(Unauthorized):
    """A well-formed key that is nobody's, or nobody's any more."""


class KeyRing:
    """`table` is another object after every change: who remembers a verdict compares it."""

    def __init__(self, pairs: Pairs) -> None:
        self.replace(pairs)
        self.turn = trio.Lock()  # held while new tables are read

    def replace(
        self,
        pairs: Pairs,
        bearers: Bearers = _NO_BEARERS,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        """New tables; `sources` None: those that have a pair."""
        self.table = dict(pairs)
        self._bearers = bearers
        self._sources = (
            {source.name: source for source, _ in pairs.values()} if sources is None else sources
        )

    def take(self, tables: KeyTables) -> None:
        """New tables, as the control store gives them."""
        self.replace(tables.pairs, tables.bearers, tables.sources)

    def source_of(self, auth_key: str, api_key: str) -> Source | None:
        found = self.table.get(pair_digest(auth_key, api_key))
        if found is None:
            return None
        source, valid_until_s = found
        if valid_until_s is not None and time.time() >= valid_until_s:
            return None
        return source

    def source_for_good(self, auth_key: str, api_key: str) -> Source | None:
        """Like `source_of`, but only for a pair that stays valid until the table is replaced."""
        found = self.table.get(pair_digest(auth_key, api_key))
        return None if found is None or found[1] is not None else found[0]

    def source_named(self, name: str) -> Source | None:
        """The settings of a source, whether it has keys or not."""
        return self._sources.get(name)

    def credential_of(self, key: str) -> Credential:
        """Whose bearer key it is. Raises UnknownKey."""
        found = self._bearers.get(key_digest(key))
        if found is None:
            raise UnknownKey("the key is unknown, was revoked, or has expired")
        credential, valid_until_s = found
        if valid_until_s is not None and time.time() >= valid_until_s:
            raise UnknownKey("the key is unknown, was revoked, or has expired")
        return credential
