"""Incidents in the outbox: what is told when, silences, labels, and what people change."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingester.delivery.incident import AffectedMonitor, MonitorValues, MonitorWindow
from ingester.delivery.routing import RouteRule
from ingester.delivery.settings import DestinationSettings
from ingester.errors import InvalidField, NotFound
from ingester.store.control.incidents import Firer
from tests.watch.rig import BASE, Rig, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as made:
        made.wall_s = time.time()
        settings = DestinationSettings(url="https://example.org/hook")
        made.control.create_destination("ops", "webhook", settings, actor="test")
        yield made


def firer(name: str = "cpu", **fields: Any) -> Firer:
    affected = AffectedMonitor(
        id="",
        monitor_id="mon_1",
        type="METRIC",
        name=name,
        entity_type="metric",
        absolute_path="metrics.default.cpu",
        linked_at_ms=0,
        services=("web",),
        table="metrics",
    )
    number = sum(name.encode())
    made = {"watch_number": number, "affected": affected, "destinations": ("dst_1",), **fields}
    return Firer(**made)


def data(value: float = 9.0) -> MonitorValues:
    window = MonitorWindow(
        monitor="cpu", value=value, threshold=5.0, window_start_ms=0, window_end_ms=60_000
    )
    return MonitorValues(windows=(window,))


def fire(rig: Rig, *firers: Firer) -> None:
    with rig.control.watching(now_s=rig.wall_s, console_base=BASE) as transaction:
        for each in firers:
            transaction.book.fire(each, title="cpu high", data=data())


def recover(rig: Rig, each: Firer) -> None:
    with rig.control.watching(now_s=rig.wall_s, console_base=BASE) as transaction:
        transaction.book.recover(each.watch_number, each.group_key, data=data(1.0))


def told(rig: Rig) -> list[str]:
    return [kind for (kind,) in rig.select("SELECT kind FROM messages ORDER BY message_id")]


def bodies(rig: Rig) -> list[dict[str, Any]]:
    rows = rig.select("SELECT body FROM messages ORDER BY message_id")
    return [json.loads(body) for (body,) in rows]


def silence(rig: Rig, *matchers: RouteRule, seconds: float = 3600.0) -> str:
    made = rig.control.create_silence(
        matchers,
        reason="maintenance",
        starts_at=rig.wall_s - 1,
        ends_at=rig.wall_s + seconds,
        actor="ada",
    )
    return made.id


def test_each_revision_is_told_with_rising_times_and_frozen_bytes(rig: Rig) -> None:
    one, other = firer("cpu", incident_group="g"), firer("mem", incident_group="g")
    fire(rig, one)
    fire(rig, other, one)
    recover(rig, one)
    recover(rig, other)
    assert told(rig) == ["opened", "joined", "monitor_resolved", "resolved"]
    sent = bodies(rig)
    times = [body["updatedAt"] for body in sent]
    assert times == sorted(set(times))
    assert [body["status"] for body in sent] == ["opened", "opened", "opened", "resolved"]
    assert {body["acknowledged"] for body in sent} == {False}
    assert [len(body["affectedMonitors"]) for body in sent] == [1, 2, 2, 2]
    assert all(one["resolvedAt"] for one in sent[-1]["affectedMonitors"])
    assert sent[0]["incidentUrl"] == f"{BASE}/incidents/inc_1"


def test_labels_and_owner_are_revisions_and_a_resolved_incident_stays_so(rig: Rig) -> None:
    fire(rig, firer(labels=("sev1",)))
    control = rig.control
    changed = control.patch_incident(
        "inc_1", labels=["sev2", "db"], owner="ada", console_base=BASE, actor="ada"
    )
    assert {label.name for label in changed.incident.labels} == {"sev2", "db"}
    assert changed.owner == "ada"
    control.patch_incident("inc_1", labels=["db", "sev2"], console_base=BASE, actor="ada")
    assert told(rig) == ["opened", "changed"]
    control.patch_incident("inc_1", is_resolved=True, console_base=BASE, actor="ada")
    assert told(rig) == ["opened", "changed", "resolved"]
    fire(rig, firer())
    assert rig.statuses() == ["resolved", "opened"]
    history = control.incident_history("inc_1")
    assert [(one.kind, one.actor) for one in history] == [
        *(("opened", "ingester"), ("changed", "ada"), ("resolved", "ada"))
    ]
    assert history[1].note == "labels: sev2, db; owner: ada"
    assert {label.name for label in control.list_labels()} == {"sev1", "sev2", "db"}


def test_a_silenced_incident_is_told_to_nobody(rig: Rig) -> None:
    silence(rig, RouteRule(field="monitor", match="prefix", value="cp"))
    fire(rig, firer())
    recover(rig, firer())
    fire(rig, firer("mem"))
    assert rig.statuses() == ["resolved", "opened"]
    assert [body["affectedMonitors"][0]["monitor"]["name"] for body in bodies(rig)] == ["mem"]


def test_a_silence_with_a_pattern_nobody_can_read_is_refused(rig: Rig) -> None:
    broken = RouteRule(field="label", match="regex", value="(")
    with pytest.raises(InvalidField, match=r"matchers\[0\]\.value is no regular expression"):
        silence(rig, broken)
    with pytest.raises(InvalidField, match="no regular expression"):
        rig.control.preview_silence([broken])
    assert not rig.control.list_silences(with_ended=True)


def test_all_matchers_of_a_silence_must_match(rig: Rig) -> None:
    silence(
        rig,
        RouteRule(field="service", value="web"),
        RouteRule(field="table", match="regex", value="^logs$"),
    )
    fire(rig, firer())
    assert told(rig) == ["opened"]


def test_whoever_was_told_of_it_hears_that_it_is_resolved_under_a_silence(rig: Rig) -> None:
    fire(rig, firer(incident_group="g"))
    silence(rig, RouteRule(field="service", value="web"))
    fire(rig, firer("mem", incident_group="g"))
    recover(rig, firer())
    recover(rig, firer("mem"))
    assert told(rig) == ["opened", "resolved"]


def test_an_incident_that_outlives_its_silence_is_told_then(rig: Rig) -> None:
    silence_id = silence(rig, RouteRule(field="service", value="web"))
    fire(rig, firer())
    assert rig.control.has_untold()
    rig.control.end_silence(silence_id, rig.wall_s, actor="ada")
    with rig.control.watching(now_s=rig.wall_s + 1, console_base=BASE) as transaction:
        transaction.book.tell_unsilenced()
        transaction.book.tell_unsilenced()
    assert told(rig) == ["opened"]
    assert not rig.control.has_untold()


def test_an_incident_with_something_that_is_not_silenced_is_told(rig: Rig) -> None:
    silence(rig, RouteRule(field="monitor", value="cpu"))
    fire(rig, firer(incident_group="g"))
    assert told(rig) == []
    fire(rig, firer("mem", incident_group="g"))
    assert told(rig) == ["opened"]
    assert len(bodies(rig)[0]["affectedMonitors"]) == 2


def test_a_silence_ends_by_itself_and_a_preview_shows_what_it_would_cover(rig: Rig) -> None:
    fire(rig, firer(), firer("mem"))
    rule = RouteRule(field="monitor", match="suffix", value="em")
    found = rig.control.preview_silence([rule])
    assert [info.incident.id for info in found] == ["inc_2"]
    silence(rig, rule, seconds=10)
    rig.wall_s += 11
    fire(rig, firer("mem", group_key="other"))
    assert told(rig) == ["opened"] * 3
    assert rig.control.list_silences()[0].reason == "maintenance"


def test_a_preview_shows_no_incident_that_would_be_told_all_the_same(rig: Rig) -> None:
    fire(rig, firer(incident_group="g"), firer("mem", incident_group="g"))
    one = RouteRule(field="monitor", value="cpu")
    assert rig.control.preview_silence([one]) == []
    silence(rig, RouteRule(field="monitor", value="mem"))
    assert [info.incident.id for info in rig.control.preview_silence([one])] == ["inc_1"]
    silence(rig, one)
    assert rig.control.preview_silence([one]) == []  # it is silenced already


def test_nothing_of_a_transaction_that_fails_is_there(rig: Rig) -> None:
    def fail() -> None:
        with rig.control.watching(now_s=rig.wall_s, console_base=BASE) as transaction:
            transaction.book.fire(firer(), title="x", data=data())
            transaction.move_cursor("rules", 7)
            raise NotFound("x")

    with pytest.raises(NotFound):
        fail()
    assert rig.statuses() == []
    assert told(rig) == []
    assert rig.select("SELECT * FROM read_cursors") == []
