"""The outbox: appended with what made it true, frozen, for those it concerns, in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ingester.delivery.incident import Label
from ingester.delivery.routing import RouteRule
from ingester.delivery.schedule import Delivered, Final, Retry
from ingester.delivery.settings import DestinationSettings
from ingester.delivery.signing import new_secret
from ingester.errors import Conflict, InvalidField, NotFound
from ingester.store.control import Attempted, ControlStore, DueDelivery, NotRetrievable
from ingester.store.control.outbox import append_firing, append_revision
from tests.delivery.incidents import affected, firing, revision
from tests.delivery.rig import Rig, opened_rig

NOW_S = 1e9


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with opened_rig(tmp_path) as opened:
        yield opened


def due(rig: Rig, now_s: float = NOW_S, *, held: tuple[int, ...] = ()) -> list[DueDelivery]:
    numbers = {target.number for target in rig.targets()}
    found = rig.control.due(
        now_s, known={}, held=dict.fromkeys(numbers, held), room={}, room_default=100
    )
    return list(found.deliveries)


def record(rig: Rig, delivery: DueDelivery, outcome: Delivered | Retry | Final) -> None:
    attempted = Attempted(
        delivery=delivery,
        time_s=NOW_S,
        status=200,
        latency_ms=1.0,
        error=None,
        answer="x" * 5000,
        outcome=outcome,
    )
    rig.control.record_attempts([attempted], now_s=NOW_S, disable_after_s=1e9)


def hook(rig: Rig, number: int = 0, **more: object) -> str:
    return rig.destination(f"https://example.org/{number}", **more)


def test_what_is_appended_goes_with_its_transaction(rig: Rig) -> None:
    to = [hook(rig)]

    def append_and_fail() -> None:
        with rig.control._transaction() as connection:
            append_revision(connection, revision(), destinations=to)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        append_and_fail()
    assert rig.states() == {}
    assert rig.rows("SELECT count(*) FROM messages") == [(0,)]


def test_appending_again_adds_nothing(rig: Rig) -> None:
    to = [hook(rig), hook(rig, 1, type="generic")]
    for _ in range(2):
        rig.append(revision(), to=to)
        rig.fire(firing(), to=to)
    assert rig.states() == {"pending": 3}


def test_destinations_of_one_format_share_one_body(rig: Rig) -> None:
    rig.append(revision(), to=[hook(rig, number) for number in range(3)])
    assert rig.rows("SELECT count(*) FROM messages") == [(1,)]
    assert len({one.body for one in due(rig)}) == 1
    assert len(due(rig)) == 3


def test_resolved_goes_to_whoever_was_told_and_to_nobody_else(rig: Rig) -> None:
    first, late = hook(rig), hook(rig, 1)
    with rig.control._transaction() as connection:
        assert append_revision(connection, revision(), destinations=[first]) == (first,)
        changed = revision(kind="changed", step=1)
        assert append_revision(connection, changed, destinations=[]) == (first,)
        resolved = revision(kind="resolved", step=2)
        assert append_revision(connection, resolved, destinations=[first, late]) == (first,)


def test_a_route_adds_destinations_and_a_label_may_bring_one_later(rig: Rig) -> None:
    by_table, by_label = hook(rig), hook(rig, 1)
    rig.control.create_route(
        by_table, allow=[RouteRule(field="table", match="regex", value=r"ord.rs$")], ignore=[]
    )
    rig.control.create_route(
        by_label, allow=[RouteRule(field="label", match="prefix", value="sev")], ignore=[]
    )
    labelled = revision(kind="changed", step=1, labels=(Label(id="1", name="sev1"),))
    with rig.control._transaction() as connection:
        assert append_revision(connection, revision()) == (by_table,)
        assert append_revision(connection, labelled) == (by_table, by_label)
        other = revision("other", affected_monitors=(affected(table="shop.users"),))
        assert append_revision(connection, other) == ()
        assert append_firing(connection, firing()) == ()


def test_a_destination_that_is_gone_is_left_out(rig: Rig) -> None:
    to = [hook(rig), "dst_99", "nonsense"]
    rig.append(revision(), to=to)
    assert rig.states() == {"pending": 1}
    rig.control.delete_destination(to[0])
    assert rig.states() == {}


def test_a_revision_without_rows_shows_those_of_the_one_before(rig: Rig) -> None:
    to = [hook(rig, type="incident_io")]
    rig.append(revision(), revision(kind="resolved", step=1), to=to)
    bodies = [msgspec.json.decode(body) for (body,) in rig.rows("SELECT body FROM messages")]
    assert bodies[0]["metadata"]["data"] == bodies[1]["metadata"]["data"]
    assert bodies[0]["metadata"]["data"][0]["value"] == 3.0
    assert rig.rows("SELECT count(*) FROM incident_rows") == [(0,)]


def test_only_the_oldest_of_an_incident_is_due(rig: Rig) -> None:
    to = [hook(rig)]
    rig.append(revision(), revision(kind="resolved", step=1), revision("other"), to=to)
    opened, other = due(rig)
    assert (opened.incident_id, other.incident_id) == ("26345", "other")
    assert due(rig, held=(opened.delivery_id, other.delivery_id)) == []
    record(rig, opened, Retry(60.0))
    # What comes meanwhile waits as long as the one before it.
    rig.append(revision(kind="changed", step=2), to=to)
    assert [one.incident_id for one in due(rig)] == ["other"]
    assert due(rig, NOW_S + 59.0) == [other]
    [again, _] = sorted(due(rig, NOW_S + 61.0), key=lambda one: one.delivery_id)
    assert (again.delivery_id, again.attempt, again.body) == (opened.delivery_id, 2, opened.body)
    record(rig, again, Final("given up"))
    assert msgspec.json.decode(due(rig)[0].body)["status"] == "resolved"


def test_nothing_overtakes_what_was_superseded_on_its_way(rig: Rig) -> None:
    """incident.io would open an alert anew at a `firing` behind `resolved`, and it would stay."""
    to = [hook(rig, type="incident_io")]
    rig.append(revision(), to=to)
    [opened] = due(rig)
    record(rig, opened, Delivered())
    rig.append(revision(kind="changed", step=1), to=to)
    [changed] = due(rig)
    rig.append(revision(kind="resolved", step=2), revision("other"), to=to)
    assert rig.states()["superseded"] == 1
    held = (changed.delivery_id,)
    assert [one.incident_id for one in due(rig, held=held)] == ["other"]
    record(rig, changed, Delivered())
    assert [one.incident_id for one in due(rig)] == ["26345", "other"]


def test_a_clock_that_was_set_back_delays_by_a_day_at_most(rig: Rig) -> None:
    rig.append(revision(), to=[hook(rig)])
    [one] = due(rig)
    record(rig, one, Retry(1e6))
    rig.control.bound_waits(0.0, 100.0)
    assert due(rig, 101.0)


def test_recording_after_the_destination_was_deleted_does_no_harm(rig: Rig) -> None:
    to = hook(rig)
    rig.append(revision(), to=[to])
    [one] = due(rig)
    rig.control.delete_destination(to)
    for outcome in (Retry(1.0), Final("no"), Delivered()):
        record(rig, one, outcome)
    assert rig.rows("SELECT count(*) FROM attempts") == [(0,)]


def test_a_disabled_destination_collects_dead_letters_that_can_be_sent(rig: Rig) -> None:
    to = hook(rig)
    rig.append(revision(), to=[to])
    rig.control.patch_destination(to, {"enabled": False})
    rig.append(revision(kind="resolved", step=1), to=[to])
    assert rig.states() == {"dead": 2}
    first = rig.control.list_deliveries(limit=10)[-1]
    assert first.error is not None
    assert "the destination is disabled" in first.error
    with pytest.raises(Conflict, match="enable it first"):
        rig.control.resend_delivery(first.id)
    rig.control.patch_destination(to, {"enabled": True})
    assert rig.control.resend_delivery(first.id).state == "pending"
    assert rig.control.resend_failed(0.0).resent == 1
    assert len(due(rig)) == 1


def test_a_delivery_is_shown_with_its_attempts_and_body(rig: Rig) -> None:
    to = hook(rig)
    rig.append(revision(), to=[to])
    rig.fire(firing(), to=[hook(rig, 1, type="generic")])
    one = due(rig)[0]
    record(rig, one, Retry(30.0))
    record(rig, one, Delivered())
    info, attempts, body = rig.control.delivery(f"dlv_{one.delivery_id}")
    assert (info.state, info.attempt_count, info.destination) == ("delivered", 2, to)
    assert body == one.body
    assert [len(attempt.answer) for attempt in attempts] == [1000, 1000]
    assert len(rig.control.list_deliveries(limit=10, incident="26345")) == 2
    assert len(rig.control.list_deliveries(limit=10, destination=to, state="delivered")) == 1
    assert rig.control.list_deliveries(limit=10, incident="2634*") == []
    assert len(rig.control.list_deliveries(limit=1, before="dlv_2")) == 1
    with pytest.raises(NotFound):
        rig.control.delivery("dlv_99")


def test_many_that_wait_make_neither_appending_nor_looking_slow(rig: Rig) -> None:
    """By the number of steps of SQLite's machine, which no busy processor changes."""
    to = [hook(rig), hook(rig, 1, type="incident_io")]

    def steps_of_one(name: str) -> int:
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        rig.control._connection.set_progress_handler(step, 100)
        rig.append(revision(name), revision(name, "changed", step=1), to=to)
        due(rig)
        rig.control._connection.set_progress_handler(None, 0)
        return count

    few = steps_of_one("first")
    rig.append(*(revision(f"inc_{number}") for number in range(2000)), to=to)
    assert steps_of_one("last") < few + 200


