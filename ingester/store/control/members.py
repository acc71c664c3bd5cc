"""Members and sessions: who may open the console, and the browsers they are signed in with.

1. Stored are a scrypt hash of the password and SHA-256 of link and session tokens.
2. A link works once, until it expires, and only the newest one of a member.
3. A new password ends the sessions there were; the last administrator cannot be lost.
4. Hashing is done outside the store's lock: it takes tens of milliseconds on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import sqlite3
import time
from typing import Literal

from msgspec import Struct

from ingester.errors import Conflict, InvalidField, NotFound, Unauthorized
from ingester.store.control.file import ControlFile
from ingester.store.control.keys import key_digest, new_link_token
from ingester.store.control.tokens import id_number

__all__ = [
    "PASSWORD_CHARACTERS_MAX",
    "PASSWORD_CHARACTERS_MIN",
    "Invitation",
    "MemberInfo",
    "MemberRole",
    "Members",
    "Session",
    "SignedIn",
]

MemberRole = Literal["admin", "viewer"]

MEMBER_ID_PREFIX = "mem_"

# OWASP password storage, scrypt: n = 2^14 with r = 8 needs p = 5 for the recommended strength;
# 16 MiB a hash.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 5
_SCRYPT_MEMORY_MAX = 64 * 1024 * 1024

PASSWORD_CHARACTERS_MIN = 8
PASSWORD_CHARACTERS_MAX = 1024
# Something, an at sign, something: whether it exists only a message to it could tell.
_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}")

INVITE_SECONDS = 7 * 86_400
# `last_seen_at` is written at most once in so many seconds: a write is a sync.
_SEEN_SECONDS = 60.0
_SESSIONS_PER_MEMBER_MAX = 50

_SELECT = (
    "SELECT member_id, email, role, password_hash IS NOT NULL, created_at,"
    " (SELECT max(last_seen_at) FROM sessions WHERE sessions.member_id = members.member_id),"
    " (SELECT max(expires_at) FROM invites WHERE invites.member_id = members.member_id)"
    " FROM members"
)


class MemberInfo(Struct, frozen=True, kw_only=True):
    """A member. `email` None: the first administrator before the setup link was used."""

    id: str
    email: str | None
    role: MemberRole
    is_active: bool
    created_at: float
    last_seen_at: float | None
    invited_until: float | None


class Invitation(Struct, frozen=True, kw_only=True):
    """A member with the token of a one-time link just made."""

    member: MemberInfo
    token: str
    expires_at: float

    def __repr__(self) -> str:
        return f"Invitation({self.member.id})"


class SignedIn(Struct, frozen=True, kw_only=True):
    """A member with a session just opened; `secret` is the cookie's value."""

    member: MemberInfo
    secret: str
    expires_at: float

    def __repr__(self) -> str:
        return f"SignedIn({self.member.id})"


class Session(Struct, frozen=True, kw_only=True):
    """A session found by its cookie."""

    member: MemberInfo
    digest: bytes
    expires_at: float


