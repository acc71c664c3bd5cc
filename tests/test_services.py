"""The process behind the console: changes of keys are in effect, sign-ins are bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast

import pytest
import trio

from ingester import services as services_module
from ingester.actors.delivery import DeliveryCounters
from ingester.config import Config, StoreConfig
from ingester.errors import Forbidden, Overloaded, Unauthorized
from ingester.flow import Doorbell
from ingester.management.calls import LOCAL_ADMIN, NOBODY
from ingester.messages import RequestNumbers
from ingester.sandbox.queries import Queries
from ingester.services import ProcessServices, reload_keys
from ingester.store.control import ControlStore
from ingester.store.store import Store
from tests.doors.rig import Rig, open_rig


@asynccontextmanager
async def open_services(folder: Path) -> AsyncIterator[tuple[ProcessServices, ControlStore, Rig]]:
    control = ControlStore.open(folder / "control.sqlite")
    with closing(control):
        async with open_rig(folder) as rig:
            services = ProcessServices(
                config=lambda: Config(store=StoreConfig(data_dir=str(folder))),
                intake_url=lambda: "http://in",
                console_url=lambda: "http://c",
                admission=rig.admission,
                control=control,
                store=cast(Store, None),
                queries=cast(Queries, None),
                problems=[],
                next_number=RequestNumbers().next,
                outbox=Doorbell(),
                delivery=DeliveryCounters(),
                statistics=dict,
            )
            yield services, control, rig


async def test_a_revoked_key_ends_also_when_who_asked_is_gone(tmp_path: Path) -> None:
    async with open_services(tmp_path) as (services, control, rig):
        made = control.create_source("shop")
        await reload_keys(control, rig.admission)
        assert rig.admission.keys.source_of(made.auth_key, made.api_key) is not None
        with trio.CancelScope() as scope:
            scope.cancel()
            path = "/api/v1/sources/shop/revoke"
            await services.manage("POST", path, {}, b"", LOCAL_ADMIN, "192.0.2.1")
        assert rig.admission.keys.source_of(made.auth_key, made.api_key) is None
        assert rig.admission.keys.source_named("shop") == made.source


async def test_many_changes_at_once_end_with_the_newest_tables(tmp_path: Path) -> None:
    async with open_services(tmp_path) as (services, control, rig):

        async def create(n: int) -> None:
            body = b'{"service": "s%d", "environment": "e"}' % n
            answer = await services.manage(
                "POST", "/api/v1/tokens", {}, body, LOCAL_ADMIN, "192.0.2.1"
            )
            key = str(answer.document["token"])
            assert rig.admission.keys.credential_of(key).service == f"s{n}"

        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(create, n)
        assert len(control.key_tables().bearers) == 20


async def test_the_console_takes_tokens_that_read_or_administer(tmp_path: Path) -> None:
    async with open_services(tmp_path) as (services, control, rig):
        keys = {
            "admin": control.create_token(scopes={"admin"}).key,
            "read": control.create_token(scopes={"read"}).key,
            "both": control.create_token(scopes={"read", "admin"}).key,
            "ingest": control.create_token(service="s", environment="e").key,
            "metric": control.create_connection("c").key,
        }
        await reload_keys(control, rig.admission)

        async def role(name: str) -> object:
            header = b"Bearer " + keys[name].encode()
            return (await services.authenticate(header, None, "192.0.2.1")).role

        assert await role("admin") == await role("both") == "admin"
        assert await role("read") == "viewer"
        with pytest.raises(Forbidden):
            await role("ingest")
        with pytest.raises(Unauthorized):
            await role("metric")
        assert (await services.authenticate(None, None, "192.0.2.1")).role is None
        assert (await services.authenticate(None, "made up", "192.0.2.1")).role is None
        assert rig.admission.failures.failed_count == 0
        with pytest.raises(Unauthorized):
            await services.authenticate(b"Bearer nope", None, "192.0.2.1")
        assert rig.admission.failures.failed_count == 1
        used = {change.credential for change in rig.admission.usage.take_changes().changes}
        assert used == {"tok_1", "tok_2", "tok_3"}


async def test_a_flood_of_sign_ins_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services_module, "_SIGN_INS_WAITING_MAX", 2)
    async with open_services(tmp_path) as (services, _, rig):
        statuses: list[int] = []

        async def sign_in() -> None:
            body = b'{"email": "a@example.org", "password": "wrong"}'
            try:
                answer = await services.manage(
                    "POST", "/api/v1/session", {}, body, NOBODY, "192.0.2.1"
                )
                statuses.append(answer.status)
            except Overloaded:
                statuses.append(503)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(sign_in)
        assert sorted(statuses) == [401] * 3 + [503] * 7
        assert rig.admission.failures.failed_count == 3


async def test_the_set_up_removes_what_the_first_start_wrote(tmp_path: Path) -> None:
    async with open_services(tmp_path) as (services, control, _):
        invitation = control.ensure_admin()
        assert invitation is not None
        file = tmp_path / "first-run.txt"
        file.write_text("keys")
        wrong = b'{"token": "x", "email": "a@example.org", "password": "long enough"}'
        answer = await services.manage("POST", "/api/v1/setup", {}, wrong, NOBODY, "192.0.2.1")
        assert (answer.status, file.exists()) == (401, True)
        right = wrong.replace(b'"x"', f'"{invitation.token}"'.encode())
        answer = await services.manage("POST", "/api/v1/setup", {}, right, NOBODY, "192.0.2.1")
        assert (answer.status, file.exists()) == (200, False)


async def test_guessing_the_password_of_an_open_session_counts_as_an_attempt(
    tmp_path: Path,
) -> None:
    async with open_services(tmp_path) as (services, control, rig):
        invitation = control.ensure_admin()
        assert invitation is not None
        signed_in = control.accept_invitation(
            invitation.token, "long enough", email="a@example.org", session_seconds=60
        )
        actor = await services.authenticate(None, signed_in.secret, "192.0.2.1")
        body = b'{"old_password": "wrong", "new_password": "long enough too"}'
        path = "/api/v1/session/password"
        answer = await services.manage("POST", path, {}, body, actor, "192.0.2.1")
        assert answer.status == 401
        assert rig.admission.failures.failed_count == 1
