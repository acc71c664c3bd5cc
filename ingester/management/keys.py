"""Routes of sources, tokens, connections and projects."""

from __future__ import annotations

import msgspec

from ingester.errors import InvalidField
from ingester.management import answers
from ingester.management.answers import key_rows, masked_key, maybe_time_text, time_text
from ingester.management.calls import Call, Nothing
from ingester.management.requests import (
    CreateConnection,
    CreateProject,
    CreateSource,
    CreateToken,
    PatchConnection,
    PatchSource,
    Rotate,
    given,
)
from ingester.messages import log_url, metric_url, natero_url
from ingester.store.control import (
    ConnectionInfo,
    ConnectionKey,
    ProjectInfo,
    SourceInfo,
    SourceKeys,
    TokenInfo,
    TokenKey,
    UsageSummary,
)

Uses = dict[str, UsageSummary]


def create_source(call: Call[CreateSource, Nothing]) -> answers.SourceKey:
    settings = msgspec.structs.asdict(call.body)
    return _source_key(call, call.control.create_source(**settings, actor=call.actor.name))


def list_sources(call: Call[Nothing, Nothing]) -> answers.SourceList:
    uses = call.control.last_uses()
    return answers.SourceList(sources=[_source(info, uses) for info in call.control.list_sources()])


def get_source(call: Call[Nothing, Nothing]) -> answers.Source:
    return _source(call.control.source(call.names["name"]), call.control.last_uses())


def patch_source(call: Call[PatchSource, Nothing]) -> answers.Source:
    name = call.names["name"]
    info = call.control.patch_source(name, given(call.body), actor=call.actor.name)
    return _source(info, call.control.last_uses())


def delete_source(call: Call[Nothing, Nothing]) -> answers.Deleted:
    call.control.delete_source(call.names["name"], actor=call.actor.name)
    return answers.Deleted(id=call.names["name"])


def rotate_source(call: Call[Rotate, Nothing]) -> answers.SourceKey:
    made = call.control.rotate_source(
        call.names["name"], overlap_seconds=call.body.overlap_seconds, actor=call.actor.name
    )
    return _source_key(call, made)


def revoke_source(call: Call[Nothing, Nothing]) -> answers.SourceRevoked:
    name = call.names["name"]
    revoked = call.control.revoke_source(name, actor=call.actor.name)
    return answers.SourceRevoked(source=name, revoked=revoked)


def reveal_source(call: Call[Nothing, Nothing]) -> answers.SourceKey:
    name = call.names["name"]
    return _source_key(call, call.control.reveal_source(name, actor=call.actor.name))


def create_token(call: Call[CreateToken, Nothing]) -> answers.TokenKeyAnswer:
    body = call.body
    scopes = set(body.scopes) | ({body.scope} if body.scope is not None else set())
    if body.requests_per_hour and scopes and "ingest" not in scopes:
        raise InvalidField(
            "requests_per_hour",
            "requests_per_hour counts requests to the doors, which this token without the scope"
            " ingest does not open",
        )
    made = call.control.create_token(
        service=body.service,
        environment=body.environment,
        scopes=scopes or {"ingest"},
        source=body.source,
        requests_per_hour=body.requests_per_hour,
        expires_at=None if body.expires_at is None else body.expires_at.timestamp(),
        copyable=body.copyable,
        actor=call.actor.name,
    )
    return _token_key(call, made)


def list_tokens(call: Call[Nothing, Nothing]) -> answers.TokenList:
    uses = call.control.last_uses()
    return answers.TokenList(tokens=[_token(info, uses) for info in call.control.list_tokens()])


def get_token(call: Call[Nothing, Nothing]) -> answers.Token:
    return _token(call.control.token(call.names["id"]), call.control.last_uses())


def delete_token(call: Call[Nothing, Nothing]) -> answers.Deleted:
    call.control.delete_token(call.names["id"], actor=call.actor.name)
    return answers.Deleted(id=call.names["id"])


def rotate_token(call: Call[Rotate, Nothing]) -> answers.TokenKeyAnswer:
    made = call.control.rotate_token(
        call.names["id"], overlap_seconds=call.body.overlap_seconds, actor=call.actor.name
    )
    return _token_key(call, made)


def revoke_token(call: Call[Nothing, Nothing]) -> answers.Revoked:
    token_id = call.names["id"]
    revoked = call.control.revoke_token(token_id, actor=call.actor.name)
    return answers.Revoked(id=token_id, revoked=revoked)


def reveal_token(call: Call[Nothing, Nothing]) -> answers.TokenKeyAnswer:
    made = call.control.reveal_token(call.names["id"], actor=call.actor.name)
    return _token_key(call, made)


def create_connection(
    call: Call[CreateConnection, Nothing],
) -> answers.ConnectionKeyAnswer:
    settings = msgspec.structs.asdict(call.body)
    made = call.control.create_connection(**settings, actor=call.actor.name)
    return _connection_key(call, made)


def list_connections(call: Call[Nothing, Nothing]) -> answers.ConnectionList:
    uses = call.control.last_uses()
    return answers.ConnectionList(
        connections=[_connection(call, info, uses) for info in call.control.list_connections()]
    )


def get_connection(call: Call[Nothing, Nothing]) -> answers.Connection:
    info = call.control.connection(call.names["id"])
    return _connection(call, info, call.control.last_uses())


def patch_connection(call: Call[PatchConnection, Nothing]) -> answers.Connection:
    info = call.control.patch_connection(call.names["id"], given(call.body), actor=call.actor.name)
    return _connection(call, info, call.control.last_uses())


