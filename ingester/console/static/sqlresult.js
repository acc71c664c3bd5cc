// SQL for the pages: the public tables for completion, spans put into a text, results as tables and
// plots.
import { html, useMemo } from "./vendor/preact.js";
import { post } from "./api.js";
import { count, figure, time } from "./format.js";
import { shownText } from "./lines.js";
import { Plot } from "./plot.js";
import { queryTurn } from "./queries.js";
import { boundsOf } from "./time.js";

const ROWS_SHOWN_MAX = 1000;
const SERIES_MAX = 12;

// Contract of `GET /openapi.json` beside it: names and columns are stable. A test compares them.
export const TABLES = {
  events: "id received_at source account_id user_id created_at action session_id body batch_id",
  logs: "id time received_at service environment level message attributes batch_id",
  metrics: "id time received_at project_id metric_id metric_name value unit metadata batch_id",
  rejects: "id received_at door source request_id line_number reason field detail line batch_id",
  requests: "request_id received_at door source accepted rejected bytes_in bytes_raw encoding"
    + " idempotency_key",
  users: "source account_id user_id first_seen last_seen details",
  accounts: "source account_id first_seen last_seen details",
  events_hourly: "bucket source account_id action events users sessions",
  events_daily: "bucket source account_id action events users sessions",
  accounts_daily: "bucket source account_id events users sessions active_duration",
  modules_daily: "bucket source account_id module time_spent visits",
  features_daily: "bucket source account_id module product feature total users",
  logs_hourly: "bucket service environment level logs",
  logs_daily: "bucket service environment level logs",
  metrics_hourly: "bucket project_id metric_id count sum min max avg last",
  metrics_daily: "bucket project_id metric_id count sum min max avg last",
};
export const SCHEMA = Object.fromEntries(
  Object.entries(TABLES).map(([table, columns]) => [table, columns.split(" ")]),
);

const literal = (seconds) =>
  `TIMESTAMP '${new Date(seconds * 1000).toISOString().replace("T", " ").replace("Z", "")}'`;

// `$since` and `$until`; quotes and comments are passed over.
const NAMES = /'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\$(since|until)\b/g;
const WINDOW = { since: "$window_start", until: "$window_end" };

/** A text over the span as one over the window of a monitor. */
export const withWindow = (sql) => sql.replace(NAMES, (found, name) => (name ? WINDOW[name] : found));

/** `$since` and `$until` of a text as the span's times. */
export function withSpan(sql, range) {
  const bounds = boundsOf(range) ?? [0, Date.now() / 1000];
  const shift = [];
  const text = sql.replace(NAMES, (found, name, at) => {
    if (!name) return found;
    const put = literal(bounds[name === "since" ? 0 : 1]);
    shift.push([at, put.length - found.length]);
    return put;
  });
  return { text, columnOf: (column) => column && back(column, shift) };
}

/** A column of the text that was sent as one of the text that was written. */
function back(column, shift) {
  let moved = 0;
  for (const [at, by] of shift) {
    if (column - 1 - moved >= at + by) moved += by;
    else if (column - 1 - moved > at) return at + 1;
  }
  return column - moved;
}

/** Rows of a SELECT over the span. A refusal's `column` is one of `sql`. */
export async function runSql(sql, range, abort) {
  const { text, columnOf } = withSpan(sql, range);
  const began = performance.now();
  try {
    const told = await queryTurn(
      () => post("/query", { sql: text, format: "json" }, { signal: abort }), abort,
    );
    return { ...told, ms: performance.now() - began };
  } catch (error) {
    if (error.column) error.column = columnOf(error.column);
    throw error;
  }
}

const isNumber = (type) => /^(?:U?(?:TINY|SMALL|BIG|HUGE)?INT(?:EGER)?|UINTEGER|DOUBLE|FLOAT|DECIMAL)/
  .test(type);
const isTime = (type) => /^(?:TIMESTAMP|DATE)/.test(type);

