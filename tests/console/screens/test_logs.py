"""Logs: what comes in is seen, asked for, zoomed into, followed, opened and shared."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.console.screens.site import (
    VIEWER,
    Site,
    Theme,
    assert_accessible,
    assert_fits,
    drag,
    held,
)

LEVELS = ("info", "info", "debug", "info", "warning", "error", "info", "notice")
PATHS = ("/cart", "/checkout", "/api/v1/orders", "/login")
# Other tests of the server send logs too.
SHOP = "production-eu"
OURS = f"/logs?since=now-3h&q=environment:{SHOP}"
MESSAGES = {
    "debug": "cache miss for key session:{n}",
    "info": "GET {path} 200 in {ms} ms",
    "notice": "configuration reloaded, {n} rules",
    "warning": "slow query: {ms} ms on orders",
    "error": "payment provider timed out after {ms} ms",
}


def sent(site: Site, service: str, logs: Sequence[Any], environment: str = "other") -> None:
    made = site.api("POST", "/tokens", {"service": service, "environment": environment})
    headers = {"Authorization": f"Bearer {made['token']}"}
    body = json.dumps(list(logs)).encode()
    site.send("/api/v1/webhook/event/log?wait=query", body, headers)


def when(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()


@pytest.fixture(scope="module", autouse=True)
def logs(site: Site) -> None:
    """Two services over the last fifty minutes, 460 lines."""
    for service, count in (("checkout", 400), ("mailer", 60)):
        lines = []
        for n in range(count):
            level = LEVELS[(n * 7) % len(LEVELS)]
            path, ms = PATHS[n % len(PATHS)], 20 + (n * 37) % 900
            lines.append({
                "timestamp": when(3_000 - n * 3_000 / count),
                "level": level,
                "message": MESSAGES[level].format(n=n, path=path, ms=ms),
                "path": path,
                "ms": ms,
                "user": {"id": f"u{n % 17}", "plan": ("free", "pro")[n % 2]},
                "trace_id": f"{n:032x}",
                "retry": n % 5 == 0,
            })
        sent(site, service, lines, SHOP)


def rows(page: Page) -> Any:
    return page.get_by_role("list", name="Logs", exact=True).locator("> li")


def editor(page: Page) -> Any:
    return page.get_by_role("textbox", name="Query (LQL)")


def asked(page: Page, query: str) -> None:
    """Typed and run; the editor is there."""
    expect(page.locator(".cm-content")).to_be_visible()
    editor(page).fill(query)
    page.keyboard.press("Control+Enter")


def parameters(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_logs_that_came_in_are_seen_and_searched(site: Site) -> None:
    with site.page(OURS) as page:
        expect(rows(page).first).to_contain_text("in ")
        expect(page.get_by_role("region", name="Logs by time")).to_contain_text("460 logs")
        expect(page.get_by_role("complementary", name="Fields")).to_contain_text("plan")
        expect(
            page.get_by_text(re.compile(r"of 460 shown · first rows in .* from \d+ rows"))
        ).to_be_visible()
        asked(page, "service:mailer level:error")
        expect(page.get_by_role("region", name="Logs by time")).to_contain_text("logs")
        expect(rows(page).first).to_contain_text("payment provider timed out")
        expect(rows(page).filter(has_text="checkout")).to_have_count(0)
        assert parameters(page)["q"] == "service:mailer level:error"
        page.go_back()
        expect(page.get_by_role("region", name="Logs by time")).to_contain_text("460 logs")
        expect(page.locator(".cm-content")).to_have_text(f"environment:{SHOP}")
        asked(page, "nowhere-to-be-found")
        expect(page.get_by_role("heading", name="No log matches")).to_be_visible()


def test_more_rows_come_by_scrolling_and_only_then(site: Site) -> None:
    with site.page(OURS, height=700) as page:
        pages: list[str] = []

        def note(url: str) -> None:
            if "cursor=" in url:
                pages.append(url)

        page.on("request", lambda request: note(request.url))
        expect(rows(page)).to_have_count(100)
        page.wait_for_timeout(300)
        assert pages == []
        for _ in range(30):
            page.mouse.wheel(0, 4000)
            page.wait_for_timeout(60)
        expect(rows(page)).to_have_count(460)
        ids = rows(page).evaluate_all("all => all.map(one => one.dataset.id)")
        assert len(set(ids)) == 460
        assert len(pages) == 4
        expect(page.get_by_text("This is the end of the time span.")).to_be_visible()


def test_an_error_of_the_query_is_underlined_at_its_column(site: Site) -> None:
    with site.page(OURS) as page:
        expect(rows(page).first).to_be_visible()
        asked(page, "🚀 service:checkout level:>")
        expect(page.get_by_role("alert")).to_contain_text("column 27: expected a value")
        asked(page, '🚀 (level:error "x"')
        expect(page.get_by_role("alert")).to_contain_text("never closed")
        marked = page.locator(".cm-lintRange-error")
        expect(marked).to_have_text("(")
        site.shot(page, "logs-fault-light", whole=False)
        assert_accessible(page)
        # The rows of before stay where they are, and a right query takes the mark away.
        expect(rows(page).first).to_be_visible()
        asked(page, "level:error")
        expect(marked).to_have_count(0)
        expect(rows(page).first).to_contain_text("timed out")


def test_who_types_before_the_editor_is_there_goes_on_in_it(site: Site) -> None:
    with site.page("/settings/you") as page:
        with held(page, "**/codemirror.js"):
            page.goto("/logs?since=now-3h")
            page.get_by_role("textbox", name="Query").click()
            page.keyboard.type("level:")
        expect(page.locator(".cm-content")).to_be_focused()
        # Beside the editor "g e" leads to the Explorer.
        page.keyboard.type("error g e")
        page.keyboard.press("Enter")
        page.wait_for_url("**/logs?*q=level*")
        expect(page.locator(".cm-content")).to_have_text("level:error g e")


def test_completion_knows_fields_and_their_values(site: Site) -> None:
    with site.page("/logs?since=now-3h") as page:
        expect(page.locator(".cm-content")).to_be_visible()
        editor(page).press_sequentially("level:error servi", delay=20)
        options = page.locator(".cm-tooltip-autocomplete li")
        service = options.filter(has_text="service:")
        expect(service).to_be_visible()
        # In its first moments a list takes no key, lest what was meant for the text chooses.
        for _ in range(100):
            page.keyboard.press("ArrowDown")
            if service.get_attribute("aria-selected") == "true":
                break
        page.keyboard.press("Enter")
        expect(page.locator(".cm-content")).to_have_text("level:error service:")
        page.keyboard.type("che")
        expect(options.filter(has_text="checkout")).to_be_visible()
        site.shot(page, "logs-completion-light", whole=False)
        # Nothing is chosen by itself: Enter runs what is typed.
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="No log matches")).to_be_visible()
        assert parameters(page)["q"] == "level:error service:che"


def test_a_drag_over_the_histogram_is_the_new_span(site: Site) -> None:
    with site.page(OURS) as page:
        plot = page.locator(".histogram .u-over")
        expect(plot).to_be_visible()
        drag(page, plot, 0.75, 0.9)
        page.wait_for_function("() => /since=2/.test(location.search)")
        since, until = (
            datetime.fromisoformat(parameters(page)[name]) for name in ("since", "until")
        )
        assert 24 * 60 <= (until - since).total_seconds() <= 33 * 60
        expect(page.get_by_role("region", name="Logs by time")).not_to_contain_text("460 logs")
        expect(rows(page).first).to_be_visible()
        page.go_back()
        expect(page.get_by_role("region", name="Logs by time")).to_contain_text("460 logs")
        assert parameters(page)["since"] == "now-3h"
        # A click is the bar that it is on, as one step.
        box = plot.bounding_box()
        assert box is not None
        plot.click(position={"x": box["width"] * 0.85, "y": 30})
        page.wait_for_function("() => /since=2/.test(location.search)")
        since, until = (
            datetime.fromisoformat(parameters(page)[name]) for name in ("since", "until")
        )
        assert (until - since).total_seconds() == 120
        assert since.timestamp() % 120 == 0
        page.go_back()
        assert parameters(page)["since"] == "now-3h"


def test_a_row_opens_in_place_and_its_values_filter(site: Site) -> None:
    with site.page("/logs?since=now-3h&q=service:checkout") as page:
        expect(rows(page).first).to_be_visible()
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        row = rows(page).nth(1)
        fields = row.get_by_role("list", name="Fields")
        expect(fields).to_contain_text("user.plan")
        row.get_by_role("button", name="Copy JSON of this log").click()
        told = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert told["service"] == "checkout"
        assert told["attributes"]["user"]["plan"] in {"free", "pro"}
        row.get_by_role("button", name="Surrounding lines").click()
        around = row.get_by_role("region", name="Surrounding lines")
        expect(around.locator("li")).to_have_count(12)
        expect(around.locator("[aria-current]")).to_contain_text(told["message"])
        site.shot(page, "logs-detail-light", whole=False)
        assert_accessible(page)
        row.get_by_role("button", name="Filter for this user.plan").click()
        plan = told["attributes"]["user"]["plan"]
        page.wait_for_function("() => /plan/.test(location.search)")
        assert parameters(page)["q"] == f"service:checkout m.user.plan:{plan}"
        expect(page.get_by_role("region", name="Logs by time")).to_contain_text("200 logs")
        side = page.get_by_role("complementary", name="Fields")
        side.get_by_role("button", name=f"Filter out {told['level']}", exact=True).click()
        page.wait_for_function("() => /-level/.test(location.search)")
        assert (
            parameters(page)["q"] == f"service:checkout m.user.plan:{plan} -level:{told['level']}"
        )
        expect(page.get_by_role("region", name="Logs by time")).not_to_contain_text("200 logs")


def test_a_field_can_be_a_column_and_is_in_the_address(site: Site) -> None:
    with site.page("/logs?since=now-3h&q=service:checkout") as page:
        side = page.get_by_role("complementary", name="Fields")
        side.get_by_role("button", name="Show user.plan as column").click()
        side.get_by_role("button", name="Show ms as column").click()
        expect(rows(page).first.locator(".log-cell").first).to_have_text(re.compile("free|pro"))
        assert parameters(page)["columns"] == "m.user.plan,m.ms"
        site.shot(page, "logs-columns-light", whole=False)
        page.reload()
        expect(rows(page).first.locator(".log-cell")).to_have_count(2)
        assert_accessible(page)


def test_a_live_tail_shows_new_lines_pauses_and_goes_on(site: Site) -> None:
    with site.page("/logs?since=now-3h&q=service:live") as page:
        expect(page.get_by_role("heading", name="No log matches")).to_be_visible()
        page.get_by_role("button", name="Live").click()
        expect(page.get_by_text("Live, waiting for the first log")).to_be_visible()
        sent(site, "live", [{"message": "the first one"}])
        expect(rows(page)).to_have_count(1)
        expect(rows(page).first).to_contain_text("the first one")
        page.get_by_role("button", name="Pause").click()
        sent(site, "live", [{"message": "the second one"}, {"message": "the third one"}])
        expect(page.get_by_text("Paused, 2 new logs")).to_be_visible()
        expect(rows(page)).to_have_count(1)
        site.shot(page, "logs-live-light", whole=False)
        assert_accessible(page)
        page.get_by_role("button", name="Resume").click()
        expect(rows(page)).to_have_count(3)
        expect(rows(page).first).to_contain_text("the third one")
        assert parameters(page)["live"] == "1"
        # Whoever opens a row reads: nothing moves away under them.
        rows(page).first.get_by_role("button").click()
        sent(site, "live", [{"message": "the fourth one"}])
        expect(page.get_by_text("Paused, 1 new log")).to_be_visible()


def test_a_link_to_a_log_shows_it_whatever_the_span_is(site: Site) -> None:
    with site.page("/logs?since=now-3h&q=service:mailer") as page:
        rows(page).first.get_by_role("button").click()
        rows(page).first.get_by_role("button", name="Copy link to this log").click()
        link = page.evaluate("navigator.clipboard.readText()")
        told = rows(page).first.locator(".log-message").inner_text()
        page.goto(link.replace("since=now-3h", "since=2020-01-01&until=2020-01-02"))
        linked = page.get_by_role("region", name="Linked log")
        expect(linked).to_contain_text(told)
        expect(page.get_by_role("heading", name="No log matches")).to_be_visible()
        linked.get_by_role("button", name="Close the linked log").click()
        expect(linked).to_have_count(0)
        page.goto("/logs?row=0000000000000001-999")
        expect(page.get_by_role("region", name="Linked log").get_by_role("alert")).to_be_visible()


def test_a_search_is_saved_found_by_others_and_theirs_alone_to_change(site: Site) -> None:
    with site.page("/logs?since=now-3h&q=level:error&columns=m.ms", who=VIEWER) as page:
        page.get_by_role("button", name="Saved").click()
        page.get_by_role("button", name="Save this search").click()
        page.get_by_label("Name").fill("<b>failures</b>")
        page.get_by_role("dialog").get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("Saved as “<b>failures</b>”")).to_be_visible()
    with site.page("/logs") as page:
        page.get_by_role("button", name="Saved").click()
        page.get_by_role("button", name="<b>failures</b> level:error").click()
        expect(rows(page).first).to_contain_text("timed out")
        assert {"q": "level:error", "since": "now-3h", "columns": "m.ms"}.items() <= parameters(
            page
        ).items()
        page.get_by_role("button", name="Saved").click()
        expect(page.get_by_role("button", name="Actions for <b>failures</b>")).to_be_visible()
        site.shot(page, "logs-saved-light", whole=False)
        assert_accessible(page)
        page.get_by_role("button", name="Actions for <b>failures</b>").click()
        page.get_by_role("menuitem", name="Delete…").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_text("Deleted")).to_be_visible()


def test_all_matches_are_exported_and_a_query_goes_to_other_screens(site: Site) -> None:
    with site.page(f"{OURS} service:checkout", who=VIEWER) as page:
        expect(rows(page).first).to_be_visible()
        page.get_by_role("button", name="Export all matches").or_(
            page.get_by_role("button", name="Export")
        ).first.click()
        with page.expect_download() as waiting:
            page.get_by_role("menuitem", name="All matches as NDJSON").click()
        path = waiting.value.path()
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == 400
        assert {line["service"] for line in lines} == {"checkout"}
        expect(page.get_by_role("link", name="+ Monitor")).to_have_count(0)
    with site.page("/logs?since=now-3h&q=service:checkout") as page:
        monitor = page.get_by_role("link", name="+ Monitor").get_attribute("href")
        assert monitor == "/alerts/monitors?new=1&kind=logs&query=service%3Acheckout"
        dashboard = page.get_by_role("link", name="+ Dashboard").get_attribute("href") or ""
        widget = json.loads(parse_qs(urlsplit(dashboard).query)["add"][0])
        assert widget["source"] == {"from": "logs", "q": "service:checkout"}


def test_a_chart_is_a_table_and_a_plot(site: Site) -> None:
    with site.page(
        "/logs?since=now-3h&q=service:checkout c:count(*) c:group_by(t::minute, level)"
    ) as page:
        expect(page.locator(".logs-rows table.table")).to_contain_text("value")
        expect(page.get_by_role("img", name="Result by time")).to_be_visible()
        site.shot(page, "logs-chart-light", whole=False)
        assert_accessible(page)
        # Its rows can be watched; who groups them goes with them.
        expect(page.get_by_role("link", name="+ Monitor")).to_have_attribute(
            "href", "/alerts/monitors?new=1&kind=logs&query=service%3Acheckout"
        )
        page.get_by_role("link", name="+ Dashboard").click()
        dialog = page.get_by_role("dialog", name="Add to a dashboard")
        expect(dialog.locator(".u-legend")).to_contain_text("error")


def test_the_page_in_both_themes_and_on_a_phone(site: Site) -> None:
    site.looks(OURS, "logs", ready=".histogram canvas", whole=False)


@pytest.mark.parametrize(("theme", "width"), [("light", 375), ("dark", 1280)])
def test_an_open_row_is_sound_in_both_themes_and_fits(site: Site, theme: Theme, width: int) -> None:
    with site.page(f"{OURS} level:error", theme=theme, width=width) as page:
        rows(page).nth(1).get_by_role("button").click()
        expect(rows(page).nth(1).get_by_role("list", name="Fields")).to_be_visible()
        assert_fits(page)
        assert_accessible(page)
        site.shot(page, f"logs-detail-{theme}{'-375' if width < 1280 else ''}", whole=False)


HOSTILE = (
    "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'>",
    "\u001b[31mred\u001b[0m \u001b]8;;javascript:hit=1\u0007link\u001b]8;;\u0007 \u0000\u0008",
    "user \u202egnp.exe\u202c and \u2066hidden\u2069",
    "javascript:window.hit=1",
    '" OR level:error `',
)


def test_hostile_logs_are_shown_as_text_and_can_be_filtered_for(site: Site) -> None:
    lines = [
        {
            "message": text,
            "href": "javascript:window.hit=1",
            "site": "https://example.org/?a=<b>",
            "quoted": text,
            "<b onclick=window.hit=1>key</b>": "in a key",
            "a.b `c`": "no name of a query",
            "__proto__": {"polluted": True},
            "big": 12345678901234567890,
            "list": ["x", 'y"z', None],
            "deep": {"a b": {"ünï": -0.5}},
        }
        for text in HOSTILE
    ]
    sent(site, "<svg/onload=window.hit=1>", lines, "hostile")
    with site.page("/logs?since=now-3h&q=environment:hostile&columns=m.href,m.`a b`") as page:
        expect(rows(page)).to_have_count(len(HOSTILE))
        text = page.locator(".log").inner_text()
        assert "<script>window.hit = 1</script>" in text
        assert "red link \\u0000\\u0008" in text
        assert "user \\u202egnp.exe\\u202c" in text
        assert "\u202e" not in text
        assert "\u001b" not in text
        for at in range(len(HOSTILE)):
            rows(page).nth(at).locator(".log-toggle").click()
        fields = page.locator(".log").get_by_role("list", name="Fields")
        expect(fields).to_have_count(len(HOSTILE))
        expect(fields.first).to_contain_text("12345678901234567890")
        expect(fields.first).to_contain_text("<b onclick=window.hit=1>key</b>")
        links = page.locator("main a").evaluate_all("all => all.map(one => one.href)")
        assert not [link for link in links if link.startswith("javascript:")]
        assert "https://example.org/?a=%3Cb%3E" in links
        assert page.evaluate("() => [window.hit, {}.polluted, document.scripts.length]")[:2] == [
            None,
            None,
        ]
        assert page.locator("main script, main img, main svg").count() == 0
        assert_accessible(page)
        assert_fits(page)
        site.shot(page, "logs-hostile-light", whole=False)


@pytest.mark.parametrize("at", range(len(HOSTILE)))
def test_a_filter_on_any_value_finds_its_row(site: Site, at: int) -> None:
    text = HOSTILE[at]
    sent(site, f"picked-{at}", [{"message": "m", "it": text, "deep": {"a b": -0.5}}, {"it": "x"}])
    with site.page(f"/logs?since=now-3h&q=service:picked-{at}") as page:
        expect(rows(page)).to_have_count(2)
        rows(page).filter(has_text="m").locator(".log-toggle").first.click()
        fields = page.locator(".log").get_by_role("list", name="Fields").first
        fields.get_by_role("button", name="Filter for this it").click()
        expect(rows(page)).to_have_count(1)
        expect(page.locator(".notice-error")).to_have_count(0)


def test_a_line_of_a_megabyte_is_light_in_the_list_and_whole_when_opened(site: Site) -> None:
    sent(site, "giant", [{"message": "x" * 1_000_000 + "THE END", "small": 1}])
    with site.page("/logs?since=now-3h&q=service:giant") as page:
        expect(rows(page)).to_have_count(1)
        expect(rows(page).first).to_contain_text("A long line; open it to see it whole.")
        rows(page).first.locator(".log-toggle").click()
        value = page.locator(".log").get_by_role("list", name="Fields").locator(".log-value").first
        expect(value).to_contain_text("xxxx")
        assert len(value.inner_text()) < 30_000
        page.get_by_role("button", name=re.compile("show all")).first.click()
        expect(value).to_contain_text("THE END")
        rows(page).first.get_by_role("button", name="Copy JSON of this log").click()
        assert "THE END" in page.evaluate("navigator.clipboard.readText()")
        assert_fits(page)
