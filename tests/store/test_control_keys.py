"""The control store: tokens, connections, projects; copying, expiry, rotation, upgrade, audit."""

from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingester.errors import Conflict, InvalidField, NotFound
from ingester.store.control import ControlStore, NotRetrievable, key_digest, pair_digest
from ingester.store.control import file as control_file
from ingester.store.migrations import bundled_migrations


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    with closing(ControlStore.open(tmp_path / "control.sqlite")) as store:
        yield store


def token(store: ControlStore, **named: object) -> str:
    return store.create_token(service="web", environment="prod", **named).key  # type: ignore[arg-type]


def test_keys_tell_their_kind_and_are_found_by_digest(store: ControlStore) -> None:
    ingest = store.create_token(service="web", environment="prod")
    admin = store.create_token(scopes={"admin"})
    metric = store.create_connection("cron", tier="free")
    assert ingest.key.startswith("ingl_")
    assert admin.key.startswith("inga_")
    assert metric.key.startswith("ingm_")
    bearers = store.key_tables().bearers
    whose = {key: bearers[key_digest(key)][0] for key in (ingest.key, admin.key, metric.key)}
    assert whose[ingest.key].service == "web"
    assert whose[ingest.key].environment == "prod"
    assert whose[ingest.key].scopes == {"ingest"}
    assert whose[admin.key].scopes == {"admin"}
    assert whose[metric.key].kind == "connection"
    assert whose[metric.key].project_id == "default"
    assert whose[metric.key].requests_per_hour == 100
    assert len({credential.credential for credential in whose.values()}) == 3


def test_several_tokens_share_service_and_environment(store: ControlStore) -> None:
    assert token(store) != token(store)
    assert len(store.list_tokens()) == 2


def test_no_key_is_in_any_file_or_repr(tmp_path: Path, store: ControlStore) -> None:
    made = store.create_token(service="web", environment="prod")
    connection = store.create_connection("cron")
    invitation = store.create_member("ada@example.org", "viewer")
    signed_in = store.accept_invitation(invitation.token, "a long password", session_seconds=60)
    secrets = [made.key, connection.key, invitation.token, signed_in.secret, "a long password"]
    for text in (
        made,
        connection,
        invitation,
        signed_in,
        store.list_tokens(),
        store.audit(limit=9),
    ):
        assert not any(secret in repr(text) for secret in secrets)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert not any(secret.encode() in content for secret in secrets)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_only_ingest_keys_can_be_copied(store: ControlStore) -> None:
    ingest = store.create_token(service="web", environment="prod")
    assert store.reveal_token(ingest.token.id).key == ingest.key
    kept_out = store.create_token(service="web", environment="prod", copyable=False)
    admin = store.create_token(scopes={"admin", "ingest"}, service="s", environment="e")
    for made in (kept_out, admin):
        assert not made.token.copyable
        with pytest.raises(NotRetrievable, match="rotate"):
            store.reveal_token(made.token.id)
    with pytest.raises(InvalidField, match="once only"):
        store.create_token(scopes={"read"}, copyable=True)
    connection = store.create_connection("cron")
    assert store.reveal_connection(connection.connection.id).key == connection.key
    pair = store.create_source("shop")
    assert store.reveal_source("shop") == pair
    store.create_source("kiosk", copyable=False)
    with pytest.raises(NotRetrievable, match="rotate"):
        store.reveal_source("kiosk")


def test_copying_gives_the_newest_valid_key(store: ControlStore) -> None:
    made = store.create_token(service="web", environment="prod")
    new = store.rotate_token(made.token.id, overlap_seconds=60)
    assert store.reveal_token(made.token.id).key == new.key
    assert store.revoke_token(made.token.id) == 2
    with pytest.raises(NotRetrievable, match="no valid key"):
        store.reveal_token(made.token.id)


