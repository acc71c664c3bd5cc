// Widgets: one question with its answer as a number, a series, bars, a table or a list.
//
// A widget is what the API keeps (`management/widgets.py`): `{id, title, kind, source, style, unit,
// width, height}`, its source told apart by `from`.
import { Failure, Fragment, html, useEffect, useMemo, useRef, useState } from "./ui.js";
import { get, useResource } from "./api.js";
import { compact, count, figure, time } from "./format.js";
import { shownText } from "./lines.js";
import { Plot, Sparkline } from "./plot.js";
import { explorerHref, metricHref, overviewTurn, refreshed } from "./queries.js";
import { eventSeries, isAdditive, logSeries, metricSeries } from "./series.js";
import { ResultTable, plotted, ranked, rolesOf, runSql } from "./sqlresult.js";

export const ROW_PX = 88;
export const GAP_PX = 12;
const GROUPS_SHOWN_MAX = 12;
const METRICS_SHOWN_MAX = 60;
const LIST_ROWS = 50;

export const KINDS = [
  { value: "number", label: "Number" },
  { value: "series", label: "Series" },
  { value: "bar", label: "Bars" },
  { value: "table", label: "Table" },
  { value: "logs", label: "List" },
];

/** How high the inside of a widget is. */
export const heightOf = (widget) => widget.height * ROW_PX + (widget.height - 1) * GAP_PX;

/** What the widget's source says of a span. */
export async function loadWidget({ kind, source: given }, range, abort) {
  // One figure is of all groups together.
  const source = kind === "number" ? { ...given, group_by: "" } : given;
  if (kind === "logs") return rowsOf(source, range, abort);
  switch (source.from) {
    case "metric": return metricSeries(source, range, abort);
    case "events": return eventSeries(source, range, abort);
    case "logs": return logSeries(source, range, abort);
    case "sql": return { result: await runSql(source.sql, range, abort) };
    default: return {};
  }
}

async function rowsOf(source, range, abort) {
  const until = range.until.value === "now" ? "" : range.until.value;
  const query = { q: source.q, since: range.since.value, until, limit: LIST_ROWS };
  const told = await overviewTurn(() => get(`/${source.from}`, query, { signal: abort }), abort);
  return { rows: told.rows };
}

/** Whether an element has come into view; it stays so. */
function useSeen(place) {
  const [isSeen, setSeen] = useState(false);
  useEffect(() => {
    const watch = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) setSeen(true);
    }, { rootMargin: "200px" });
    watch.observe(place.current);
    return () => watch.disconnect();
  }, []);
  return isSeen;
}

/** A widget in its frame. `menu`: what stands at its head's end; `onComplete(iso)`, `onZoom`. */
export function WidgetCard({ widget, range, menu, onComplete, onZoom, height }) {
  const place = useRef(null);
  const isSeen = useSeen(place);
  const { kind, source } = widget;
  const found = useResource(
    (abort) => loadWidget(widget, range, abort),
    [JSON.stringify([kind, source]), range.since.value, range.until.value, refreshed.value],
    { enabled: isSeen && source.from !== "metrics" },
  );
  useUntilComplete(found);
  const upTo = found.data?.completeUpTo;
  useEffect(() => {
    if (upTo) onComplete?.(widget.id, upTo);
  }, [upTo]);
  const title = shownText(widget.title || titleOf(widget, found.data));
  const href = widgetHref(widget, range);
  return html`<section class="widget" ref=${place} aria-label=${title}>
    <header class="widget-head">
      <h2 class="clip" title=${title}>${href ? html`<a href=${href}>${title}</a>` : title}</h2>
      ${found.loading && found.data && html`<span class="widget-busy" role="status">
        <span class="sr-only">Loading</span></span>`}
      ${menu}
    </header>
    <div class="widget-body" tabindex="0" role="group" aria-label=${`${title}: content`}>
      ${source.from === "metrics"
        ? html`<${EveryMetric} widget=${widget} range=${range} isSeen=${isSeen} onComplete=${onComplete} />`
        : html`<${Body} widget=${widget} found=${found} onZoom=${onZoom} title=${title}
            height=${(height ?? heightOf(widget)) - 46} range=${range} />`}
    </div>
  </section>`;
}

