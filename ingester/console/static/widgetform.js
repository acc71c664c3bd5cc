// The form of a widget, with the widget as it would be beside it.
import { html, useRef, useState } from "./ui.js";
import { get, useResource } from "./api.js";
import { Editor, lqlCompletion } from "./editor.js";
import { Dialog } from "./feedback.js";
import { Field } from "./forms.js";
import { EVENT_FIELDS, EVENT_VALUES, METRIC_VALUES } from "./queries.js";
import { SCHEMA } from "./sqlresult.js";
import { KINDS, WidgetCard } from "./widgets.js";

const SOURCES = [
  { value: "metric", label: "A metric" },
  { value: "events", label: "Events" },
  { value: "logs", label: "Logs" },
  { value: "sql", label: "SQL" },
  { value: "metrics", label: "Every metric" },
];
const STYLES = ["line", "area", "bars", "stacked"].map((value) => ({ value, label: value }));
const INTERVALS = ["auto", "hour", "day", "week", "month"].map((value) => ({ value, label: value }));
const EMPTY = {
  metric: { metric_id: "", project: "", value: "avg", group_by: "", filter: "", interval: "auto" },
  events: { q: "", value: "events", group_by: "", interval: "auto" },
  logs: { q: "", group_by: "" },
  sql: { sql: "SELECT bucket, sum(events) AS events\nFROM events_hourly\nWHERE bucket >= $since AND"
    + " bucket < $until\nGROUP BY ALL ORDER BY bucket" },
  metrics: { project: "", value: "avg" },
};

/** A widget with every field: as the API gives it, or as an address or another screen wrote it. */
export function wholeWidget(given) {
  const from = EMPTY[given?.source?.from] ? given.source.from : "events";
  return {
    id: "", title: "", kind: "series", style: "line", unit: "", width: 6, height: 3,
    ...given,
    source: { from, ...EMPTY[from], ...given?.source },
  };
}

/** `onSave(widget)`: whether it can be kept is told when the dashboard is saved. */
export function WidgetDialog({ initial, range, onSave, onClose, action = "Add widget" }) {
  const [widget, setWidget] = useState(() => wholeWidget(initial));
  const form = useRef(null);
  const set = (changes) => setWidget({ ...widget, ...changes });
  const setSource = (changes) => set({ source: { ...widget.source, ...changes } });
  const { source } = widget;
  const chooseFrom = (from) => set({
    source: { from, ...EMPTY[from] },
    kind: from === "metrics" ? "series" : widget.kind === "logs" ? "series" : widget.kind,
    width: from === "metrics" ? 12 : widget.width,
  });
  const kinds = source.from === "metrics"
    ? KINDS.filter((one) => one.value === "series")
    : source.from === "logs" || source.from === "events"
      ? KINDS
      : KINDS.filter((one) => one.value !== "logs");
  const isWhole = source.from !== "metric" || source.metric_id !== "";
  return html`<${Dialog} title=${action} onClose=${onClose} wide>
    <form class="widget-form" ref=${form} onSubmit=${(event) => {
      event.preventDefault();
      onSave(widget);
    }}>
      <div class="stack">
        <${Field} name="title" label="Title" value=${widget.title} maxlength=${256}
          onValue=${(title) => set({ title })} placeholder="Left empty, it is what it shows" />
        <div class="fields">
          <${Field} name="origin" label="Data of" kind="select" options=${SOURCES} value=${source.from}
            onValue=${chooseFrom} />
          <${Field} name="kind" label="Shown as" kind="select" options=${kinds} value=${widget.kind}
            onValue=${(kind) => set({ kind })} />
          ${widget.kind === "series" && html`<${Field} name="style" label="Drawn as" kind="select"
            options=${STYLES} value=${widget.style} onValue=${(style) => set({ style })} />`}
        </div>
        <${SourceFields} widget=${widget} set=${setSource} />
        <div class="fields">
          <${Field} name="unit" label="Unit" value=${widget.unit} maxlength=${32}
            onValue=${(unit) => set({ unit })} hint="Empty: as the data says." />
        </div>
      </div>
      <div class="widget-preview">
        ${isWhole
          ? html`<${WidgetCard} widget=${widget} range=${range} height=${260} />`
          : html`<p class="widget-none muted">Choose a metric</p>`}
      </div>
      <div class="dialog-foot">
        <button class="btn" type="button" onClick=${onClose}>Cancel</button>
        <button class="btn btn-primary" disabled=${!isWhole}>${action}</button>
      </div>
    </form>
  <//>`;
}