def test_a_lost_secret_key_is_told_and_everything_else_works(
    tmp_path: Path, store: ControlStore
) -> None:
    made = store.create_token(service="web", environment="prod")
    secret_path = tmp_path / "secret.key"
    assert stat.S_IMODE(secret_path.stat().st_mode) == 0o600
    kept = secret_path.read_bytes()
    secret_path.unlink()
    with pytest.raises(NotRetrievable, match=r"secret\.key is missing"):
        store.reveal_token(made.token.id)
    assert not secret_path.exists()
    assert key_digest(made.key) in store.key_tables().bearers
    later = store.create_token(service="web", environment="prod")
    assert store.reveal_token(later.token.id).key == later.key
    with pytest.raises(NotRetrievable, match=r"another secret\.key"):
        store.reveal_token(made.token.id)
    secret_path.write_bytes(kept)
    assert store.reveal_token(made.token.id).key == made.key


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", b"A" * 44])
def test_a_damaged_secret_key_stops_nothing_but_copying(
    tmp_path: Path, store: ControlStore, content: bytes
) -> None:
    (tmp_path / "secret.key").write_bytes(content)
    made = store.create_token(service="web", environment="prod")
    with pytest.raises(NotRetrievable, match="rotate"):
        store.reveal_token(made.token.id)
    assert key_digest(made.key) in store.key_tables().bearers
    assert (tmp_path / "secret.key").read_bytes() == content


def test_a_sealed_key_cannot_be_moved_to_another_row(tmp_path: Path, store: ControlStore) -> None:
    first = store.create_token(service="web", environment="prod")
    second = store.create_token(service="web", environment="prod")
    store.close()
    with closing(sqlite3.connect(tmp_path / "control.sqlite")) as connection, connection:
        connection.execute(
            "UPDATE bearer_keys SET sealed = (SELECT sealed FROM bearer_keys WHERE token_id = 1)"
        )
    with closing(ControlStore.open(tmp_path / "control.sqlite")) as store:
        assert store.reveal_token(first.token.id).key == first.key
        with pytest.raises(NotRetrievable):
            store.reveal_token(second.token.id)


def test_rotation_keeps_the_old_key_for_the_overlap_and_the_credential(
    store: ControlStore,
) -> None:
    old = store.create_token(service="web", environment="prod")
    new = store.rotate_token(old.token.id, overlap_seconds=3600)
    bearers = store.key_tables().bearers
    until = bearers[key_digest(old.key)][1]
    assert until is not None
    assert bearers[key_digest(new.key)][1] is None
    assert bearers[key_digest(old.key)][0].credential == bearers[key_digest(new.key)][0].credential
    assert key_digest(old.key) not in store.key_tables(until + 1).bearers
    last = store.rotate_token(old.token.id, overlap_seconds=0)
    assert set(store.key_tables().bearers) == {key_digest(last.key)}