/** What a widget is about, where nobody has named it. */
export function titleOf({ source, kind }, data) {
  switch (source.from) {
    case "metric": return `${data?.name ?? source.metric_id} · ${source.value}`;
    case "events":
      return `${source.value[0].toUpperCase()}${source.value.slice(1)}`
        + (source.group_by ? ` by ${source.group_by.replace(/^(?:m|metadata)\./, "")}` : "")
        + (source.q ? ` · ${source.q}` : "");
    case "logs": return `${kind === "logs" ? "Logs" : "Logs by level"}${source.q ? ` · ${source.q}` : ""}`;
    case "sql": return "SQL";
    default: return "Every metric";
  }
}

/** The screen that shows the same with more around it. */
function widgetHref({ source, kind }, range) {
  const span = { since: range.since.value, until: range.until.value };
  switch (source.from) {
    case "metric":
      return `${metricHref(source.metric_id, source.project)}${source.project ? "&" : "?"}`
        + new URLSearchParams({ ...span, value: source.value });
    case "events":
      return explorerHref({
        ...span, q: source.q ?? "", value: source.value, by: source.group_by ?? "",
        ...(kind === "logs" ? { view: "events" } : {}),
      });
    case "logs": return `/logs?${new URLSearchParams({ ...span, q: source.q ?? "" })}`;
    case "sql": return explorerHref({ ...span, view: "sql", sql: source.sql });
    default: return "/custom-metrics";
  }
}

function Body({ widget, found, height, onZoom, title, range }) {
  if (found.error) return html`<${Failure} error=${found.error} retry=${found.reload} />`;
  if (!found.data) return html`<p class="loading small" role="status">Loading…</p>`;
  const props = { widget, data: found.data, height, onZoom, title, range };
  switch (widget.kind) {
    case "number": return html`<${NumberView} ...${props} />`;
    case "bar": return html`<${BarView} ...${props} />`;
    case "table": return html`<${TableView} ...${props} />`;
    case "logs": return html`<${ListView} ...${props} />`;
    default: return html`<${SeriesView} ...${props} />`;
  }
}

const PERIOD = { minute: "this minute", hour: "this hour", day: "today", week: "this week",
  month: "this month" };

function NumberView({ widget, data, height }) {
  const { source } = widget;
  if (data.result) {
    const { figures } = rolesOf(data.result);
    const value = data.result.rows[0]?.[figures[0] ?? 0];
    return html`<div class="number"><${Figure} value=${value ?? null} unit=${widget.unit} /></div>`;
  }
  const group = data.groups[0];
  const isWhole = source.from === "logs" || isAdditive(source.value);
  const values = group?.values ?? [];
  const empty = source.from === "metric" && source.value !== "count" ? null : 0;
  const total = source.from === "logs"
    ? data.groups.reduce((sum, one) => sum + one.total, 0)
    : isWhole || source.value === "last" ? group?.total ?? empty : values.at(-1) ?? empty;
  const isLatest = !isWhole && source.value !== "last";
  const before = values.at(-2);
  const note = isLatest
    ? [PERIOD[data.interval], Number.isFinite(before) && `${figure(before)} before`].filter(Boolean)
      .join(", ")
    : "";
  return html`<div class="number">
    <${Figure} value=${total} unit=${widget.unit || data.unit} note=${note} />
    ${values.length > 2
      ? html`<${Sparkline} values=${values} width=${height > 60 ? 120 : 96} height=${34} label="Course" />`
      : null}
  </div>`;
}

