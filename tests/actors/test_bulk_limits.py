"""Bulk workers: rejects and wide lines of huge uploads are bounded in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from ingester.errors import (
    BodyTooLarge,
    IngesterError,
)
from ingester.messages import RequestRecord
from tests.store.stores import opened, value

from .bulk_bench import Bench, MiB, accepted, lines
from .requests import body_of, event_line


async def test_rejects_of_a_huge_bad_upload_are_bounded_in_number_and_bytes(
    tmp_path: Path,
) -> None:
    """20,000 bad lines of 20 kB: 400 MB, of which 2,000 lines at most and 24 MiB may be kept."""
    with opened(tmp_path, memory_bytes_max=64 * MiB) as store:
        bench = Bench(store)
        line = b"{" + b"x" * 20_000 + b"\n"
        most = [0]

        def pieces() -> Iterable[bytes]:
            for _ in range(20_000):
                most[0] = max(most[0], bench.context.rejects.kept_bytes)
                yield line

        async with bench.running():
            outcome = await bench.upload(pieces(), rejects_max=2_000)
            assert isinstance(outcome, RequestRecord), outcome
            assert (outcome.accepted, outcome.rejected) == (0, 20_000)
        kept = value(store, "SELECT count(*) FROM rejects")
        kept_bytes = value(store, "SELECT sum(octet_length(line)) FROM rejects")
        assert kept_bytes <= store.pinned_bytes_max
        assert 1_000 < kept < 2_000
        assert kept + bench.context.rejects.dropped_count == 2_000
        assert bench.context.rejects.kept_bytes == kept_bytes == most[0]


async def test_a_refused_upload_does_not_use_up_the_budget_of_rejects(tmp_path: Path) -> None:
    body = body_of([b"bad" * 1000] * 5_000)
    with opened(tmp_path) as store:
        bench = Bench(store)
        async with bench.running():
            for _ in range(3):
                assert isinstance(await bench.upload(body, whole=False), IngesterError)
                assert bench.context.rejects.kept_bytes == 0
            assert accepted(await bench.upload(body)) == 0
        assert bench.context.rejects.kept_bytes == 15_000_000


@pytest.mark.parametrize(
    ("memory_mib", "size", "passes", "refused"),
    [(64, MiB - 100, 20, 40), (64, 40_000, 500, 2_000), (256, MiB - 100, 80, 110)],
)
async def test_wide_lines_are_refused_before_the_store_fails_and_moderate_ones_pass(
    tmp_path: Path, memory_mib: int, size: int, passes: int, refused: int
) -> None:
    with opened(tmp_path, memory_bytes_max=memory_mib * MiB) as store:
        bench = Bench(store)
        async with bench.running():
            assert isinstance(await bench.upload(lines(refused, size)), BodyTooLarge)
            for _ in range(3):
                assert accepted(await bench.upload(lines(passes, size))) == passes
        assert value(store, "SELECT count(*) FROM events") == 3 * passes
        assert store.checkpoint()
        assert bench.counters.refused_count == 1
        assert bench.trouble_count == 0


async def test_many_lines_of_40_kb_pass_with_256_mib_of_memory(tmp_path: Path) -> None:
    """The unfilled row group at the end is 3,616 of 20,000 lines, 145 MB."""
    line = event_line(1)[:-2] + os.urandom(20_000).hex().encode() + b'"}\n'

    def pieces() -> Iterable[bytes]:
        for _ in range(20_000):
            yield line

    with opened(tmp_path, memory_bytes_max=256 * MiB) as store:
        bench = Bench(store)
        async with bench.running():
            assert accepted(await bench.upload(pieces())) == 20_000
        assert store.checkpoint()
        assert value(store, "SELECT count(*) FROM events") == 20_000
