"""Routes of members, one-time links and sessions."""

from __future__ import annotations

from typing import Any

from ingester.errors import Conflict, Unauthorized
from ingester.management import answers
from ingester.management.answers import maybe_time_text, time_text
from ingester.management.calls import Call, Nothing
from ingester.management.requests import (
    AcceptInvitation,
    ChangePassword,
    CreateMember,
    PatchMember,
    SetUp,
    SignIn,
)
from ingester.store.control import Invitation, MemberInfo, SignedIn

__all__ = ["invitation_link"]


def create_member(call: Call[CreateMember, Nothing]) -> answers.Invited:
    body = call.body
    made = call.control.create_member(body.email, body.role, actor=call.actor.name)
    return _invited(call, made)


def list_members(call: Call[Nothing, Nothing]) -> answers.MemberList:
    return answers.MemberList(members=[_member(info) for info in call.control.list_members()])


def get_member(call: Call[Nothing, Nothing]) -> answers.Member:
    return _member(call.control.member(call.names["id"]))


def patch_member(call: Call[PatchMember, Nothing]) -> answers.Member:
    member_id = call.names["id"]
    return _member(call.control.change_role(member_id, call.body.role, actor=call.actor.name))


def delete_member(call: Call[Nothing, Nothing]) -> answers.Deleted:
    call.control.delete_member(call.names["id"], actor=call.actor.name)
    return answers.Deleted(id=call.names["id"])


def invite_member(call: Call[Nothing, Nothing]) -> answers.Invited:
    return _invited(call, call.control.invite_member(call.names["id"], actor=call.actor.name))


def sign_in(call: Call[SignIn, Nothing]) -> answers.SessionAnswer:
    signed_in = call.control.sign_in(
        call.body.email, call.body.password, session_seconds=call.session_seconds
    )
    return _opened(call, signed_in)


def set_up(call: Call[SetUp, Nothing]) -> answers.SessionAnswer:
    body = call.body
    signed_in = call.control.accept_invitation(
        body.token, body.password, email=body.email, session_seconds=call.session_seconds
    )
    return _opened(call, signed_in)


def accept_invitation(call: Call[AcceptInvitation, Nothing]) -> answers.SessionAnswer:
    signed_in = call.control.accept_invitation(
        call.body.token, call.body.password, session_seconds=call.session_seconds
    )
    return _opened(call, signed_in)


def get_session(call: Call[Nothing, Nothing]) -> answers.SessionAnswer:
    actor = call.actor
    if actor.role is None:
        raise Unauthorized("nobody is signed in")
    session = actor.session
    return answers.SessionAnswer(
        name=actor.name,
        email=None if session is None else session.member.email,
        role=actor.role,
        expires_at=None if session is None else time_text(session.expires_at),
    )


def sign_out(call: Call[Nothing, Nothing]) -> answers.Done:
    if call.actor.session is not None:
        call.control.sign_out(call.actor.session.digest)
    call.session_secret = ""
    return answers.Done()


def change_password(call: Call[ChangePassword, Nothing]) -> answers.Done:
    session = call.actor.session
    if session is None:
        raise Conflict("only a signed-in member has a password to change")
    call.control.change_password(session, call.body.old_password, call.body.new_password)
    return answers.Done()


def invitation_link(base: str, invitation: Invitation) -> str:
    """The one-time link to the console's page with the form."""
    page = "invite" if invitation.member.email is not None else "setup"
    return f"{base.rstrip('/')}/{page}?token={invitation.token}"


def _opened(call: Call[Any, Nothing], signed_in: SignedIn) -> answers.SessionAnswer:
    call.session_secret = signed_in.secret
    member = signed_in.member
    return answers.SessionAnswer(
        name=member.email or member.id,
        email=member.email,
        role=member.role,
        expires_at=time_text(signed_in.expires_at),
    )


def _invited(call: Call[Any, Nothing], made: Invitation) -> answers.Invited:
    return answers.Invited(
        id=made.member.id,
        email=made.member.email,
        role=made.member.role,
        link=invitation_link(call.links.console(), made),
        expires_at=time_text(made.expires_at),
    )


def _member(info: MemberInfo) -> answers.Member:
    return answers.Member(
        id=info.id,
        email=info.email,
        role=info.role,
        is_active=info.is_active,
        created_at=time_text(info.created_at),
        last_seen_at=maybe_time_text(info.last_seen_at),
        invited_until=maybe_time_text(info.invited_until),
    )
