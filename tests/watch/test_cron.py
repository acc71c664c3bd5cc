"""Schedules: what crontab(5) says, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.errors import InvalidField
from ingester.watch.cron import Cron


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "after", "following"),
    [
        ("* * * * *", "2026-11-21T12:00:00", "2026-11-21T12:01"),
        ("* * * * *", "2026-11-21T12:00:59", "2026-11-21T12:01"),
        ("*/5 * * * *", "2026-11-21T12:55", "2026-11-21T13:00"),
        ("0 0 * * *", "2026-12-31T00:00", "2027-01-01T00:00"),
        ("15,45 9-17 * * mon-fri", "2026-11-21T12:00", "2026-11-23T09:15"),
        ("0 12 31 * *", "2026-11-21T00:00", "2026-12-31T12:00"),
        ("0 0 29 2 *", "2026-11-21T00:00", "2028-02-29T00:00"),
        ("0 0 13 * 5", "2026-11-21T00:00", "2026-11-27T00:00"),  # either day
        ("0 0 * * 7", "2026-11-21T00:00", "2026-11-22T00:00"),
        ("5/20 * * * *", "2026-11-21T12:06", "2026-11-21T12:25"),
        ("0 0 1 JAN *", "2026-11-21T00:00", "2027-01-01T00:00"),
        ("@hourly", "2026-11-21T12:30", "2026-11-21T13:00"),
    ],
)
def test_the_next_run(cron: str, after: str, following: str) -> None:
    assert Cron.parse(cron).next(at(after)) == at(following)


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("* * * *", "there are 4"),
        ("60 * * * *", "minute: '60'"),
        ("* 5-1 * * *", "runs backwards"),
        ("* * * * funday", "day of week"),
        ("*/0 * * * *", "minute: '0'"),
        ("", "there are 0"),
        ("0 0 31 2 *", "no day"),
        ("- * * * *", "minute: ''"),
        ("1,,2 * * * *", "minute: ''"),
        ("* * * * * *", "there are 6"),
    ],
)
def test_what_is_no_schedule_is_refused_with_its_field(cron: str, words: str) -> None:
    with pytest.raises(InvalidField, match=words) as refused:
        Cron.parse(cron)
    assert refused.value.field == "cron"


_crons = st.sampled_from([
    "* * * * *",
    "*/7 * * * *",
    "0 */5 * * *",
    "30 4 1,15 * 5",
    "0 0 29 2 *",
    "59 23 * * 0",
])
_moments = st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1))


@settings(max_examples=150, deadline=None)
@given(_crons, _moments)
def test_previous_and_next_tile(text: str, moment: datetime) -> None:
    cron, now = Cron.parse(text), moment.replace(tzinfo=UTC)
    before, after = cron.previous(now), cron.next(now)
    assert before <= now < after
    assert after - before >= timedelta(minutes=1)
    assert cron.next(before) == after
    assert cron.previous(after) == after
