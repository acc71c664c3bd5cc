"""Answers of the management routes. Times are RFC 3339 in UTC; only the types named `…Key` hold
keys, and only `Invited` a link.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct, field

from ingester.messages import RejectReason, ReplayResult, Scope
from ingester.store.control import KeyInfo, MemberRole, Tier

__all__ = [
    "AuditList",
    "AuditRow",
    "Connection",
    "ConnectionKeyAnswer",
    "ConnectionList",
    "Deleted",
    "Done",
    "Invited",
    "Key",
    "Member",
    "MemberList",
    "Project",
    "ProjectList",
    "Refused",
    "RefusedList",
    "Reject",
    "RejectCountRow",
    "RejectCounts",
    "RejectList",
    "ReplayAnswer",
    "ReplayRow",
    "ReplayState",
    "Revoked",
    "SessionAnswer",
    "Source",
    "SourceKey",
    "SourceList",
    "SourceRevoked",
    "Token",
    "TokenKeyAnswer",
    "TokenList",
    "TriedEvent",
    "TriedReject",
    "TryMapAnswer",
    "UsageAnswer",
    "UsageHourRow",
    "key_rows",
    "time_text",
]

_MASK = "…"


class Key(Struct, frozen=True, kw_only=True):
    """A key as it can be shown: its last characters and when it ends."""

    tail: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class SourceSettings(Struct, frozen=True, kw_only=True):
    source: str
    lenient_session: bool
    requests_per_hour: int
    dedup_field: str | None
    dedup_hours: int
    map: dict[str, str] | None


class Source(SourceSettings, frozen=True, kw_only=True):
    copyable: bool
    created_at: str
    last_used_at: str | None
    keys: list[Key]


class SourceList(Struct, frozen=True, kw_only=True):
    sources: list[Source]


class SourceKey(SourceSettings, frozen=True, kw_only=True):
    auth_key: str
    api_key: str
    url: str


class TriedEvent(Struct, frozen=True, kw_only=True):
    """The five properties as they would be stored, and the number of the line."""

    line: int
    account_id: str
    user_id: str
    created_at: str
    action: str
    session_id: str | None


class TriedReject(Struct, frozen=True, kw_only=True):
    """A line that would be refused; `column` 0 where no place in it is meant."""

    line: int
    column: int
    field: str | None
    reason: RejectReason
    detail: str


class TryMapAnswer(Struct, frozen=True, kw_only=True):
    """What would become of the lines; nothing is stored. The first hundred of each are told."""

    accepted: int
    rejected: int
    events: list[TriedEvent]
    rejects: list[TriedReject]


class SourceRevoked(Struct, frozen=True, kw_only=True):
    source: str
    revoked: int


class Token(Struct, frozen=True, kw_only=True):
    """`scope` is `scopes` in one word each, blank between."""

    id: str
    service: str
    environment: str
    scope: str
    scopes: list[Scope]
    source: str | None
    requests_per_hour: int
    copyable: bool
    masked: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    last_address: str | None
    keys: list[Key]


class TokenList(Struct, frozen=True, kw_only=True):
    tokens: list[Token]


class TokenKeyAnswer(Struct, frozen=True, kw_only=True):
    """`url` is where logs are sent; null for a token that may not."""

    id: str
    token: str
    service: str
    environment: str
    scope: str
    scopes: list[Scope]
    source: str | None
    expires_at: str | None
    copyable: bool
    url: str | None


class Connection(Struct, frozen=True, kw_only=True):
    """`requests_per_hour` null: the tier's; `limit` is what counts, 0 for none."""

    id: str
    name: str
    webhook_url: str
    project_id: str
    tier: Tier
    requests_per_hour: int | None
    limit: int
    copyable: bool
    masked: str
    created_at: str
    last_used_at: str | None
    last_address: str | None
    keys: list[Key]


class ConnectionList(Struct, frozen=True, kw_only=True):
    connections: list[Connection]


