"""The control store: members, one-time links, sessions, passwords; usage and refused requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingester.errors import Conflict, InvalidField, NotFound, Unauthorized
from ingester.store.control import (
    ControlStore,
    RefusedRequest,
    SignedIn,
    UsageChange,
)

PASSWORD = "correct horse battery"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ControlStore]:
    with closing(ControlStore.open(tmp_path / "control.sqlite")) as store:
        yield store


def set_up(store: ControlStore, email: str = "ada@example.org") -> SignedIn:
    invitation = store.ensure_admin()
    assert invitation is not None
    return store.accept_invitation(invitation.token, PASSWORD, email=email, session_seconds=3600)


def test_the_first_administrator_is_made_once_and_set_up_by_link(store: ControlStore) -> None:
    invitation = store.ensure_admin()
    assert invitation is not None
    assert store.ensure_admin() is None
    with pytest.raises(InvalidField, match="e-mail"):
        store.accept_invitation(invitation.token, PASSWORD, session_seconds=60)
    signed_in = store.accept_invitation(
        invitation.token, PASSWORD, email=" Ada@Example.org ", session_seconds=60
    )
    assert (signed_in.member.email, signed_in.member.role) == ("ada@example.org", "admin")
    with pytest.raises(Unauthorized, match="used already"):
        store.accept_invitation(invitation.token, PASSWORD, email="b@c", session_seconds=60)


def test_a_link_expires_and_a_newer_one_ends_it(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.create_member("bob@example.org", "viewer")
    second = store.invite_member(first.member.id)
    with pytest.raises(Unauthorized):
        store.accept_invitation(first.token, PASSWORD, session_seconds=60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7 * 86_400 + 1)
    with pytest.raises(Unauthorized):
        store.accept_invitation(second.token, PASSWORD, session_seconds=60)


def test_signing_in_needs_the_right_password_and_tells_no_more(store: ControlStore) -> None:
    set_up(store)
    store.create_member("new@example.org", "viewer")
    signed_in = store.sign_in("ADA@example.org", PASSWORD, session_seconds=60)
    session = store.session(signed_in.secret)
    assert session is not None
    assert session.member.email == "ada@example.org"
    told = set()
    for email, password in [
        ("ada@example.org", "wrong"),
        ("nobody@example.org", PASSWORD),
        ("new@example.org", ""),
        ("ada@example.org", "x" * 5000),
        ("ada@example.org", "\udc80"),
    ]:
        with pytest.raises(Unauthorized) as caught:
            store.sign_in(email, password, session_seconds=60)
        told.add(str(caught.value))
    assert len(told) == 1


def test_a_session_ends_by_time_sign_out_and_deletion(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = set_up(store)
    second = store.sign_in("ada@example.org", PASSWORD, session_seconds=60)
    session = store.session(first.secret)
    assert session is not None
    store.sign_out(session.digest)
    assert store.session(first.secret) is None
    assert store.session("made up") is None
    assert store.session(second.secret) is not None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert store.session(second.secret) is None


def test_last_seen_follows_use_by_the_minute(
    store: ControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in = set_up(store)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 30)
    store.session(signed_in.secret)
    (member,) = store.list_members()
    assert member.last_seen_at is not None
    assert member.last_seen_at <= now
    monkeypatch.setattr(time, "time", lambda: now + 120)
    store.session(signed_in.secret)
    assert store.list_members()[0].last_seen_at == now + 120


def test_a_new_password_ends_the_other_sessions(store: ControlStore) -> None:
    mine = set_up(store)
    other = store.sign_in("ada@example.org", PASSWORD, session_seconds=60)
    session = store.session(mine.secret)
    assert session is not None
    with pytest.raises(Unauthorized, match="present password"):
        store.change_password(session, "wrong", "another password")
    with pytest.raises(InvalidField, match="8 to"):
        store.change_password(session, PASSWORD, "short")
    store.change_password(session, PASSWORD, "another password")
    assert store.session(mine.secret) is not None
    assert store.session(other.secret) is None
    with pytest.raises(Unauthorized):
        store.sign_in("ada@example.org", PASSWORD, session_seconds=60)
    store.sign_in("ada@example.org", "another password", session_seconds=60)


def test_the_last_administrator_stays(store: ControlStore) -> None:
    ada = set_up(store).member
    invited = store.create_member("bob@example.org", "admin")
    for change in (
        lambda: store.delete_member(ada.id),
        lambda: store.change_role(ada.id, "viewer"),
    ):
        with pytest.raises(Conflict, match="last administrator"):
            change()  # bob cannot sign in yet
    store.accept_invitation(invited.token, PASSWORD, session_seconds=60)
    store.change_role(ada.id, "viewer")
    store.delete_member(ada.id)
    assert [member.email for member in store.list_members()] == ["bob@example.org"]
    with pytest.raises(NotFound):
        store.member(ada.id)


def test_a_deleted_member_is_signed_out(store: ControlStore) -> None:
    set_up(store)
    bob = store.create_member("bob@example.org", "viewer")
    signed_in = store.accept_invitation(bob.token, PASSWORD, session_seconds=60)
    store.delete_member(bob.member.id)
    assert store.session(signed_in.secret) is None


@pytest.mark.parametrize("email", ["", "ada", "a@", "@b", "a b@c", "a@b\n@c", "x" * 65 + "@b"])
def test_what_is_no_address_is_refused(store: ControlStore, email: str) -> None:
    with pytest.raises(InvalidField, match="name@"):
        store.create_member(email, "viewer")


def test_an_address_is_a_member_once(store: ControlStore) -> None:
    store.create_member("bob@example.org", "viewer")
    with pytest.raises(Conflict, match="member already"):
        store.create_member("BOB@example.org", "admin")


def change(credential: str, requests: int, at: float, address: str = "") -> UsageChange:
    return UsageChange(
        credential=credential,
        requests=requests,
        accepted=requests * 10,
        rejected=1,
        refused=0,
        last_used_at=at,
        last_address=address,
    )


def test_usage_adds_up_by_hour_and_survives_reopening(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    with closing(ControlStore.open(path)) as store:
        store.store_usage(500_000, [change("tok_1", 2, 10.0, "192.0.2.1")], [])
        store.store_usage(500_000, [change("tok_1", 3, 20.0)], [])
        store.store_usage(500_001, [change("tok_1", 1, 30.0), change("con_1", 1, 5.0)], [])
    with closing(ControlStore.open(path)) as store:
        hours = store.usage_hours("tok_1", since_hour=500_000)
        assert [(hour.hour, hour.requests, hour.accepted) for hour in hours] == [
            (500_000, 5, 50),
            (500_001, 1, 10),
        ]
        assert store.usage_hours("tok_1", since_hour=500_001) == hours[1:]
        last = store.last_uses()["tok_1"]
        assert (last.last_used_at, last.last_address) == (30.0, "192.0.2.1")
        store.store_usage(500_000 + 24 * 60, [change("con_1", 1, 6.0)], [])
        assert store.usage_hours("tok_1", since_hour=0) == []


def test_a_hundred_refused_requests_are_kept_for_each_credential(store: ControlStore) -> None:
    def refused(credential: str, n: int) -> RefusedRequest:
        return RefusedRequest(
            credential=credential, time=float(n), status=400, reason="r", address="a", path="/p"
        )

    store.store_usage(1, [], [refused("tok_1", n) for n in range(70)])
    store.store_usage(1, [], [refused("tok_1", n) for n in range(70, 130)] + [refused("", 1)])
    kept = store.refused_requests(credential="tok_1", limit=1000)
    assert [one.time for one in kept] == [float(n) for n in reversed(range(30, 130))]
    assert len(store.refused_requests(credential=None, limit=1000)) == 101
