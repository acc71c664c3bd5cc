"""Tokens: bearer keys for logs and events (`ingest`), and for the console's API (`read`, `admin`).

A token stays what it was made as; what can change is its key (rotation), and that it ends.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence

from msgspec import Struct

from ingester.errors import Conflict, InvalidField, NotFound
from ingester.messages import SCOPES, Credential, Scope
from ingester.store.control.file import ControlFile
from ingester.store.control.keys import (
    TAIL_LENGTH,
    KeyInfo,
    KeyOwner,
    end_keys,
    key_digest,
    keys_by_owner,
    new_bearer_key,
    revoke_keys,
)
from ingester.store.control.sources import check_overlap

__all__ = ["TokenInfo", "TokenKey", "Tokens", "token_number"]

TOKEN_ID_PREFIX = "tok_"

INGEST_ONLY: tuple[Scope, ...] = ("ingest",)

_OWNER: KeyOwner = "bearer_keys.token_id"
_TEXT_MAX = 256
_COUNT_MAX = 2**53

_SELECT = (
    "SELECT token_id, service, environment, scopes, sources.name, tokens.requests_per_hour,"
    " tokens.copyable, tokens.created_at, expires_at"
    " FROM tokens LEFT JOIN sources USING (source_id)"
)


class TokenInfo(Struct, frozen=True, kw_only=True):
    """A token and its keys, oldest first; times are epoch seconds."""

    id: str
    service: str
    environment: str
    scopes: tuple[Scope, ...]
    source: str | None
    requests_per_hour: int
    copyable: bool
    created_at: float
    expires_at: float | None
    keys: tuple[KeyInfo, ...]

    @property
    def is_ingest_only(self) -> bool:
        return self.scopes == INGEST_ONLY


class TokenKey(Struct, frozen=True, kw_only=True):
    """A token with its key just made or opened."""

    token: TokenInfo
    key: str

    def __repr__(self) -> str:
        return f"TokenKey({self.token.id}, …{self.key[-TAIL_LENGTH:]})"


def token_number(token_id: str) -> int:
    """The number in `tok_7`; NotFound when it is no id."""
    return id_number(token_id, TOKEN_ID_PREFIX, "token")


def id_number(text: str, prefix: str, what: str) -> int:
    digits = text.removeprefix(prefix)
    if text.startswith(prefix) and digits.isascii() and digits.isdigit() and len(digits) <= 18:
        return int(digits)
    # What came is not repeated: a key may have been put where an id belongs.
    raise NotFound(f"there is no {what} of that id; an id looks like {prefix}1")


class Tokens(ControlFile):
    """The part of the control store that keeps tokens."""

    def create_token(
        self,
        *,
        service: str = "",
        environment: str = "",
        scopes: Collection[Scope] = INGEST_ONLY,
        source: str | None = None,
        requests_per_hour: int = 0,
        expires_at: float | None = None,
        copyable: bool | None = None,
        actor: str = "local",
    ) -> TokenKey:
        """A new token with its first key. `copyable` None: as its scopes allow."""
        now_s = time.time()
        ordered = tuple(scope for scope in SCOPES if scope in scopes)
        _check(service, environment, ordered, requests_per_hour)
        if expires_at is not None and expires_at <= now_s:
            raise InvalidField("expires_at", "expires_at must be in the future")
        is_ingest_only = ordered == INGEST_ONLY
        if copyable and not is_ingest_only:
            raise InvalidField("copyable", "a token that may read or administer is shown once only")
        if source is not None and "ingest" not in ordered:
            raise InvalidField("source", "only a token with the scope ingest has a source")
        with self._transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO tokens (service, environment, scopes, source_id, requests_per_hour,"
                " copyable, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    service,
                    environment,
                    " ".join(ordered),
                    None if source is None else _source_id(connection, source),
                    requests_per_hour,
                    int(is_ingest_only if copyable is None else copyable),
                    now_s,
                    expires_at,
                ),
            )
            assert cursor.lastrowid is not None
            token = _find(connection, cursor.lastrowid)
            self._note(
                connection,
                actor,
                "token created",
                token.id,
                service=service,
                environment=environment,
                scopes=ordered,
                source=source,
            )
            return self._issue(connection, token, now_s)

    def list_tokens(self) -> list[TokenInfo]:
        """Every token, oldest first."""
        with self._reading() as connection:
            return _infos(connection, "ORDER BY token_id")

    def token(self, token_id: str) -> TokenInfo:
        with self._reading() as connection:
            return _find(connection, token_number(token_id))

    def rotate_token(
        self, token_id: str, *, overlap_seconds: int, actor: str = "local"
    ) -> TokenKey:
        """A new key; those in use end after the overlap. The token's own expiry stays."""
        check_overlap(overlap_seconds)
        with self._transaction() as connection:
            token = _find(connection, token_number(token_id))
            now_s = time.time()
            if token.expires_at is not None and token.expires_at <= now_s:
                raise Conflict(f"token {token_id} has expired; make a new one")
            end_keys(connection, _OWNER, token_number(token_id), now_s + overlap_seconds)
            self._note(
                connection, actor, "token rotated", token_id, overlap_seconds=overlap_seconds
            )
            return self._issue(connection, token, now_s)

    def revoke_token(self, token_id: str, *, actor: str = "local") -> int:
        """End every key of the token now; `rotate_token` gives it a new one."""
        with self._transaction() as connection:
            number = token_number(_find(connection, token_number(token_id)).id)
            count = revoke_keys(connection, _OWNER, number, time.time())
            self._note(connection, actor, "token revoked", token_id, keys=count)
            return count

    def delete_token(self, token_id: str, *, actor: str = "local") -> None:
        with self._transaction() as connection:
            token = _find(connection, token_number(token_id))
            connection.execute("DELETE FROM tokens WHERE token_id = ?", (token_number(token_id),))
            self._note(
                connection,
                actor,
                "token deleted",
                token_id,
                service=token.service,
                environment=token.environment,
            )

    def reveal_token(self, token_id: str, *, actor: str = "local") -> TokenKey:
        """The newest key again. Raises NotRetrievable."""
        with self._transaction() as connection:
            token = _find(connection, token_number(token_id))
            key = self._newest_plain(
                connection, _OWNER, token_number(token_id), copyable=token.copyable
            )
            self._note(connection, actor, "token revealed", token_id)
            return TokenKey(token=token, key=key)

    def _issue(self, connection: sqlite3.Connection, token: TokenInfo, now_s: float) -> TokenKey:
        key = new_bearer_key("ingl_" if token.is_ingest_only else "inga_")
        digest = key_digest(key)
        connection.execute(
            "INSERT INTO bearer_keys (token_id, digest, tail, sealed, created_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                token_number(token.id),
                digest,
                key[-TAIL_LENGTH:],
                self._sealed(key, digest, copyable=token.copyable),
                now_s,
            ),
        )
        return TokenKey(token=_find(connection, token_number(token.id)), key=key)


