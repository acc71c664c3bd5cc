"""Searches over sealed rows: what a part answered, and few files looked at."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ingester.search.reading import Reading
from ingester.search.subjects import EVENT_ROWS, LOG_ROWS, Subject
from ingester.search.tail import Position, look, parse_tail
from ingester.store.control import SealedFile
from ingester.store.increments import Increments
from ingester.store.relations import Snapshot
from ingester.store.sealing import Sealer
from ingester.store.store import Store
from tests.search.rows import NOW, Rows, ask, event, log
from tests.store.sealing_rows import seal_all
from tests.store.stores import opened, rows

EARLY = NOW - timedelta(days=1)


def without_cost(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("cost", "position")}


def test_answers_are_the_same_once_rows_are_sealed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store)
        for minute in range(60):
            rest = {"received_at": EARLY}
            at = EARLY + timedelta(minutes=minute)
            ids = made.add("logs", [log(at, f"m{minute}", **rest)] * 3, as_file=minute % 9 == 0)
            made.add("events", [event(at, f"a{minute % 5}", **rest)], as_file=minute % 7 == 0)

        def answers() -> list[dict[str, Any]]:
            first = ask(store, "/logs", limit="50")
            return [
                without_cost(answer)
                for answer in (
                    first,
                    ask(store, "/logs", limit="50", cursor=first["cursor"]),
                    ask(store, "/logs", q='"m1"', limit="50"),
                    ask(store, "/logs/{id}", {"id": ids[1]}, before="5", after="5"),
                    ask(store, "/logs/histogram"),
                    ask(store, "/logs/fields"),
                    ask(store, "/events", limit="100"),
                    ask(store, "/events/timeseries", interval="hour", group_by="action"),
                )
            ]

        before = answers()
        assert len(before[0]["rows"]) == 50
        store.rotate()
        assert seal_all(store) == 1
        assert answers() == before
        made.add("logs", [log(NOW, "new")])
        found = ask(store, "/logs", limit="1")
        assert found["rows"][0]["message"] == "new"


def test_rows_of_parts_uploads_and_sealed_files_stand_together(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store)
        for place in range(3):
            for as_file in (False, True):
                made.add("events", [event(EARLY, f"{place}{as_file}")] * 2, as_file=as_file)
            if place < 2:
                store.rotate()
        sealer = Sealer(store)
        sealer.seal(store.parts.parts[0])
        store.remove_unread()
        assert len(store.parts.parts) == 2
        for rows_found in (
            ask(store, "/events", limit="100")["rows"],
            [{"id": id} for (id,) in rows(store, "SELECT id FROM events")],
        ):
            assert len({row["id"] for row in rows_found}) == len(rows_found) == 12
        increments = Increments(store, tmp_path / "export")
        increments.open()
        holding = increments.hold(gives_up_at=time.monotonic() + 20, sql="FROM events")
        names = ", ".join(f"'{name}'" for name in holding.files["events"])
        found = rows(
            store, f"SELECT count(DISTINCT request_number), count(*) FROM read_parquet([{names}])"
        )
        assert found == [(6, 12)]
        increments.release(holding)


def look_at(store: Store, position: Position | None, subject: Subject = LOG_ROWS) -> Any:
    with Reading.open(store, seconds_max=20, now=NOW) as reading:
        return look(reading, subject, parse_tail("", subject), position)


def test_a_tail_goes_on_where_it_stood_although_that_is_sealed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store)
        for number in range(10):
            made.add("logs", [log(NOW, f"m{number}")] * 2)
        whole = look_at(store, Position(0))
        assert len(whole.rows) == 20
        store.rotate()
        made.add("logs", [log(NOW, "open")])
        seal_all(store)
        for stood, (position, _) in enumerate(whole.rows):
            found = look_at(store, position)
            told = [document["id"] for _, document in found.rows]
            assert told[:-1] == [document["id"] for _, document in whole.rows[stood + 1 :]]
            assert found.rows[-1][1]["message"] == "open"
            assert (found.missed_lines, found.unread_rows) == (0, 0)


def test_a_tail_is_told_of_rows_whose_ledger_is_gone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store)
        made.add("logs", [log(NOW, "old")] * 7)
        store.rotate()
        made.add("logs", [log(NOW, "open")])
        seal_all(store)
        store.publish_sealed(dropped=store.sealed.all_files())
        found = look_at(store, Position(0))
        assert found.unread_rows == 7
        assert [document["message"] for _, document in found.rows] == ["open"]


def test_a_minute_is_found_without_opening_other_files(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store)
        for day in range(5):
            at = EARLY - timedelta(days=day)
            made.add("events", [event(at + timedelta(minutes=n)) for n in range(10)])
            # A late row lands in the file of its arrival.
            made.add("events", [event(at - timedelta(days=300), "late", received_at=at)])
            store.rotate()
        seal_all(store)
        whole = store.snapshot()
        assert len(whole.files_of("events")) == 5
        low = EARLY.replace(tzinfo=None) + timedelta(minutes=3)
        (found,) = [
            path
            for path in whole.files_within("events", "batch_id", 1, 1)
            if path in whole.files_within("events", "created_at", low, low)
        ]
        assert found.parent.name == str(EARLY.date())
        late = ask(
            store,
            "/events",
            since=(EARLY - timedelta(days=300, hours=1)).isoformat(),
            until=(EARLY - timedelta(days=300, hours=-1)).isoformat(),
        )
        assert [row["action"] for row in late["rows"]] == ["late"]


def test_pruning_hundreds_of_files_looks_at_none(tmp_path: Path) -> None:
    day_us = 86_400 * 10**6
    files = tuple(
        SealedFile(
            name=f"events/{day}/none.parquet",
            table="events",
            day=str(day),
            first_part=day,
            last_part=day,
            row_count=1,
            byte_count=1,
            time_low_us=day * day_us,
            time_high_us=(day + 1) * day_us - 1,
            received_low_us=day * day_us,
            received_high_us=(day + 1) * day_us - 1,
            sealed_at=0.0,
        )
        for day in range(400)
    )
    snapshot = Snapshot(0, (), {}, tmp_path / "nowhere", {"events": files})
    low = datetime(1970, 1, 1) + timedelta(days=200, hours=3)
    found = snapshot.files_within("events", "created_at", low, low + timedelta(minutes=1))
    assert [path.parent.name for path in found] == ["200"]


def test_queries_read_sealed_files_and_keep_them(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store)
        made.add("events", [event(EARLY)] * 4)
        increments = Increments(store, tmp_path / "export")
        increments.open()
        store.rotate()
        made.add("events", [event(NOW)])
        first = increments.hold(gives_up_at=time.monotonic() + 20, sql="FROM events")
        assert len(list((tmp_path / "export").glob("000001-*"))) > 0
        seal_all(store)
        second = increments.hold(gives_up_at=time.monotonic() + 20, sql="FROM events")
        sealed = [str(store.sealed.path(file)) for file in store.sealed.files["events"]]
        assert [path for path in second.files["events"] if path in sealed] == sealed
        assert all(Path(path).exists() for path in first.files["events"])
        increments.release(first)
        assert list((tmp_path / "export").glob("000001-*")) == []
        made.add("events", [event(EARLY)] * 4)
        store.rotate()
        seal_all(store)
        Sealer(store).join(store.sealed.files["events"])
        store.remove_unread()
        assert all(Path(path).exists() for path in second.files["events"])
        increments.release(second)
        store.remove_unread()
        assert not any(Path(path).exists() for path in sealed)


def test_a_search_under_way_ends_with_what_it_began_with(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store)
        made.add("events", [event(EARLY)] * 6, as_file=True)
        made.add("events", [event(EARLY)] * 6)
        with Reading.open(store, seconds_max=20, now=NOW) as reading:
            store.rotate()
            seal_all(store)
            store.publish_sealed(dropped=store.sealed.all_files())
            store.remove_unread()
            found = look(reading, EVENT_ROWS, parse_tail("", EVENT_ROWS), Position(0))
            assert len(found.rows) == 12
        assert ask(store, "/events")["rows"] == []


def test_rows_that_a_search_looked_at_are_counted_alike_when_sealed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        made = Rows(store)
        for day in range(3):
            at = NOW - timedelta(days=day)
            rest = {"received_at": at}
            made.add("logs", [log(at - timedelta(hours=n), f"m{n}", **rest) for n in range(6)])

        def counts() -> list[int]:
            return [
                ask(store, path, since=since, until=until, **more)["cost"]["rows_scanned"]
                for path, more in (("/logs/histogram", {}), ("/logs", {"q": "c:count(*)"}))
                for since, until in (
                    ("2000-01-01", "2100-01-01"),
                    (f"{NOW - timedelta(days=1, hours=2):%Y-%m-%dT%H:%M:%SZ}", "2100-01-01"),
                    ("2000-01-01", f"{NOW - timedelta(hours=5):%Y-%m-%dT%H:%M:%SZ}"),
                    ("2100-01-01", "2000-01-01"),
                )
            ]

        before = counts()
        assert before == [18, 9, 12, 0] * 2
        store.rotate()
        seal_all(store)
        assert counts() == before
