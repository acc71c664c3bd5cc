"""Rounds of ours and of every rival in turn, so that slow drifts of the machine hit all alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from bench.report import Row, median_row, note, pairwise_ratios

__all__ = ["Contender", "compare_rounds"]


class Contender(Struct, frozen=True):
    """A rival in one variant of its settings; `run` measures it once."""

    rival: str
    run: Callable[[], Row]


def compare_rounds(
    title: str, ours: Callable[[], Row], contenders: Sequence[Contender], rounds: int
) -> list[Row]:
    """Medians: ours, then each contender with our rate over its rate, in all and pair by pair."""
    mine: list[Row] = []
    theirs: list[list[Row]] = [[] for _ in contenders]
    for number in range(rounds):
        mine.append(ours())
        note(f"{title} round {number + 1}: ours {mine[-1].seconds:.2f} s")
        for contender, measured in zip(contenders, theirs, strict=True):
            measured.append(contender.run())
            note(f"  {measured[-1].name} {measured[-1].seconds:.2f} s")
    rows = [median_row(mine)]
    for contender, measured in zip(contenders, theirs, strict=True):
        row = median_row(measured)
        row.ratio = row.seconds / rows[0].seconds
        row.ratio_to = f"ours/{contender.rival}"
        row.ratios = pairwise_ratios(mine, measured)
        rows.append(row)
    return rows
