// Alerts: queries by the clock; any row fires. A run can be tried before it is saved.
import { Empty, Fragment, Head, Loaded, html, mount, useState } from "../ui.js";
import { get, post, useResource } from "../api.js";
import { Field } from "../forms.js";
import { Menu } from "../menu.js";
import { Rows } from "../rows.js";
import { Table } from "../table.js";
import { count, plural, time } from "../format.js";
import {
  Clip, Declared, QueryField, State, Told, WatchEditor, When, commonBody, commonStart, useDestinations,
  watchItems, watchScreen,
} from "../watch.js";

const SQL_START = `SELECT service, count(*) AS errors FROM logs
WHERE level = 'error' AND received_at >= $window_start AND received_at < $window_end
GROUP BY service HAVING count(*) > 10`;
const CRONS = [
  ["*/5 * * * *", "every 5 minutes"],
  ["*/15 * * * *", "every 15 minutes"],
  ["0 * * * *", "every hour"],
  ["0 6 * * *", "every day at 6:00"],
  ["0 6 * * 1", "Mondays at 6:00"],
];

function List({ found, add, edit }) {
  const destinations = useDestinations();
  return html`<${Fragment}>
    <${Head} text="A query that is run by the clock. It fires when it finds any row, and is over with
      the first run that finds none.">${add}<//>
    <${Loaded} of=${found}>${({ alerts }) => html`<section class="card card-flush">
      <${Table} label="Alerts" rows=${alerts} rowKey=${(row) => row.id}
        columns=${columns(destinations.data?.destinations ?? [])}
        detail=${(row) => html`<${Runs} row=${row} />`}
        actions=${(row) => html`<${Menu} label=${`Actions for ${row.name}`} items=${[
          ...watchItems("alerts", row, { edit, reload: found.reload }),
        ]} />`}
        empty=${html`<${Empty} title="No alert is run yet" actions=${add}>
          For what takes a query to find out: rows that should not be there, every few minutes.
        <//>`} />
    </section>`}<//>
  <//>`;
}

const columns = (destinations) => [
  {
    name: "state", label: "State", kind: "nowrap",
    cell: (row) => html`<${State} row=${{ ...row, error: row.last_run?.error }} />`,
  },
  {
    name: "name", label: "Name", kind: "breaks", sort: (row) => row.name,
    cell: (row) => html`<strong>${row.name}</strong> <${Declared} file=${row.file} />`,
  },
  {
    name: "query", label: "Query",
    cell: (row) => html`<${Clip} kind="mono" text=${row.query.replace(/\s+/g, " ")} />`,
  },
  { name: "cron", label: "Runs", kind: "nowrap", cell: (row) => html`<span class="mono">${row.cron}</span>` },
  {
    name: "last", label: "Last run", sort: (row) => row.last_run?.ran_at ?? "",
    cell: (row) => html`<${When} at=${row.last_run?.ran_at} />`,
  },
  {
    name: "rows", label: "Rows", num: true,
    cell: (row) => (row.last_run?.error ? "failed" : count(row.last_run?.rows)),
  },
  { name: "next", label: "Next run", cell: (row) => html`<${When} at=${row.next_run} />` },
  {
    name: "told", label: "Tells",
    cell: (row) => html`<${Told} ids=${row.destinations} destinations=${destinations} />`,
  },
];

function Runs({ row }) {
  const found = useResource((signal) => get(`/alerts/${row.id}/runs`, { limit: 20 }, { signal }),
    [row.id], { everyMs: 10_000 });
  return html`<div class="stack">
    ${row.description && html`<p class="breaks">${row.description}</p>`}
    <${Loaded} of=${found}>${({ runs }) => html`<${Table} label=${`Runs of ${row.name}`} rows=${runs}
      rowKey=${(run) => `${run.window_end}${run.ran_at}`} columns=${RUNS}
      empty=${html`<p class="muted">It has not been run yet.</p>`} />`}<//>
  </div>`;
}

const RUNS = [
  {
    name: "window", label: "Window", kind: "nowrap",
    cell: (run) => `${time(run.window_start)} – ${time(run.window_end, "clock")}`,
  },
  { name: "at", label: "Run", kind: "nowrap", cell: (run) => time(run.ran_at) },
  { name: "rows", label: "Rows", num: true, cell: (run) => count(run.rows) },
  {
    name: "result", label: "Result", kind: "breaks",
    cell: (run) => run.error ?? (run.rows ? html`<span class="badge badge-bad">▲ fired</span>` : "quiet"),
  },
];

