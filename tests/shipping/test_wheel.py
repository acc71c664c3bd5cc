"""What is installed is the whole program: the wheel, file by file and running, and the sdist.

The wheel goes into an empty environment, without the packages it needs: these are lent from this
one by a path file, as fetching 300 MB would prove nothing of ours. What that leaves unproved is
looked at separately: that every package that is imported is one that `pyproject.toml` names.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from http.cookiejar import CookieJar
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from ingester.console.screens import SCREENS
from ingester.shipping import build_hook
from tests.system.server import REPOSITORY

# 107 MB, measured 2026-11-22, before any page was shown.
_IDLE_BYTES_MAX = 150_000_000
PACKAGE = REPOSITORY / "ingester"
# Pictures for the README, what the bundles are made from, and what only a build needs.
LEFT_OUT = (
    "ingester/console/vendor/build/",
    "ingester/console/pictures/",
    "ingester/shipping/build_hook.py",
)


def needed() -> dict[str, str]:
    """By name: the digest of each file that must be shipped."""
    found = {}
    for path in PACKAGE.rglob("*"):
        name = path.relative_to(REPOSITORY).as_posix()
        if path.is_file() and "__pycache__" not in name and not name.startswith(LEFT_OUT):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def build(source: Path, output: Path, kind: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(output)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    (path,) = output.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(REPOSITORY, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in an environment that has nothing else of its own."""
    home = tmp_path_factory.mktemp("installed") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"),
            *("--no-deps", "--no-index", "--no-compile", str(wheel)),
        ],
        check=True,
    )
    (site,) = home.glob("lib/python3*/site-packages")
    # Behind the environment's own folder on the path.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return home / "bin" / "ingester"