class Members(ControlFile):
    """The part of the control store that keeps members, one-time links and sessions."""

    def ensure_admin(self) -> Invitation | None:
        """Where there is no administrator: one, and the token of the setup link."""
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM members WHERE role = 'admin'").fetchone():
                return None
            cursor = connection.execute(
                "INSERT INTO members (email, role, created_at) VALUES (NULL, 'admin', ?)",
                (time.time(),),
            )
            assert cursor.lastrowid is not None
            return _invite(connection, _find(connection, cursor.lastrowid))

    def create_member(self, email: str, role: MemberRole, *, actor: str = "local") -> Invitation:
        """A new member, who sets a password by the one-time link."""
        address = _checked_email(email)
        with self._transaction() as connection:
            _refuse_taken(connection, address)
            cursor = connection.execute(
                "INSERT INTO members (email, role, created_at) VALUES (?, ?, ?)",
                (address, role, time.time()),
            )
            assert cursor.lastrowid is not None
            member = _find(connection, cursor.lastrowid)
            self._note(connection, actor, "member created", member.id, email=address, role=role)
            return _invite(connection, member)

    def list_members(self) -> list[MemberInfo]:
        """Every member, oldest first."""
        with self._reading() as connection:
            return _infos(connection, "ORDER BY member_id")

    def member(self, member_id: str) -> MemberInfo:
        with self._reading() as connection:
            return _find(connection, _number(member_id))

    def invite_member(self, member_id: str, *, actor: str = "local") -> Invitation:
        """A new one-time link, also for a forgotten password; earlier links end."""
        with self._transaction() as connection:
            member = _find(connection, _number(member_id))
            self._note(connection, actor, "member invited", member.id)
            return _invite(connection, member)

    def change_role(self, member_id: str, role: MemberRole, *, actor: str = "local") -> MemberInfo:
        number = _number(member_id)
        with self._transaction() as connection:
            member = _find(connection, number)
            if role != "admin":
                _refuse_last_admin(connection, member)
            connection.execute("UPDATE members SET role = ? WHERE member_id = ?", (role, number))
            self._note(connection, actor, "member changed", member.id, role=role)
            return _find(connection, number)

    def delete_member(self, member_id: str, *, actor: str = "local") -> None:
        """The member, the sessions and the links are gone."""
        number = _number(member_id)
        with self._transaction() as connection:
            member = _find(connection, number)
            _refuse_last_admin(connection, member)
            connection.execute("DELETE FROM members WHERE member_id = ?", (number,))
            self._note(connection, actor, "member deleted", member.id, email=member.email)

    def accept_invitation(
        self, token: str, password: str, *, email: str | None = None, session_seconds: int
    ) -> SignedIn:
        """Use a one-time link: set the password (and, for the first administrator, the address),
        end what sessions there were, and sign in.
        """
        _check_password(password)
        address = None if email is None else _checked_email(email)
        hashed = _hash_password(password)
        with self._transaction() as connection:
            now_s = time.time()
            row = connection.execute(
                "SELECT member_id FROM invites WHERE digest = ? AND expires_at > ?",
                (key_digest(token), now_s),
            ).fetchone()
            if row is None:
                raise Unauthorized("this link is unknown, was used already, or has expired")
            member = _find(connection, row[0])
            if member.email is None and address is None:
                raise InvalidField("email", "the first administrator gives an e-mail address")
            if member.email is None and address is not None:
                _refuse_taken(connection, address)
                connection.execute(
                    "UPDATE members SET email = ? WHERE member_id = ?", (address, row[0])
                )
            _set_password(connection, row[0], hashed)
            connection.execute("DELETE FROM invites WHERE member_id = ?", (row[0],))
            member = _find(connection, row[0])
            self._note(connection, member.email or "", "member joined", member.id)
            return _open_session(connection, member, now_s, session_seconds)

    def sign_in(self, email: str, password: str, *, session_seconds: int) -> SignedIn:
        """A session for the right password; otherwise Unauthorized, which tells no more."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT member_id, password_hash FROM members WHERE email = ?",
                (email.strip().lower(),),
            ).fetchone()
        stored = row[1] if row is not None and row[1] is not None else None
        # An unknown address costs the same time as a wrong password.
        is_right = _is_password(password, stored or _DUMMY_HASH)
        if stored is None or not is_right:
            raise Unauthorized("the e-mail address or the password is wrong")
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT 1 FROM members WHERE member_id = ? AND password_hash = ?", (row[0], stored)
            ).fetchone()
            if found is None:  # changed or deleted meanwhile
                raise Unauthorized("the e-mail address or the password is wrong")
            member = _find(connection, row[0])
            return _open_session(connection, member, time.time(), session_seconds)

    def session(self, secret: str) -> Session | None:
        """The session of a cookie, when it is still open."""
        digest = key_digest(secret)
        with self._transaction("BEGIN DEFERRED") as connection:
            now_s = time.time()
            row = connection.execute(
                "SELECT member_id, expires_at, last_seen_at FROM sessions"
                " WHERE digest = ? AND expires_at > ?",
                (digest, now_s),
            ).fetchone()
            if row is None:
                return None
            if now_s - row[2] > _SEEN_SECONDS:
                connection.execute(
                    "UPDATE sessions SET last_seen_at = ? WHERE digest = ?", (now_s, digest)
                )
            return Session(member=_find(connection, row[0]), digest=digest, expires_at=row[1])

    def sign_out(self, digest: bytes) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE digest = ?", (digest,))

    def change_password(self, session: Session, old: str, new: str) -> None:
        """A new password for the session's member; every other session ends."""
        _check_password(new)
        number = _number(session.member.id)
        with self._reading() as connection:
            row = connection.execute(
                "SELECT password_hash FROM members WHERE member_id = ?", (number,)
            ).fetchone()
        stored = None if row is None else row[0]
        if not _is_password(old, stored or _DUMMY_HASH) or stored is None:
            raise Unauthorized("the present password is wrong")
        hashed = _hash_password(new)
        with self._transaction() as connection:
            member = _find(connection, number)
            _set_password(connection, number, hashed, keep=session.digest)
            connection.execute("DELETE FROM invites WHERE member_id = ?", (number,))
            self._note(connection, member.email or "", "password changed", member.id)


