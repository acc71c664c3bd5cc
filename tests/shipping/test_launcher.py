"""The one file unpacks itself once, into a folder of its own, and runs what it holds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ingester.shipping.binary import packed

_PROGRAM = """#!/bin/sh
echo "$_INGESTER_STARTED_AS|$*|$(dirname "$0")"
exit 7
"""


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    folder = tmp_path / "gathered"
    (folder / "_internal").mkdir(parents=True)
    (folder / "_internal" / "data.bin").write_bytes(os.urandom(200_000))
    (folder / "ingester").write_text(_PROGRAM)
    (folder / "ingester").chmod(0o755)
    output = tmp_path / "bin" / "ingester"
    output.parent.mkdir()
    packed(folder, output)
    return output


def _run(one_file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(one_file), "query", "a b"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
        check=False,
    )


def test_it_unpacks_once_and_passes_arguments_and_exit_code(one_file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = _run(one_file, XDG_CACHE_HOME=str(cache))
    assert (first.returncode, first.stderr) == (7, "")
    started_as, arguments, place = first.stdout.strip().split("|")
    assert (started_as, arguments) == (str(one_file), "query a b")
    (home,) = cache.iterdir()
    assert home.stat().st_mode & 0o777 == 0o700
    (unpacked,) = home.iterdir()
    assert str(unpacked) == place
    (unpacked / "mark").touch()
    assert _run(one_file, XDG_CACHE_HOME=str(cache)).stdout == first.stdout
    assert (unpacked / "mark").exists()


def test_what_a_service_may_write_to_comes_first(one_file: Path, tmp_path: Path) -> None:
    found = _run(
        one_file, CACHE_DIRECTORY=str(tmp_path / "service"), XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    assert f"|{tmp_path}/service/" in found.stdout
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_is_somebody_elses_is_not_trusted(one_file: Path, tmp_path: Path) -> None:
    """A link stands for it: its owner could swap what is behind."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / f"ingester-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    found = _run(one_file, XDG_CACHE_HOME=str(shared), TMPDIR=str(tmp_path / "tmp"))
    assert f"|{tmp_path}/tmp/" in found.stdout
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_damaged_file_says_so_and_leaves_nothing(one_file: Path, tmp_path: Path) -> None:
    whole = one_file.read_bytes()
    one_file.write_bytes(whole[: len(whole) - 50_000])
    found = _run(one_file, XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(tmp_path / "tmp"))
    assert found.returncode == 1
    assert "damaged" in found.stderr
    assert "XDG_CACHE_HOME" in found.stderr
    (home,) = (tmp_path / "cache").iterdir()
    assert list(home.iterdir()) == []


def test_the_same_folder_gives_the_same_file(one_file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    packed(tmp_path / "gathered", again)
    assert again.read_bytes() == one_file.read_bytes()
