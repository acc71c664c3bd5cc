"""The delivery actor against receivers over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.delivery.incidents import revision
from tests.delivery.receivers import receiving
from tests.delivery.rig import Rig, opened_rig, running


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with opened_rig(tmp_path) as opened:
        yield opened


async def test_revisions_of_an_incident_arrive_in_order_and_are_recorded(rig: Rig) -> None:
    async with receiving() as receiver:
        to = [rig.destination(receiver.url)]
        rig.append(
            revision(), revision(kind="changed", step=1), revision(kind="resolved", step=2), to=to
        )
        async with running(rig):
            await receiver.wait_for(3)
            await rig.wait_states(delivered=3)
    bodies = [msgspec.json.decode(one.body) for one in receiver.received]
    assert [body["status"] for body in bodies] == ["opened", "opened", "resolved"]
    assert [one.headers["webhook-id"] for one in receiver.received] == [
        body["idempotencyId"] for body in bodies
    ]