/** Which columns are times, figures and names. */
export function rolesOf({ types }) {
  const all = types.map((type, at) => ({ type, at }));
  return {
    time: all.find(({ type }) => isTime(type))?.at,
    figures: all.filter(({ type }) => isNumber(type)).map(({ at }) => at),
    name: all.find(({ type }) => !isTime(type) && !isNumber(type))?.at,
  };
}

/** A result as times and groups, or null where it has no time or no figure. */
export function plotted(result) {
  const roles = rolesOf(result);
  if (roles.time === undefined || !roles.figures.length || !result.rows.length) return null;
  const moments = result.rows.map((row) => Date.parse(row[roles.time]) / 1000);
  const times = [...new Set(moments)].filter(Number.isFinite).toSorted((a, b) => a - b);
  if (!times.length) return null;
  const place = new Map(times.map((at, index) => [at, index]));
  const groups = new Map();
  result.rows.forEach((row, at) => {
    for (const figureAt of roles.figures) {
      const named = roles.name === undefined ? null : shownText(String(row[roles.name] ?? "(none)"));
      const label = named === null
        ? result.columns[figureAt]
        : roles.figures.length > 1 ? `${named} · ${result.columns[figureAt]}` : named;
      if (!groups.has(label)) {
        if (groups.size >= SERIES_MAX) return;
        groups.set(label, { key: label, label, values: times.map(() => null), total: 0 });
      }
      const group = groups.get(label);
      const index = place.get(moments[at]);
      if (index === undefined) continue;
      group.values[index] = (group.values[index] ?? 0) + (row[figureAt] ?? 0);
      group.total += row[figureAt] ?? 0;
    }
  });
  return { times, groups: [...groups.values()] };
}

/** Names and their first figure, for bars; null where there is none. */
export function ranked(result) {
  const { figures, name, time: at } = rolesOf(result);
  const by = name ?? at;
  if (!figures.length || by === undefined) return null;
  return result.rows.map((row) => ({
    key: row[by], label: cellText(row[by], result.types[by]), total: row[figures[0]] ?? 0, values: [],
  }));
}

export function cellText(value, type = "") {
  if (value === null || value === undefined) return "NULL";
  if (isTime(type)) return time(value, type === "DATE" ? "day" : "ms").replace(/\.000$/, "");
  if (typeof value === "number") return figure(value);
  return shownText(value);
}

/** The rows of a result, at most a thousand of them. */
export function ResultTable({ result, label = "Result" }) {
  const { columns, types, rows } = result;
  const shown = rows.slice(0, ROWS_SHOWN_MAX);
  return html`<div class="table-wrap result" tabindex="0" role="region" aria-label=${label}>
    <table class="table">
      <thead><tr>${columns.map((name, at) => html`<th scope="col"
        class=${isNumber(types[at]) ? "num" : null} title=${types[at]}>${name}</th>`)}</tr></thead>
      <tbody>${shown.map((row) => html`<tr>${row.map((value, at) => html`<td
        class=${cellKind(value, types[at])}>${cellText(value, types[at])}</td>`)}</tr>`)}</tbody>
    </table>
    ${rows.length > shown.length && html`<p class="muted small table-note">
      The first ${count(shown.length)} of ${count(rows.length)} rows are shown; Export has all.</p>`}
  </div>`;
}

function cellKind(value, type) {
  if (value === null) return "muted";
  if (isNumber(type)) return "num";
  if (isTime(type)) return "nowrap mono";
  return typeof value === "object" ? "mono result-text" : "result-text";
}

export function ResultPlot({ result, kind, height = 280 }) {
  const found = useMemo(() => plotted(result), [result]);
  if (!found) {
    return html`<p class="muted">A plot needs a column of times and one of figures; a column of text
      tells lines apart.</p>`;
  }
  return html`<${Plot} times=${found.times} series=${found.groups} kind=${kind} height=${height}
    label="Plot of the result" />`;
}
