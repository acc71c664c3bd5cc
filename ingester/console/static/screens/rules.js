// Rules: filters on what arrives; the form shows what would have matched lately.
import { Empty, Fragment, Head, Loaded, html, mount, useEffect, useMemo, useState } from "../ui.js";
import { get, useResource } from "../api.js";
import { Field } from "../forms.js";
import { Menu } from "../menu.js";
import { Plot } from "../plot.js";
import { Table } from "../table.js";
import { count, duration, plural, time } from "../format.js";
import {
  Clip, Declared, DurationField, QueryField, State, Told, WatchEditor, commonBody, commonStart,
  useDestinations, watchItems, watchScreen,
} from "../watch.js";

const TYPED_MS = 500;
const TABLES = ["logs", "events"].map((value) => ({ value, label: value }));

function List({ found, add, edit }) {
  const destinations = useDestinations();
  return html`<${Fragment}>
    <${Head} text="A filter on what arrives. A match opens an incident at once; further ones join it.">
      ${add}
    <//>
    <${Loaded} of=${found}>${({ rules }) => html`<section class="card card-flush">
      <${Table} label="Rules" rows=${rules} rowKey=${(row) => row.id}
        columns=${columns(destinations.data?.destinations ?? [])}
        actions=${(row) => html`<${Menu} label=${`Actions for ${row.name}`} items=${[
          { label: "See what matches", href: searchHref(row) },
          ...watchItems("rules", row, { edit, reload: found.reload }),
        ]} />`}
        empty=${html`<${Empty} title="No rule looks on" actions=${add}>
          A rule is a search that looks at every log or event as it arrives.
        <//>`} />
    </section>`}<//>
  <//>`;
}

const searchHref = (row) =>
  `/${row.on === "events" ? "explorer" : "logs"}?q=${encodeURIComponent(row.lql)}`;

const columns = (destinations) => [
  { name: "state", label: "State", kind: "nowrap", cell: (row) => html`<${State} row=${row} />` },
  {
    name: "name", label: "Name", kind: "breaks", sort: (row) => row.name,
    cell: (row) => html`<strong>${row.name}</strong> <${Declared} file=${row.file} />`,
  },
  { name: "on", label: "Over", sort: (row) => row.on, cell: (row) => row.on },
  {
    name: "lql", label: "Query",
    cell: (row) => html`<${Clip} kind="mono" text=${row.lql} />`,
  },
  {
    name: "resolves", label: "Resolves after", num: true, sort: (row) => row.resolve_after_s,
    cell: (row) => duration(row.resolve_after_s * 1000),
  },
  {
    name: "told", label: "Tells",
    cell: (row) => html`<${Told} ids=${row.destinations} destinations=${destinations} />`,
  },
];

const startOf = (row, { kind: wanted, query: text }) => ({
  ...commonStart(row),
  on: row?.on ?? (wanted === "events" ? "events" : "logs"),
  lql: row?.lql ?? text ?? "",
  resolve_after_s: row?.resolve_after_s ?? 900,
});

const bodyOf = (values) => ({
  ...commonBody(values),
  on: values.on,
  lql: values.lql,
  resolve_after_s: Number(values.resolve_after_s),
});

function RuleForm({ row = null, asked = {}, onDone }) {
  return html`<${WatchEditor} kind="rules" what="rule" row=${row} body=${bodyOf} onDone=${onDone}
    start=${() => startOf(row, asked)} fields=${(parts) => html`<${Fields} ...${parts} />`}
    preview=${(parts) => html`<${Matches} ...${parts} />`} />`;
}

function Fields({ values, set, errorOf }) {
  return html`<${Fragment}>
    <${Field} name="on" label="Over" kind="select" options=${TABLES} value=${values.on}
      onValue=${(on) => set({ on })} />
    <${QueryField} key=${values.on} name="lql" label="Query" table=${values.on} value=${values.lql}
      onValue=${(lql) => set({ lql })} error=${errorOf("lql")}
      placeholder='level:>=error "disk full"' hint="LQL without a time: a rule looks at what arrives." />
    <${DurationField} name="resolve_after_s" label="Resolves after this long without a match"
      value=${values.resolve_after_s} error=${errorOf("resolve_after_s")?.message}
      onValue=${(resolve_after_s) => set({ resolve_after_s })} />
  <//>`;
}

function Matches({ values, setFault }) {
  const [asked, setAsked] = useState(values.lql);
  const { lql, on } = values;
  useEffect(() => {
    const timer = setTimeout(() => setAsked(lql), TYPED_MS);
    return () => clearTimeout(timer);
  }, [lql]);
  const found = useResource(async (signal) => {
    try {
      const range = { q: asked, since: "now-24h" };
      const [page, histogram] = await Promise.all([
        get(`/${on}`, { ...range, limit: 10 }, { signal }),
        get(`/${on}/histogram`, range, { signal }),
      ]);
      setFault(null);
      return { page, histogram };
    } catch (problem) {
      if (problem.name !== "AbortError" && problem.column) {
        problem.field = "lql";
        setFault(problem);
      }
      throw problem;
    }
  }, [asked, on], { enabled: asked.trim() !== "" });
  return html`<section class="card card-flush" aria-label="Matches">
    <div class="card-head"><h2>What matched in the last 24 hours</h2></div>
    <div class="card-body stack">
      ${asked.trim() === ""
        ? html`<p class="muted">Write a query: here is shown what it finds.</p>`
        : html`<${Loaded} of=${found}>${(data) => html`<${Found} ...${{ ...data, on }} />`}<//>`}
    </div>
  </section>`;
}

function Found({ page, histogram, on }) {
  const { times, values } = useMemo(() => filled(histogram), [histogram]);
  const series = useMemo(() => [{ label: on, values }], [values, on]);
  return html`<${Fragment}>
    <p class="verdict" role="status"><strong>${plural(histogram.count, "match", "matches")}</strong></p>
    <${Plot} kind="bars" times=${times} series=${series} height=${130} legend=${false}
      label=${`${count(histogram.count)} matches over time`} />
    ${page.rows.length > 0 && html`<${Table} label="Latest matches" rows=${page.rows}
      rowKey=${(row) => row.id} columns=${on === "logs" ? LOGS : EVENTS} />`}
  <//>`;
}

function filled({ bucket_seconds: step, since, until, buckets }) {
  const by = new Map(buckets.map((one) => [Date.parse(one.time) / 1000, one.count]));
  const first = Math.floor(Date.parse(since) / 1000 / step) * step;
  const last = Date.parse(until) / 1000;
  const times = [];
  for (let at = first; at < last; at += step) times.push(at);
  return { times, values: times.map((at) => by.get(at) ?? 0) };
}

const LOGS = [
  { name: "time", label: "Time", kind: "nowrap", cell: (row) => time(row.time) },
  {
    name: "level", label: "Level",
    cell: (row) => html`<span class=${`level level-${row.level}`}>${row.level}</span>`,
  },
  {
    name: "message", label: "Message",
    cell: (row) => html`<${Clip} kind="mono" text=${row.message} />`,
  },
];

const EVENTS = [
  { name: "time", label: "Time", kind: "nowrap", cell: (row) => time(row.created_at) },
  { name: "account", label: "Account", kind: "breaks", cell: (row) => row.account_id },
  { name: "action", label: "Action", kind: "breaks", cell: (row) => row.action },
];

mount(watchScreen({ kind: "rules", what: "rule", names: ["kind", "query"], Form: RuleForm, List }));
