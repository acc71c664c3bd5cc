"""Files: what they declare is there, marked and closed to changes; a bad one changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ingester.cli import main
from ingester.delivery.settings import DestinationSettings
from ingester.delivery.signing import new_secret
from ingester.errors import ConfigError, Conflict
from ingester.store.control import ControlStore
from ingester.watch.files import read_files, sync_files
from tests.watch.rig import rigged
from tests.watch.test_incidents import fire, firer

SETTINGS = DestinationSettings(url="https://example.org/hook")
RULE = """
[[rules]]
name = "disk"
lql = "disk"
"""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlStore]:
    with closing(ControlStore.open(tmp_path / "control.sqlite")) as opened:
        yield opened


def write(folder: Path, text: str, name: str = "watch.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def sync(control: ControlStore, *paths: str) -> int:
    return sync_files(control, paths, console_base="http://c")


def test_the_sample_is_taken(control: ControlStore) -> None:
    sample = Path(__file__).parents[2] / "ingester/watch/example.toml"
    assert sync(control, str(sample)) == 5
    assert sync(control, str(sample)) == 0
    kinds = [info.kind for info in control.list_watches()]
    assert kinds == ["rule", "alert", "monitor", "monitor"]
    assert all(info.file == str(sample) for info in control.list_watches())
    assert '"destinations":["dst_1"]' in control.list_watches("rule")[0].settings


def test_what_is_declared_follows_the_file_and_nothing_else(
    control: ControlStore, tmp_path: Path
) -> None:
    made = control.create_watch("rule", "mine", b'{"name":"mine","lql":"x"}', actor="ada")
    path = write(tmp_path, RULE)
    assert sync(control, path) == 1
    (declared,) = [info for info in control.list_watches("rule") if info.file]
    with pytest.raises(Conflict, match=r"declared in .*watch\.toml"):
        control.delete_watch("rule", declared.id, console_base="", actor="ada")
    with pytest.raises(Conflict):
        control.change_watch("rule", declared.id, "disk", b"{}", actor="ada")
    write(tmp_path, RULE.replace('lql = "disk"', 'lql = "disk full"'))
    assert sync(control, path) == 1
    changed = control.watch("rule", declared.id)
    assert "disk full" in changed.settings
    assert changed.version == declared.version + 1
    write(tmp_path, "")
    assert sync(control, path) == 1
    assert control.list_watches() == [made]


def test_what_is_no_longer_declared_ends_its_incident(tmp_path: Path) -> None:
    with rigged(tmp_path) as rig:
        path = write(tmp_path, RULE)
        sync(rig.control, path)
        (info,) = rig.control.list_watches()
        fire(rig, firer(destinations=(), group_key=""))
        with rig.control.watching(now_s=rig.wall_s, console_base="") as transaction:
            transaction.connection.execute("UPDATE affected SET watch_id = ?", (info.number,))
        write(tmp_path, "")
        sync(rig.control, path)
        assert rig.statuses() == ["resolved"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[rules]\n", r"watch\.toml: .*line 1"),
        ("[[rules]]\nname = 'a'\n", r"rules 1 \('a'\): .*lql"),
        (RULE + "[[rules]]\nname='b'\nlql='m.x:'\n", r"rules 2 \('b'\): lql: column 5"),
        (RULE + RULE, r"rules 2 \('disk'\): 'disk' is declared twice"),
        ("[[alerts]]\nname='a'\nquery='SELECT 1'\ncron='* *'\n", r"alerts 1 .*five fields"),
        ("[[rules]]\nname='a'\nlql='x'\ncolour=1\n", "colour"),
        ("[[rule]]\nname='a'\n", r"rule: declare \[\[rules\]\]"),
        ("[rules]\nname='a'\n", r"write \[\[rules\]\] before each"),
        ("[[rules]]\nname='a'\nlql='x'\ndestinations=['ops']\n", "no destination 'ops'"),
        ("[[destinations]]\nname='ops'\ntype='webhook'\n", r"destinations 1 \('ops'\): .*url"),
        (
            "[[monitors]]\nname='a'\noperator='>'\nthreshold=1\n[monitors.target]\nkind='x'\n",
            "kind|Invalid value",
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_place_and_changes_nothing(
    control: ControlStore, tmp_path: Path, text: str, words: str
) -> None:
    path = write(tmp_path, RULE)
    sync(control, path)
    before = control.list_watches()
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=words):
        sync(control, path)
    assert control.list_watches() == before


def test_a_name_that_is_taken_in_the_console_is_refused(
    control: ControlStore, tmp_path: Path
) -> None:
    control.create_watch("rule", "disk", b'{"name":"disk","lql":"x"}', actor="ada")
    with pytest.raises(ConfigError, match="no file declares"):
        sync(control, write(tmp_path, RULE))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_files([str(tmp_path / "none.toml")])


OPS = """
[[destinations]]
name = "ops"
url = "https://example.org/a"
"""


def test_destinations_follow_the_file_and_are_closed_to_other_changes(
    control: ControlStore, tmp_path: Path
) -> None:
    mine = control.create_destination("mine", "webhook", SETTINGS).id
    path = write(tmp_path, OPS + "gzip = true\n")
    assert sync(control, path) == 1
    assert sync(control, path) == 0
    ops = control.list_destinations()[1]
    assert (ops.name, ops.file) == ("ops", path)
    for change in (
        lambda: control.patch_destination(ops.id, {"url": "https://example.org/other"}),
        lambda: control.patch_destination(ops.id, {"name": "other"}),
        lambda: control.rotate_destination_secret(ops.id, new_secret(), overlap_seconds=0),
        lambda: control.delete_destination(ops.id),
    ):
        with pytest.raises(Conflict, match=r"'ops' is declared in .*watch\.toml: change it there"):
            change()
    assert control.patch_destination(ops.id, {"enabled": False}).disabled_at is not None
    assert control.patch_destination(ops.id, {"enabled": True}).disabled_at is None
    write(tmp_path, OPS.replace("/a", "/b"))
    assert sync(control, path) == 1
    settings = control.destination_settings(ops.id)
    assert (settings.url, settings.gzip) == ("https://example.org/b", False)
    write(tmp_path, "")
    assert sync(control, path) == 1
    assert [info.id for info in control.list_destinations()] == [mine]


def test_a_destination_made_in_the_console_is_not_taken_over(
    control: ControlStore, tmp_path: Path
) -> None:
    control.create_destination("ops", "webhook", SETTINGS)
    path = write(tmp_path, OPS)
    with pytest.raises(ConfigError, match="'ops' already that no file declares"):
        sync(control, path)
    # With the same settings nothing is changed by it; from now on it is the file's.
    write(tmp_path, OPS.replace("https://example.org/a", str(SETTINGS.url)))
    assert sync(control, path) == 1
    assert control.list_destinations()[0].file == path


def test_a_secret_that_a_file_changes_signs_for_another_day(
    control: ControlStore, tmp_path: Path
) -> None:
    old, new = new_secret(), new_secret()
    path = write(tmp_path, f"{OPS}secret = {old!r}\n")
    sync(control, path)
    write(tmp_path, f"{OPS}secret = {new!r}\n")
    sync(control, path)
    assert sync(control, path) == 0
    settings = control.destination_settings("dst_1")
    assert settings.secrets(time.time()) == [new, old]
    assert settings.secrets(time.time() + 90_000) == [new]


def test_what_names_a_destination_that_leaves_the_file_is_refused(
    control: ControlStore, tmp_path: Path
) -> None:
    named = RULE + 'destinations = ["ops"]\n'
    path = write(tmp_path, OPS + named)
    assert sync(control, path) == 2
    write(tmp_path, named)
    with pytest.raises(ConfigError, match=r"rules 1 \('disk'\)\.destinations: .* 'ops'"):
        sync(control, path)
    assert [info.name for info in control.list_destinations()] == ["ops"]


def test_config_check_reads_the_watch_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(path: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setenv("INGESTER_WATCH_FILES", path)
        done = CliRunner().invoke(main, ["config", "check", "--json"])
        return done.exit_code, json.loads(done.stdout)

    monkeypatch.chdir(tmp_path)
    assert check(write(tmp_path, RULE)) == (0, {"ok": True, "problems": []})
    code, found = check(write(tmp_path, RULE + "colour = 1\n"))
    assert code == 1
    assert "rules 1 ('disk')" in found["problems"][0]
