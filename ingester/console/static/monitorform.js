// The form of a monitor: what is measured, when that is too much, and what it would have done.
import { Fragment, html } from "./ui.js";
import { get, useResource } from "./api.js";
import { Backtest } from "./backtest.js";
import { Field } from "./forms.js";
import { DurationField, QueryField, WatchEditor, commonBody, commonStart, words } from "./watch.js";

const KINDS = [
  { value: "metric", label: "A metric" },
  { value: "logs", label: "How many logs match" },
  { value: "events", label: "How many events match" },
  { value: "rows", label: "How many rows arrive" },
  { value: "freshness", label: "How old the newest row is" },
  { value: "sql", label: "A SELECT" },
];
const AGGREGATES = [
  ["avg", "average"], ["sum", "sum"], ["min", "minimum"], ["max", "maximum"], ["last", "last value"],
  ["count", "number of points"], ["countd", "different values"], ["p50", "median"],
  ["p90", "90th percentile"], ["p95", "95th percentile"], ["p99", "99th percentile"],
].map(([value, label]) => ({ value, label }));
const OPERATORS = [">", ">=", "<", "<=", "==", "!="].map((value) => ({ value, label: value }));
const NO_DATA = [
  { value: "ok", label: "counts as fine" },
  { value: "alert", label: "counts as a breach" },
  { value: "keep", label: "changes nothing" },
];
const TABLES = ["logs", "events", "metrics"].map((value) => ({ value, label: value }));
const SQL_START = `SELECT count(*) AS value FROM logs
WHERE received_at >= $window_start AND received_at < $window_end`;

/** First values: of a stored monitor, or of a new one out of the address (`kind`, `query`, …). */
export function startOf(row, asked = {}) {
  const target = row?.target ?? targetOf(asked);
  return {
    ...commonStart(row),
    name: row?.name ?? asked.name ?? nameOf(target),
    kind: target.kind,
    metric_id: target.metric_id ?? "",
    project_id: target.project_id ?? "default",
    aggregate: target.aggregate ?? "avg",
    filter: target.filter ?? "",
    lql: target.lql ?? "",
    table: target.table ?? "logs",
    sql: target.kind === "sql" ? target.query : SQL_START,
    operator: row ? (row.operator ?? "") : ">",
    threshold: text(row?.threshold),
    recovery: text(row?.recovery),
    window_s: row?.window_s ?? 300,
    group_by: row ? row.group_by.join(", ") : asked.group_by ?? "",
    m: String(row?.datapoints?.[0] ?? 1),
    n: String(row?.datapoints?.[1] ?? 1),
    no_data: row?.no_data ?? "ok",
    delay_s: row?.delay_s ?? "",
  };
}

const text = (value) => (value === null || value === undefined ? "" : String(value));

function targetOf({ kind, query = "", metric, project, aggregate }) {
  if (kind === "sql") return { kind, query: query || SQL_START };
  if (kind === "logs" || kind === "events") return { kind, lql: query };
  return {
    kind: "metric", metric_id: metric || query, project_id: project || "default",
    aggregate: aggregate || "avg", filter: metric ? query : "",
  };
}

function nameOf(target) {
  if (target.kind === "metric") return target.metric_id;
  return target.lql ? target.lql.slice(0, 80) : "";
}

const number = (value) => (value === "" ? null : Number(value));

/** What the API takes. */
export function bodyOf(values) {
  const isJudged = values.operator !== "";
  const isOrdered = isJudged && !["==", "!="].includes(values.operator);
  return {
    ...commonBody(values),
    target: {
      metric: { metric_id: values.metric_id, project_id: values.project_id,
        aggregate: values.aggregate, filter: values.filter },
      logs: { lql: values.lql },
      events: { lql: values.lql },
      rows: { table: values.table },
      freshness: { table: values.table, lql: values.lql },
      sql: { query: values.sql },
    }[values.kind],
    operator: isJudged ? values.operator : null,
    threshold: isJudged ? number(values.threshold) : null,
    recovery: isOrdered ? number(values.recovery) : null,
    window_s: Number(values.window_s),
    group_by: values.kind === "sql" ? [] : words(values.group_by),
    datapoints: [Number(values.m), Number(values.n)],
    no_data: isJudged ? values.no_data : "alert",
    delay_s: number(values.delay_s),
  };
}

