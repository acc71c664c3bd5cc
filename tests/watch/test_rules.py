"""Rules over committed batches: each batch once, also after a crash, and what comes of matches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingester.store.control.watches import WatchTransaction
from tests.search.rows import NOW, event, log
from tests.watch.rig import Rig, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as made:
        yield made


def counts(rig: Rig) -> list[tuple[int, int]]:
    return rig.select("SELECT firings, matches FROM affected ORDER BY affected_id")


def test_a_rule_opens_one_incident_and_joins_it(rig: Rig) -> None:
    with rig.engine() as engine:
        engine.round()
        info = rig.rule("disk full", labels=["storage"], description="look at the disk")
        rig.control.create_token(service="web", environment="prod")
        rig.rows.add("logs", [log(NOW, "disk is full"), log(NOW, "fine"), log(NOW, "disk full")])
        done = engine.round()
        assert (done.rows, done.matches) == (3, 2)
        rig.rows.add("logs", [log(NOW, "full disk")], as_file=True)
        assert engine.round().matches == 1
        assert engine.round().groups == 0
    assert counts(rig) == [(2, 3)]
    assert rig.revisions() == [(1, "opened")]
    with rig.control.watching(now_s=rig.wall_s, console_base="https://c.example") as transaction:
        incident = transaction.book.incident(1)
    (affected,) = incident.affected_monitors
    assert incident.url == "https://c.example/incidents/inc_1"
    assert incident.description == "look at the disk"
    assert [label.name for label in incident.labels] == ["storage"]
    assert (affected.type, affected.monitor_id) == ("RULE", info.id)
    assert (affected.absolute_path, affected.services) == ("logs.prod.web", ("web",))
    assert [each.id for each in affected.connections] == ["tok_1"]


def test_what_was_there_before_rules_is_not_looked_at(rig: Rig) -> None:
    rig.rows.add("logs", [log(NOW, "disk full")])
    rig.rule("disk")
    with rig.engine() as engine:
        assert engine.round().groups == 0
        rig.rows.add("logs", [log(NOW, "disk full")])
        assert engine.round().matches == 1


def test_events_have_rules_of_their_own(rig: Rig) -> None:
    with rig.engine() as engine:
        engine.round()
        rig.rule("action:signup", "signups", on="events")
        rig.rule("action:signup", "logs")
        rig.rows.add("events", [event(NOW, "signup"), event(NOW, "login")])
        assert engine.round().matches == 1
    with rig.control.watching(now_s=rig.wall_s, console_base="") as transaction:
        (affected,) = transaction.book.incident(1).affected_monitors
    assert (affected.name, affected.absolute_path) == ("signups", "events.shop")


def test_a_crash_before_the_transaction_loses_and_repeats_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends between evaluation and outbox, at random: every match is counted once."""
    random_ = random.Random(7)
    rig.rule("needle")
    with rig.engine() as engine:
        engine.round()
    expected = 0
    real = WatchTransaction.move_cursor

    def maybe_fail(self: WatchTransaction, reader: str, position: int) -> None:
        real(self, reader, position)
        if random_.random() < 0.5:
            raise KeyboardInterrupt  # behind the incident and the outbox, before the commit

    for turn in range(25):
        size = random_.randint(1, 4)
        rig.rows.add("logs", [log(NOW, "a needle")] * size, as_file=bool(turn % 2))
        expected += size
        with rig.engine() as engine, monkeypatch.context() as patch:
            patch.setattr(WatchTransaction, "move_cursor", maybe_fail)
            try:
                engine.round()
            except KeyboardInterrupt:
                continue
    with rig.engine() as engine:
        engine.round()
        engine.round()
    ((_, matches),) = counts(rig)
    assert matches == expected
    assert rig.revisions() == [(1, "opened")]


def test_a_rule_changed_meanwhile_is_evaluated_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = rig.rule("needle")
    with rig.engine() as engine:
        engine.round()
        rig.rows.add("logs", [log(NOW, "needle"), log(NOW, "other")])
        evaluate = engine._evaluate

        def changing(*arguments: object) -> object:
            found = evaluate(*arguments)  # type: ignore[arg-type]
            monkeypatch.undo()
            settings = b'{"name": "rule", "lql": "needle OR other"}'
            rig.control.change_watch("rule", info.id, "rule", settings, actor="test")
            return found

        monkeypatch.setattr(engine, "_evaluate", changing)
        assert engine.round().matches == 0
        assert engine.round().matches == 2
    assert counts(rig) == [(1, 2)]