function Figure({ value, unit, note }) {
  const shown = typeof value === "number"
    ? Math.abs(value) >= 1e6 ? compact(value) : figure(value)
    : value === null ? "–" : shownText(value, 40);
  return html`<div class="stat">
    <span class="stat-value" title=${typeof value === "number" ? count(value) : null}>${shown}
      ${unit ? html` <small class="muted">${unit}</small>` : null}</span>
    ${note && html`<span class="stat-label">${note}</span>`}
  </div>`;
}

/** The largest groups, the rest gathered: more cannot be told apart. */
export function shownGroups(groups, isAdded, most = GROUPS_SHOWN_MAX) {
  if (groups.length <= most) return groups;
  const [shown, rest] = [groups.slice(0, most - 1), groups.slice(most - 1)];
  if (!isAdded) return shown;
  const values = rest[0].values.map((_, at) =>
    rest.reduce((sum, one) => sum + (one.values[at] ?? 0), 0));
  return [...shown, {
    key: "(others)", label: `${count(rest.length)} others`, values, isRest: true,
    total: rest.reduce((sum, one) => sum + (one.total ?? 0), 0), colour: "--muted",
  }];
}

function SeriesView({ widget, data, height, onZoom, title }) {
  const found = useMemo(() => (data.result ? plotted(data.result) : data), [data]);
  const isAdded = widget.source.value !== "avg" && widget.source.from !== "metric";
  const groups = useMemo(
    () => (found ? named(shownGroups(found.groups, isAdded), title) : []), [found, title],
  );
  if (!found) {
    return html`<p class="muted small">A series needs a column of times and one of figures.</p>`;
  }
  if (!groups.length) return html`<p class="widget-none muted">Nothing in this span</p>`;
  const rows = groups.length > 1 ? Math.min(2, Math.ceil(groups.length / 4)) : 1;
  return html`<${Plot} times=${found.times} series=${groups} label=${title}
    kind=${widget.source.from === "logs" && widget.style === "line" ? "stacked" : widget.style}
    height=${Math.max(90, height - 8 - rows * 24)} unit=${widget.unit || data.unit || ""}
    onZoom=${onZoom} sync="dashboard" spanGaps=${widget.source.from !== "events"} />`;
}

const named = (groups, title) => groups.map((group) => ({ ...group, label: group.label || title }));

function BarView({ data, widget }) {
  const groups = data.result ? ranked(data.result) : data.groups;
  if (!groups) return html`<p class="muted small">Bars need a name and a figure in each row.</p>`;
  if (!groups.length) return html`<p class="widget-none muted">Nothing in this span</p>`;
  return html`<${Bars} groups=${groups.slice(0, 50)} unit=${widget.unit || data.unit} />`;
}

/** Names with bars as long as their figures. `onPick(group)` makes them buttons. */
export function Bars({ groups, unit = "", onPick }) {
  const most = Math.max(...groups.map((group) => Math.abs(group.total ?? 0)), 1e-12);
  return html`<ol class="bars">
    ${groups.map((group) => html`<li>
      <span class="bars-name clip" title=${group.label}>${onPick
        ? html`<button class="link" type="button" onClick=${() => onPick(group)}>${group.label}</button>`
        : group.label || "(all)"}</span>
      <span class="bars-track"><span style=${{
        width: `${(Math.abs(group.total ?? 0) / most) * 100}%`,
      }}></span></span>
      <span class="num">${figure(group.total)}${unit ? ` ${unit}` : ""}</span>
    </li>`)}
  </ol>`;
}

function TableView({ data, widget, title }) {
  if (data.result) return html`<${ResultTable} result=${data.result} label=${title} />`;
  if (!data.groups.length) return html`<p class="widget-none muted">Nothing in this span</p>`;
  const by = (widget.source.group_by ?? "").replace(/^(?:m|metadata)\./, "") || "Series";
  return html`<table class="table table-tight">
    <thead><tr><th scope="col">${by}</th><th scope="col">Course</th>
      <th scope="col" class="num">${widget.source.value ?? "logs"}</th></tr></thead>
    <tbody>${data.groups.slice(0, 100).map((group) => html`<tr>
      <td class="breaks">${group.label || title}</td>
      <td><${Sparkline} values=${group.values} /></td>
      <td class="num">${figure(group.total)}</td>
    </tr>`)}</tbody>
  </table>`;
}

