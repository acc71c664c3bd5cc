// Events by period: a plot, what each group comes to, and the ways on from there.
import { Empty, html, screen, useMemo } from "../ui.js";
import { useResource } from "../api.js";
import { Choice, Pick } from "../choice.js";
import { compact, count, duration, figure } from "../format.js";
import { Plot, Sparkline, seriesColour } from "../plot.js";
import { EVENT_VALUES, addMonitorHref, addWidgetHref } from "../queries.js";
import { eventSeries, isAdditive } from "../series.js";
import { isoTime, setRange } from "../time.js";
import { urlParam } from "../url.js";
import { groupOptions } from "../widgetform.js";
import { CompleteUpTo, shownGroups, useUntilComplete } from "../widgets.js";
import { FilterBar, narrowTo, wholeQuery } from "./filter.js";

const value = urlParam("value", "events", { push: true });
const interval = urlParam("interval", "auto", { push: true });
const by = urlParam("by", "", { push: true });
const style = urlParam("style", "bars");
const view = urlParam("view", "series", { push: true });

const INTERVALS = [
  ["auto", "Auto"], ["hour", "Hour"], ["day", "Day"], ["week", "Week"], ["month", "Month"],
];
const STYLES = [
  { value: "bars", label: "Bars" }, { value: "line", label: "Lines" }, { value: "area", label: "Areas" },
];

export function SeriesTab({ range }) {
  const query = wholeQuery();
  const source = {
    from: "events", q: query, value: value.value, group_by: by.value, interval: interval.value,
  };
  const found = useResource(
    async (abort) => ({ ...await eventSeries(source, range, abort), asked: source }),
    [JSON.stringify(source), range.since.value, range.until.value],
  );
  useUntilComplete(found);
  const isRefused = found.error?.status === 400 || found.error?.status === 422;
  // Old rows stay until others are here, and are named by what was asked for them.
  const asked = found.data?.asked ?? source;
  const what = EVENT_VALUES.find((one) => one.value === asked.value)?.label ?? "Events";
  const groups = useMemo(
    () => shownGroups(found.data?.groups ?? [], asked.value === "events").map((group) => ({
      ...group, label: asked.group_by ? group.label : what,
    })),
    [found.data],
  );
  return html`
    <${FilterBar} range=${range} fault=${found.error} />
    <section class="card card-flush" aria-label="Series">
      <div class="card-head">
        <div class="toolbar">
          <${Choice} label="Count" state=${value}
            options=${EVENT_VALUES.map((one) => [one.value, one.label])} />
          <${Pick} label="Group by" text="by" state=${by} options=${groupOptions(by.value)} />
          <${Choice} label="Period" state=${interval} options=${INTERVALS} />
          <${Pick} label="Drawn as" text="as" state=${style} options=${STYLES} />
        </div>
        <div class="row nowrap">
          ${screen.isAdmin && html`<a class="btn btn-small"
            href=${addMonitorHref({ kind: "events", query, group_by: by.value })}>+ Monitor</a>
          <a class="btn btn-small" href=${addWidgetHref({
            kind: "series", style: drawnAs(source), source,
          }, range)}>+ Dashboard</a>`}
        </div>
      </div>
      <div class="card-body">
        ${found.data
          ? groups.length
            ? html`<${Plot} times=${found.data.times} series=${groups} kind=${drawnAs(asked)} height=${280}
                label=${`${what} by ${found.data.interval}`} legend=${true}
                onZoom=${(from, until) => setRange(range, isoTime(from), isoTime(until))} />`
            : html`<${Empty} title="No events in this span">
                Widen the span, or clear the filter. Events arrive through a
                ${" "}<a href="/settings/sources">source</a>, or by <code>ingester upload</code>.
              <//>`
          : found.loading && html`<p class="loading" role="status">Loading…</p>`}
      </div>
      ${found.data && html`<footer class="card-foot row">
        <${CompleteUpTo} at=${found.data.completeUpTo} />
        <span class="small muted">${found.data.answeredFrom === "rollups" ? "from rollups" : "from rows"},
          ${" "}${duration(found.data.ms)}${found.data.truncated
            ? ", the newest 10,000 points only" : ""}</span>
      </footer>`}
    </section>
    ${found.data && groups.length > 0 && !isRefused && html`<${Groups} ...${{
      groups: found.data.groups, found: found.data, asked, what,
    }} />`}`;
}

const drawnAs = (source) => (style.value === "bars" && source.group_by ? "stacked" : style.value);

function Groups({ groups, found, asked, what }) {
  const isSum = isAdditive(asked.value);
  const total = groups.reduce((sum, group) => sum + (group.total ?? 0), 0);
  const field = asked.group_by;
  const drill = (group) => {
    if (field && group.key !== "(other)") narrowTo(field, group.key);
    view.value = "events";
  };
  const narrow = (group) => {
    narrowTo(field, group.key);
    by.value = "";
  };
  return html`<section class="card card-flush" aria-label="Groups">
    <div class="table-wrap" tabindex="0" role="region" aria-label="What each group comes to">
      <table class="table">
        <thead><tr>
          <th scope="col">${field ? labelOf(field) : "All"}</th>
          <th scope="col">Course</th>
          <th scope="col" class="num">${isSum ? what : `Newest ${found.interval}`}</th>
          ${isSum && field && html`<th scope="col" class="num">Share</th>`}
          <th scope="col" class="num">Highest</th>
          <th scope="col" class="num">Mean</th>
          <th><span class="sr-only">Actions</span></th>
        </tr></thead>
        <tbody>${groups.slice(0, 60).map((group, at) => {
          const values = group.values;
          return html`<tr key=${JSON.stringify(group.key) ?? ""}>
            <td class="breaks">
              ${field && groups.length > 1 && html`<span class="swatch" aria-hidden="true"
                style=${{ background: at < 11 ? seriesColour(at) : "var(--muted)" }}></span>`}
              ${field && group.key !== "(other)"
                ? html`<button class="link" type="button" title="Only this one"
                    onClick=${() => narrow(group)}>${group.label}</button>`
                : group.label || "All events"}
            </td>
            <td><${Sparkline} values=${values} width=${120} /></td>
            <td class="num">${count(isSum ? group.total : values.at(-1))}</td>
            ${isSum && field && html`<td class="num muted">
              ${total ? `${((group.total / total) * 100).toFixed(1)} %` : "–"}</td>`}
            <td class="num">${compact(Math.max(...values))}</td>
            <td class="num">${figure(meanOf(values))}</td>
            <td class="actions"><button class="btn btn-small" type="button"
              onClick=${() => drill(group)}>Events</button></td>
          </tr>`;
        })}</tbody>
      </table>
    </div>
  </section>`;
}

const meanOf = (values) =>
  Number((values.reduce((sum, one) => sum + one, 0) / values.length).toPrecision(3));

const labelOf = (field) => groupOptions(field).find((one) => one.value === field)?.label ?? field;