def _checked_email(email: str) -> str:
    address = email.strip().lower()
    if not _EMAIL.fullmatch(address) or not address.isprintable():
        raise InvalidField("email", "email must look like name@example.org")
    return address


def _check_password(password: str) -> None:
    if not PASSWORD_CHARACTERS_MIN <= len(password) <= PASSWORD_CHARACTERS_MAX:
        raise InvalidField(
            "password",
            f"a password has {PASSWORD_CHARACTERS_MIN} to {PASSWORD_CHARACTERS_MAX} characters",
        )


def _hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
    texts = (base64.b64encode(part).decode() for part in (salt, digest))
    return "$".join(["scrypt", str(_SCRYPT_N), str(_SCRYPT_R), str(_SCRYPT_P), *texts])


def _is_password(password: str, stored: str) -> bool:
    _, n, r, p, salt, digest = stored.split("$")
    if len(password) > PASSWORD_CHARACTERS_MAX:
        return False
    found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(digest))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=n,
        r=r,
        p=p,
        maxmem=_SCRYPT_MEMORY_MAX,
        dklen=32,
    )


# No password has this hash; checking against it takes as long as any other check.
_DUMMY_HASH = f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${'A' * 22}==${'A' * 43}="


def _set_password(
    connection: sqlite3.Connection, number: int, hashed: str, *, keep: bytes = b""
) -> None:
    connection.execute("UPDATE members SET password_hash = ? WHERE member_id = ?", (hashed, number))
    connection.execute("DELETE FROM sessions WHERE member_id = ? AND digest <> ?", (number, keep))


def _invite(connection: sqlite3.Connection, member: MemberInfo) -> Invitation:
    number, token, now_s = _number(member.id), new_link_token(), time.time()
    connection.execute(
        "DELETE FROM invites WHERE member_id = ? OR expires_at <= ?", (number, now_s)
    )
    connection.execute(
        "INSERT INTO invites VALUES (?, ?, ?, ?)",
        (key_digest(token), number, now_s, now_s + INVITE_SECONDS),
    )
    return Invitation(
        member=_find(connection, number), token=token, expires_at=now_s + INVITE_SECONDS
    )


def _open_session(
    connection: sqlite3.Connection, member: MemberInfo, now_s: float, seconds: int
) -> SignedIn:
    number, secret = _number(member.id), new_link_token()
    connection.execute("DELETE FROM sessions WHERE expires_at <= ?", (now_s,))
    connection.execute(
        "DELETE FROM sessions WHERE digest IN (SELECT digest FROM sessions WHERE member_id = ?"
        " ORDER BY last_seen_at DESC LIMIT -1 OFFSET ?)",
        (number, _SESSIONS_PER_MEMBER_MAX - 1),
    )
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)",
        (key_digest(secret), number, now_s, now_s + seconds, now_s),
    )
    return SignedIn(member=_find(connection, number), secret=secret, expires_at=now_s + seconds)


def _refuse_taken(connection: sqlite3.Connection, address: str) -> None:
    if connection.execute("SELECT 1 FROM members WHERE email = ?", (address,)).fetchone():
        raise Conflict(f"{address} is a member already")


def _refuse_last_admin(connection: sqlite3.Connection, member: MemberInfo) -> None:
    """One who has a password stands for a member who has one, else any other would do."""
    if member.role != "admin":
        return
    (others,) = connection.execute(
        "SELECT count(*) FROM members WHERE role = 'admin' AND member_id <> ?"
        " AND (password_hash IS NOT NULL OR NOT ?)",
        (_number(member.id), member.is_active),
    ).fetchone()
    if not others:
        raise Conflict("this is the last administrator; make another one first")


def _number(member_id: str) -> int:
    return id_number(member_id, MEMBER_ID_PREFIX, "member")


def _find(connection: sqlite3.Connection, number: int) -> MemberInfo:
    found = _infos(connection, "WHERE member_id = ?", number)
    if not found:
        raise NotFound(f"there is no member '{MEMBER_ID_PREFIX}{number}'")
    return found[0]


def _infos(connection: sqlite3.Connection, where: str, *values: object) -> list[MemberInfo]:
    return [
        MemberInfo(
            id=f"{MEMBER_ID_PREFIX}{row[0]}",
            email=row[1],
            role=row[2],
            is_active=bool(row[3]),
            created_at=row[4],
            last_seen_at=row[5],
            invited_until=row[6],
        )
        for row in connection.execute(f"{_SELECT} {where}", values)
    ]
