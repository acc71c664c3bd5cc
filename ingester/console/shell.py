"""Pages: templates filled in for whoever asks, and the policy they are sent with.

1. What is put into a template is escaped by it; a name that is not there is an error, not "".
2. The policy lets a page load our own files and nothing else: no script and no style in the page,
   nothing from outside, no text turned into markup (`require-trusted-types-for`). The nonce is
   for the one library that makes a style element of its own, the editor.
3. Which entries and buttons are there is decided here, by the role; hiding them in the browser
   would only look like it.
"""

from __future__ import annotations

import functools
import secrets
from pathlib import Path
from typing import Literal

import jinja2

import ingester
from ingester.console.assets import Assets
from ingester.console.screens import SECTIONS, SETTINGS, Entry, Screen
from ingester.management import Actor
from ingester.management.calls import NeededRole

__all__ = ["THEME_COOKIE", "FormName", "Pages", "new_nonce", "page_policy", "safe_next"]

FormName = Literal["login", "setup", "invite"]

THEME_COOKIE = "ingester_theme"
_THEMES = frozenset({"light", "dark"})
_NONCE_BYTES = 16
_NEXT_CHARACTERS_MAX = 2_000

_TITLES: dict[str, str] = {
    "login": "Sign in",
    "setup": "Set up this server",
    "invite": "Choose a password",
}
_ERROR_TITLES = {
    403: "This page is for administrators",
    404: "There is nothing at this address",
    405: "This address does not take that",
    500: "That was our fault",
}


class Pages:
    """The templates of one process."""

    def __init__(self, assets: Assets) -> None:
        self._imported = functools.cache(assets.imported)
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals.update(
            asset=assets.url, has_asset=assets.has, version=ingester.__version__
        )

    def screen(
        self, screen: Screen, actor: Actor, *, nonce: str, theme: str, intake_url: str
    ) -> str:
        return self._templates.get_template(f"{screen.template}.html").render(
            screen=screen,
            title=screen.title,
            module=f"screens/{screen.name}.js",
            imported=self._imported(f"screens/{screen.name}.js"),
            settings=_entries(SETTINGS, actor.role),
            **self._about(actor, screen.section, nonce, theme, intake_url),
        )

    def form(
        self,
        name: FormName,
        *,
        nonce: str,
        theme: str,
        token: str = "",
        email: str = "",
        next_path: str = "",
        error: str = "",
        told: str = "",
    ) -> str:
        """A form; `error` is shown above it and read out by screen readers."""
        return self._templates.get_template("form.html").render(
            name=name,
            title=_TITLES[name],
            token=token,
            email=email,
            next_path=next_path,
            error=error,
            told=told,
            nonce=nonce,
            theme=_theme(theme),
        )

    def error(
        self,
        status: int,
        sentence: str,
        actor: Actor,
        *,
        nonce: str,
        theme: str,
    ) -> str:
        return self._templates.get_template("error.html").render(
            title=_ERROR_TITLES.get(status, "This did not work"),
            status=status,
            sentence=sentence,
            **self._about(actor, "", nonce, theme, ""),
        )

    def bounce(self, path: str) -> str:
        """A page that asks for itself again, from here."""
        return self._templates.get_template("bounce.html").render(path=path)

    def _about(
        self, actor: Actor, section: str, nonce: str, theme: str, intake_url: str
    ) -> dict[str, object]:
        return {
            "sections": _entries(SECTIONS, actor.role),
            "section": section,
            "role": actor.role or "",
            "user": actor.name,
            "has_session": actor.session is not None,
            "nonce": nonce,
            "theme": _theme(theme),
            "intake_url": intake_url,
        }


def new_nonce() -> str:
    return secrets.token_urlsafe(_NONCE_BYTES)


def page_policy(nonce: str) -> str:
    return (
        "default-src 'none'; script-src 'self'; "
        f"style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def safe_next(path: str) -> str:
    """A path of our own to go on to after signing in; "" for anything else."""
    if not path.startswith("/") or path.startswith(("//", "/\\")):
        return ""
    if len(path) > _NEXT_CHARACTERS_MAX or not path.isascii() or not path.isprintable():
        return ""
    return path


def _entries(entries: tuple[Entry, ...], role: NeededRole | None) -> list[Entry]:
    return [entry for entry in entries if entry.role == "viewer" or role == "admin"]


def _theme(cookie: str) -> str:
    return cookie if cookie in _THEMES else ""
