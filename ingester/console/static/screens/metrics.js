// Metrics: every metric that has arrived, with its newest value.
import { Empty, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { get, sqlRows, useResource } from "../api.js";
import { Code } from "../copy.js";
import { Table } from "../table.js";
import { ago, count, figure, plural, time } from "../format.js";
import { shownText, visible } from "../lines.js";
import { Sparkline } from "../plot.js";
import { addMonitorHref, addWidgetHref, metricHref, queryTurn } from "../queries.js";
import { urlParam } from "../url.js";

const search = urlParam("q");
const NEWEST_POINTS = 1000;
const SHOWN_MAX = 500;
const COURSE_S = 2 * 86_400;

const keyOf = (project, metric) => JSON.stringify([project, metric]);

/** The course of each metric: by hour, or its newest points where there are no hours yet. */
async function courses(points, abort) {
  const since = new Date(Date.now() - COURSE_S * 1000).toISOString().slice(0, 19).replace("T", " ");
  const rows = await queryTurn(() => sqlRows(
    "SELECT project_id, metric_id, list(avg ORDER BY bucket) AS course FROM metrics_hourly"
      + ` WHERE bucket >= TIMESTAMP '${since}' GROUP BY ALL`,
    { signal: abort },
  ), abort);
  const found = new Map();
  for (const point of points.toReversed()) {
    const key = keyOf(point.project_id, point.metric_id);
    found.set(key, [...(found.get(key) ?? []), point.value].slice(-60));
  }
  for (const row of rows) {
    const key = keyOf(row.project_id, row.metric_id);
    if (row.course.length > 2 || !found.has(key)) found.set(key, row.course);
  }
  return found;
}

function Metrics() {
  const metrics = useResource(
    (abort) => get("/metrics", { limit: NEWEST_POINTS }, { signal: abort }), [], { everyMs: 15_000 },
  );
  const names = metrics.data?.metrics.map((one) => one.metric_id).join(" ") ?? "";
  const course = useResource((abort) => courses(metrics.data.rows, abort), [names], {
    enabled: Boolean(names),
  });
  const wanted = search.value.trim().toLowerCase();
  const rows = (metrics.data?.metrics ?? []).filter((one) =>
    [one.metric_id, one.metric_name, one.project_id, one.unit ?? ""].join(" ").toLowerCase()
      .includes(wanted)).map((one) => ({
    ...one, course: course.data?.get(keyOf(one.project_id, one.metric_id)),
  }));
  const warnings = rows.filter((one) => one.warning).length;
  return html`
    <${Head} text="Custom metrics, one row for each that has arrived. A new one appears by itself.">
      <a class="btn" href="/dashboards/custom-metrics">All as plots</a>
    <//>
    <${Loaded} of=${metrics}>
      ${(data) => data.metrics.length === 0
        ? html`<${NoMetrics} />`
        : html`<div class="row spread">
          <input type="search" class="inline search" aria-label="Search metrics" data-search
            placeholder="Search id, name, project or unit" value=${search.value}
            onInput=${(event) => (search.value = event.currentTarget.value)} />
          <span class="small muted">${plural(rows.length, "metric")}${warnings
            ? `, ${plural(warnings, "warning")}` : ""}${data.metrics_truncated
            ? "; the first 1,000" : ""}</span>
        </div>
        <section class="card card-flush">
          <${Table} label="Metrics" rows=${rows.slice(0, SHOWN_MAX)} columns=${COLUMNS}
            rowKey=${(row) => keyOf(row.project_id, row.metric_id)}
            onRow=${(row) => location.assign(metricHref(row.metric_id, row.project_id))}
            empty=${html`<${Empty} title="No metric is called so">
              <button class="link" type="button" onClick=${() => (search.value = "")}>Show all</button>.<//>`}
            actions=${screen.isAdmin ? actions : null} />
          ${rows.length > SHOWN_MAX && html`<p class="table-note muted small">
            The first ${count(SHOWN_MAX)} are shown; search for the others.</p>`}
        </section>`}
    <//>`;
}

const COLUMNS = [
  {
    name: "metric", label: "Metric", sort: (row) => row.metric_name.toLowerCase(), kind: "breaks",
    cell: (row) => html`<a href=${metricHref(row.metric_id, row.project_id)}>
        <strong>${shownText(row.metric_name)}</strong></a>
      <div class="mono muted small">${shownText(row.metric_id)}</div>
      ${row.warning && html`<div class="small warn-text">⚠ ${visible(row.warning)}</div>`}`,
  },
  {
    name: "project", label: "Project", sort: (row) => row.project_id, kind: "breaks",
    cell: (row) => row.project_id,
  },
  {
    name: "last", label: "Last value", num: true, sort: (row) => row.last, kind: "nowrap",
    cell: (row) => html`<strong>${figure(row.last)}</strong>${row.unit
      ? html` <span class="muted">${shownText(row.unit, 32)}</span>` : null}`,
  },
  {
    name: "course", label: "Last 48 hours",
    cell: (row) => html`<${Sparkline} values=${row.course ?? []} width=${120}
      label=${`Course of ${row.metric_name}`} />`,
  },
  { name: "points", label: "Points", num: true, sort: (row) => row.count, cell: (row) => count(row.count) },
  {
    name: "seen", label: "Newest", sort: (row) => row.last_time, kind: "nowrap",
    cell: (row) => html`<span title=${time(row.last_time)}>${ago(row.last_time)}</span>`,
  },
];

const actions = (row) => html`<span class="row nowrap row-end actions-two">
  <a class="btn btn-small" aria-label=${`Add a monitor of ${row.metric_name}`} href=${addMonitorHref({
    kind: "metric", metric: row.metric_id, project: row.project_id, name: row.metric_name,
  })}>+ Monitor</a>
  <a class="btn btn-small" aria-label=${`Add ${row.metric_name} to a dashboard`} href=${addWidgetHref({
    kind: "series", title: row.metric_name,
    source: { from: "metric", metric_id: row.metric_id, project: row.project_id, value: "avg" },
  })}>+ Dashboard</a>
</span>`;

const CURL = (url) => `curl -X POST '${url}/api/webhooks/custom' \\
  -H 'Authorization: Bearer YOUR_API_KEY' -H 'Content-Type: application/json' \\
  -d '{"projectId": "default", "metrics": [{"metricId": "queue_length",
       "metricName": "Queue length", "value": 42, "unit": "jobs"}]}'`;

function NoMetrics() {
  const [url] = useState(screen.intakeUrl);
  return html`<${Empty} title="No metric has arrived yet" actions=${screen.isAdmin
    ? html`<a class="btn btn-primary" href="/settings/webhooks?add=1">Connect</a>` : null}>
      Connect a webhook, then send it a number. It is listed here by itself.<//>
    <${Code} text=${CURL(url)} label="Copy curl" />`;
}

mount(Metrics);
