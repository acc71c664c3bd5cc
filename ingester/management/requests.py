"""Request bodies and queries of the management routes. An unknown field is an error."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ingester.messages import RejectReason, Scope
from ingester.store.control import (
    DEFAULT_PROJECT,
    PASSWORD_CHARACTERS_MAX,
    PASSWORD_CHARACTERS_MIN,
    MemberRole,
    Tier,
)

__all__ = [
    "AcceptInvitation",
    "AuditQuery",
    "ChangePassword",
    "CountsQuery",
    "CreateConnection",
    "CreateMember",
    "CreateProject",
    "CreateSource",
    "CreateToken",
    "PatchConnection",
    "PatchMember",
    "PatchSource",
    "RefusedQuery",
    "RejectChoice",
    "RejectsQuery",
    "ReplayRejects",
    "Rotate",
    "SetUp",
    "SignIn",
    "TryMap",
    "UsageQuery",
    "given",
]

Label = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=256)]
Secret = Annotated[str, Meta(max_length=4096)]
# What the store asks of them it says in better sentences; here it is only told.
_PASSWORD = {"minLength": PASSWORD_CHARACTERS_MIN, "maxLength": PASSWORD_CHARACTERS_MAX}
NewPassword = Annotated[str, Meta(extra_json_schema=_PASSWORD)]
Email = Annotated[str, Meta(max_length=256, extra_json_schema={"format": "email"})]
Time = Annotated[datetime, Meta(tz=True)]
Limit = Annotated[int, Meta(ge=1, le=1000)]
RequestId = Annotated[str, Meta(pattern=r"^[0-7][0-9a-f]{15}\Z")]
RejectId = Annotated[str, Meta(pattern=r"^[0-7][0-9a-f]{15}-[1-9][0-9]{0,17}\Z")]


class CreateSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new event source with its first key pair."""

    name: Label
    lenient_session: bool = False
    requests_per_hour: Count = 0
    dedup_field: Name | None = None
    dedup_hours: Annotated[int, Meta(ge=1, le=24 * 366)] = 24
    map: dict[str, str] | None = None
    copyable: bool = True


class PatchSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a source; what is left out stays."""

    lenient_session: bool | UnsetType = UNSET
    requests_per_hour: Count | UnsetType = UNSET
    dedup_field: Name | UnsetType | None = UNSET
    dedup_hours: Annotated[int, Meta(ge=1, le=24 * 366)] | UnsetType = UNSET
    map: dict[str, str] | UnsetType | None = UNSET
    copyable: bool | UnsetType = UNSET


class TryMap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lines, an object or an array as the honest door takes them, read as the source would read
    them with these settings; what is left out is as the source has it.
    """

    text: Annotated[str, Meta(max_length=65_536)]
    lenient_session: bool | UnsetType = UNSET
    map: dict[str, str] | UnsetType | None = UNSET


class Rotate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new key; those in use end after the overlap (0: now)."""

    overlap_seconds: Count = 0


class CreateToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new token. `scope` is the short form of `scopes` with one element; default `ingest`, which
    needs a service and an environment.
    """

    service: Text = ""
    environment: Text = ""
    scopes: tuple[Scope, ...] = ()
    scope: Scope | None = None
    source: Label | None = None
    requests_per_hour: Count = 0
    expires_at: Time | None = None
    copyable: bool | None = None


class CreateConnection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new connection. A project that is not there yet is made."""

    name: Name
    project_id: Label = DEFAULT_PROJECT
    tier: Tier = "unlimited"
    requests_per_hour: Count | None = None
    copyable: bool = True


class PatchConnection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a connection; `requests_per_hour` null: as the tier says."""

    tier: Tier | UnsetType = UNSET
    requests_per_hour: Count | UnsetType | None = UNSET


class CreateProject(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new project."""

    id: Label
    name: Text = ""


class CreateMember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new member, who gets a one-time link."""

    email: Email
    role: MemberRole = "viewer"


class PatchMember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another role."""

    role: MemberRole


class SignIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """E-mail address and password, for a session."""

    email: Text
    password: Secret


class SetUp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first administrator's address and password, with the token of the setup link."""

    token: Secret
    email: Email
    password: NewPassword


class AcceptInvitation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A member's password, with the token of the invitation."""

    token: Secret
    password: NewPassword


class ChangePassword(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signed-in member's new password; every other session ends."""

    old_password: Secret
    new_password: NewPassword


class UsageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many hours back."""

    hours: Annotated[int, Meta(ge=1, le=24 * 49)] = 24


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of the audit list; `before` is the id of the last entry of the page before."""

    limit: Limit = 100
    before: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class RefusedQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Refused requests, of one credential (`tok_1`, `con_1`, `source:1`) or of all."""

    limit: Limit = 100
    credential: Text | None = None


class CountsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rejects are counted; `since` is included, `until` is not."""

    door: Text | None = None
    source: Text | None = None
    since: Time | None = None
    until: Time | None = None


class RejectChoice(CountsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rejects are meant; what is left out does not matter."""

    reason: RejectReason | None = None
    request_id: RequestId | None = None


class RejectsQuery(RejectChoice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of rejects, newest first; `cursor` comes from the page before."""

    replayed: bool | None = None
    limit: Limit = 100
    cursor: RejectId | None = None


class ReplayRejects(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rejects to send through their door again: by id, or a page of all that a filter chooses and
    that were not replayed, oldest first. `edits` are lines to send instead, by id.
    """

    ids: Annotated[tuple[RejectId, ...], Meta(max_length=1000)] | None = None
    filter: RejectChoice | None = None
    edits: dict[RejectId, str] = {}
    dry_run: bool = False
    limit: Limit = 1000
    cursor: RejectId | None = None


def given(patch: Struct) -> dict[str, object]:
    """The fields of a patch that were sent."""
    fields: dict[str, object] = msgspec.structs.asdict(patch)
    return {name: value for name, value in fields.items() if value is not UNSET}
