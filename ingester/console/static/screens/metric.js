// One metric: its course, its figures over the span, its newest points.
import { Empty, Failure, Fragment, Head, html, mount, screen, useMemo } from "../ui.js";
import { get, useResource } from "../api.js";
import { Choice, Pick, Typed } from "../choice.js";
import { count, duration, figure, time } from "../format.js";
import { shownText, visible } from "../lines.js";
import { Plot } from "../plot.js";
import { METRIC_VALUES, addMonitorHref, addWidgetHref, refreshed } from "../queries.js";
import { metricSeries } from "../series.js";
import { Table } from "../table.js";
import { TimePicker, isoTime, setRange, urlRange } from "../time.js";
import { urlParam } from "../url.js";
import { CompleteUpTo, shownGroups, useUntilComplete } from "../widgets.js";

const METRIC = decodeURIComponent(location.pathname.replace(/^\/custom-metrics\//, ""));
const project = urlParam("project");
const value = urlParam("value", "avg", { push: true });
const interval = urlParam("interval", "auto", { push: true });
const by = urlParam("by", "", { push: true });
const filter = urlParam("q", "", { push: true });
const POINTS_SHOWN = 200;
const VALUE_NAMES = {
  avg: "Average", sum: "Sum", min: "Lowest", max: "Highest", last: "Last", count: "Count",
  p50: "Median (p50)",
};
const INTERVALS = [["auto", "Auto"], ["hour", "Hour"], ["day", "Day"], ["week", "Week"], ["month", "Month"]];

function Metric() {
  const range = urlRange({ since: "now-24h" });
  const about = useResource((abort) => get(
    "/metrics", { metric_id: METRIC, project: project.value, limit: 1 }, { signal: abort },
  ), [project.value, refreshed.value], { everyMs: 15_000 });
  const source = {
    from: "metric", metric_id: METRIC, project: project.value, value: value.value,
    group_by: by.value, filter: filter.value, interval: interval.value,
  };
  const span = [range.since.value, range.until.value];
  const last = about.data?.metrics?.[0]?.last_time;
  const found = useResource(
    async (abort) => ({ ...await metricSeries(source, range, abort), asked: source }),
    [JSON.stringify(source), ...span, last],
  );
  useUntilComplete(found);
  // Figures for the span: whole hours, whatever the plot shows.
  const figures = useResource(
    (abort) => metricSeries({ ...source, value: "count", group_by: "", interval: "hour" }, range, abort),
    [METRIC, project.value, filter.value, ...span, last],
  );
  const mine = about.data?.metrics ?? [];
  const metric = mine[0];
  const name = shownText(metric?.metric_name ?? METRIC);
  return html`
    <${Head} title=${name} text=${html`<code>${shownText(METRIC)}</code>${metric
      ? html` in ${mine.length > 1 && !project.value ? "several projects" : metric.project_id}`
      : ""}`}>
      ${screen.isAdmin && html`<a class="btn" href=${addMonitorHref({
        kind: "metric", metric: METRIC, project: project.value || metric?.project_id || "default", name,
        query: filter.value, aggregate: value.value, group_by: by.value,
      })}>+ Monitor</a>
      <a class="btn" href=${addWidgetHref({ kind: "series", title: name, source }, range)}>
        + Dashboard</a>`}
    <//>
    ${metric?.warning && html`<p class="notice notice-warn">${visible(metric.warning)}</p>`}
    <${Failure} error=${about.error} retry=${about.reload} />
    ${about.data && !metric && html`<${Empty} title="There is no such metric"
      actions=${html`<a class="btn" href="/custom-metrics">All metrics</a>`}>
      Nothing with this id has arrived${project.value ? " in this project" : ""}.<//>`}
    ${metric && html`<${Figures} metric=${metric} points=${figures.data?.points ?? []} />
      <${Course} ...${{ range, found, metric, name }} />
      <${Points} range=${range} metric=${metric} last=${last} />`}`;
}

function Figures({ metric, points }) {
  const total = points.reduce((sum, point) => sum + point.count, 0);
  const all = points.reduce((sum, point) => sum + (point.sum ?? 0), 0);
  const shown = [
    ["Last", metric.last], ["Average", total ? all / total : null],
    ["Lowest", total ? Math.min(...points.map((point) => point.min)) : null],
    ["Highest", total ? Math.max(...points.map((point) => point.max)) : null],
    ["Sum", total ? all : null],
  ];
  return html`<dl class="stats">
    ${shown.map(([label, number]) => html`<div class="card stat">
      <dt class="stat-label">${label}</dt>
      <dd class="stat-value">${number === null ? "–" : figure(Number(number.toPrecision(6)))}
        ${metric.unit ? html` <small class="muted">${shownText(metric.unit, 32)}</small>` : null}</dd>
    </div>`)}
    <div class="card stat"><dt class="stat-label">Points</dt><dd class="stat-value">${count(total)}</dd></div>
  </dl>`;
}

function Course({ range, found, metric, name }) {
  // Old points stay until others are here, and are named by what was asked for them.
  const asked = found.data?.asked;
  const groups = useMemo(() => shownGroups(found.data?.groups ?? [], false).map((group) => ({
    ...group, label: asked.group_by ? group.label : `${name} (${asked.value})`,
  })), [found.data, name]);
  const isPercentile = asked?.value.startsWith("p");
  return html`<section class="card card-flush" aria-label="Course">
    <div class="card-head">
      <div class="toolbar">
        <${Pick} label="Value" state=${value}
          options=${METRIC_VALUES.map((one) => ({ value: one, label: VALUE_NAMES[one] ?? one }))} />
        <${Choice} label="Period" state=${interval} options=${INTERVALS} />
      </div>
      <${TimePicker} range=${range} />
    </div>
    <div class="card-body stack">
      <div class="row">
        <label class="row small muted">Group by
          <${Typed} state=${by} class="inline mono" placeholder="metadata.host" /></label>
        <label class="row small muted">Filter (LQL)
          <${Typed} state=${filter} class="inline mono metric-filter" placeholder="m.region:eu" /></label>
      </div>
      ${found.error && html`<p class="notice notice-error" role="alert">${found.error.message}</p>`}
      ${found.data
        ? groups.length
          ? html`<${Plot} times=${found.data.times} series=${groups} kind="line"
              unit=${metric.unit ?? ""} height=${260} spanGaps label=${`${name} by ${found.data.interval}`}
              onZoom=${(from, until) => setRange(range, isoTime(from), isoTime(until))} />`
          : html`<p class="widget-none muted">No points in this span; the newest is of
              ${" "}${time(metric.last_time)}</p>`
        : !found.error && html`<p class="loading" role="status">Loading…</p>`}
      ${isPercentile && found.data && (found.data.gone > 0
        ? html`<p class="notice">Percentiles are told of raw points. Of ${count(found.data.gone)} periods they
            are gone, so that only count, sum, min, max, avg and last are known.</p>`
        : html`<p class="small muted">Percentiles are told of raw points, as long as these are kept.</p>`)}
    </div>
    ${found.data && html`<footer class="card-foot row">
      <${CompleteUpTo} at=${found.data.completeUpTo} />
      <span class="small muted">${found.data.answeredFrom ? `from ${found.data.answeredFrom}, ` : ""}by
        ${" "}${found.data.interval}${found.data.ms ? `, ${duration(found.data.ms)}` : ""}</span>
    </footer>`}
  </section>`;
}

const COLUMNS = [
  {
    name: "time", label: "Time", kind: "nowrap mono", sort: (row) => row.time,
    cell: (row) => time(row.time, "ms"),
  },
  { name: "value", label: "Value", num: true, sort: (row) => row.value, cell: (row) => figure(row.value) },
  { name: "unit", label: "Unit", cell: (row) => shownText(row.unit ?? "–", 32) },
  { name: "project", label: "Project", cell: (row) => row.project_id },
  {
    name: "metadata", label: "Metadata", kind: "mono breaks",
    cell: (row) => (row.metadata === null
      ? html`<span class="muted">–</span>` : shownText(row.metadata)),
  },
];

function Points({ range, last }) {
  const found = useResource((abort) => get("/metrics", {
    metric_id: METRIC, project: project.value, q: filter.value, limit: POINTS_SHOWN,
    since: range.since.value, until: range.until.value === "now" ? "" : range.until.value,
  }, { signal: abort }), [project.value, filter.value, range.since.value, range.until.value, last]);
  const rows = found.data?.rows ?? [];
  if (found.error || !rows.length) return null;
  return html`<${Fragment}>
    <h2>Newest points</h2>
    <section class="card card-flush metric-points">
      <${Table} label="Points" columns=${COLUMNS} rows=${rows} rowKey=${(row) => row.id} />
    </section>
  <//>`;
}

mount(Metric);