def test_old_messages_are_removed_unless_someone_waits_for_them(rig: Rig) -> None:
    to = [hook(rig)]
    rig.append(revision(), to=to)
    [one] = due(rig)
    assert rig.control.prune_messages(4e9) == 0
    record(rig, one, Delivered())
    assert rig.control.prune_messages(4e9) == 0, "the incident is open: its end must reach them"
    rig.append(revision(kind="resolved", step=1), to=to)
    [one] = due(rig)
    record(rig, one, Delivered())
    assert rig.control.prune_messages(0.0) == 0
    assert rig.control.prune_messages(4e9) == 2
    for table in ("messages", "deliveries", "attempts"):
        assert rig.rows(f"SELECT count(*) FROM {table}") == [(0,)]


def test_no_secret_of_a_destination_lies_in_the_file(rig: Rig, tmp_path: Path) -> None:
    secret = new_secret()
    to = rig.destination(
        "https://user:passw0rd@example.org/", secret=secret, headers={"X-Api-Key": "hidden-key"}
    )
    pager = rig.destination("https://io.example", type="incident_io")
    rig.control.patch_destination(pager, {"api_token": "token-hidden"})
    settings = rig.control.destination_settings(to)
    assert (settings.secret, settings.headers) == (secret, {"X-Api-Key": "hidden-key"})
    told = f"{rig.control.list_destinations()}{rig.control.audit(limit=100)}"
    rig.control.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("control.sqlite*"))
    for hidden in (secret, "passw0rd", "hidden-key", "token-hidden"):
        assert hidden.encode() not in stored
        assert hidden not in told