const startOf = (row, { kind: wanted, query: text }) => ({
  ...commonStart(row),
  language: row?.language ?? (wanted === "logs" || wanted === "events" ? "lql" : "sql"),
  on: row?.on ?? (wanted === "events" ? "events" : "logs"),
  query: row?.query ?? (text || SQL_START),
  cron: row?.cron ?? "*/5 * * * *",
});

const bodyOf = (values) => ({
  ...commonBody(values),
  language: values.language,
  on: values.on,
  query: values.query,
  cron: values.cron,
});

function AlertForm({ row = null, asked = {}, onDone }) {
  return html`<${WatchEditor} kind="alerts" what="alert" row=${row} body=${bodyOf} onDone=${onDone}
    start=${() => startOf(row, asked)} fields=${(parts) => html`<${Fields} ...${parts} />`}
    preview=${(parts) => html`<${Trial} ...${parts} />`} />`;
}

function Fields({ values, set, errorOf }) {
  return html`<${Fragment}>
    <div class="fields fields-tight">
      <${Field} name="language" label="Language" kind="select" value=${values.language}
        options=${[{ value: "sql", label: "SQL" }, { value: "lql", label: "LQL" }]}
        onValue=${(language) => set({ language, query: startQuery(language, values) })} />
      ${values.language === "lql" && html`<${Field} name="on" label="Over" kind="select"
        value=${values.on} onValue=${(on) => set({ on })}
        options=${["logs", "events"].map((value) => ({ value, label: value }))} />`}
    </div>
    <${QueryField} key=${values.language} name="query" label="Query" language=${values.language}
      table=${values.on} value=${values.query} onValue=${(text) => set({ query: text })}
      error=${errorOf("query")} multiline
      hint=${values.language === "sql"
        ? "$window_start and $window_end are the run before and this one: windows tile."
        : "Looks at what was stored since the run before."} />
    <div class="field">
      <${Field} name="cron" label="Runs" mono required value=${values.cron}
        error=${errorOf("cron")?.message} onValue=${(cron) => set({ cron })}
        hint="Five fields, UTC: minute, hour, day, month, day of the week." />
      <div class="row presets">
        ${CRONS.map(([cron, label]) => html`<button type="button" class="btn btn-small"
          aria-pressed=${values.cron === cron} onClick=${() => set({ cron })}>${label}</button>`)}
      </div>
    </div>
  <//>`;
}

function startQuery(language, values) {
  if (language === "lql") return values.query === SQL_START ? "level:error" : values.query;
  return values.query === "level:error" ? SQL_START : values.query;
}

function Trial({ values, body, setFault }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    setFound(null);
    try {
      setFound(await post("/alerts/test", { ...body(values), name: values.name || "alert" }));
      setError(null);
      setFault(null);
    } catch (problem) {
      setError(problem);
      setFault(problem);
    } finally {
      setBusy(false);
    }
  };
  return html`<section class="card card-flush" aria-label="Test run" aria-busy=${isBusy}>
    <div class="card-head">
      <h2>Test run</h2>
      <button class="btn btn-small" type="button" disabled=${isBusy || !values.query.trim()}
        onClick=${run}>${isBusy ? "Running…" : "Run now"}</button>
    </div>
    <div class="card-body stack">
      ${error && html`<p class="notice notice-error" role="alert">${error.message}</p>`}
      ${found ? html`<${Found} found=${found} />` : !error && html`<p class="muted" role="status">
        ${isBusy ? "Running…" : "What it would find in its last window; nobody is told."}
      </p>`}
    </div>
  </section>`;
}

function Found({ found }) {
  return html`<${Fragment}>
    <p class="verdict" role="status">
      <strong>${found.would_fire ? `Would fire: ${plural(found.rows, "row")}` : "Would not fire"}</strong>
      ${" "}in the window ${time(found.window_start)} – ${time(found.window_end, "clock")}.
    </p>
    ${found.result.length > 0 && html`<${Rows} rows=${found.result.slice(0, 100)} label="Rows" />`}
  <//>`;
}

mount(watchScreen({ kind: "alerts", what: "alert", names: ["kind", "query"], Form: AlertForm, List }));
