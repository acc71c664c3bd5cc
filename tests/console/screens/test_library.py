"""The house library in a real page, under its policy: editor, plot, range, address, table."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.console.screens.site import Site, assert_accessible, drag, write_query

# Renders what `make(modules, render)` gives into an empty page of ours; `window.told` is for notes.
_SHOW = """async (make) => {
  const link = document.querySelector('link[href$="app.css"]').href;
  const at = (name) => import(link.replace('app.css', name));
  const names = ['ui', 'menu', 'editor', 'plot', 'time', 'url', 'table'];
  const modules = Object.assign({}, ...await Promise.all(names.map((name) => at(`${name}.js`))));
  document.getElementById('screen')?.remove();
  const place = document.createElement('div');
  place.id = 'screen';
  document.querySelector('main').append(place);
  window.told = [];
  const make_it = MAKE;
  modules.render(modules.html`<h1>Library</h1><${make_it(modules)} />`, place);
}"""


def show(page: Page, make: str) -> None:
    """`make` is a function of the modules that gives a component."""
    page.evaluate(_SHOW.replace("MAKE", make))


def test_the_editor_runs_completes_and_underlines_under_the_policy(site: Site) -> None:
    with site.page("/pipeline") as page:
        show(
            page,
            """({html, Editor, useState}) => function Demo() {
              const [text, setText] = useState('level:erro');
              window.setText = setText;
              const fault = text.includes('~~') ? {column: 7, message: 'no such level'} : null;
              return html`<${Editor} value=${text} onChange=${setText} language="lql" fault=${fault}
                onRun=${(run) => window.told.push(run)} search
                complete=${async (now, at) => ({from: 6, options: [{label: 'error'}]})} />`;
            }""",
        )
        editor = page.get_by_role("textbox", name="Query")
        expect(page.locator(".cm-editor")).to_be_visible()
        page.locator("h1").click()
        page.keyboard.press("/")
        expect(editor).to_be_focused()
        page.keyboard.press("End")
        page.keyboard.type("r")
        expect(page.get_by_role("option", name="error")).to_be_visible()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        page.wait_for_function("() => window.told.length > 0")
        # The first takes the completion, unless it came too soon after the list.
        assert set(page.evaluate("() => window.told")) == {"level:error"}
        page.keyboard.type(" ~~")
        mark = page.locator(".cm-lintRange-error")
        expect(mark).to_have_text("error")
        assert "wavy" in mark.evaluate("node => getComputedStyle(node).textDecoration")
        # The nonce is what lets the editor bring its styles.
        assert (
            page.locator(".cm-editor").evaluate("node => getComputedStyle(node).display") == "flex"
        )
        # Whoever types faster than the page renders keeps what was typed.
        write_query(page, "a quick brown query of words")
        expect(editor).to_have_text("a quick brown query of words")
        page.evaluate("() => window.setText('from outside')")
        expect(editor).to_have_text("from outside")
        page.keyboard.press("Tab")
        expect(editor).not_to_be_focused()
        assert_accessible(page)


def test_a_plot_is_drawn_zoomed_and_drawn_again_for_the_theme(site: Site) -> None:
    with site.page("/pipeline", theme="dark") as page:
        show(
            page,
            """({html, Plot}) => {
              const times = Array.from({length: 60}, (_, at) => 1790000000 + at * 60);
              const series = [
                {label: 'errors', colour: '--level-error', values: times.map((_, at) => at % 7)},
                {label: 'rest', values: times.map((_, at) => at % 5)},
              ];
              const more = {
                unit: 'n', sync: 'demo', lines: [{value: 5, colour: '--bad'}],
                bands: [{from: 1790000600, until: 1790001200}],
                onZoom: (from, until) => window.told.push([from, until]),
              };
              return () => html`<div>${['line', 'area', 'bars', 'stacked'].map((kind) => html`
                <${Plot} times=${times} series=${series} kind=${kind} label=${kind}
                  ...${more} />`)}</div>`;
            }""",
        )
        plots = page.get_by_role("img")
        expect(plots.locator("canvas")).to_have_count(4)
        site.shot(page, "plots-dark")
        drag(page, plots.first.locator(".u-over"), 0.25, 0.5)
        page.wait_for_function("() => window.told.length === 1")
        [[begin, end]] = page.evaluate("() => window.told")
        assert 1790000800 < begin < 1790000970
        assert 1790001690 < end < 1790001850
        page.get_by_role("button", name="Light theme").click()
        expect(plots.locator("canvas")).to_have_count(4)
        site.shot(page, "plots-light")
        assert_accessible(page)


def test_the_range_is_in_the_address_and_going_back_undoes_it(site: Site) -> None:
    with site.page("/pipeline?since=now-6h") as page:
        show(
            page,
            """({html, TimePicker, urlRange, boundsOf}) => {
              const range = urlRange();
              return () => html`<${TimePicker} range=${range}
                onChange=${() => window.told.push(boundsOf(range))} />`;
            }""",
        )
        opener = page.get_by_role("button", name="Last 6 hours · UTC")
        opener.click()
        page.get_by_role("button", name="Last hour", exact=True).click()
        expect(page).to_have_url(f"{site.url}/pipeline?since=now-1h")
        page.get_by_role("button", name="Last hour · UTC").click()
        page.get_by_label("From").fill("2026-11-20T08:00:00Z")
        page.get_by_label("To", exact=True).fill("2026-11-20T09:00:00Z")
        site.shot(page, "time-picker-light")
        assert_accessible(page)
        page.get_by_role("button", name="Apply").click()
        page.get_by_role("button", name="Earlier").click()
        expect(page).to_have_url(
            f"{site.url}/pipeline?since=2026-11-20T07%3A30%3A00Z&until=2026-11-20T08%3A30%3A00Z"
        )
        begin, end = page.evaluate("() => window.told.at(-1)")
        assert end - begin == 3600
        page.go_back()
        expect(page.get_by_role("button", name="2026-11-20 08:00")).to_be_visible()
        page.get_by_role("button", name="2026-11-20 08:00").click()
        page.get_by_label("Times are shown in").select_option("UTC")
        page.keyboard.press("Escape")
        expect(page.get_by_label("From")).to_have_count(0)


def test_a_table_sorts_opens_rows_and_shows_text_as_text(site: Site) -> None:
    with site.page("/pipeline") as page:
        show(
            page,
            """({html, Table, MaybeLink}) => {
              const rows = [
                {id: 1, name: '<b>bold</b>', n: 5, link: 'javascript:alert(1)'},
                {id: 2, name: 'second', n: 30, link: 'https://example.org/a?b'},
              ];
              const columns = [
                {name: 'name', label: 'Name', cell: (row) => row.name, sort: (row) => row.name},
                {name: 'n', label: 'Count', num: true, cell: (row) => row.n, sort: (row) => row.n},
                {name: 'l', label: 'Link', cell: (row) => html`<${MaybeLink} text=${row.link} />`},
              ];
              return () => html`<${Table} rows=${rows} columns=${columns} rowKey=${(row) => row.id}
                detail=${(row) => `about ${row.id}`} label="Rows" />`;
            }""",
        )
        names = page.locator("tbody tr td:first-child")
        expect(names.nth(0)).to_contain_text("<b>bold</b>")
        page.get_by_role("button", name="Count").click()
        expect(names.nth(0)).to_contain_text("second")
        expect(page.get_by_role("columnheader", name="Count")).to_have_attribute(
            "aria-sort", "descending"
        )
        names.nth(1).click()
        expect(page.get_by_text("about 1")).to_be_visible()
        links = page.locator("main a")
        expect(links).to_have_count(1)
        expect(links).to_have_attribute("rel", "noopener noreferrer")
        assert page.locator("main b").count() == 0


def test_a_menu_is_whole_wherever_its_button_is(site: Site) -> None:
    for width in (1280, 375):
        with site.page("/settings/webhooks", width=width) as page:
            show(
                page,
                """({html, Table}) => {
                  const rows = [1, 2, 3].map((id) => ({id}));
                  const columns = [{name: 'id', label: 'Id', cell: (row) => 'x'.repeat(60)}];
                  const items = ['One', 'Two', 'Three', 'Four', 'Five'].map((label) => ({
                    label, onSelect: () => window.told.push(label)}));
                  return () => html`<div class="card card-flush"><${Table} rows=${rows} label="R"
                    columns=${columns} rowKey=${(row) => row.id}
                    actions=${() => html`<${Menu} label="Actions" items=${items} />`} /></div>`;
                }""".replace("{html, Table}", "{html, Table, Menu}"),
            )
            page.get_by_role("button", name="Actions").last.click()
            menu = page.get_by_role("menu")
            box, window = menu.bounding_box(), page.viewport_size
            assert box is not None
            assert window is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= window["width"]
            assert box["y"] + box["height"] <= window["height"]
            expect(page.get_by_role("menuitem", name="One")).to_be_focused()
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
            assert page.evaluate("() => window.told") == ["Two"]
            expect(menu).to_have_count(0)
            assert_accessible(page)
