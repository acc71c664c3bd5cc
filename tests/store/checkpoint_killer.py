"""Rounds of commits and checkpoints in a forked child that is killed; `python -m` it with a folder,
a count and a seed. Prints what was seen as JSON, a line a round.

Why forks: a process that has imported everything is ready for the next round in milliseconds, so
hundreds of kills are a matter of minutes. A child is killed a moment after it has said that a
checkpoint begins, or at the end of one of the copying's own calls. The next one begins by comparing
what is stored with what was acknowledged: all of it is there, whole and once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingester.store import metadata_copy, parts, rollup_file
from ingester.store.rollups import Rollups
from ingester.store.store import Store
from tests.store.stores import load, opened, rows

__all__: list[str] = []

_ROWS = 40
_WIDE_ROWS = 4_000
# Calls of the copying after which a child ends by itself; the copy is synced thrice at most.
_ENDS = ("fsync", "replace")
_LATE_S_MAX = 0.03


def size_of(number: int) -> int:
    return _WIDE_ROWS if number % 7 == 0 else _ROWS


def work(folder: Path, say: Callable[[str], None], acknowledged: int, ends_at: str | None) -> None:
    """Never ends by itself, but for `ends_at`."""

    def put_back(path: Path) -> bool:
        done = metadata_copy.put_back_metadata(path)
        if done:
            say(f"back {path.name}")
        return done

    parts.put_back_metadata = rollup_file.put_back_metadata = put_back  # type: ignore[attr-defined]
    with opened(folder, memory_bytes_max=256 * 1024 * 1024) as store:
        newest = compare(store, acknowledged)
        say(f"sound {newest}")
        rollups = Rollups(store)
        if rollups.commit_number > store.ledger.commit_number:
            say("wrong: rollups are before the rows")
        if ends_at is not None:
            end_behind(ends_at)
        number = newest
        while True:
            for _ in range(number % 3 + 1):
                number += 1
                load(store, number, size_of(number))
                say(f"committed {number}")
            rollups.step()
            say("checkpoint")
            store.checkpoint()
            rollups.maybe_checkpoint(bytes_min=1)
            if number % 11 == 0:
                store.rotate()
            if number % 13 == 0:
                store.recover(store.database.generation)


def end_behind(name: str) -> None:
    """Let the process end right behind the next such call of `os`."""
    call: Any = getattr(os, name)

    def ending(*arguments: Any) -> None:
        call(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, name, ending)


def compare(store: Store, acknowledged: int) -> int:
    """The newest number that is stored. All before are, too, and whole."""
    found = rows(
        store,
        "SELECT CAST('0x' || request_id AS BIGINT) // 100000 AS number, count(*),"
        " count(DISTINCT request_id) FROM requests GROUP BY number ORDER BY number",
    )
    numbers = [number for number, _, _ in found]
    newest = numbers[-1] if numbers else 0
    assert numbers == list(range(1, newest + 1)), f"not without gaps: {numbers[-20:]}"
    assert acknowledged <= newest <= acknowledged + 1, f"{acknowledged} were told, {newest} stored"
    for number, count, different in found:
        assert count == different == size_of(number), f"{number}: {count} rows, {different}"
    return newest


def one_round(folder: Path, acknowledged: int, chance: random.Random) -> tuple[int, list[str]]:
    """What is acknowledged then, and what else was said."""
    ends_at = chance.choice(_ENDS) if chance.random() < 0.15 else None
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)

        def say(text: str) -> None:
            os.write(writer, f"{text}\n".encode())

        try:
            work(folder, say, acknowledged, ends_at)
        except BaseException as error:
            say(f"wrong: {type(error).__name__} {error}")
        finally:
            os._exit(1)
    os.close(writer)
    said: list[str] = []
    checkpoints, wanted = 0, chance.randint(1, 4)
    # Some are killed while they open, which is when a copy is put back.
    is_early = chance.random() < 0.1
    if is_early:
        time.sleep(chance.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "r") as lines:
        for line in lines:
            said.append(line.strip())
            checkpoints += said[-1] == "checkpoint"
            if checkpoints == wanted and not ends_at:
                time.sleep(chance.uniform(0, _LATE_S_MAX))
                os.kill(child, signal.SIGKILL)
                wanted = -1
    os.waitpid(child, 0)
    for line in said:
        kind, _, rest = line.partition(" ")
        if kind in ("committed", "sound"):
            acknowledged = int(rest)
    return acknowledged, said


def main(folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged = 0
    report: dict[str, Any] = {"seed": seed, "rounds": 0, "opened": 0, "put_back": 0, "wrong": []}
    for _ in range(count):
        acknowledged, said = one_round(folder, acknowledged, chance)
        report["rounds"] += 1
        report["opened"] += any(line.startswith("sound") for line in said)
        report["put_back"] += sum(line.startswith("back") for line in said)
        report["wrong"] += [line for line in said if line.startswith("wrong")]
        report["commits"] = acknowledged
        print(json.dumps(report), flush=True)
        if report["wrong"]:
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
