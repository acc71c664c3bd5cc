"""The route table: for every route what validates, what is answered, who may ask.

`openapi.json` is made from it, the console registers it, and the dispatcher finds in it what to
call, so that none of the three can differ.
"""

from __future__ import annotations

from ingester.management import answers, keys, people, records, rejects, requests, trials
from ingester.management.dashboards import DASHBOARD_ROUTES
from ingester.management.delivery_routes import DELIVERY_ROUTES
from ingester.management.route import Route, change, get, key_change
from ingester.management.searches import SEARCH_ROUTES
from ingester.management.watch_routes import WATCH_ROUTES

__all__ = ["ROUTES", "Route"]

_NOT_RETRIEVABLE = "The key cannot be shown again; rotate gives a new one."
_LAST_ADMIN = "This is the last administrator."

_SOURCES = (
    get("/sources", keys.list_sources, answers.SourceList, "List sources."),
    key_change(
        "POST",
        "/sources",
        keys.create_source,
        answers.SourceKey,
        "Make a source and its first key pair.",
        requests.CreateSource,
        status=201,
        conflict="A source of that name exists.",
    ),
    get("/sources/{name}", keys.get_source, answers.Source, "One source."),
    key_change(
        "PATCH",
        "/sources/{name}",
        keys.patch_source,
        answers.Source,
        "Change settings of a source.",
        requests.PatchSource,
    ),
    key_change(
        "DELETE",
        "/sources/{name}",
        keys.delete_source,
        answers.Deleted,
        "Delete a source and its keys; its data stays.",
    ),
    key_change(
        "POST",
        "/sources/{name}/rotate",
        keys.rotate_source,
        answers.SourceKey,
        "A new key pair; those in use end after the overlap.",
        requests.Rotate,
    ),
    key_change(
        "POST",
        "/sources/{name}/revoke",
        keys.revoke_source,
        answers.SourceRevoked,
        "End every key pair of a source now.",
    ),
    change(
        "POST",
        "/sources/{name}/reveal",
        keys.reveal_source,
        answers.SourceKey,
        "The newest key pair again; 409 when it is not retrievable.",
        conflict=_NOT_RETRIEVABLE,
    ),
    change(
        "POST",
        "/sources/{name}/try",
        trials.try_map,
        answers.TryMapAnswer,
        "How a source would read lines, with its map or another; nothing is stored.",
        requests.TryMap,
    ),
    get(
        "/sources/{name}/usage",
        records.source_usage,
        answers.UsageAnswer,
        "Use of a source by hour.",
        query=requests.UsageQuery,
    ),
)

_TOKENS = (
    get("/tokens", keys.list_tokens, answers.TokenList, "List tokens."),
    key_change(
        "POST",
        "/tokens",
        keys.create_token,
        answers.TokenKeyAnswer,
        "Make a token.",
        requests.CreateToken,
        status=201,
    ),
    get("/tokens/{id}", keys.get_token, answers.Token, "One token."),
    key_change("DELETE", "/tokens/{id}", keys.delete_token, answers.Deleted, "Delete a token."),
    key_change(
        "POST",
        "/tokens/{id}/rotate",
        keys.rotate_token,
        answers.TokenKeyAnswer,
        "A new key under the same token; those in use end after the overlap.",
        requests.Rotate,
        conflict="The token has expired.",
    ),
    key_change(
        "POST",
        "/tokens/{id}/revoke",
        keys.revoke_token,
        answers.Revoked,
        "End every key of a token now.",
    ),
    change(
        "POST",
        "/tokens/{id}/reveal",
        keys.reveal_token,
        answers.TokenKeyAnswer,
        "The newest key again; 409 when it is not retrievable.",
        conflict=_NOT_RETRIEVABLE,
    ),
    get(
        "/tokens/{id}/usage",
        records.token_usage,
        answers.UsageAnswer,
        "Use of a token by hour.",
        query=requests.UsageQuery,
    ),
)

