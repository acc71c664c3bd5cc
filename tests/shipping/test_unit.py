"""The unit starts what is installed, walled in, and is told when the server is ready."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from ingester import systemd
from ingester.cli import main

_EXPOSURE_MAX = 2.0  # of 10; systemd calls up to 2 "OK" and 10 "unsafe"


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "ingester"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("_INGESTER_STARTED_AS", str(program))
    printed = CliRunner().invoke(main, ["unit"])
    assert printed.exit_code == 0, printed.output
    path = tmp_path / "ingester.service"
    path.write_text(printed.output)
    return path


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_no_fault_in_it(unit: Path) -> None:
    found = _analyze("verify", "--man=no", str(unit))
    ours = [line for line in found.stderr.splitlines() if "ingester" in line]
    assert (found.returncode, ours) == (0, [])


def test_it_exposes_little(unit: Path) -> None:
    found = _analyze("security", "--offline=true", "--no-pager", str(unit))
    (level,) = re.findall(r"Overall exposure level.*?: ([\d.]+)", found.stdout)
    assert float(level) <= _EXPOSURE_MAX


def test_it_starts_the_program_that_printed_it(unit: Path) -> None:
    assert f"ExecStart={unit.parent}/ingester serve\n" in unit.read_text()


def test_a_path_with_a_space_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_INGESTER_STARTED_AS", "/opt/my programs/ingester")
    refused = CliRunner().invoke(main, ["unit"])
    assert refused.exit_code == 2
    assert "space" in refused.output


def test_the_container_runs_as_nobody_in_particular_with_one_volume() -> None:
    printed = CliRunner().invoke(main, ["unit", "container"])
    instructions = [
        line.split(maxsplit=1) for line in printed.output.splitlines() if line[:1] > "A"
    ]
    found = {name: value for name, value in instructions if name.isupper()}
    assert found["USER"] == "ingester"
    assert found["VOLUME"] == '["/data"]'
    assert "readyz" in found["HEALTHCHECK"]
    assert found["STOPSIGNAL"] == "SIGTERM"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(shell: str) -> None:
    printed = CliRunner().invoke(main, ["completion", shell])
    assert printed.exit_code == 0, printed.output
    assert "_INGESTER_COMPLETE" in printed.output
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=printed.output, text=True, check=True)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, is_abstract: bool) -> None:
    name = f"ingester-{tmp_path.name}-{tmp_path.stat().st_ino}"
    address = f"\0{name}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        environ = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        assert systemd.notify("READY=1", "STATUS=here", environ=environ)
        assert receiver.recv(1000) == b"READY=1\nSTATUS=here"


def test_nobody_is_told_where_nobody_asked_or_is_gone(tmp_path: Path) -> None:
    assert not systemd.notify("READY=1", environ={})
    assert not systemd.notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})
