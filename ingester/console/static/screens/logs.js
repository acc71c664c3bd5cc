// Logs: a query, how many there are by time, and the rows; live, saved, shared.
import { Failure, html, mount, screen, useEffect, useState, useSignalEffect } from "../ui.js";
import { Editor, lqlCompletion } from "../editor.js";
import { count, duration, plural, time } from "../format.js";
import { TimePicker } from "../time.js";
import { Detail } from "../logs/detail.js";
import { Histogram, total } from "../logs/histogram.js";
import { Message, Rows } from "../logs/rows.js";
import { AddLinks, ExportMenu, SavedMenu, ShareMenu } from "../logs/saved.js";
import { Sidebar } from "../logs/sidebar.js";
import {
  answer, ask, asks, chart, context, draft, fault, isLoading, isTable, linked, live, query,
  range, rowCount, run, sidebar, wraps,
} from "../logs/state.js";
import { LiveBar, LiveButton, pause, useTail } from "../logs/tail.js";
import { Result } from "../logs/result.js";
import { zone } from "../zone.js";

const WIDE = matchMedia("(min-width: 1100px)");

// Several parts of a question may change at once; it is asked once.
let isDue = false;

function Logs() {
  // A step back, a link, a drag: whatever changes the question asks it.
  useSignalEffect(() => {
    const { q } = asks();
    draft.value = q;
    if (isDue) return;
    isDue = true;
    queueMicrotask(() => {
      isDue = false;
      run();
    });
  });
  useTail();
  const [isWide, setWide] = useState(WIDE.matches);
  useEffect(() => {
    const change = () => setWide(WIDE.matches);
    WIDE.addEventListener("change", change);
    return () => WIDE.removeEventListener("change", change);
  }, []);
  const hasFields = sidebar.value ? sidebar.value === "1" : isWide;
  return html`
    <${Bar} />
    ${linked.value && html`<${Linked} id=${linked.value} />`}
    <${Histogram} />
    <div class=${`logs-body ${hasFields ? "with-fields" : ""}`}>
      ${hasFields && html`<${Sidebar} />`}
      <section class="card card-flush logs-rows" aria-label="Result" aria-busy=${isLoading.value}>
        <${RowsHead} hasFields=${hasFields} />
        <${LiveBar} />
        ${isTable.value ? html`<${Result} page=${answer.value} />` : html`<${Rows} onOpen=${pause} />`}
      </section>
    </div>`;
}

function Bar() {
  const error = fault.value;
  const place = error?.column ? { column: error.column, message: error.message } : null;
  return html`<div class="logs-bar">
    <h1 class="sr-only">${screen.title}</h1>
    <div class="logs-query">
      <${Editor} value=${draft.value} label="Query (LQL)" language="lql" search
        placeholder='All logs. For example: level:>=warning service:checkout m.user.plan:pro "timed out"'
        onChange=${(text) => (draft.value = text)} onRun=${ask} complete=${lqlCompletion.logs}
        fault=${draft.value === query.value ? place : null} />
      <button type="button" class="btn btn-primary" onClick=${() => ask(draft.value)}>Run</button>
    </div>
    <div class="logs-tools row">
      <${TimePicker} range=${range} onChange=${() => (live.value = "")} />
      <${LiveButton} />
      <span class="grow"></span>
      <${SavedMenu} />
      <${AddLinks} />
      <${ExportMenu} />
      <${ShareMenu} />
    </div>
    ${error && html`<${Failure} error=${error} retry=${error.status === 400 || error.status === 422
      ? null : run} />`}
  </div>`;
}

function RowsHead({ hasFields }) {
  const page = answer.value;
  const toggle = (signal, isOn) => () => (signal.value = isOn ? "0" : "1");
  return html`<div class="logs-head">
    <button type="button" class="btn btn-small" aria-pressed=${hasFields}
      onClick=${toggle(sidebar, hasFields)}>Fields</button>
    ${!isTable.value && html`<button type="button" class="btn btn-small" aria-pressed=${chart.value !== "0"}
        onClick=${() => (chart.value = chart.value === "0" ? "" : "0")}>Histogram</button>
      <button type="button" class="btn btn-small" aria-pressed=${Boolean(wraps.value)}
        onClick=${() => (wraps.value = wraps.value ? "" : "1")}>Wrap</button>`}
    <span class="grow"></span>
    <span class="small muted" role="status">${page && cost(page)}</span>
  </div>`;
}

/** What it took, and how much of it is here. */
function cost(page) {
  const { rows_scanned: rows, files, ms } = page.cost;
  const shown = isTable.value ? "" : `${count(rowCount.value)}${
    total.value === null || live.value ? "" : ` of ${count(total.value)}`} shown · `;
  return `${shown}first rows in ${duration(ms)} from ${plural(rows, "row")}${
    files ? ` and ${plural(files, "file")}` : ""}`;
}

/** The log that a link names, wherever in time it is. */
function Linked({ id }) {
  const [state, setState] = useState({});
  const timeZone = zone.value;
  useEffect(() => {
    const control = new AbortController();
    context(id, 0, 0, control.signal).then(
      ({ row }) => setState({ row }),
      (error) => error.name === "AbortError" || setState({ error }),
    );
    return () => control.abort();
  }, [id]);
  const { row, error } = state;
  return html`<section class="card card-flush linked" aria-label="Linked log">
    <div class="card-head">
      <h2>Linked log</h2>
      <button type="button" class="btn btn-small btn-quiet" aria-label="Close the linked log"
        onClick=${() => (linked.value = "")}>✕</button>
    </div>
    ${error && html`<div class="card-body"><${Failure} error=${error} /></div>`}
    ${row && html`<div class="loglist" key=${timeZone}>
      <div class="log-line"><span class="log-toggle" data-level=${row.level}></span>
        <time class="log-time">${time(row.time, "ms")}</time>
        <span class=${`level level-${row.level}`}>${row.level}</span>
        <span class="log-service clip">${row.service}</span>
        <${Message} row=${row} />
      </div>
      <div class="log-detail"><${Detail} row=${row} /></div>
    </div>`}
  </section>`;
}

mount(Logs);