_CONNECTIONS = (
    get("/connections", keys.list_connections, answers.ConnectionList, "List connections."),
    key_change(
        "POST",
        "/connections",
        keys.create_connection,
        answers.ConnectionKeyAnswer,
        "Make a connection for metrics.",
        requests.CreateConnection,
        status=201,
        conflict="A connection of that name exists.",
    ),
    get("/connections/{id}", keys.get_connection, answers.Connection, "One connection."),
    key_change(
        "PATCH",
        "/connections/{id}",
        keys.patch_connection,
        answers.Connection,
        "Change the limits of a connection.",
        requests.PatchConnection,
    ),
    key_change(
        "DELETE",
        "/connections/{id}",
        keys.delete_connection,
        answers.Deleted,
        "Delete a connection; its metrics stay.",
    ),
    key_change(
        "POST",
        "/connections/{id}/rotate",
        keys.rotate_connection,
        answers.ConnectionKeyAnswer,
        "A new key; those in use end after the overlap.",
        requests.Rotate,
    ),
    key_change(
        "POST",
        "/connections/{id}/revoke",
        keys.revoke_connection,
        answers.Revoked,
        "End every key of a connection now.",
    ),
    change(
        "POST",
        "/connections/{id}/reveal",
        keys.reveal_connection,
        answers.ConnectionKeyAnswer,
        "The newest key again; 409 when it is not retrievable.",
        conflict=_NOT_RETRIEVABLE,
    ),
    get(
        "/connections/{id}/usage",
        records.connection_usage,
        answers.UsageAnswer,
        "Use of a connection by hour.",
        query=requests.UsageQuery,
    ),
)

_PROJECTS = (
    get("/projects", keys.list_projects, answers.ProjectList, "List projects.", role="viewer"),
    change(
        "POST",
        "/projects",
        keys.create_project,
        answers.Project,
        "Make a project.",
        requests.CreateProject,
        status=201,
        conflict="A project of that id exists.",
    ),
    get("/projects/{id}", keys.get_project, answers.Project, "One project.", role="viewer"),
    change(
        "DELETE",
        "/projects/{id}",
        keys.delete_project,
        answers.Deleted,
        "Delete a project that no connection uses.",
        conflict="A connection uses the project, or it is the default one.",
    ),
)

_PEOPLE = (
    get("/members", people.list_members, answers.MemberList, "List members."),
    change(
        "POST",
        "/members",
        people.create_member,
        answers.Invited,
        "Make a member and a one-time link.",
        requests.CreateMember,
        status=201,
        conflict="There is a member with that address.",
    ),
    get("/members/{id}", people.get_member, answers.Member, "One member."),
    change(
        "PATCH",
        "/members/{id}",
        people.patch_member,
        answers.Member,
        "Change a member's role.",
        requests.PatchMember,
        conflict=_LAST_ADMIN,
    ),
    change(
        "DELETE",
        "/members/{id}",
        people.delete_member,
        answers.Deleted,
        "Delete a member.",
        conflict=_LAST_ADMIN,
    ),
    change(
        "POST",
        "/members/{id}/invite",
        people.invite_member,
        answers.Invited,
        "A new one-time link, also for a forgotten password.",
    ),
    change(
        "POST",
        "/setup",
        people.set_up,
        answers.SessionAnswer,
        "Set up the first administrator by the one-time link.",
        requests.SetUp,
        role="anyone",
        conflict="There is a member with that address.",
    ),
    change(
        "POST",
        "/invites/accept",
        people.accept_invitation,
        answers.SessionAnswer,
        "Set a password by the one-time link.",
        requests.AcceptInvitation,
        role="anyone",
    ),
    change(
        "POST",
        "/session",
        people.sign_in,
        answers.SessionAnswer,
        "Sign in.",
        requests.SignIn,
        role="anyone",
    ),
    get("/session", people.get_session, answers.SessionAnswer, "Who is signed in.", role="viewer"),
    change("DELETE", "/session", people.sign_out, answers.Done, "Sign out.", role="viewer"),
    change(
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
    get(
        "/audit",
        records.list_audit,
        answers.AuditList,
        "Changes of keys and members, newest first.",
        query=requests.AuditQuery,
    ),
    get(
        "/refused",
        records.list_refused,
        answers.RefusedList,
        "The last refused requests, newest first.",
        query=requests.RefusedQuery,
    ),
)

# A path of one more fixed segment comes before the one with a variable in its place.
_REJECTS = (
    get(
        "/rejects",
        rejects.list_rejects,
        answers.RejectList,
        "Rejected lines, newest first.",
        query=requests.RejectsQuery,
        role="viewer",
    ),
    get(
        "/rejects/counts",
        rejects.count_rejects,
        answers.RejectCounts,
        "Kept rejects by door, source and reason.",
        query=requests.CountsQuery,
        role="viewer",
    ),
    get("/rejects/{id}", rejects.get_reject, answers.Reject, "One reject.", role="viewer"),
    change(
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
    *DELIVERY_ROUTES,
    *WATCH_ROUTES,
    *SEARCH_ROUTES,
    *DASHBOARD_ROUTES,
)