def test_an_expired_token_opens_nothing_and_is_not_rotated(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    made = store.create_token(service="s", environment="e", expires_at=now + 60)
    assert store.key_tables().bearers[key_digest(made.key)][1] == now + 60
    with pytest.raises(InvalidField, match="future"):
        store.create_token(service="s", environment="e", expires_at=now - 1)
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert store.key_tables().bearers == {}
    with pytest.raises(Conflict, match="has expired"):
        store.rotate_token(made.token.id, overlap_seconds=0)


def test_a_revoked_or_deleted_token_opens_nothing(store: ControlStore) -> None:
    made = store.create_token(service="s", environment="e")
    assert store.revoke_token(made.token.id) == 1
    assert store.key_tables().bearers == {}
    again = store.rotate_token(made.token.id, overlap_seconds=0)
    assert set(store.key_tables().bearers) == {key_digest(again.key)}
    store.delete_token(made.token.id)
    assert store.key_tables().bearers == {}
    for call in (store.token, store.delete_token, store.revoke_token, store.reveal_token):
        with pytest.raises(NotFound):
            call(made.token.id)


@pytest.mark.parametrize(
    ("named", "field"),
    [
        ({}, "service"),
        ({"service": "s"}, "environment"),
        ({"service": "s\n", "environment": "e"}, "service"),
        ({"service": "s" * 257, "environment": "e"}, "service"),
        ({"scopes": ()}, "scopes"),
        ({"service": "s", "environment": "e", "source": "nope"}, "source"),
        ({"scopes": {"read"}, "source": "nope"}, "source"),
        ({"service": "s", "environment": "e", "requests_per_hour": -1}, "requests_per_hour"),
    ],
)
def test_an_ill_formed_token_is_refused_by_its_field(
    store: ControlStore, named: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        store.create_token(**named)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert store.list_tokens() == []


def test_a_token_bound_to_a_source_loses_the_binding_with_the_source(store: ControlStore) -> None:
    store.create_source("shop")
    made = store.create_token(service="s", environment="e", source="shop")
    assert made.token.source == "shop"
    store.delete_source("shop")
    assert store.token(made.token.id).source is None
    assert store.key_tables().bearers[key_digest(made.key)][0].source is None


def test_tiers_and_own_limits(store: ControlStore) -> None:
    made = store.create_connection("a", tier="pro")
    assert made.connection.limit == 1_000
    number = made.connection.id
    assert store.patch_connection(number, {"tier": "scale"}).limit == 10_000
    assert store.patch_connection(number, {"requests_per_hour": 7}).limit == 7
    assert store.patch_connection(number, {"requests_per_hour": None}).limit == 10_000
    assert store.create_connection("b").connection.limit == 0


def test_projects_are_shared_and_kept_while_in_use(store: ControlStore) -> None:
    assert [project.id for project in store.list_projects()] == ["default"]
    store.create_project("acme", name="Acme Ltd")
    first = store.create_connection("a", project_id="acme")
    store.create_connection("b", project_id="acme")
    assert store.project("acme").connections == 2
    with pytest.raises(Conflict, match="2 connections use"):
        store.delete_project("acme")
    with pytest.raises(Conflict, match="stays"):
        store.delete_project("default")
    for info in store.list_connections():
        store.delete_connection(info.id)
    store.delete_project("acme")
    with pytest.raises(NotFound):
        store.connection(first.connection.id)
    made = store.create_connection("c", project_id="new")
    assert made.connection.project_id == "new"
    assert store.project("new").connections == 1
    with pytest.raises(InvalidField):
        store.create_project("a b")
    with pytest.raises(Conflict):
        store.create_project("new")
    with pytest.raises(Conflict):
        store.create_connection("c")


def test_a_rotated_or_revoked_connection_keeps_its_project(store: ControlStore) -> None:
    made = store.create_connection("a", project_id="acme")
    new = store.rotate_connection(made.connection.id, overlap_seconds=60)
    assert new.connection.project_id == "acme"
    assert store.revoke_connection(made.connection.id) == 2
    assert store.connection(made.connection.id).project_id == "acme"
    assert store.key_tables().bearers == {}


def test_source_settings_are_kept_patched_and_found_by_name(store: ControlStore) -> None:
    mapping = {"account_id": "/org/id", "user_id": "=nobody", "time_unit": "s"}
    store.create_source("github", dedup_field="id", map=mapping)
    source = store.key_tables().sources["github"]
    assert (source.dedup_field, source.dedup_hours, source.map) == ("id", 24, mapping)
    info = store.patch_source("github", {"dedup_field": None, "dedup_hours": 2, "map": None})
    assert (info.source.dedup_field, info.source.dedup_hours, info.source.map) == (None, 2, None)
    assert store.key_tables().sources["github"] == info.source
    store.revoke_source("github")
    assert "github" in store.key_tables().sources
    with pytest.raises(NotFound):
        store.patch_source("nope", {"dedup_hours": 2})


@pytest.mark.parametrize(
    "mapping",
    [
        {"colour": "/a"},
        {"account_id": "a"},
        {"account_id": "="},
        {"account_id": ""},
        {"account_id": "/a~2"},
        {"created_at": "=1"},
        {"time_unit": "min"},
        {"account_id": "/" + "a" * 1024},
    ],
)
def test_a_map_that_is_none_is_refused(store: ControlStore, mapping: dict[str, str]) -> None:
    with pytest.raises(InvalidField, match="map"):
        store.create_source("x", map=mapping)
    assert store.list_sources() == []


def test_a_deleted_source_has_no_keys_and_its_name_is_free(store: ControlStore) -> None:
    old = store.create_source("shop")
    store.delete_source("shop")
    assert store.key_tables().pairs == {}
    assert store.key_tables().sources == {}
    new = store.create_source("shop")
    assert new.source.source_id != old.source.source_id
    assert set(store.key_tables().pairs) == {pair_digest(new.auth_key, new.api_key)}


def test_an_older_file_keeps_its_pairs_which_cannot_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "old" / "control.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(bundled_migrations()[0].sql)
        connection.executescript(
            "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL,"
            " applied_at REAL NOT NULL) STRICT;"
            "INSERT INTO schema_version VALUES (1, '0001', 0);"
            "INSERT INTO sources VALUES (7, 'shop', 1, 9, 0);"
            "INSERT INTO quota_hours VALUES (500000, 'source:7', 3);"
        )
        connection.execute(
            "INSERT INTO source_keys VALUES (1, 7, ?, 'tail', 0, NULL, NULL)",
            (pair_digest("auth", "api"),),
        )
    with closing(ControlStore.open(path)) as store:
        tables = store.key_tables()
        source, until = tables.pairs[pair_digest("auth", "api")]
        assert (source.name, source.lenient_session, source.requests_per_hour) == ("shop", True, 9)
        assert (source.credential, until) == ("source:7", None)
        assert source.dedup_hours == 24
        assert store.hour_counts(500_000) == {"source:7": 3}
        with pytest.raises(NotRetrievable, match="only a hash"):
            store.reveal_source("shop")
        new = store.rotate_source("shop", overlap_seconds=60)
        assert store.reveal_source("shop") == new
        assert [project.id for project in store.list_projects()] == ["default"]
    assert path.with_name("control.sqlite.v1.bak").exists()


def test_changes_are_audited_with_their_actor_and_bounded(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.create_token(service="web", environment="prod", actor="ada@example.org")
    store.rotate_token(made.token.id, overlap_seconds=5, actor="tok_9")
    newest, first = store.audit(limit=10)
    assert (newest.actor, newest.action, newest.target) == ("tok_9", "token rotated", "tok_1")
    assert newest.detail == {"overlap_seconds": 5}
    assert first.actor == "ada@example.org"
    assert store.audit(limit=10, before=newest.id) == [first]
    with pytest.raises(NotFound):
        store.delete_token("tok_99")
    assert len(store.audit(limit=10)) == 2
    monkeypatch.setattr(control_file, "_AUDIT_ENTRIES_MAX", 3)
    for _ in range(5):
        store.rotate_token(made.token.id, overlap_seconds=0)
    assert len(store.audit(limit=10)) == 3


@pytest.mark.parametrize("bad", ["", "1", "tok_", "tok_x", "con_1", "tok_-1", "tok_" + "9" * 40])
def test_what_is_no_id_is_not_found(store: ControlStore, bad: str) -> None:
    token(store)
    with pytest.raises(NotFound, match="there is no token"):
        store.token(bad)


def test_a_key_put_where_an_id_belongs_is_not_repeated(store: ControlStore) -> None:
    key = token(store)
    with pytest.raises(NotFound) as caught:
        store.token(key)
    assert key not in str(caught.value)


def test_what_has_ended_or_must_not_be_copied_is_not_kept_sealed(
    tmp_path: Path, store: ControlStore
) -> None:
    def sealed() -> list[bool]:
        with closing(sqlite3.connect(tmp_path / "control.sqlite")) as connection:
            rows = connection.execute(
                "SELECT sealed IS NOT NULL FROM bearer_keys UNION ALL"
                " SELECT sealed IS NOT NULL FROM source_keys"
            )
            return [bool(row[0]) for row in rows]

    made = store.create_token(service="web", environment="prod")
    store.create_source("shop")
    assert sealed() == [True, True]
    store.revoke_token(made.token.id)
    store.patch_source("shop", {"copyable": False})
    assert sealed() == [False, False]
    store.rotate_token(made.token.id, overlap_seconds=0)
    store.rotate_token(made.token.id, overlap_seconds=0)
    store.rotate_token(made.token.id, overlap_seconds=60)
    assert sealed()[:4] == [False, False, True, True]
