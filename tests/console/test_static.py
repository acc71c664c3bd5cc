"""Rules of the pages' files that no page has to be opened for."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import ingester
from ingester.console.assets import Assets
from ingester.console.screens import ALERTS, SCREENS, SECTIONS, SETTINGS
from tests.console.screens.pictures import PICTURES

CONSOLE = Path(ingester.__file__).parent / "console"
MODULES = sorted((CONSOLE / "static").rglob("*.js"))
STYLES = sorted((CONSOLE / "static").rglob("*.css"))
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))

# Every way to make markup or code of a text.
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|DOMParser"
    r"|createContextualFragment|srcdoc|\beval\(|new Function|setAttribute\(\"(?:style|on)"
)


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=path.name) for path in paths]


@pytest.mark.parametrize("path", named(MODULES))
def test_no_module_makes_markup_of_text_or_asks_others(path: Path) -> None:
    text = path.read_text("utf-8")
    assert MARKUP.findall(text) == []
    assert re.findall(r"""(?:from|import\()\s*["'](?!\.)""", text) == []
    assert re.findall(r"""(?:fetch|EventSource)\(\s*["'`]https?:""", text) == []
    # htm takes attributes as they stand: a style as text would be refused by the policy.
    assert re.findall(r"""\sstyle=["'](?!\$)""", text) == []


@pytest.mark.parametrize("path", named(TEMPLATES))
def test_no_template_has_script_style_or_unescaped_text(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"\sstyle=|<style|\son[a-z]+=|\|\s*safe|autoescape|javascript:", text) == []
    for script in re.findall(r"<script[^>]*>", text):
        assert 'type="module" src="{{ asset(' in script
    assert re.findall(r"https?://(?!www\.w3\.org)", text) == []


@pytest.mark.parametrize("path", named([*MODULES, *STYLES, *TEMPLATES]))
def test_files_are_of_a_length_that_is_read(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 500
    # Markup breaks where it may, not where it should.
    if path.suffix != ".html":
        assert [n for n, line in enumerate(lines, 1) if len(line) > 110] == []


def test_every_screen_has_its_files_and_every_entry_its_screen() -> None:
    assets = Assets()
    for screen in SCREENS:
        assert assets.has(f"screens/{screen.name}.js"), screen
        assert (CONSOLE / "templates" / f"{screen.template}.html").is_file(), screen
    paths = {screen.path: screen for screen in SCREENS}
    assert len(paths) == len(SCREENS)
    for entry in (*SECTIONS, *SETTINGS, *ALERTS):
        assert paths[entry.path].role == entry.role
    used = {f"screens/{screen.name}.js" for screen in SCREENS}
    there = {
        path.relative_to(CONSOLE / "static").as_posix()
        for path in (CONSOLE / "static" / "screens").glob("*.js")
        if "mount(" in path.read_text("utf-8")
    }
    assert there == used


def test_every_import_is_of_a_file_that_is_there() -> None:
    for path in MODULES:
        for target in re.findall(r"""from\s+"(\.[^"]+)"|import\("(\.[^"]+)"\)""", path.read_text()):
            name = target[0] or target[1]
            folder = CONSOLE if "/vendor/" in name else CONSOLE / "static"
            inside = path.relative_to(CONSOLE / "static").parent
            found = (folder / inside / name).resolve()
            assert found.is_file(), f"{path.name}: {name}"


def test_a_page_names_what_its_module_imports_and_nothing_lazy() -> None:
    assets = Assets()
    found = assets.imported("screens/tokens.js")
    assert {"ui.js", "vendor/preact.js", "keys.js", "plot.js", "vendor/uplot.js"} <= set(found)
    assert "vendor/codemirror.js" not in found
    for screen in SCREENS:
        name = f"screens/{screen.name}.js"
        text = (CONSOLE / "static" / name).read_text("utf-8")
        direct = set(re.findall(r"""from\s+"\.\./([^"]+)";""", text))
        assert direct <= set(assets.imported(name)), name


def test_vendor_files_are_those_that_were_built() -> None:
    sums = (CONSOLE / "vendor" / "SHA256SUMS").read_text().split("\n")[:-1]
    assert len(sums) == 5
    for line in sums:
        digest, name = line.split("  ")
        assert hashlib.sha256((CONSOLE / "vendor" / name).read_bytes()).hexdigest() == digest, name
    lock = json.loads((CONSOLE / "vendor" / "build" / "package-lock.json").read_text())
    told = (CONSOLE / "vendor" / "LICENCES.txt").read_text()
    bundled = {name for name, one in lock["packages"].items() if name and not one.get("dev")}
    for name in bundled:
        assert f"{name.removeprefix('node_modules/')} " in told, name


def test_the_wheel_has_every_file_that_a_page_needs() -> None:
    """An installed console without its files would show nothing, and no other test would say so."""
    wheel = WheelBuilder(str(CONSOLE.parents[1]))
    packed = {file.distribution_path for file in wheel.recurse_included_files()}
    needed = [*MODULES, *STYLES, *TEMPLATES, *sorted((CONSOLE / "vendor").glob("*.*"))]
    missing = {path.relative_to(CONSOLE.parents[1]).as_posix() for path in needed} - packed
    assert missing == set()
    assert not any("vendor/build" in name or "pictures" in name for name in packed)


def test_the_version_changes_with_any_file_and_names_are_exact() -> None:
    assets = Assets()
    assert re.fullmatch(r"[0-9a-f]{16}", assets.version)
    assert assets.maybe_asset(assets.version, "app.css") is not None
    for name in ("../app.py", "screens", "vendor/build/build.mjs", "app.css/", "APP.CSS", ""):
        assert assets.maybe_asset(assets.version, name) is None, name
    assert assets.maybe_asset("0" * 16, "app.css") is None


def test_pictures_that_are_shown_are_there_and_small() -> None:
    """The README and its page of screens; `pictures.py` makes them anew."""
    root, shown = CONSOLE.parents[1], set()
    for page in (root / "README.md", CONSOLE / "SCREENS.md"):
        for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text("utf-8")):
            picture = (page.parent / target).resolve()
            assert picture.stat().st_size < 100_000, target
            shown.add(picture)
    assert shown == {CONSOLE / "pictures" / f"{name}.png" for name in PICTURES}
