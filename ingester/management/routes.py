"""The route table: for every route what validates, what is answered, who may ask.

`openapi.json` is made from it, the console registers it, and the dispatcher finds in it what to
call, so that none of the three can differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from ingester.management import answers, keys, people, records, rejects, requests
from ingester.management.calls import Call, NeededRole, Nothing

__all__ = ["ROUTES", "Route"]

Method = Literal["GET", "POST", "PATCH", "DELETE"]


class Route(Struct, frozen=True, kw_only=True):
    """One route. `{name}` in the pattern is one path segment. `changes_keys`: the doors must read
    their key tables again after it. `conflict`: what a 409 means, "" for none.
    """

    method: Method
    pattern: str
    summary: str
    function: Callable[[Call[Any, Any]], Struct]
    answer: type[Struct]
    request: type[Struct] = Nothing
    query: type[Struct] = Nothing
    role: NeededRole = "admin"
    status: int = 200
    changes_keys: bool = False
    conflict: str = ""


_NOT_RETRIEVABLE = "The key cannot be shown again; rotate gives a new one."
_LAST_ADMIN = "This is the last administrator."

_API = "/api/v1"


def _get(
    path: str,
    function: Callable[[Call[Any, Any]], Struct],
    answer: type[Struct],
    summary: str,
    *,
    query: type[Struct] = Nothing,
    role: NeededRole = "admin",
) -> Route:
    return Route(
        method="GET",
        pattern=_API + path,
        summary=summary,
        function=function,
        answer=answer,
        query=query,
        role=role,
    )


def _change(
    method: Method,
    path: str,
    function: Callable[[Call[Any, Any]], Struct],
    answer: type[Struct],
    summary: str,
    request: type[Struct] = Nothing,
    *,
    status: int = 200,
    conflict: str = "",
) -> Route:
    """A route after which the doors look again."""
    return Route(
        method=method,
        pattern=_API + path,
        summary=summary,
        function=function,
        answer=answer,
        request=request,
        status=status,
        conflict=conflict,
        changes_keys=True,
    )


def _people(
    method: Method,
    path: str,
    function: Callable[[Call[Any, Any]], Struct],
    answer: type[Struct],
    summary: str,
    request: type[Struct] = Nothing,
    *,
    role: NeededRole = "admin",
    status: int = 200,
    conflict: str = "",
) -> Route:
    return Route(
        method=method,
        pattern=_API + path,
        summary=summary,
        function=function,
        answer=answer,
        request=request,
        role=role,
        status=status,
        conflict=conflict,
    )


_SOURCES = (
    _get("/sources", keys.list_sources, answers.SourceList, "List sources."),
    _change(
        "POST",
        "/sources",
        keys.create_source,
        answers.SourceKey,
        "Make a source and its first key pair.",
        requests.CreateSource,
        status=201,
        conflict="A source of that name exists.",
    ),
    _get("/sources/{name}", keys.get_source, answers.Source, "One source."),
    _change(
        "PATCH",
        "/sources/{name}",
        keys.patch_source,
        answers.Source,
        "Change settings of a source.",
        requests.PatchSource,
    ),
    _change(
        "DELETE",
        "/sources/{name}",
        keys.delete_source,
        answers.Deleted,
        "Delete a source and its keys; its data stays.",
    ),
    _change(
        "POST",
        "/sources/{name}/rotate",
        keys.rotate_source,
        answers.SourceKey,
        "A new key pair; those in use end after the overlap.",
        requests.Rotate,
    ),
    _change(
        "POST",
        "/sources/{name}/revoke",
        keys.revoke_source,
        answers.SourceRevoked,
        "End every key pair of a source now.",
    ),
    _people(
        "POST",
        "/sources/{name}/reveal",
        keys.reveal_source,
        answers.SourceKey,
        "The newest key pair again; 409 when it is not retrievable.",
        conflict=_NOT_RETRIEVABLE,
    ),
    _get(
        "/sources/{name}/usage",
        records.source_usage,
        answers.UsageAnswer,
        "Use of a source by hour.",
        query=requests.UsageQuery,
    ),
)

_TOKENS = (
    _get("/tokens", keys.list_tokens, answers.TokenList, "List tokens."),
    _change(
        "POST",
        "/tokens",
        keys.create_token,
        answers.TokenKeyAnswer,
        "Make a token.",
        requests.CreateToken,
        status=201,
    ),
    _get("/tokens/{id}", keys.get_token, answers.Token, "One token."),
    _change("DELETE", "/tokens/{id}", keys.delete_token, answers.Deleted, "Delete a token."),
    _change(
        "POST",
        "/tokens/{id}/rotate",
        keys.rotate_token,
        answers.TokenKeyAnswer,
        "A new key under the same token; those in use end after the overlap.",
        requests.Rotate,
        conflict="The token has expired.",
    ),
    _change(
        "POST",
        "/tokens/{id}/revoke",
        keys.revoke_token,
        answers.Revoked,
        "End every key of a token now.",
    ),
    _people(
        "POST",
        "/tokens/{id}/reveal",
        keys.reveal_token,
        answers.TokenKeyAnswer,
        "The newest key again; 409 when it is not retrievable.",
        conflict=_NOT_RETRIEVABLE,
    ),
    _get(
        "/tokens/{id}/usage",
        records.token_usage,
        answers.UsageAnswer,
        "Use of a token by hour.",
        query=requests.UsageQuery,
    ),
)

_CONNECTIONS = (
    _get("/connections", keys.list_connections, answers.ConnectionList, "List connections."),
    _change(
        "POST",
        "/connections",
        keys.create_connection,
        answers.ConnectionKeyAnswer,
        "Make a connection for metrics.",
        requests.CreateConnection,
        status=201,
        conflict="A connection of that name exists.",
    ),
    _get("/connections/{id}", keys.get_connection, answers.Connection, "One connection."),
    _change(
        "PATCH",
        "/connections/{id}",
        keys.patch_connection,
        answers.Connection,
        "Change the limits of a connection.",
        requests.PatchConnection,
    ),
    _change(
        "DELETE",
        "/connections/{id}",
        keys.delete_connection,
        answers.Deleted,
        "Delete a connection; its metrics stay.",
    ),
    _change(
        "POST",
        "/connections/{id}/rotate",
        keys.rotate_connection,
        answers.ConnectionKeyAnswer,
        "A new key; those in use end after the overlap.",
        requests.Rotate,
    ),
    _change(
        "POST",
        "/connections/{id}/revoke",
        keys.revoke_connection,
        answers.Revoked,
        "End every key of a connection now.",
    ),
    _people(
        "POST",
        "/connections/{id}/reveal",
        keys.reveal_connection,
        answers.ConnectionKeyAnswer,
        "The newest key again; 409 when it is not retrievable.",
        conflict=_NOT_RETRIEVABLE,
    ),
    _get(
        "/connections/{id}/usage",
        records.connection_usage,
        answers.UsageAnswer,
        "Use of a connection by hour.",
        query=requests.UsageQuery,
    ),
)

_PROJECTS = (
    _get("/projects", keys.list_projects, answers.ProjectList, "List projects.", role="viewer"),
    _people(
        "POST",
        "/projects",
        keys.create_project,
        answers.Project,
        "Make a project.",
        requests.CreateProject,
        status=201,
        conflict="A project of that id exists.",
    ),
    _get("/projects/{id}", keys.get_project, answers.Project, "One project.", role="viewer"),
    _people(
        "DELETE",
        "/projects/{id}",
        keys.delete_project,
        answers.Deleted,
        "Delete a project that no connection uses.",
        conflict="A connection uses the project, or it is the default one.",
    ),
)

_PEOPLE = (
    _get("/members", people.list_members, answers.MemberList, "List members."),
    _people(
        "POST",
        "/members",
        people.create_member,
        answers.Invited,
        "Make a member and a one-time link.",
        requests.CreateMember,
        status=201,
        conflict="There is a member with that address.",
    ),
    _get("/members/{id}", people.get_member, answers.Member, "One member."),
    _people(
        "PATCH",
        "/members/{id}",
        people.patch_member,
        answers.Member,
        "Change a member's role.",
        requests.PatchMember,
        conflict=_LAST_ADMIN,
    ),
    _people(
        "DELETE",
        "/members/{id}",
        people.delete_member,
        answers.Deleted,
        "Delete a member.",
        conflict=_LAST_ADMIN,
    ),
    _people(
        "POST",
        "/members/{id}/invite",
        people.invite_member,
        answers.Invited,
        "A new one-time link, also for a forgotten password.",
    ),
    _people(
        "POST",
        "/setup",
        people.set_up,
        answers.SessionAnswer,
        "Set up the first administrator by the one-time link.",
        requests.SetUp,
        role="anyone",
        conflict="There is a member with that address.",
    ),
    _people(
        "POST",
        "/invites/accept",
        people.accept_invitation,
        answers.SessionAnswer,
        "Set a password by the one-time link.",
        requests.AcceptInvitation,
        role="anyone",
    ),
    _people(
        "POST",
        "/session",
        people.sign_in,
        answers.SessionAnswer,
        "Sign in.",
        requests.SignIn,
        role="anyone",
    ),
    _get("/session", people.get_session, answers.SessionAnswer, "Who is signed in.", role="viewer"),
    _people("DELETE", "/session", people.sign_out, answers.Done, "Sign out.", role="viewer"),
    _people(
        "POST",
        "/session/password",
        people.change_password,
        answers.Done,
        "Change the signed-in member's password.",
        requests.ChangePassword,
        role="viewer",
        conflict="A token asks, which has no password.",
    ),
)

_RECORDS = (
    _get(
        "/audit",
        records.list_audit,
        answers.AuditList,
        "Changes of keys and members, newest first.",
        query=requests.AuditQuery,
    ),
    _get(
        "/refused",
        records.list_refused,
        answers.RefusedList,
        "The last refused requests, newest first.",
        query=requests.RefusedQuery,
    ),
)

# A path of one more fixed segment comes before the one with a variable in its place.
_REJECTS = (
    _get(
        "/rejects",
        rejects.list_rejects,
        answers.RejectList,
        "Rejected lines, newest first.",
        query=requests.RejectsQuery,
        role="viewer",
    ),
    _get(
        "/rejects/counts",
        rejects.count_rejects,
        answers.RejectCounts,
        "Kept rejects by door, source and reason.",
        query=requests.CountsQuery,
        role="viewer",
    ),
    _get("/rejects/{id}", rejects.get_reject, answers.Reject, "One reject.", role="viewer"),
    _people(
        "POST",
        "/rejects/replay",
        rejects.replay_rejects,
        answers.ReplayAnswer,
        "Send rejected lines through their door again, each at most once.",
        requests.ReplayRejects,
    ),
)

ROUTES: tuple[Route, ...] = (
    *_SOURCES,
    *_TOKENS,
    *_CONNECTIONS,
    *_PROJECTS,
    *_PEOPLE,
    *_RECORDS,
    *_REJECTS,
)