function SourceFields({ widget, set }) {
  const { source } = widget;
  switch (source.from) {
    case "metric": return html`<${MetricFields} source=${source} set=${set} />`;
    case "events": return html`<${EventFields} widget=${widget} set=${set} />`;
    case "logs":
      return html`<${Query} label="Query (LQL)" value=${source.q} table="logs"
          onChange=${(q) => set({ q })} />
        ${widget.kind !== "logs" && html`<${Field} name="group_by" label="Group by"
          value=${source.group_by} mono onValue=${(group_by) => set({ group_by })}
          placeholder="level" hint="A field, as service or metadata.host." />`}`;
    case "sql":
      return html`<div class="field"><span class="legend">SQL</span>
        <${Editor} label="SQL" language="sql" schema=${SCHEMA} multiline value=${source.sql}
          onChange=${(sql) => set({ sql })} />
        <p class="hint">One SELECT. <code>$since</code> and <code>$until</code> stand for the span.</p>
      </div>`;
    default:
      return html`<div class="fields">
        <${Field} name="value" label="Value" kind="select" options=${options(METRIC_VALUES)}
          value=${source.value} onValue=${(value) => set({ value })} />
        <${Field} name="project" label="Project" value=${source.project}
          onValue=${(project) => set({ project })} hint="Empty: of all projects." />
      </div>`;
  }
}

const options = (values) => values.map((value) => ({ value, label: value }));

function MetricFields({ source, set }) {
  const listed = useResource((abort) => get("/metrics", { limit: 1 }, { signal: abort }));
  const metrics = listed.data?.metrics ?? [];
  const chosen = JSON.stringify([source.project, source.metric_id]);
  const known = metrics.map((metric) => ({
    value: JSON.stringify([metric.project_id, metric.metric_id]),
    label: `${metric.metric_name} (${metric.project_id} / ${metric.metric_id})`,
  }));
  if (!known.some((one) => one.value === chosen)) {
    known.unshift({ value: chosen, label: source.metric_id || "Choose…" });
  }
  return html`
    <${Field} name="metric" label="Metric" kind="select" options=${known} value=${chosen}
      onValue=${(text) => {
        const [project, metric_id] = JSON.parse(text);
        set({ project, metric_id });
      }} />
    <div class="fields">
      <${Field} name="value" label="Value" kind="select" options=${options(METRIC_VALUES)}
        value=${source.value} onValue=${(value) => set({ value })} />
      <${Field} name="interval" label="By" kind="select" options=${INTERVALS} value=${source.interval}
        onValue=${(interval) => set({ interval })} />
      <${Field} name="group_by" label="Group by" value=${source.group_by} mono
        onValue=${(group_by) => set({ group_by })} placeholder="metadata.host" />
    </div>`;
}

function EventFields({ widget, set }) {
  const { source } = widget;
  return html`
    <${Query} label="Query (LQL)" value=${source.q} table="events" onChange=${(q) => set({ q })} />
    ${widget.kind !== "logs" && html`<div class="fields">
      <${Field} name="value" label="Count" kind="select" options=${EVENT_VALUES} value=${source.value}
        onValue=${(value) => set({ value })} />
      <${Field} name="interval" label="By" kind="select" options=${INTERVALS} value=${source.interval}
        onValue=${(interval) => set({ interval })} />
      <${Field} name="group_by" label="Group by" kind="select" value=${source.group_by}
        options=${groupOptions(source.group_by)} onValue=${(group_by) => set({ group_by })} />
    </div>`}`;
}

/** Fields to group by; one that was written by hand stays among them. */
export function groupOptions(chosen) {
  const known = [
    { value: "", label: "nothing" },
    ...EVENT_FIELDS.map(({ name, label }) => ({ value: name, label })),
    { value: "source", label: "Source" },
  ];
  return known.some((one) => one.value === chosen)
    ? known
    : [...known, { value: chosen, label: chosen }];
}

function Query({ label, value, onChange, table }) {
  return html`<div class="field"><span class="legend">${label}</span>
    <${Editor} label=${label} language="lql" value=${value} onChange=${onChange}
      complete=${lqlCompletion[table]} placeholder="everything" />
  </div>`;
}