def test_a_quiet_rule_is_resolved_and_the_next_match_makes_a_new_incident(rig: Rig) -> None:
    rig.rule("needle", resolve_after_s=60)
    with rig.engine() as engine:
        engine.round()
        rig.rows.add("logs", [log(NOW, "needle")])
        engine.round()
        rig.passes(59)
        engine.resolve_quiet()
        assert rig.statuses() == ["opened"]
        rig.rows.add("logs", [log(NOW, "needle")])
        engine.round()
        rig.passes(59)
        engine.resolve_quiet()
        assert rig.statuses() == ["opened"]
        rig.passes(1)
        engine.resolve_quiet()
        assert rig.statuses() == ["resolved"]
        rig.rows.add("logs", [log(NOW, "needle")])
        engine.round()
    assert rig.statuses() == ["resolved", "opened"]
    assert rig.revisions() == [(1, "opened"), (1, "resolved"), (2, "opened")]


@pytest.mark.parametrize("jump_s", [3600.0, 86_400.0, -3600.0, -86_400.0])
def test_setting_the_clock_ends_no_incident_of_a_rule(rig: Rig, jump_s: float) -> None:
    rig.rule("needle", resolve_after_s=60)
    with rig.engine() as engine:
        engine.round()
        rig.rows.add("logs", [log(NOW, "needle")])
        engine.round()
        rig.wall_s += jump_s
        engine.resolve_quiet()
        assert rig.statuses() == ["opened"]
        rig.passes(60)
        engine.resolve_quiet()
    assert rig.statuses() == ["resolved"]


def test_a_deleted_or_disabled_rule_ends_its_incident(rig: Rig) -> None:
    deleted, disabled = rig.rule("needle", "a"), rig.rule("needle", "b")
    with rig.engine() as engine:
        engine.round()
        rig.rows.add("logs", [log(NOW, "needle")])
        engine.round()
        rig.control.delete_watch("rule", deleted.id, console_base="", actor="test")
        assert rig.statuses() == ["resolved", "opened"]
        settings = b'{"name": "b", "lql": "needle", "enabled": false}'
        rig.control.change_watch("rule", disabled.id, "b", settings, actor="test")
        engine.round()
        engine.resolve_quiet()
    assert rig.statuses() == ["resolved", "resolved"]


def test_rules_of_a_group_share_an_incident(rig: Rig) -> None:
    rig.rule("needle", "a", incident_group="disk")
    rig.rule("other", "b", incident_group="disk", resolve_after_s=10)
    with rig.engine() as engine:
        engine.round()
        rig.rows.add("logs", [log(NOW, "needle")])
        rig.rows.add("logs", [log(NOW, "other")])
        engine.round()
        rig.passes(10)
        engine.resolve_quiet()
        assert rig.statuses() == ["opened"]
        rig.passes(1000)
        engine.resolve_quiet()
    kinds = [kind for _, kind in rig.revisions()]
    assert kinds == ["opened", "joined", "monitor_resolved", "resolved"]


def test_revisions_rise_by_a_millisecond_whatever_the_clock_does(rig: Rig) -> None:
    rig.rule("needle", "a", incident_group="g")
    rig.rule("needle", "b", incident_group="g")
    with rig.engine() as engine:
        engine.round()
        rig.rows.add("logs", [log(NOW, "needle")])
        engine.round()
        rig.wall_s -= 86_400
        with rig.control.watching(now_s=rig.wall_s, console_base="") as transaction:
            transaction.book.changed(1, "owner")
    stamps = [
        stamp for (stamp,) in rig.select("SELECT updated_at FROM revisions ORDER BY updated_at")
    ]
    assert len(set(stamps)) == 3
    assert stamps[-1] == stamps[0] + 2


def test_the_store_is_told_how_far_rules_are(rig: Rig) -> None:
    with rig.engine() as engine:
        engine.round()
        rig.rule("needle")
        rig.rows.add("logs", [log(NOW, "needle")])
        assert not rig.store.cursors.have_passed(rig.store.ledger.commit_number)
        engine.round()
        assert rig.store.cursors.have_passed(rig.store.ledger.commit_number)
