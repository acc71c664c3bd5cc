"""The delivery actor against receivers over real sockets: all arrives, in order, and a bad one
costs nobody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing
from standardwebhooks.webhooks import Webhook

from ingester.actors import delivery
from ingester.config import DeliveryConfig
from ingester.delivery.exchange import Target
from ingester.delivery.signing import new_secret
from ingester.store.control import TargetRow
from tests.delivery.incidents import affected, firing, revision
from tests.delivery.receivers import OK, Received, Receiver, answer, receiving
from tests.delivery.rig import LOOPBACK, Rig, opened_rig, running

Behaviour = Callable[[Receiver, Received, trio.abc.Stream], Awaitable[None]]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with opened_rig(tmp_path) as opened:
        yield opened


async def hang(_receiver: Receiver, _received: Received, _stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def close(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
    await stream.aclose()


async def cut(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nhalf")
    await stream.aclose()


async def huge(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
    await stream.send_all(b"HTTP/1.1 500 X\r\nContent-Length: 2000000000\r\n\r\n")
    while True:
        await stream.send_all(b"x" * 65536)


BAD: dict[str, Behaviour] = {
    "500": answer(500),
    "429 seconds": answer(429, Retry_After="1"),
    "429 date": answer(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "429 garbage": answer(429, Retry_After="soon"),
    "301": answer(301, Location="http://127.0.0.1:1/"),
    "400": answer(400),
    "closed": close,
    "cut": cut,
    "huge": huge,
}


def statuses(receiver: Receiver) -> list[str]:
    return [msgspec.json.decode(one.body)["status"] for one in receiver.received]


async def test_revisions_of_an_incident_arrive_in_order_and_are_recorded(rig: Rig) -> None:
    async with receiving() as receiver:
        to = [rig.destination(receiver.url)]
        rig.append(
            revision(), revision(kind="changed", step=1), revision(kind="resolved", step=2), to=to
        )
        async with running(rig):
            await rig.wait_states(delivered=3)
    bodies = [msgspec.json.decode(one.body) for one in receiver.received]
    assert [body["status"] for body in bodies] == ["opened", "opened", "resolved"]
    assert [one.headers["webhook-id"] for one in receiver.received] == [
        body["idempotencyId"] for body in bodies
    ]


@pytest.mark.parametrize("name", BAD)
async def test_after_a_failure_the_same_bytes_come_again_before_what_is_newer(
    rig: Rig, name: str
) -> None:
    secret = new_secret()
    async with receiving(BAD[name], BAD[name], answer(200)) as receiver:
        to = [rig.destination(receiver.url, secret=secret)]
        async with running(rig):
            rig.append(revision(), revision(kind="resolved", step=1), to=to)
            for attempts in (1, 2):
                await rig.wait_attempts(attempts)
                assert len(receiver.received) == attempts
                rig.hurry()
            await rig.wait_states(delivered=2)
    assert statuses(receiver) == ["opened", "opened", "opened", "resolved"]
    first, second, third, last = receiver.received
    assert first.body == second.body == third.body
    ids = [one.headers["webhook-id"] for one in receiver.received]
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]
    for one in (first, last):
        assert Webhook(secret).verify(one.body, dict(one.headers))


async def test_a_hanging_receiver_is_given_up_for_now_and_tried_again(rig: Rig) -> None:
    settings = DeliveryConfig(allow_networks=("127.0.0.0/8",), timeout_seconds_max=1)
    async with receiving(hang, answer(200)) as receiver:
        to = [rig.destination(receiver.url)]
        async with running(rig, settings):
            rig.append(revision(), to=to)
            await rig.wait_attempts(1)
            rig.hurry()
            await rig.wait_states(delivered=1)
    assert len(receiver.received) == 2
    [(error,)] = rig.rows("SELECT error FROM attempts WHERE status IS NULL")
    assert error == "no answer within 1 s"


async def test_a_healthy_receiver_gets_all_while_another_hangs(rig: Rig) -> None:
    async with receiving(hang) as hanging, receiving() as healthy:
        to = [rig.destination(hanging.url), rig.destination(healthy.url)]
        with trio.CancelScope() as scope:
            async with running(rig, DeliveryConfig(allow_networks=("127.0.0.0/8",))):
                rig.append(*(revision(f"inc_{number}") for number in range(200)), to=to)
                await rig.wait_states(delivered=200, pending=200)
                # No attempt at the hanging one is over yet: nobody has waited for one.
                assert rig.rows("SELECT count(*) FROM attempts WHERE status IS NULL") == [(0,)]
                scope.cancel()
    assert len({one.body for one in healthy.received}) == 200


async def test_410_disables_the_destination_and_tells_another(rig: Rig) -> None:
    async with receiving(answer(410)) as gone, receiving() as other:
        to = [rig.destination(gone.url, name="old"), rig.destination(other.url, name="new")]
        async with running(rig):
            rig.append(revision(), revision(kind="resolved", step=1), to=to[:1])
            [notice] = await other.wait_for(1)
            await rig.wait_states(dead=2, delivered=1)
            rig.append(revision("later"), to=to[:1])
            await rig.wait_states(dead=3, delivered=1)
    assert len(gone.received) == 1
    told = msgspec.json.decode(notice.body)
    assert "old was disabled: the receiver answered 410" in str(told["affectedMonitors"])
    assert told["incidentUrl"] == "https://console.example/destinations/dst_1"
    info = rig.control.destination(to[0])
    assert info.disabled_at is not None
    assert info.disabled_reason == "the receiver answered 410 Gone"


async def test_lasting_failure_disables_and_resending_brings_all_back_in_order(rig: Rig) -> None:
    async with receiving(answer(500), answer(500), answer(200)) as receiver:
        to = [rig.destination(receiver.url)]
        async with running(rig):
            rig.append(revision(), revision(kind="resolved", step=1), to=to)
            await rig.wait_attempts(1)
            with rig.control._transaction() as connection:
                connection.execute("UPDATE destinations SET failing_since = failing_since - 1e6")
            rig.hurry()
            await rig.wait_states(dead=2)
            assert "every attempt has failed" in str(rig.control.destination(to[0]).disabled_reason)
            assert rig.control.resend_failed(0.0).disabled == 2
            rig.control.patch_destination(to[0], {"enabled": True})
            assert rig.control.resend_failed(0.0).resent == 2
            rig.bell.ring()
            await rig.wait_states(delivered=2)
    assert statuses(receiver) == ["opened", "opened", "opened", "resolved"]


async def test_what_incident_io_refuses_is_a_dead_letter_and_the_next_goes_on(rig: Rig) -> None:
    async with receiving(answer(422, b'{"type":"validation_error"}'), answer(202)) as receiver:
        base = receiver.url.removesuffix("/hook")
        to = [rig.destination(base, type="incident_io")]
        async with running(rig):
            rig.append(revision(), revision(kind="resolved", step=1), to=to)
            await rig.wait_states(dead=1, delivered=1)
    assert statuses(receiver) == ["firing", "resolved"]
    assert receiver.received[0].target == "/v2/alert_events/http/src"
    assert receiver.received[0].headers["authorization"] == "Bearer key"
    [(error, answered)] = rig.rows(
        "SELECT d.error, a.answer FROM deliveries AS d JOIN attempts AS a USING (delivery_id)"
        " WHERE state = 'dead'"
    )
    assert error == "answered 422; incident.io would refuse it again"
    assert "validation_error" in answered


async def test_turns_of_a_lane_are_an_interval_apart_and_none_is_made_up_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    row = TargetRow(number=1, name="to", type="webhook", version=b"", settings=None)
    lane = delivery._Lane(row, cast(Target, None))
    turns = []
    for waits_s in (0.0, 0.0, 0.0, 1.0, 0.0):
        await trio.sleep(waits_s)
        assert await lane.wait_turn(0.1)
        turns.append(round(trio.current_time(), 3))
    assert turns == [0.0, 0.1, 0.2, 1.2, 1.3]
    lane.paused_until = 5.0
    assert await lane.wait_turn(0.1)
    assert round(trio.current_time(), 3) == 5.0
    lane.end()
    assert not await lane.wait_turn(0.1)


async def test_incident_io_is_paced_and_revisions_between_are_left_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_turn = delivery._Lane.wait_turn
    intervals_s = []

    async def waited(lane: delivery._Lane, interval_s: float) -> bool:
        intervals_s.append(interval_s)
        return await wait_turn(lane, interval_s)

    monkeypatch.setattr(delivery._Lane, "wait_turn", waited)
    settings = DeliveryConfig(allow_networks=("127.0.0.0/8",), incident_io_events_per_minute=600)
    async with receiving(answer(202)) as receiver:
        to = [rig.destination(receiver.url.removesuffix("/hook"), type="incident_io")]
        changes = [revision(kind="changed", step=step) for step in range(1, 6)]
        rig.append(revision(), *changes, revision(kind="resolved", step=9), to=to)
        rig.append(
            revision("other"), *(revision("other", "changed", step=s) for s in (1, 2)), to=to
        )
        async with running(rig, settings):
            await rig.wait_states(delivered=4, superseded=6)
    assert sorted(statuses(receiver)) == ["firing", "firing", "firing", "resolved"]
    assert set(intervals_s) == {0.1}  # ten a second
    assert len(intervals_s) >= 4


async def test_webhooks_get_every_revision(rig: Rig) -> None:
    async with receiving() as receiver:
        to = [rig.destination(receiver.url)]
        changes = [revision(kind="changed", step=step) for step in range(1, 6)]
        rig.append(revision(), *changes, revision(kind="resolved", step=9), to=to)
        async with running(rig):
            await rig.wait_states(delivered=7)
    updated = [msgspec.json.decode(one.body)["updatedAt"] for one in receiver.received]
    assert updated == sorted(set(updated))


async def test_a_throttling_receiver_pauses_its_whole_lane(rig: Rig) -> None:
    async with receiving(answer(429, Retry_After="3600"), answer(200)) as receiver:
        to = [rig.destination(receiver.url)]
        settings = DeliveryConfig(
            allow_networks=("127.0.0.0/8",), concurrency_per_destination_max=1
        )
        async with running(rig, settings):
            rig.append(*(revision(f"inc_{number}") for number in range(5)), to=to)
            await rig.wait_attempts(1)
            rig.bell.ring()
            await trio.testing.wait_all_tasks_blocked(0.2)
            assert len(receiver.received) == 1
    assert rig.states() == {"pending": 5}


async def test_a_person_who_asks_lifts_a_pause(rig: Rig) -> None:
    async with receiving(answer(429, Retry_After="3600"), answer(200)) as receiver:
        to = [rig.destination(receiver.url)]
        async with running(rig):
            rig.append(revision(), to=to)
            await rig.wait_attempts(1)
            rig.control.resend_failed(0.0)
            rig.counters.lifts_pauses = True
            rig.bell.ring()
            await rig.wait_states(delivered=1)


async def test_large_bodies_are_taken_a_few_at_a_time_and_all_arrive(rig: Rig) -> None:
    row = b'{"text":"' + b"x" * 1_500_000 + b'"}'
    async with receiving() as receiver:
        to = [rig.destination(receiver.url, type="generic")]
        rig.fire(*(firing(rows=(row,), step=step) for step in range(12)), to=to)
        [number] = [target.number for target in rig.targets()]
        taken = rig.control.due(0.0, known={}, held={}, room={}, room_default=64).deliveries
        assert [one.destination_number for one in taken] == [number] * 3
        async with running(rig):
            await rig.wait_states(delivered=12)
    assert len(receiver.received) == 12


async def test_told_to_stop_it_ends_what_is_under_way_and_begins_nothing(rig: Rig) -> None:
    begun, go_on = trio.Event(), trio.Event()

    async def slow(_receiver: Receiver, _received: Received, stream: trio.abc.Stream) -> None:
        begun.set()
        await go_on.wait()
        await stream.send_all(OK)

    settings = DeliveryConfig(allow_networks=("127.0.0.0/8",), concurrency_per_destination_max=1)
    async with receiving(slow) as receiver:
        to = [rig.destination(receiver.url)]
        async with running(rig, settings) as stop:
            rig.append(*(revision(f"inc_{number}") for number in range(5)), to=to)
            await begun.wait()
            stop.set()
            go_on.set()
    assert rig.states() == {"delivered": 1, "pending": 4}


async def test_a_crash_between_sending_and_recording_sends_the_same_again(rig: Rig) -> None:
    async with receiving() as receiver:
        to = [rig.destination(receiver.url)]
        rig.append(revision(), revision(kind="resolved", step=1), to=to)

        def fail(*_: Any, **__: Any) -> list[str]:
            raise RuntimeError("killed here")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rig.control, "record_attempts", fail)
            with pytest.RaisesGroup(RuntimeError, allow_unwrapped=True, flatten_subgroups=True):
                async with running(rig):
                    await trio.sleep_forever()
        async with running(rig):
            await rig.wait_states(delivered=2)
    assert statuses(receiver) == ["opened", "opened", "resolved"]
    assert receiver.received[0].body == receiver.received[1].body


async def test_a_destination_that_changes_is_sent_to_with_its_new_settings(rig: Rig) -> None:
    async with receiving(answer(500)) as old, receiving() as new:
        to = [rig.destination(old.url)]
        async with running(rig):
            rig.append(revision(), to=to)
            await rig.wait_attempts(1)
            rig.control.patch_destination(to[0], {"url": new.url})
            rig.hurry()
            await rig.wait_states(delivered=1)
    assert (len(old.received), len(new.received)) == (1, 1)


async def test_a_refused_address_is_tried_again_and_says_which_setting_opens_it(rig: Rig) -> None:
    to = [rig.destination("http://127.0.0.1:9/")]
    async with running(rig, DeliveryConfig()):
        rig.append(revision(), to=to)
        await rig.wait_attempts(1)
    [(error,)] = rig.rows("SELECT error FROM attempts")
    assert error == (
        "127.0.0.1 is not a public address; to deliver there, add its network to"
        " [delivery] allow_networks"
    )


async def test_firings_go_to_generic_destinations_and_revisions_do_not(rig: Rig) -> None:
    async with receiving() as receiver:
        to = [rig.destination(receiver.url, type="generic")]
        rig.append(revision(affected_monitors=(affected(type="ALERT", group=None),)), to=to)
        rig.fire(firing(), firing(step=1), to=to)
        async with running(rig):
            await rig.wait_states(delivered=2)
    assert [one.body for one in receiver.received] == [b'{"result":[{"n":1},{"n":2}]}'] * 2


async def test_a_fault_of_ours_costs_one_attempt_and_not_the_actor(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingester.delivery.client import Client

    original, calls = Client.send, []

    async def faulty(self: Client, *args: Any, **more: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise ZeroDivisionError
        return await original(self, *args, **more)

    monkeypatch.setattr(Client, "send", faulty)
    async with receiving() as receiver:
        to = [rig.destination(receiver.url)]
        async with running(rig, LOOPBACK):
            rig.append(revision(), to=to)
            await rig.wait_attempts(1)
            rig.hurry()
            await rig.wait_states(delivered=1)
