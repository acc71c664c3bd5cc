// What a query with `c:` or `s:` clauses answers: a table, and a plot of what is by time.
import { html, useMemo } from "../ui.js";
import { count, figure, time } from "../format.js";
import { Plot } from "../plot.js";
import { Table } from "../table.js";
import { levelColour } from "./levels.js";
import { isRaw, oneLine, shownValue } from "./text.js";

const SERIES_MAX = 12;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/;

export function Result({ page }) {
  const { names, rows, truncated } = page.chart ?? page.select;
  const columns = names.map((name, at) => ({
    name: `${at}`,
    label: name,
    num: rows.some((row) => isNumber(row[at])),
    kind: "clip-cell",
    sort: (row) => (isRaw(row[at]) ? Number(row[at].rawJSON) : row[at]),
    cell: (row) => cellOf(row[at]),
  }));
  return html`
    ${page.chart && html`<${Chart} names=${names} rows=${rows} />`}
    <${Table} label="Result" columns=${columns} rows=${rows} rowKey=${(row) => rows.indexOf(row)}
      empty=${html`<p class="log-end">Nothing in this time span fits the query.</p>`} />
    ${truncated && html`<p class="log-end">The first ${count(rows.length)} are here; there is more.</p>`}`;
}

const isNumber = (value) => typeof value === "number" || isRaw(value);

function cellOf(value) {
  if (value === null) return html`<span class="muted">–</span>`;
  if (typeof value === "number") return figure(value);
  if (typeof value === "string" && TIME.test(value)) return time(value);
  return html`<bdi>${oneLine(shownValue(value))}</bdi>`;
}

/** One line a group, the largest groups. */
function Chart({ names, rows }) {
  const drawn = useMemo(() => {
    const last = names.length - 1;
    const times = [...new Set(rows.map((row) => Date.parse(row[0]) / 1000))]
      .filter(Number.isFinite).toSorted((left, right) => left - right);
    const at = new Map(times.map((each, index) => [each, index]));
    const groups = new Map();
    for (const row of rows) {
      const label = row.slice(1, last).map((one) => oneLine(shownValue(one ?? "–"))).join(" · ")
        || names[last];
      if (!groups.has(label)) groups.set(label, { label, values: times.map(() => null), sum: 0 });
      const value = Number(row[last]?.rawJSON ?? row[last]);
      const group = groups.get(label);
      group.values[at.get(Date.parse(row[0]) / 1000)] = row[last] === null ? null : value;
      group.sum += Math.abs(value) || 0;
    }
    if (names[1] === "level" && last === 2) {
      for (const group of groups.values()) group.colour = levelColour(group.label);
    }
    const series = [...groups.values()].toSorted((left, right) => right.sum - left.sum);
    return { times, series: series.slice(0, SERIES_MAX) };
  }, [rows]);
  if (names[0] !== "bucket" || drawn.times.length < 2) return null;
  return html`<div class="card-body">
    <${Plot} ...${drawn} kind="line" height=${220} label="Result by time" />
  </div>`;
}
