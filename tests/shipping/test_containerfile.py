"""The Containerfile against named rules, and what it copies against what a build needs.

No container engine is to be had where these tests run, and no hadolint in PyPI or Debian: the rules
are those of its list (DL…) that can concern this file, written down here.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from itertools import pairwise
from pathlib import Path

from click.testing import CliRunner

from ingester.cli import main
from tests.shipping.test_wheel import build, needed
from tests.system.server import REPOSITORY


def instructions() -> list[tuple[str, str]]:
    """Each with what follows it, as `ingester unit container` prints them."""
    text = CliRunner().invoke(main, ["unit", "container"]).output
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in whole.splitlines() if line]


def values(name: str) -> list[str]:
    return [value for found, value in instructions() if found == name]


def test_images_are_tagged_and_named_in_full() -> None:
    """DL3006, DL3007; and no search of registries."""
    for image in values("FROM"):
        assert re.match(r"[a-z.]+/\S+:(?!latest)\S+", image), image


def test_it_does_not_end_as_root_and_uses_no_sudo() -> None:
    """DL3002, DL3004."""
    assert values("USER")[-1] not in {"root", "0"}
    assert not any("sudo" in value for value in values("RUN"))


def test_folders_are_absolute_and_nothing_is_changed_by_cd() -> None:
    """DL3000, DL3003, DL3045."""
    assert all(value.startswith("/") for value in values("WORKDIR"))
    assert not any(re.search(r"\bcd ", value) for value in values("RUN"))
    has_folder = False
    for name, value in instructions():
        has_folder = (has_folder or name == "WORKDIR") and name != "FROM"
        target = value.split()[-1]
        assert name != "COPY" or has_folder or target.startswith("/"), value


def test_files_are_copied_not_added_and_caches_stay_outside() -> None:
    """DL3020, DL3042, DL3059."""
    assert values("ADD") == []
    for value in values("RUN"):
        assert "pip install" not in value or "--no-cache-dir" in value
    names = [name for name, _ in instructions()]
    assert ("RUN", "RUN") not in set(pairwise(names))


def test_what_starts_is_no_shell_and_there_is_one_of_each() -> None:
    """DL3025, DL4003, DL4004, DL3012; signals reach the server."""
    for name in ("ENTRYPOINT", "CMD"):
        (value,) = values(name)
        assert isinstance(json.loads(value), list)
    (health,) = values("HEALTHCHECK")
    assert isinstance(json.loads(health[health.index("[") :]), list)
    assert values("MAINTAINER") == []


def test_what_is_copied_is_enough_to_build_the_whole_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for value in values("COPY"):
        *names, target = value.split()
        if names[0].startswith("--from"):
            continue
        for name in names:
            found = REPOSITORY / name
            if found.is_dir():
                shutil.copytree(found, source / target)
            else:
                shutil.copy(found, source / target)
    with zipfile.ZipFile(build(source, tmp_path / "dist", "wheel")) as packed:
        names_found = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert names_found == set(needed())
