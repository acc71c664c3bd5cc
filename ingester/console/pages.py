"""The console's plain pages: start, sign-in, set-up, invitation. No script, nothing from outside.

Forms post to their own path; what they hold goes the same way as the JSON API's bodies. The one
style sheet is in the page and named by its hash in the policy.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from typing import Literal

import ingester

__all__ = ["PAGE_POLICY", "FormName", "form_page", "index_page"]

FormName = Literal["login", "setup", "invite"]

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;"
    "color:#1b1f24;background:#fff}code{background:#f3f4f6;padding:.1em .3em}"
    "label{display:block;margin:1rem 0 .25rem}input{font:inherit;padding:.4rem;width:100%;"
    "max-width:24rem;box-sizing:border-box}"
    "button{font:inherit;margin-top:1.5rem;padding:.4rem 1rem}"
    ".error{border-left:.25rem solid #b42318;padding-left:.75rem}"
    "@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#14171a}"
    "code{background:#23282e}a{color:#8ab4f8}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)

_TITLES = {
    "login": "Sign in",
    "setup": "Set up this server",
    "invite": "Choose a password",
}
_INTROS = {
    "login": "",
    "setup": "<p>You become the first administrator. This link works once.</p>",
    "invite": "<p>You were invited to this console. This link works once.</p>",
}
_BUTTONS = {"login": "Sign in", "setup": "Set up", "invite": "Save and sign in"}

_EMAIL = (
    '<label for="email">E-mail address</label>'
    '<input id="email" name="email" type="email" autocomplete="username" required value="{}">'
)
_OLD_PASSWORD = (
    '<label for="password">Password</label><input id="password" name="password" type="password"'
    ' autocomplete="current-password" required>'
)
_NEW_PASSWORD = (
    '<label for="password">New password, at least 8 characters</label><input id="password"'
    ' name="password" type="password" autocomplete="new-password" minlength="8" required>'
)


def form_page(name: FormName, *, token: str = "", email: str = "", error: str = "") -> str:
    """A form; `error` is shown above it and read out by screen readers."""
    fields = []
    if name != "login":
        fields.append(f'<input type="hidden" name="token" value="{html.escape(token)}">')
    if name != "invite":
        fields.append(_EMAIL.format(html.escape(email)))
    fields.append(_OLD_PASSWORD if name == "login" else _NEW_PASSWORD)
    told = f'<p class="error" role="alert">{html.escape(error)}</p>' if error else ""
    return _page(
        _TITLES[name],
        f"""<h1>{_TITLES[name]}</h1>
{_INTROS[name]}{told}
<form method="post" action="/{name}">
{"".join(fields)}
<button>{_BUTTONS[name]}</button>
</form>""",
    )


def index_page(*, reasons: Sequence[str], actors: Sequence[str]) -> str:
    state = "ready" if not reasons else "not ready: " + "; ".join(reasons)
    parts = "".join(f"<li>{html.escape(name.replace('_', ' '))}</li>" for name in sorted(actors))
    return _page(
        "ingester",
        f"""<h1>ingester {html.escape(ingester.__version__)}</h1>
<p>This server is <strong>{html.escape(state)}</strong>.</p>
<h2>Running here</h2>
<ul>{parts}</ul>
<h2>To look at</h2>
<ul>
<li><a href="/login">Sign in</a></li>
<li><a href="/metrics">/metrics</a>: figures in the Prometheus text format</li>
<li><a href="/healthz">/healthz</a>: the process answers</li>
<li><a href="/readyz">/readyz</a>: requests are taken</li>
<li><a href="/openapi.json">/openapi.json</a>: every route of this server</li>
</ul>
<p>Manage sources and query data with the command line on the server's machine:
<code>ingester --help</code>.</p>""",
    )


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
