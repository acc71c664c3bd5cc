// SQL over the public tables: editor, what there is, result as rows and as a plot, export.
import { Empty, html, screen, useEffect, useRef, useState } from "../ui.js";
import { api } from "../api.js";
import { Choice } from "../choice.js";
import { Editor } from "../editor.js";
import { toast } from "../feedback.js";
import { count, duration, plural } from "../format.js";
import { Menu } from "../menu.js";
import { addMonitorHref, addWidgetHref } from "../queries.js";
import { ResultPlot, ResultTable, SCHEMA, plotted, runSql, withSpan, withWindow } from "../sqlresult.js";
import { urlParam } from "../url.js";

const FIRST = "SELECT bucket, action, sum(events) AS events\nFROM events_daily\n"
  + "WHERE bucket >= $since AND bucket < $until\nGROUP BY ALL ORDER BY bucket";
const sql = urlParam("sql", "", { push: true });
const shown = urlParam("show", "table");
const style = urlParam("drawn", "line");

export function SqlTab({ range }) {
  const [text, setText] = useState(sql.value || FIRST);
  const [state, setState] = useState({ result: null, error: null, isBusy: false });
  const under = useRef(null);
  useEffect(() => {
    if (sql.value) setText(sql.value);
  }, [sql.value]);

  const run = async (asked = text) => {
    under.current?.abort();
    const control = new AbortController();
    under.current = control;
    sql.value = asked;
    setState((old) => ({ ...old, error: null, isBusy: true }));
    try {
      const result = await runSql(asked, range, control.signal);
      setState({ result, error: null, isBusy: false });
    } catch (error) {
      if (!control.signal.aborted) setState((old) => ({ ...old, error, isBusy: false }));
    }
  };
  useEffect(() => {
    if (sql.value) run(sql.value);
    return () => under.current?.abort();
  }, [range.since.value, range.until.value]);

  const stop = () => {
    under.current?.abort();
    setState((old) => ({ ...old, isBusy: false }));
  };
  const fault = state.error?.column && text === sql.value
    ? { column: state.error.column, message: state.error.message }
    : null;
  return html`<div class="sql">
    <${Tables} insert=${(name) => setText(`${text}${/\s$/.test(text) ? "" : " "}${name}`)} />
    <div class="stack sql-main">
      <${Editor} label="SQL" language="sql" multiline search schema=${SCHEMA} value=${text}
        onChange=${setText} onRun=${(asked) => run(asked)} fault=${fault} placeholder="SELECT …" />
      <div class="row spread">
        <div class="row">
          ${state.isBusy
            ? html`<button class="btn" type="button" onClick=${stop}>Cancel</button>`
            : html`<button class="btn btn-primary" type="button" onClick=${() => run()}>Run</button>`}
          <span class="small muted"><span class="key">Ctrl</span> <span class="key">Enter</span>${" "}
            <code>$since</code> and <code>$until</code> are the span above.</span>
        </div>
        <div class="row">
          ${state.result && html`<${Menu} label="Export" text="Export" items=${
            ["csv", "ndjson", "json", "parquet"].map((format) => ({
              label: format.toUpperCase(), onSelect: () => download(sql.value, range, format),
            }))} />`}
          ${screen.isAdmin && html`
            <a class="btn btn-small" href=${addMonitorHref({
              kind: "sql", query: withWindow(text),
            })}>+ Monitor</a>
            <a class="btn btn-small" href=${addWidgetHref({
              kind: state.result && plotted(state.result) ? "series" : "table",
              style: style.value, source: { from: "sql", sql: text },
            }, range)}>+ Dashboard</a>`}
        </div>
      </div>
      ${state.error && html`<p class="notice notice-error" role="alert">${state.error.message}
        ${fault && html` <span class="muted">(${placeOf(text, fault.column)})</span>`}</p>`}
      ${state.isBusy && html`<p class="muted small" role="status">Running…</p>`}
      ${state.result
        ? html`<${Result} result=${state.result} />`
        : !state.error && !state.isBusy && html`<${Empty} title="No query was run yet">
            Run one SELECT over the tables beside it. It reads what is stored and changes nothing.<//>`}
    </div>
  </div>`;
}

function placeOf(text, column) {
  const before = text.slice(0, column - 1).split("\n");
  return `line ${before.length}, column ${before.at(-1).length + 1}`;
}

function Result({ result }) {
  return html`<section class="card card-flush" aria-label="Result">
    <div class="card-head">
      <div class="toolbar">
        <${Choice} label="Shown as" state=${shown} options=${[["table", "Table"], ["plot", "Plot"]]} />
        ${shown.value === "plot" && html`<${Choice} label="Drawn as" state=${style}
          options=${[["line", "Lines"], ["area", "Areas"], ["bars", "Bars"], ["stacked", "Stacked"]]} />`}
      </div>
      <span class="small muted">${plural(result.rows.length, "row")}, ${duration(result.ms)}</span>
    </div>
    ${shown.value === "plot"
      ? html`<div class="card-body"><${ResultPlot} result=${result} kind=${style.value} /></div>`
      : html`<${ResultTable} result=${result} />`}
  </section>`;
}

async function download(text, range, format) {
  try {
    const body = { sql: withSpan(text, range).text, format };
    const blob = await api("POST", "/query", { body, as: "blob" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `query.${format}`;
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    toast(error, "error");
  }
}

function Tables({ insert }) {
  const [open, setOpen] = useState("events");
  return html`<nav class="sql-tables" aria-label="Tables">
    <h2>Tables</h2>
    <ul>${Object.entries(SCHEMA).map(([table, columns]) => html`<li key=${table}>
      <button class="sql-table mono" type="button" aria-expanded=${open === table}
        onClick=${() => setOpen(open === table ? "" : table)}>
        ${open === table ? "▾" : "▸"} ${table}</button>
      ${open === table && html`<ul>${columns.map((name) => html`<li><button type="button"
        class="link mono small" title="Insert" onClick=${() => insert(name)}>${name}</button></li>`)}</ul>`}
    </li>`)}</ul>
    <p class="small muted">${count(Object.keys(SCHEMA).length)} public tables, read only.</p>
  </nav>`;
}