function ListView({ data, widget }) {
  if (!data.rows.length) return html`<p class="widget-none muted">Nothing in this span</p>`;
  const isLogs = widget.source.from === "logs";
  return html`<ol class="log-list mono">
    ${data.rows.map((row) => html`<li key=${row.id}>
      <span class="muted nowrap">${time(isLogs ? row.time : row.created_at)}</span>
      ${isLogs
        ? html`<${Fragment}><span class=${`level level-${row.level}`}>${row.level}</span>
            <span class="log-text">${shownText(row.message ?? "")}</span><//>`
        : html`<${Fragment}><span class="level">${shownText(row.action, 80)}</span>
            <span class="log-text">${shownText(`${row.account_id} · ${row.user_id}`)}</span><//>`}
    </li>`)}
  </ol>`;
}

/** The metrics that there are, those that were seen last in front. */
export function useMetrics(project, enabled) {
  const found = useResource(
    (abort) => get("/metrics", { limit: 1, project }, { signal: abort }),
    [project, refreshed.value], { enabled, everyMs: 15_000 },
  );
  const metrics = found.data?.metrics.toSorted(
    (left, right) => left.metric_name.localeCompare(right.metric_name),
  );
  return { ...found, metrics };
}

/** A widget of every metric as one widget for each. */
export function expanded(widget, metrics) {
  return metrics.slice(0, METRICS_SHOWN_MAX).map((metric) => ({
    id: `${widget.id} ${metric.project_id} ${metric.metric_id}`,
    kind: "series",
    style: widget.style,
    title: `${metric.metric_name}${metric.unit ? ` (${metric.unit})` : ""}`,
    unit: "",
    source: {
      from: "metric", metric_id: metric.metric_id, project: metric.project_id,
      value: widget.source.value, interval: "auto",
    },
    width: 4,
    height: 3,
  }));
}

function EveryMetric({ widget, range, isSeen, onComplete }) {
  const { metrics, error, reload } = useMetrics(widget.source.project, isSeen);
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!metrics) return html`<p class="loading small" role="status">Loading…</p>`;
  if (!metrics.length) {
    return html`<p class="widget-none muted">No metric has arrived yet; each will have its plot here.</p>`;
  }
  return html`<div class="metric-grid">
    ${expanded(widget, metrics).map((one) => html`<${WidgetCard} key=${one.id} range=${range} height=${240}
      onComplete=${onComplete} widget=${one} />`)}
    ${metrics.length > METRICS_SHOWN_MAX && html`<p class="muted">${METRICS_SHOWN_MAX} of
      ${" "}${count(metrics.length)}; <a href="/custom-metrics">Metrics</a> has them all.</p>`}
  </div>`;
}

const LAG_S = 5;
const LOOK_AGAIN_MS = 3000;

/** Ask again soon while an answer lacks what has just been stored. */
export function useUntilComplete({ data, reload }) {
  useEffect(() => {
    const at = data?.completeUpTo ?? data?.complete_up_to;
    if (!at || Date.now() - Date.parse(at) < LAG_S * 1000) return undefined;
    const timer = setTimeout(() => document.hidden || reload(), LOOK_AGAIN_MS);
    return () => clearTimeout(timer);
  }, [data]);
}

/** "Complete up to hh:mm", of the least complete of several. */
export function CompleteUpTo({ at }) {
  if (!at) return null;
  if (!(Date.parse(at) > 0)) {
    return html`<span class="small muted nowrap">Complete up to –, being counted</span>`;
  }
  const isToday = time(at, "day") === time(Date.now(), "day");
  const shown = isToday ? time(at, "clock").slice(0, 5) : time(at).slice(0, 16);
  return html`<span class="small muted nowrap" title=${time(at)}>Complete up to
    ${" "}<time datetime=${at}>${shown}</time></span>`;
}
