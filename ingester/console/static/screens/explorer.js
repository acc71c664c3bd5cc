// Data Explorer: product events as series and as rows, and SQL over everything.
import { Head, html, mount } from "../ui.js";
import { urlRange, TimePicker } from "../time.js";
import { urlParam } from "../url.js";
import { EventsTab } from "../explorer/events.js";
import { SeriesTab } from "../explorer/series.js";
import { SqlTab } from "../explorer/sql.js";

const view = urlParam("view", "series", { push: true });
const TABS = [["series", "Series"], ["events", "Events"], ["sql", "SQL"]];

function Explorer() {
  const range = urlRange({ since: "now-30d" });
  const shown = TABS.some(([name]) => name === view.value) ? view.value : "series";
  const keys = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = TABS.findIndex(([name]) => name === shown) + step;
    view.value = TABS[(at + TABS.length) % TABS.length][0];
    event.currentTarget.querySelectorAll("[role=tab]")[(at + TABS.length) % TABS.length].focus();
  };
  return html`
    <${Head} text="Product events by period and by who or what they are of; down to each event.">
      <${TimePicker} range=${range} />
    <//>
    <div class="tabs" role="tablist" aria-label="Views" onKeyDown=${keys}>
      ${TABS.map(([name, label]) => html`<button type="button" role="tab" id=${`tab-${name}`}
        aria-selected=${name === shown} aria-controls="view" tabindex=${name === shown ? 0 : -1}
        onClick=${() => (view.value = name)}>${label}</button>`)}
    </div>
    <div id="view" role="tabpanel" class="stack" aria-labelledby=${`tab-${shown}`}>
      ${shown === "sql" ? html`<${SqlTab} range=${range} />`
        : shown === "events" ? html`<${EventsTab} range=${range} />`
          : html`<${SeriesTab} range=${range} />`}
    </div>`;
}

mount(Explorer);