const sent = (values) => {
  const body = bodyOf(values);
  return { ...body, target: { kind: values.kind, ...body.target } };
};

/** What is back-tested; null while something is missing. */
function judged(values) {
  const isWhole = Number(values.window_s) >= 10
    && (values.kind !== "metric" || values.metric_id !== "")
    && Number(values.m) >= 1 && Number(values.n) >= Number(values.m);
  if (!isWhole) return null;
  return { ...sent(values), name: "monitor", description: "", destinations: [], labels: [] };
}

export function MonitorForm({ row = null, asked = {}, onDone }) {
  const metrics = useResource(
    (signal) => get("/metrics", { since: "now-30d", limit: 1 }, { signal }),
  );
  return html`<${WatchEditor} kind="monitors" what="monitor" row=${row} body=${sent} onDone=${onDone}
    start=${() => startOf(row, asked)}
    fields=${(parts) => html`<${Fields} ...${parts} metrics=${metrics.data?.metrics ?? []} />`}
    preview=${({ values, setFault }) => html`<${Backtest} monitor=${judged(values)}
      byHand=${values.kind === "sql"} onFault=${setFault} />`} />`;
}

function Fields({ values, set, errorOf, metrics }) {
  const isJudged = values.operator !== "";
  const told = (name) => errorOf(name)?.message;
  return html`<${Fragment}>
    <${Field} name="kind" label="What is watched" kind="select" options=${KINDS}
      value=${values.kind} onValue=${(kind) => set({ kind })} />
    <${Measured} ...${{ values, set, errorOf, metrics }} />
    <div class="fields fields-tight">
      <${Field} name="operator" label="Fires when it is" kind="select" value=${values.operator}
        options=${[...OPERATORS, { value: "", label: "missing" }]} error=${told("operator")}
        onValue=${(operator) => set({ operator })} />
      ${isJudged && html`<${Field} name="threshold" label="Threshold" kind="number" step="any"
        required value=${values.threshold} error=${told("threshold")}
        onValue=${(threshold) => set({ threshold })} />`}
      ${isJudged && !["==", "!="].includes(values.operator) && html`<${Field} name="recovery"
        label="Recovers at" kind="number" step="any" placeholder="threshold"
        value=${values.recovery} error=${told("recovery")}
        onValue=${(recovery) => set({ recovery })} />`}
    </div>
    <div class="fields fields-tight">
      <${DurationField} name="window_s" label="Window" value=${values.window_s}
        error=${told("window_s")} onValue=${(window_s) => set({ window_s })} />
      <${Datapoints} ...${{ values, set }} error=${told("datapoints")} />
    </div>
    ${isJudged && html`<${Field} name="no_data" label="A window without a value" kind="select"
      options=${NO_DATA} value=${values.no_data} error=${told("no_data")}
      onValue=${(no_data) => set({ no_data })} />`}
    ${values.kind !== "sql" && html`<${Field} name="group_by" label="Group by" mono
      placeholder="service, metadata.host" value=${values.group_by} error=${told("group_by")}
      onValue=${(group_by) => set({ group_by })}
      hint="One state for each group; up to four fields, commas between them." />`}
    <details open=${values.delay_s !== ""}>
      <summary>Late data</summary>
      <div class="details-body">
        <${DurationField} name="delay_s" label="Wait before a window is judged" optional
          value=${values.delay_s} error=${told("delay_s")} onValue=${(delay_s) => set({ delay_s })}
          hint="Empty: as configured. What comes later still has its window judged again." />
      </div>
    </details>
  <//>`;
}

