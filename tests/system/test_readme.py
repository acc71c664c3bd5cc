"""The README's samples, run as pasted against a live server, but for address and keys."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.doors import Doors, open_doors
from tests.system.server import REPOSITORY
from tests.system.webhooks import webhooks

# What each door's samples must print, and where the rows must lie.
_DOORS = {
    "Product events": (r"^200 1|Ingester-Accepted: 1", "events WHERE account_id = 'acme'"),
    "Logs": (r'\{"success":true,"logsStored":1\}', "logs"),
    "Metrics": (r'\{"success":true,"metricsStored":1\}', "metrics"),
    "Honest door": (r"accepted['\"]?: ?2", "logs"),
}
_LANGUAGES = ("sh", "python", "js")
_RECEIVER = "https://example.org/hook"


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    loopback = {"INGESTER_DELIVERY_ALLOW_NETWORKS": "127.0.0.0/8"}
    with open_doors(tmp_path_factory.mktemp("readme"), loopback) as doors:
        yield doors


def samples(door: str, language: str) -> list[str]:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    section = re.search(rf"^## {door}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section is not None, door
    return re.findall(rf"^```{language}\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)


def filled_in(doors: Doors, sample: str) -> str:
    auth, api = doors.settle_path.removesuffix("?wait=query").split("/")[2:]
    words = {
        "AUTH": auth,
        "API": api,
        "TOKEN": doors.token,
        "APIKEY": doors.api_key,
        "ADMIN": doors.admin,
    }
    filled = re.sub(r"\b(AUTH|API|TOKEN|APIKEY|ADMIN)\b", lambda match: words[match[1]], sample)
    filled = filled.replace("http://127.0.0.1:8081", doors.server.ready["console"])
    return filled.replace("http://127.0.0.1:8080", doors.server.ready["intake"])


def run(language: str, sample: str) -> subprocess.CompletedProcess[str]:
    command = {
        "sh": ["sh", "-e", "-c", sample],
        "python": [sys.executable, "-W", "ignore::ResourceWarning", "-c", sample],
        "js": ["node", "--input-type=module", "-e", sample],
    }[language]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("language", _LANGUAGES)
@pytest.mark.parametrize("door", _DOORS)
def test_the_samples_of_a_door_run_as_pasted(doors: Doors, door: str, language: str) -> None:
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not here")
    if language == "js" and shutil.which("node") is None:
        pytest.skip("node is not here")
    expected, table = _DOORS[door]
    (sample,) = samples(door, language)
    assert language == "sh" or "Idempotency-Key" in sample, "it retries"

    def count() -> Any:
        return doors.row(f"SELECT count(*) FROM {table}")[0]

    before = count()
    done = run(language, filled_in(doors, sample))
    assert done.returncode == 0, done
    assert re.search(expected, done.stdout), done
    assert count() > before


def test_an_incident_is_told_by_the_samples_of_watching(doors: Doors) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    by_command, by_api, *_ = samples("Watching", "sh")
    with webhooks() as hooks:
        program = f'ingester() {{ {sys.executable} -m ingester "$@"'
        program += f" --data-dir {doors.server.data_dir}; }}\n"
        done = run("sh", program + filled_in(doors, by_command).replace(_RECEIVER, hooks.url))
        assert done.returncode == 0, done
        assert re.search(r"inc_1  opened  .*  disk  #storage", done.stdout), done
        assert re.search(r"dlv_1  .*  delivered  opened of inc_1 to ops", done.stdout), done
        assert [json.loads(one.body)["id"][:6] for one in hooks.received] == ["sample", "inc_1"]
        done = run("sh", filled_in(doors, by_api).replace(_RECEIVER, hooks.url))
    assert done.returncode == 0, done
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one.get("id", "")[:4] for one in answers] == [
        *("dst_", "rte_", "", "rul_", "mon_", "alr_", "")
    ]
    assert [one["name"] for one in answers[2]["destinations"]] == ["ops"]
    assert [one["id"] for one in answers[-1]["incidents"]] == ["inc_1"]