def delete_connection(call: Call[Nothing, Nothing]) -> answers.Deleted:
    call.control.delete_connection(call.names["id"], actor=call.actor.name)
    return answers.Deleted(id=call.names["id"])


def rotate_connection(call: Call[Rotate, Nothing]) -> answers.ConnectionKeyAnswer:
    made = call.control.rotate_connection(
        call.names["id"], overlap_seconds=call.body.overlap_seconds, actor=call.actor.name
    )
    return _connection_key(call, made)


def revoke_connection(call: Call[Nothing, Nothing]) -> answers.Revoked:
    connection_id = call.names["id"]
    revoked = call.control.revoke_connection(connection_id, actor=call.actor.name)
    return answers.Revoked(id=connection_id, revoked=revoked)


def reveal_connection(call: Call[Nothing, Nothing]) -> answers.ConnectionKeyAnswer:
    made = call.control.reveal_connection(call.names["id"], actor=call.actor.name)
    return _connection_key(call, made)


def create_project(call: Call[CreateProject, Nothing]) -> answers.Project:
    body = call.body
    return _project(call.control.create_project(body.id, name=body.name, actor=call.actor.name))


def list_projects(call: Call[Nothing, Nothing]) -> answers.ProjectList:
    return answers.ProjectList(projects=[_project(info) for info in call.control.list_projects()])


def get_project(call: Call[Nothing, Nothing]) -> answers.Project:
    return _project(call.control.project(call.names["id"]))


def delete_project(call: Call[Nothing, Nothing]) -> answers.Deleted:
    call.control.delete_project(call.names["id"], actor=call.actor.name)
    return answers.Deleted(id=call.names["id"])


def _source(info: SourceInfo, uses: Uses) -> answers.Source:
    source = info.source
    use = uses.get(source.credential)
    return answers.Source(
        source=source.name,
        lenient_session=source.lenient_session,
        requests_per_hour=source.requests_per_hour,
        dedup_field=source.dedup_field,
        dedup_hours=source.dedup_hours,
        map=source.map,
        copyable=info.copyable,
        created_at=time_text(info.created_at),
        last_used_at=None if use is None else time_text(use.last_used_at),
        keys=key_rows(info.keys),
    )


def _source_key(
    call: Call[CreateSource, Nothing] | Call[Rotate, Nothing] | Call[Nothing, Nothing],
    made: SourceKeys,
) -> answers.SourceKey:
    source = made.source
    return answers.SourceKey(
        source=source.name,
        lenient_session=source.lenient_session,
        requests_per_hour=source.requests_per_hour,
        dedup_field=source.dedup_field,
        dedup_hours=source.dedup_hours,
        map=source.map,
        auth_key=made.auth_key,
        api_key=made.api_key,
        url=natero_url(call.links.intake(), made.auth_key, made.api_key),
    )


def _token(info: TokenInfo, uses: Uses) -> answers.Token:
    use = uses.get(info.id)
    return answers.Token(
        id=info.id,
        service=info.service,
        environment=info.environment,
        scope=" ".join(info.scopes),
        scopes=list(info.scopes),
        source=info.source,
        requests_per_hour=info.requests_per_hour,
        copyable=info.copyable,
        masked=masked_key(info.keys, "ingl_" if info.is_ingest_only else "inga_"),
        created_at=time_text(info.created_at),
        expires_at=maybe_time_text(info.expires_at),
        last_used_at=None if use is None else time_text(use.last_used_at),
        last_address=None if use is None else use.last_address or None,
        keys=key_rows(info.keys),
    )


def _token_key(
    call: Call[CreateToken, Nothing] | Call[Rotate, Nothing] | Call[Nothing, Nothing],
    made: TokenKey,
) -> answers.TokenKeyAnswer:
    token = made.token
    return answers.TokenKeyAnswer(
        id=token.id,
        token=made.key,
        service=token.service,
        environment=token.environment,
        scope=" ".join(token.scopes),
        scopes=list(token.scopes),
        source=token.source,
        expires_at=maybe_time_text(token.expires_at),
        copyable=token.copyable,
        url=log_url(call.links.intake()) if "ingest" in token.scopes else None,
    )


def _connection(
    call: Call[PatchConnection, Nothing] | Call[Nothing, Nothing],
    info: ConnectionInfo,
    uses: Uses,
) -> answers.Connection:
    use = uses.get(info.id)
    return answers.Connection(
        id=info.id,
        name=info.name,
        webhook_url=metric_url(call.links.intake()),
        project_id=info.project_id,
        tier=info.tier,
        requests_per_hour=info.requests_per_hour,
        limit=info.limit,
        copyable=info.copyable,
        masked=masked_key(info.keys, "ingm_"),
        created_at=time_text(info.created_at),
        last_used_at=None if use is None else time_text(use.last_used_at),
        last_address=None if use is None else use.last_address or None,
        keys=key_rows(info.keys),
    )


def _connection_key(
    call: Call[CreateConnection, Nothing] | Call[Rotate, Nothing] | Call[Nothing, Nothing],
    made: ConnectionKey,
) -> answers.ConnectionKeyAnswer:
    info = made.connection
    return answers.ConnectionKeyAnswer(
        id=info.id,
        name=info.name,
        webhook_url=metric_url(call.links.intake()),
        api_key=made.key,
        project_id=info.project_id,
        tier=info.tier,
        limit=info.limit,
        copyable=info.copyable,
    )


def _project(info: ProjectInfo) -> answers.Project:
    return answers.Project(
        id=info.id,
        name=info.name,
        created_at=time_text(info.created_at),
        connections=info.connections,
    )