def test_without_secret_key_appending_goes_on_and_sending_waits(rig: Rig, tmp_path: Path) -> None:
    to = hook(rig)
    key = tmp_path / "secret.key"
    kept = key.read_bytes()
    key.unlink()
    rig.append(revision(), to=[to])
    [target] = rig.targets()
    assert "secret.key is missing" in str(target.problem)
    assert due(rig) == []
    with pytest.raises(NotRetrievable):
        rig.control.destination_settings(to)
    key.write_bytes(kept)
    assert len(due(rig)) == 1


def test_a_rotated_secret_signs_beside_the_new_one_and_only_one_old_one_does(rig: Rig) -> None:
    first, second, third = new_secret(), new_secret(), new_secret()
    to = rig.destination("https://example.org/", secret=first)
    rig.control.rotate_destination_secret(to, second, overlap_seconds=3600)
    assert rig.control.destination_settings(to).secrets(0.0) == [second, first]
    rig.control.rotate_destination_secret(to, third, overlap_seconds=3600)
    assert rig.control.destination_settings(to).secrets(0.0) == [third, second]
    rig.control.rotate_destination_secret(to, first, overlap_seconds=0)
    assert rig.control.destination_settings(to).secrets(0.0)[0] == first


@pytest.mark.parametrize(("type_", "field"), [("pager", "type"), ("webhook", "url")])
def test_a_destination_that_cannot_be_is_refused(rig: Rig, type_: str, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        rig.control.create_destination("x", type_, DestinationSettings())
    assert refused.value.field == field


def test_names_are_unique_and_routes_need_a_destination_and_a_pattern(rig: Rig) -> None:
    to = rig.destination("https://example.org/", name="ops")
    with pytest.raises(Conflict):
        rig.destination("https://example.org/", name="ops")
    with pytest.raises(InvalidField, match="no destination"):
        rig.control.create_route("dst_9", allow=[], ignore=[])
    with pytest.raises(InvalidField) as refused:
        rig.control.create_route(
            to, allow=[], ignore=[RouteRule(field="label", match="regex", value="(")]
        )
    assert refused.value.field == "ignore[0].value"


def test_every_installation_has_an_id_of_its_own(rig: Rig, tmp_path: Path) -> None:
    other = ControlStore.open(tmp_path / "other" / "control.sqlite")
    assert len(rig.control.instance_id()) == 16
    assert rig.control.instance_id() != other.instance_id()
    other.close()
