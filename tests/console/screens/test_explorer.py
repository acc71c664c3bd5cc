"""Data Explorer: from an upload to its plot, to its events, and SQL with its faults in place."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from ingester.store.rollup_schema import ROLLUP_VIEW_NAMES
from ingester.store.schema import VIEW_NAMES
from tests.console.screens.site import VIEWER, Site, held
from tests.console.screens.usage import HOSTILE, Usage, send_usage


@pytest.fixture(scope="module")
def usage(site: Site) -> Usage:
    return send_usage(site, "explored")


def write(page: Page, sql: str) -> None:
    """Another text into the editor, and run. Typed over, a browser styles the new text as the old,
    which the policy refuses with a note.
    """
    page.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(sql)
    page.keyboard.press("Control+Enter")


def test_an_upload_is_plotted_narrowed_and_drilled_down_to_its_events(
    site: Site, usage: Usage
) -> None:
    with site.page("/explorer?q=source:explored") as page:
        series = page.get_by_role("region", name="Series", exact=True)
        expect(series.locator("canvas").first).to_be_visible()
        expect(series.get_by_text("Complete up to")).to_be_visible()
        groups = page.get_by_role("region", name="What each group comes to")
        expect(groups.locator("tbody tr td.num").first).to_have_text(f"{usage.events:,}")
        page.get_by_label("Group by").select_option(label="Account")
        expect(groups.get_by_role("button", name="acme")).to_be_visible()
        assert "by=account_id" in page.url
        newest = groups.get_by_role("columnheader", name="Newest day")
        with held(page, "**/events/timeseries?*"):
            page.get_by_role("button", name="Users", exact=True).click()
            # Old figures go by their own name until the others are here.
            expect(page.get_by_role("button", name="Users", pressed=True)).to_be_visible()
            expect(newest).to_have_count(0)
        expect(newest).to_be_visible()
        row = groups.get_by_role("row").filter(has_text="globex")
        row.get_by_role("button", name="Events").click()
        expect(page.get_by_role("tab", name="Events")).to_have_attribute("aria-selected", "true")
        table = page.get_by_role("region", name="Events").last
        expect(table.locator("tbody tr").first).to_contain_text("globex")
        assert "account=globex" in page.url
        # The address has it all.
        page.reload()
        expect(page.get_by_label("Account")).to_have_value("globex")
        expect(table.locator("tbody tr").first).to_contain_text("globex")
        table.locator("tbody tr").first.get_by_role("button", name="Open").click()
        expect(table.get_by_text('"accountId": "globex"')).to_be_visible()


def test_a_query_that_is_refused_is_told_under_the_editor(site: Site, usage: Usage) -> None:
    with site.page("/explorer?q=action:") as page:
        expect(page.get_by_role("alert")).to_contain_text("column 8")
        page.get_by_role("button", name="Clear").click()
        expect(page.get_by_role("alert")).to_have_count(0)


def test_sql_has_rows_and_a_plot_and_its_faults_stand_at_their_place(
    site: Site, usage: Usage
) -> None:
    with site.page("/explorer?view=sql") as page:
        page.get_by_role("button", name="Run").click()
        result = page.get_by_role("region", name="Result", exact=True).first
        expect(result.get_by_role("columnheader", name="events")).to_be_visible()
        page.get_by_role("button", name="Plot").click()
        expect(result.locator("canvas").first).to_be_visible()
        assert "show=plot" in page.url
        write(page, "SELECT action,\n  nothing_like_it\nFROM events WHERE created_at >= $since")
        expect(page.get_by_role("alert")).to_contain_text("nothing_like_it")
        expect(page.get_by_role("alert")).to_contain_text("line 2, column 3")
        expect(page.locator(".cm-lintRange-error")).to_have_text("nothing_like_it")
        site.shot(page, "explorer-sql-fault-light")
        page.get_by_role("link", name="+ Monitor").click()
        expect(page.get_by_label("What is watched")).to_have_value("sql")
        query = page.get_by_role("textbox", name="SELECT")
        expect(query).to_contain_text("FROM events WHERE created_at >= $window_start")
        page.go_back()
        # Behind a span that was put in, columns are still those of the text.
        write(page, "SELECT 1 FROM events WHERE created_at >= $since AND oops = 1")
        expect(page.locator(".cm-lintRange-error")).to_have_text("oops")


def test_the_tables_beside_the_editor_are_those_that_there_are(site: Site) -> None:
    with site.page("/explorer?view=sql") as page:
        shown = page.evaluate(
            "async () => (await import([...document.scripts].find((one) => one.src.includes("
            "'screens/explorer.js')).src.replace('screens/explorer.js', 'sqlresult.js'))).SCHEMA"
        )
    assert sorted(shown) == sorted([*VIEW_NAMES, *ROLLUP_VIEW_NAMES])
    for table, columns in shown.items():
        told = site.api("POST", "/query", {"sql": f"SELECT * FROM {table} LIMIT 0"})
        assert told["columns"] == columns, table


def test_hostile_events_are_text(site: Site) -> None:
    made = site.api("POST", "/sources", {"name": "hostile-events"})
    line = {
        "accountId": HOSTILE, "userId": "javascript:alert(1)", "action": HOSTILE,
        "sessionId": '"><script>alert(1)</script>', "createdAt": 1_763_700_000_000,
        "module": "x" * 5_000,
    }  # fmt: skip
    site.send(f"/v1/{made['auth_key']}/{made['api_key']}?wait=query", json.dumps(line).encode())
    path = "/explorer?q=source:hostile-events&since=2025-11-01&until=2025-12-01"
    with site.page(f"{path}&view=events", width=375) as page:
        rows = page.get_by_role("region", name="Events").last
        expect(rows.locator("tbody tr").first).to_contain_text("<img src=x onerror=alert(1)>")
        rows.get_by_role("button", name="Open").click()
        expect(rows.locator("pre")).to_contain_text("<script>alert(1)</script>")
        assert page.locator("img, script:not([src])").count() == 0
        assert "\u202e" not in page.locator("main").inner_text()
        monitor = page.get_by_role("link", name="+ Monitor").get_attribute("href")
        assert monitor == "/alerts/monitors?new=1&kind=events&query=source%3Ahostile-events"
        page.goto(f"{path}&by=account_id")
        groups = page.get_by_role("region", name="What each group comes to")
        groups.get_by_role("button", name="<img").click()
        expect(page.get_by_label("Account")).to_have_value(HOSTILE)
        expect(groups.get_by_text("All events")).to_be_visible()
        assert page.locator("img, script:not([src])").count() == 0


def test_a_viewer_may_look_and_adds_nothing(site: Site, usage: Usage) -> None:
    with site.page("/explorer", who=VIEWER) as page:
        expect(page.locator("canvas").first).to_be_visible()
        expect(page.get_by_role("link", name="+ Dashboard")).to_have_count(0)
        expect(page.get_by_role("link", name="+ Monitor")).to_have_count(0)


def test_the_explorer_looks_right(site: Site, usage: Usage) -> None:
    path = "/explorer?q=source:explored"
    site.looks(f"{path}&by=action", "explorer-series", ready=".u-over")
    site.looks(f"{path}&view=events", "explorer-events", ready="tbody tr")
    sql = "SELECT bucket, action, sum(events) AS events FROM events_daily GROUP BY ALL ORDER BY 1"
    site.looks(f"/explorer?view=sql&sql={sql}&show=plot", "explorer-sql", ready=".u-over")