function Measured({ values, set, errorOf, metrics }) {
  if (values.kind === "metric") {
    return html`<${MetricFields} ...${{ values, set, errorOf, metrics }} />`;
  }
  if (values.kind === "sql") {
    return html`<${QueryField} name="target.query" label="SELECT" language="sql" value=${values.sql}
      onValue=${(sql) => set({ sql })} error=${errorOf("target.query")}
      hint="Its column value in the only row, else how many rows it has. $window_start and
        $window_end are the window." />`;
  }
  const table = values.kind === "logs" || values.kind === "events" ? values.kind : values.table;
  return html`<${Fragment}>
    ${table !== values.kind && html`<${Field} name="table" label="Table" kind="select"
      options=${TABLES} value=${values.table} onValue=${(next) => set({ table: next })} />`}
    ${values.kind !== "rows" && html`<${QueryField} key=${table} name="target.lql" label="Query"
      value=${values.lql} table=${table} onValue=${(lql) => set({ lql })}
      error=${errorOf("target.lql")} placeholder='level:error "payment failed"'
      hint=${`LQL over ${table}; empty: all of them.`} />`}
  <//>`;
}

function MetricFields({ values, set, errorOf, metrics }) {
  const of = (project) => metrics.filter((one) => one.project_id === project);
  const projects = [...new Set(["default", ...metrics.map((one) => one.project_id)])];
  return html`<${Fragment}>
    <div class="fields fields-tight">
      <div class="field">
        <label for="metric-id">Metric</label>
        <input id="metric-id" name="metric_id" class="mono" list="metric-ids" required
          value=${values.metric_id} autocomplete="off" spellcheck=${false}
          aria-invalid=${errorOf("target.metric_id") ? "true" : null}
          onInput=${(event) => set({ metric_id: event.currentTarget.value })} />
        <datalist id="metric-ids">
          ${of(values.project_id).map((one) => html`<option value=${one.metric_id}>
            ${one.metric_name}
          </option>`)}
        </datalist>
        ${errorOf("target.metric_id") && html`<p class="field-error" role="alert">
          ${errorOf("target.metric_id").message}
        </p>`}
      </div>
      <${Field} name="aggregate" label="Aggregate" kind="select" options=${AGGREGATES}
        value=${values.aggregate} onValue=${(aggregate) => set({ aggregate })} />
      ${(projects.length > 1 || values.project_id !== "default") && html`<${Field} name="project_id"
        label="Project" value=${values.project_id} mono
        onValue=${(project_id) => set({ project_id })} />`}
    </div>
    <${QueryField} name="target.filter" label="Only points with" value=${values.filter} table="metrics"
      onValue=${(filter) => set({ filter })} error=${errorOf("target.filter")}
      placeholder="metadata.host:web-1" />
  <//>`;
}

function Datapoints({ values, set, error }) {
  const box = (name, label) => html`<input class="inline narrow" type="number" min="1" max="1440"
    aria-label=${label} value=${values[name]} required
    onInput=${(event) => set({ [name]: event.currentTarget.value })} />`;
  return html`<div class="field" role="group" aria-label="Windows that breach">
    <span class="legend">Windows that breach</span>
    <div class="row nowrap-row">
      ${box("m", "How many of them")}<span class="muted">of</span>
      ${box("n", "Windows looked at")}
    </div>
    ${error && html`<p class="field-error" role="alert">${error}</p>`}
  </div>`;
}

/** A monitor's condition in a line. */
export function conditionText({ operator, threshold, datapoints: [m, n] }) {
  const often = n > 1 ? `, ${m} of ${n}` : "";
  return operator ? `${operator} ${threshold}${often}` : `missing${often}`;
}

export function targetText(target) {
  switch (target.kind) {
    case "metric":
      return `${target.aggregate} of ${target.metric_id}${target.filter ? ` where ${target.filter}` : ""}`;
    case "rows": return `rows of ${target.table}`;
    case "freshness": return `age of ${target.table}${target.lql ? ` where ${target.lql}` : ""}`;
    case "sql": return target.query.replace(/\s+/g, " ");
    default: return `${target.kind}: ${target.lql || "all"}`;
  }
}