class ConnectionKeyAnswer(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    webhook_url: str
    api_key: str
    project_id: str
    tier: Tier
    limit: int
    copyable: bool


class Project(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    created_at: str
    connections: int


class ProjectList(Struct, frozen=True, kw_only=True):
    projects: list[Project]


class Member(Struct, frozen=True, kw_only=True):
    """`is_active`: has a password. `invited_until`: a one-time link is open."""

    id: str
    email: str | None
    role: MemberRole
    is_active: bool
    created_at: str
    last_seen_at: str | None
    invited_until: str | None


class MemberList(Struct, frozen=True, kw_only=True):
    members: list[Member]


class Invited(Struct, frozen=True, kw_only=True):
    """A member with the one-time link, shown this once."""

    id: str
    email: str | None
    role: MemberRole
    link: str
    expires_at: str


class SessionAnswer(Struct, frozen=True, kw_only=True):
    """Who is signed in. `email` null: a token, or the local administrator."""

    name: str
    email: str | None
    role: MemberRole
    expires_at: str | None


class Revoked(Struct, frozen=True, kw_only=True):
    id: str
    revoked: int


class Deleted(Struct, frozen=True, kw_only=True):
    id: str
    deleted: bool = True


class Done(Struct, frozen=True, kw_only=True):
    done: bool = True


class UsageHourRow(Struct, frozen=True, kw_only=True):
    """One UTC hour. `requests` is all of them, `refused` those answered 4xx."""

    hour: str
    requests: int
    accepted: int
    rejected: int
    refused: int


class Refused(Struct, frozen=True, kw_only=True):
    """A refused request; `credential` "" when it had no valid key."""

    time: str
    credential: str
    status: int
    reason: str
    address: str
    path: str


class RefusedList(Struct, frozen=True, kw_only=True):
    refused: list[Refused]


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """Use of one credential. `quota_left` null: no quota."""

    credential: str
    hours: list[UsageHourRow]
    last_used_at: str | None
    last_address: str | None
    requests_per_hour: int
    quota_used: int | None
    quota_left: int | None
    refused: list[Refused]


class AuditRow(Struct, frozen=True, kw_only=True):
    id: int
    time: str
    actor: str
    action: str
    target: str = field(name="object")
    detail: dict[str, Any]


class AuditList(Struct, frozen=True, kw_only=True):
    entries: list[AuditRow]


class ReplayState(Struct, frozen=True, kw_only=True):
    """What became of a reject that was replayed: the request that it went into, or why it was
    refused again.
    """

    state: Literal["replayed", "refused", "under_way"]
    at: str
    request_id: str | None
    reason: str | None
    detail: str | None


class Reject(Struct, frozen=True, kw_only=True):
    """A refused line. `line` is its text, or base64 when `line_encoding` says so; `is_cut`: only
    the first 64 KiB of it are kept. `replay` null: nobody tried.
    """

    id: str
    received_at: str
    door: str
    source: str
    request_id: str
    line_number: int
    reason: RejectReason
    field: str | None
    column: int | None
    detail: str
    excerpt: str
    line: str
    line_encoding: Literal["utf-8", "base64"]
    is_cut: bool
    replay: ReplayState | None


class RejectList(Struct, frozen=True, kw_only=True):
    """A page, perhaps of less than was asked for. `cursor` is for the next one, null at the end."""

    rejects: list[Reject]
    cursor: str | None


class RejectCountRow(Struct, frozen=True, kw_only=True):
    """Kept rejects of one door, source and reason, and how many of them were replayed."""

    door: str
    source: str
    reason: RejectReason
    rejects: int
    replayed: int
    newest_at: str


class RejectCounts(Struct, frozen=True, kw_only=True):
    counts: list[RejectCountRow]
    rejects: int
    replayed: int


class ReplayRow(Struct, frozen=True, kw_only=True):
    """What became of one chosen reject. `accepted`: a dry run, it would be replayed."""

    id: str
    outcome: ReplayResult
    request_id: str | None = None
    reason: RejectReason | None = None
    field: str | None = None
    column: int | None = None
    detail: str | None = None


class ReplayAnswer(Struct, frozen=True, kw_only=True):
    """`replayed` counts those that were (in a dry run: would be), `refused` those refused again,
    `other` the rest. `cursor`: the filter has more behind these.
    """

    dry_run: bool
    replayed: int
    refused: int
    other: int
    results: list[ReplayRow]
    cursor: str | None


def time_text(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def maybe_time_text(epoch_s: float | None) -> str | None:
    return None if epoch_s is None else time_text(epoch_s)


def key_rows(keys: Sequence[KeyInfo]) -> list[Key]:
    return [
        Key(
            tail=key.tail,
            created_at=time_text(key.created_at),
            expires_at=maybe_time_text(key.expires_at),
            revoked_at=maybe_time_text(key.revoked_at),
        )
        for key in keys
    ]


def masked_key(keys: Sequence[KeyInfo], prefix: str) -> str:
    """The newest key with all but its last characters hidden."""
    return f"{prefix}{_MASK}{keys[-1].tail}" if keys else ""
