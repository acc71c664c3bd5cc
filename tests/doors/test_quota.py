"""Hour quotas: a fixed UTC hour, every request counts, the rest of the hour is told."""

from __future__ import annotations

from ingester.doors.quota import HourQuotas

HOUR = 472_222
START = HOUR * 3600


def test_the_limit_is_the_last_request_that_passes() -> None:
    quotas = HourQuotas()
    states = [quotas.count("source:1", 2, START + 10.9) for _ in range(4)]
    assert [state.is_over for state in states] == [False, False, True, True]
    assert [state.remaining for state in states] == [1, 0, 0, 0]
    assert quotas.refused_count == 2
    assert states[2].headers() == (
        (b"X-RateLimit-Limit", b"2"),
        (b"X-RateLimit-Remaining", b"0"),
        (b"X-RateLimit-Reset", b"%d" % (START + 3600)),
    )


def test_retry_after_reaches_exactly_into_the_next_hour() -> None:
    quotas = HourQuotas()
    for now_s, expected in [(START, 3600), (START + 3599.0, 1), (START + 3599.999, 1)]:
        state = quotas.count("source:1", 1, now_s)
        assert state.retry_after_s == expected
        assert now_s + state.retry_after_s >= state.reset_s == START + 3600


def test_a_new_hour_starts_from_nothing() -> None:
    quotas = HourQuotas()
    for _ in range(3):
        quotas.count("source:1", 1, START + 3599)
    assert not quotas.count("source:1", 1, START + 3600).is_over
    assert quotas.count("source:1", 1, START + 3600).is_over


def test_credentials_count_apart() -> None:
    quotas = HourQuotas()
    assert not quotas.count("source:1", 1, START).is_over
    assert not quotas.count("source:2", 1, START).is_over


def test_counting_goes_on_after_a_restart_in_the_same_hour_only() -> None:
    quotas = HourQuotas(HOUR, {"source:1": 5})
    assert quotas.count("source:1", 5, START).is_over
    quotas = HourQuotas(HOUR, {"source:1": 5})
    assert quotas.count("source:1", 5, START + 3600).remaining == 4


def test_changes_are_handed_over_once() -> None:
    quotas = HourQuotas(HOUR, {"source:1": 5})
    assert not quotas.is_changed
    quotas.count("source:2", 9, START)
    assert quotas.is_changed
    assert quotas.take_changes() == (HOUR, {"source:1": 5, "source:2": 1})
    assert not quotas.is_changed
    hour, counts = quotas.take_changes()
    counts["source:1"] = 99
    assert quotas.take_changes() == (hour, {"source:1": 5, "source:2": 1})
