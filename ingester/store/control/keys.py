"""Keys: how they are spelled, made, digested and told apart.

A bearer key starts with what it is for, so that one found in a log or a repository can be placed:
`ingl_` sends logs and events, `ingm_` sends metrics, `inga_` reads or administers. The two keys of
a source pair are plain words, because they stand in a path.

1. Stored are SHA-256 and a 4-character tail: 166 random bits need no slow hash.
2. No key is a path segment that means something else.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
import string
import time
from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct

from ingester.errors import InvalidField

__all__ = [
    "RESERVED_SEGMENTS",
    "TAIL_LENGTH",
    "KeyInfo",
    "KeyOwner",
    "Prefix",
    "check_label",
    "end_keys",
    "key_digest",
    "keys_by_owner",
    "new_bearer_key",
    "new_key",
    "new_link_token",
    "pair_digest",
    "revoke_keys",
]

# First path segments under /v1/ that mean something else: never issued as a key.
RESERVED_SEGMENTS = frozenset(
    {"logs", "metrics", "traces", "batch", "track", "identify", "datasets", "ingest", "ping"}
    | {"test"}
)

Prefix = Literal["ingl_", "ingm_", "inga_"]

_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")

# 28 characters of 62 are 166 bits. No "-" or "_": a key is one word under a double click and never
# looks like an option on a command line.
_KEY_ALPHABET = string.ascii_letters + string.digits
_KEY_LENGTH = 28
_LINK_TOKEN_LENGTH = 43
TAIL_LENGTH = 4


class KeyInfo(Struct, frozen=True, kw_only=True):
    """What can be told of a stored key or pair; times are epoch seconds."""

    tail: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    def is_valid(self, now_s: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now_s)


def new_key(choice: Callable[[str], str] = secrets.choice) -> str:
    """A fresh key; `choice` is replaced in tests only."""
    while (key := "".join(choice(_KEY_ALPHABET) for _ in range(_KEY_LENGTH))) in RESERVED_SEGMENTS:
        continue
    return key


def new_bearer_key(prefix: Prefix) -> str:
    return prefix + new_key()


def new_link_token() -> str:
    """For one-time links and sessions: 256 bits. Spelled like a key, so that logs mask it."""
    return "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_LINK_TOKEN_LENGTH))


def pair_digest(auth_key: str, api_key: str) -> bytes:
    """SHA-256 of a pair. NUL is in no issued key, so the two halves cannot be shifted."""
    return hashlib.sha256(f"{auth_key}\0{api_key}".encode("utf-8", "surrogatepass")).digest()


def key_digest(key: str) -> bytes:
    """SHA-256 of a bearer key, a link token or a session."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def check_label(label: str, what: str, *, field: str) -> None:
    """InvalidField with the rule for names that stand in paths."""
    if not _LABEL.fullmatch(label):
        raise InvalidField(
            field,
            f"a {what} is 1 to 64 characters of A-Z a-z 0-9 . _ -"
            + (f", got {label!r}" if len(label) <= 80 else f", got {len(label)} characters"),
        )


# Tables of keys and the column that names their owner. Only these constants reach SQL text.
KeyOwner = Literal["source_keys.source_id", "bearer_keys.token_id", "bearer_keys.connection_id"]


def end_keys(connection: sqlite3.Connection, owner: KeyOwner, owner_id: int, at_s: float) -> None:
    """Let the keys in use end at `at_s`; one that ends earlier still does. Those that have ended
    can be shown no more.
    """
    table, _, column = owner.partition(".")
    connection.execute(
        f"UPDATE {table} SET sealed = NULL WHERE {column} = ? AND expires_at <= ?",
        (owner_id, time.time()),
    )
    connection.execute(
        f"UPDATE {table} SET expires_at = min(coalesce(expires_at, ?1), ?1)"
        f" WHERE {column} = ?2 AND revoked_at IS NULL",
        (at_s, owner_id),
    )


def revoke_keys(
    connection: sqlite3.Connection, owner: KeyOwner, owner_id: int, now_s: float
) -> int:
    """End the keys now; how many were still valid."""
    table, _, column = owner.partition(".")
    return connection.execute(
        f"UPDATE {table} SET revoked_at = ?1, sealed = NULL WHERE {column} = ?2"
        " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?1)",
        (now_s, owner_id),
    ).rowcount


def keys_by_owner(connection: sqlite3.Connection, owner: KeyOwner) -> dict[int, list[KeyInfo]]:
    """Every owner's keys, oldest first."""
    table, _, column = owner.partition(".")
    rows: Iterable[tuple[int, str, float, float | None, float | None]] = connection.execute(
        f"SELECT {column}, tail, created_at, expires_at, revoked_at FROM {table}"
        f" WHERE {column} IS NOT NULL ORDER BY key_id"
    )
    keys: dict[int, list[KeyInfo]] = {}
    for owner_id, tail, created_at, expires_at, revoked_at in rows:
        info = KeyInfo(
            tail=tail, created_at=created_at, expires_at=expires_at, revoked_at=revoked_at
        )
        keys.setdefault(owner_id, []).append(info)
    return keys
