"""Every screen with texts of strangers in all that it shows: none of them runs or becomes markup.

The screens are those of the table, so that a new one is looked at too; `PLAIN` names those that
show nothing a stranger could have written. What comes up when rows are opened is tried in the tests
of the screens themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from ingester.console.screens import SCREENS, Screen
from tests.console.screens.receiver import receiving
from tests.console.screens.site import Site
from tests.system.server import wait_until

TEXT = '<img src=x onerror="window.pwned=1"> javascript:alert(1) </script>'
HOSTILE = f"{TEXT}\u202e\x1b[31m"
ADDRESS = "<script>window.pwned=1</script>@example.org"
Make = Callable[..., dict[str, Any]]

# Screens without any text of strangers, and why.
PLAIN = {
    "integrations": "what kinds there are",
    "sources": "names of a few characters",
    "pipeline": "names of our own parts",
    "refused": "paths with their parts masked",
    "you": "the form of who looks on",
    "welcome": "keys that we made",
}


@pytest.fixture(scope="module")
def ids(site: Site) -> Iterator[dict[str, str]]:
    """Hostile texts through every form and door; what `{id}` is on the screens that have it. What
    would be in the way of other tests is deleted again.
    """
    made: list[str] = []

    def make(path: str, **body: object) -> dict[str, Any]:
        found: dict[str, Any] = site.api("POST", path, body)
        made.append(f"{path}/{found.get('id') or found['source']}")
        return found

    with receiving() as receiver:
        try:
            yield {**forms(make, receiver.url), "incident": doors(site, make)}
        finally:
            for path in reversed(made):
                site.api("DELETE", path)


def forms(make: Make, receiver: str) -> dict[str, str]:
    """Everything that has a name, made by an administrator."""
    told = {"labels": [HOSTILE], "description": HOSTILE}
    make("/rules", name=HOSTILE, lql='"hostile log"', **told)
    alert = {"language": "sql", "query": f"SELECT '{TEXT}' AS a", "cron": "0 6 * * 1"}
    make("/alerts", name=HOSTILE, **alert, **told)
    target = {"kind": "logs", "lql": json.dumps(TEXT)}
    judged = {"operator": ">", "threshold": 1e9, "window_s": 300}
    make("/monitors", name=HOSTILE, target=target, **judged, **told)
    matchers = [{"field": "monitor", "value": f"none {TEXT}"}]
    make("/silences", matchers=matchers, reason=TEXT, seconds=3_600)
    hook = {"type": "webhook", "url": f"{receiver}?<b>&'"}
    destination = make("/destinations", name=TEXT, **hook)
    make("/routes", destination=destination["id"], allow=[{"field": "label", "value": HOSTILE}])
    make("/saved-searches", name=TEXT, query=json.dumps(TEXT))
    make("/members", email=ADDRESS, role="viewer")
    dashboard = make("/dashboards", name=HOSTILE, description=HOSTILE)
    return {"dashboard": dashboard["id"], "metric": quote(HOSTILE, safe="")}


def doors(site: Site, make: Make) -> str:
    """The same texts through every door; the incident that comes of it."""
    bearer = {"Authorization": f"Bearer {make('/tokens', service=TEXT, environment=TEXT)['token']}"}
    key = {"Authorization": f"Bearer {make('/connections', name=TEXT)['api_key']}"}
    source = make("/sources", name="hostile")
    pair = f"{source['auth_key']}/{source['api_key']}"
    event = {
        "accountId": HOSTILE, "userId": HOSTILE, "action": HOSTILE, "sessionId": TEXT,
        "createdAt": int(time.time() * 1000),
    }  # fmt: skip
    point = {"metricId": HOSTILE, "metricName": HOSTILE, "value": 1, "unit": "<b>x</b>"}
    metrics = json.dumps({"projectId": "default", "metrics": [point]}).encode()
    log = {"level": "error", "message": f"hostile log {HOSTILE}", HOSTILE: {"a": HOSTILE}}
    site.send(f"/v1/{pair}?wait=query", json.dumps(event).encode() + b"\n" + HOSTILE.encode())
    site.send(f"/test/v1/{pair}", HOSTILE.encode(), {"X-Sneaky": TEXT, "User-Agent": TEXT})
    site.send("/api/webhooks/custom?wait=query", metrics, key)
    site.send("/api/v1/webhook/event/log?wait=query", json.dumps(log).encode(), bearer)
    with pytest.raises(HTTPError):
        site.send(f"/ingest/{quote(TEXT, safe=TEXT.replace(' ', ''))}", b"x", bearer)

    def incident() -> str:
        found = site.api("GET", "/incidents?status=opened")["incidents"]
        return next((str(one["id"]) for one in found if "onerror" in one["title"]), "")

    return str(wait_until(incident, 15, "the incident of a hostile log"))


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
def test_no_text_of_strangers_runs_or_becomes_markup(
    site: Site, ids: dict[str, str], screen: Screen
) -> None:
    path = screen.path.replace("{id}", ids.get(screen.name, "x"))
    path = path.replace("{path}", ids.get(screen.name, "x"))
    with site.page(f"{path}?view=events") as page:
        if screen.name not in PLAIN:
            # In a text or in a field; markup that was taken for markup would be in neither.
            shown = page.get_by_text("window.pwned=1").or_(page.get_by_text("onerror="))
            expect(shown.first).to_be_attached()
        else:
            expect(page.get_by_role("heading", level=1).last).to_be_attached()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.pwned") is None
        assert page.locator("img[src], main script, script:not([src])").count() == 0
        assert page.locator("main b").count() == 0
        assert page.locator("a[href^='javascript:' i], [onerror], [srcdoc], iframe").count() == 0