def run(program: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture(scope="module")
def site(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    binds = ["--intake-bind", "127.0.0.1:0", "--console-bind", "127.0.0.1:0"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            [str(installed), "serve", "--data-dir", "data", *binds],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert server.stdout is not None
        yield Site(folder, json.loads(server.stdout.readline())["console"], server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert server.stdout is not None
        server.stdout.close()


class Site:
    """The console of what was installed, signed in to as its administrator."""

    def __init__(self, folder: Path, url: str, pid: int) -> None:
        self.folder = folder
        self.url = url
        self.pid = pid
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._opener = urllib.request.build_opener(cookies)
        told = (folder / "data" / "first-run.txt").read_text("utf-8")
        found = re.search(r"/setup\?token=(\S+)", told)
        assert found is not None
        fields = {"token": found[1], "email": "ada@example.org", "password": "correct horse"}
        request = urllib.request.Request(
            f"{url}/setup",
            urllib.parse.urlencode(fields).encode(),
            {"Sec-Fetch-Site": "same-origin"},
        )
        self._opener.open(request, timeout=20).close()

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers={"Accept": "text/html, */*"})
        with self._opener.open(request, timeout=20) as answer:
            content = answer.read()
        assert isinstance(content, bytes)
        return content


def test_the_wheel_holds_every_file_as_it_is_here(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        found = {
            name: hashlib.sha256(packed.read(name)).hexdigest()
            for name in packed.namelist()
            if ".dist-info/" not in name
        }
    assert found == needed()


def test_the_sdist_has_tests_and_benches_and_makes_the_same_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    packed = build(REPOSITORY, tmp_path / "sdist", "sdist")
    with tarfile.open(packed) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    for name in ("tests/shipping/test_wheel.py", "tests/conftest.py", "bench/__main__.py"):
        assert (source / name).is_file(), name
    for name in (
        "config.example.toml",
        "README.md",
        "LICENSE",
        "ingester/shipping/build_hook.py",
        ".ci/run",
    ):
        assert (source / name).is_file(), name
    again = build(source, tmp_path / "again", "wheel")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_a_wheel_without_pages_is_not_built(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    shutil.copytree(PACKAGE, tmp_path / "ingester", ignore=shutil.ignore_patterns("*.css"))
    (tmp_path / "ingester" / "console" / "vendor" / "preact.js").write_text("// empty")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "console/static/*.css is not there" in done.stderr
    assert "preact.js is not the one that SHA256SUMS names" in done.stderr
    assert "uplot.css is not there" in done.stderr
    assert list(tmp_path.glob("dist/*")) == []


@pytest.mark.parametrize("gone", ["console/templates", "console/static", "console/vendor"])
def test_each_folder_of_pages_is_needed(gone: str, tmp_path: Path) -> None:
    assert build_hook.faults(PACKAGE) == []
    shutil.copytree(PACKAGE, tmp_path / "ingester")
    shutil.rmtree(tmp_path / "ingester" / gone)
    assert build_hook.faults(tmp_path / "ingester") != []


def test_every_package_that_is_imported_is_asked_for() -> None:
    """Names of packages as `pyproject.toml` writes them."""
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    (listed,) = re.findall(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    asked = {name.lower() for name in re.findall(r'^ +"([A-Za-z0-9-]+)', listed, re.MULTILINE)}
    distributions = packages_distributions()
    missing: dict[str, str] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(REPOSITORY).as_posix().startswith(LEFT_OUT):
            continue
        for name in imported(path):
            if name in sys.stdlib_module_names or name in {"ingester", "PyInstaller"}:
                continue
            found = {one.lower().replace("_", "-") for one in distributions.get(name, [name])}
            if not {name, *found} & (asked | _BROUGHT):
                missing[name] = path.name
    assert missing == {}


# Quart is asked for by the package that makes it run on trio; `_duckdb` is DuckDB's library.
_BROUGHT = {"quart", "werkzeug", "h11", "_duckdb"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def test_what_is_installed_shows_every_screen(site: Site) -> None:
    for screen in SCREENS:
        if "{" not in screen.path:
            page = site.get(screen.path).decode()
            assert screen.title in page, screen.path
            assert f"/screens/{screen.name}.js" in page, screen.path


def test_what_is_installed_serves_every_file_of_its_pages(site: Site) -> None:
    found = re.search(r"/static/[0-9a-f]{16}/", site.get("/logs").decode())
    assert found is not None
    console = PACKAGE / "console"
    files = {
        path.relative_to(console / "static").as_posix(): path
        for path in (console / "static").rglob("*.*")
    }
    files |= {f"vendor/{path.name}": path for path in (console / "vendor").glob("*.[jc]s*")}
    assert len(files) > 50
    for name, path in files.items():
        assert site.get(found[0] + name) == path.read_bytes(), name


def test_what_is_installed_answers_sql_and_prints_its_texts(site: Site, installed: Path) -> None:
    where: Any = json.loads(run(installed, site.folder, "config", "show", "--json"))
    assert where
    rows = json.loads(
        run(
            *(installed, site.folder, "query", "SELECT count(*) AS n FROM events"),
            *("--data-dir", "data", "--json"),
        )
    )
    assert rows == [{"n": 0}]
    assert f"ExecStart={installed} serve" in run(installed, site.folder, "unit")
    assert "FROM docker.io" in run(installed, site.folder, "unit", "container")
    version = run(installed, site.folder, "--version")
    assert re.fullmatch(r"\d+\.\d+\.\d+ \(DuckDB [\d.]+\)\n", version)


def test_an_idle_server_is_small(site: Site) -> None:
    """As it has started and shown some pages. Without what only the linker reads, and without
    pandas, which may be installed beside it.
    """
    kib = {
        line.split()[0]: int(line.split()[1])
        for line in Path(f"/proc/{site.pid}/status").read_text("ascii").splitlines()
        if line.startswith(("VmRSS", "RssAnon"))
    }
    print(kib)
    assert kib["VmRSS:"] < _IDLE_BYTES_MAX / 1024


def test_it_runs_from_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    """Else all of the above would be of the repository."""
    python = installed.with_name("python")
    found = run(python, tmp_path, "-c", "import ingester; print(ingester.__file__)")
    assert Path(found.strip()).is_relative_to(installed.parents[1])
    assert os.path.commonpath([found.strip(), str(REPOSITORY)]) != str(REPOSITORY)
