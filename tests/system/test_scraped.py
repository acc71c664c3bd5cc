"""`/metrics` as Prometheus reads it: by Debian's own, which scrapes a running server."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.system.doors import Doors, open_doors
from tests.system.readme_shell import blocks
from tests.system.server import wait_until


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("scraped")) as doors:
        assert doors.log({"message": "one"}).status == 200
        yield doors


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install prometheus)")
    return found


def test_promtool_finds_no_fault_in_the_text(doors: Doors) -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=doors.text("/metrics"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_prometheus_scrapes_with_the_settings_of_the_readme(doors: Doors, tmp_path: Path) -> None:
    (settings,) = blocks("yaml").values()
    target = doors.server.ready["console"].removeprefix("http://")
    assert "127.0.0.1:8081" in settings
    settings = "global: {scrape_interval: 200ms}\n" + settings.replace("127.0.0.1:8081", target)
    with prometheus(tmp_path, settings) as url:

        def asked() -> Any:
            with suppress(OSError):
                return ask(url, "ingester_intake_requests_total")
            return []

        rows = wait_until(asked, 20, "a scrape")
        assert {row["metric"]["job"] for row in rows} == {"ingester"}
        assert ask(url, 'up{job="ingester"}')[0]["value"][1] == "1"


@contextmanager
def prometheus(folder: Path, settings: str) -> Iterator[str]:
    (folder / "prometheus.yml").write_text(settings, "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def ask(url: str, query: str) -> list[dict[str, Any]]:
    text = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"{url}/api/v1/query?{text}", timeout=5) as answer:
        document = json.load(answer)
    rows = document["data"]["result"]
    assert isinstance(rows, list)
    return rows


def test_each_metric_says_what_it_is(doors: Doors) -> None:
    """What promtool would say, where it is not installed."""
    text = doors.text("/metrics")
    named = {line.split()[0].partition("{")[0] for line in text.splitlines() if line[:1] != "#"}
    told = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    assert len(named) > 50
    stems = {re.sub(r"_(total|count|sum|bucket|created)$", "", name) for name in named}
    assert {re.sub(r"_total$", "", name) for name in told} >= {
        name for name in stems if name.startswith("ingester_")
    }
