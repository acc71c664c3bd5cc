"""Bodies of any bytes, in every coding and on every door: as the references say, however cut (F16,
F17). The long form spoils a million samples and gives atheris ten minutes.
"""

from __future__ import annotations

import importlib.util
import os
import random
import secrets
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.protocol import inflate
from ingester.protocol.ndjson import LineFramer

from .fuzzed import TARGETS, check, samples, spoilt

ROOT = Path(__file__).parents[2]
_SPOILT_SHORT, _SPOILT_LONG = 3_000, 1_000_000
_ATHERIS_SECONDS = 600


def run(seed: int, count: int) -> None:
    """Raises for the first sample that comes to something else; its number and bytes are told."""
    rng = random.Random(seed)
    sound = samples()
    for number in range(count):
        data = spoilt(rng.choice(sound), rng)
        try:
            check(data)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, sample {number}: {data!r}") from error


def test_samples_are_sound() -> None:
    kinds = {sample[0] % len(TARGETS) for sample in samples()}
    assert kinds == set(range(len(TARGETS)))
    for sample in samples():
        check(sample)


@pytest.mark.timeout(7200)
def test_spoilt_samples_come_to_what_the_references_say(long_form: bool) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(1 << 32))
    count = _SPOILT_LONG if long_form else _SPOILT_SHORT
    print(f"{count} spoilt bodies, seed {seed}")
    run(seed, count)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_come_to_what_the_references_say(data: bytes) -> None:
    check(data)


@pytest.mark.long
@pytest.mark.timeout(2 * _ATHERIS_SECONDS)
def test_atheris_finds_nothing(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(1 << 31))
    seconds = int(os.environ.get("ATHERIS_SECONDS") or _ATHERIS_SECONDS)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.protocol.atheris_run",
            str(corpus),
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            "-max_len=4096",
            "-rss_limit_mb=1024",
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    print(f"atheris, seed {seed}:", *done.stderr.splitlines()[-3:], sep="\n")
    found = [path.read_bytes() for path in tmp_path.glob("*-*")]
    assert done.returncode == 0, f"{found}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"


def no_end(patch: pytest.MonkeyPatch) -> None:
    """A stream that is cut counts as whole."""
    patch.setattr(inflate.Inflater, "finish", lambda self: None)


def no_checksum(patch: pytest.MonkeyPatch) -> None:
    """What follows the first member is left out."""
    patch.setattr(inflate._Gzip, "_read_head", lambda self, data: len(data))


def lost_carry(patch: pytest.MonkeyPatch) -> None:
    """The rest of a piece is forgotten when it holds no end of a line."""
    feed = LineFramer.feed

    def fed(self: LineFramer, piece: bytes) -> object:
        return feed(self, piece) if b"\n" in piece or len(piece) < 3 else iter(())

    patch.setattr(LineFramer, "feed", fed)


def lenient_zlib(patch: pytest.MonkeyPatch) -> None:
    """Wrapped deflate is read without its checksum."""
    patch.setattr(inflate, "_deflate_wbits", lambda head: -15)


@pytest.mark.parametrize("fault", [no_end, no_checksum, lost_carry, lenient_zlib])
def test_a_broken_build_is_found(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    assert zlib.decompress(zlib.compress(b"x")) == b"x"
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="seed 1, sample"):
        run(1, _SPOILT_SHORT)
