"""A part stays until every reader has passed it."""

from ingester.store.cursors import Cursors


def test_the_slowest_reader_decides() -> None:
    cursors = Cursors()
    assert cursors.have_passed(5)
    cursors.move("rollups", 7)
    cursors.move("rules", 4)
    assert not cursors.have_passed(5)
    assert cursors.have_passed(4)
    cursors.move("rules", 5)
    assert cursors.have_passed(5)
    assert cursors.positions() == {"rollups": 7, "rules": 5}