def token_credentials(
    connection: sqlite3.Connection, now_s: float
) -> dict[bytes, tuple[Credential, float | None]]:
    """Valid keys of tokens: digest → (whose, valid until)."""
    tokens = {token_number(info.id): info for info in _infos(connection, "")}
    table = {}
    for digest, number, key_end in connection.execute(
        "SELECT digest, token_id, expires_at FROM bearer_keys"
        " WHERE token_id IS NOT NULL AND revoked_at IS NULL"
    ):
        info = tokens[number]
        ends = [end for end in (key_end, info.expires_at) if end is not None]
        until = min(ends) if ends else None
        if until is not None and until <= now_s:
            continue
        credential = Credential(
            kind="token",
            id=info.id,
            service=info.service,
            environment=info.environment,
            scopes=frozenset(info.scopes),
            source=info.source,
            requests_per_hour=info.requests_per_hour,
            expires_at=until,
        )
        table[digest] = credential, until
    return table


def _check(service: str, environment: str, scopes: Sequence[Scope], requests_per_hour: int) -> None:
    if not scopes:
        raise InvalidField("scopes", f"scopes must be some of {', '.join(SCOPES)}")
    for field, text in (("service", service), ("environment", environment)):
        if "ingest" in scopes and not text:
            raise InvalidField(field, f"a token with the scope ingest needs its {field}")
        if len(text) > _TEXT_MAX or not (text.isprintable() and text == text.strip()):
            raise InvalidField(field, f"{field} must be at most {_TEXT_MAX} printable characters")
    if not 0 <= requests_per_hour <= _COUNT_MAX:
        raise InvalidField(
            "requests_per_hour", "requests_per_hour must be a whole number from 0 (no quota)"
        )


def _source_id(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT source_id FROM sources WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise InvalidField("source", f"there is no source named {name!r}")
    return int(row[0])


def _find(connection: sqlite3.Connection, number: int) -> TokenInfo:
    found = _infos(connection, "WHERE token_id = ?", number)
    if not found:
        raise NotFound(f"there is no token '{TOKEN_ID_PREFIX}{number}'")
    return found[0]


def _infos(connection: sqlite3.Connection, where: str, *values: object) -> list[TokenInfo]:
    keys = keys_by_owner(connection, _OWNER)
    return [
        TokenInfo(
            id=f"{TOKEN_ID_PREFIX}{row[0]}",
            service=row[1],
            environment=row[2],
            scopes=tuple(row[3].split()),
            source=row[4],
            requests_per_hour=row[5],
            copyable=bool(row[6]),
            created_at=row[7],
            expires_at=row[8],
            keys=tuple(keys.get(row[0], ())),
        )
        for row in connection.execute(f"{_SELECT} {where}", values)
    ]
