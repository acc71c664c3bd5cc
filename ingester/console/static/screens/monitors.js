// Monitors: values in windows, judged; the form with its back-test.
import { Empty, Fragment, Head, Loaded, html, mount, useState } from "../ui.js";
import { post, useResource } from "../api.js";
import { Judged } from "../backtest.js";
import { Dialog } from "../feedback.js";
import { figure, plural } from "../format.js";
import { Menu } from "../menu.js";
import { MonitorForm, conditionText, targetText } from "../monitorform.js";
import { Table } from "../table.js";
import { Clip, Declared, State, Told, When, useDestinations, watchItems, watchScreen } from "../watch.js";

function List({ found, add, edit }) {
  const destinations = useDestinations();
  const [tested, setTested] = useState(null);
  return html`<${Fragment}>
    <${Head} text="A value in windows of time that fires when it is too high, too low, or missing.">
      ${add}
    <//>
    <${Loaded} of=${found}>${({ monitors }) => html`<section class="card card-flush">
      <${Table} label="Monitors" rows=${monitors} rowKey=${(row) => row.id}
        columns=${columns(destinations.data?.destinations ?? [])}
        detail=${(row) => html`<${Groups} row=${row} />`}
        actions=${(row) => html`<${Menu} label=${`Actions for ${row.name}`} items=${[
          { label: "Back-test…", onSelect: () => setTested(row) },
          ...watchItems("monitors", row, { edit, reload: found.reload }),
        ]} />`}
        empty=${html`<${Empty} title="Nothing is monitored yet" actions=${add}>
          A monitor watches a metric, how many logs or events match, how fresh a table is, or what a
          SELECT says. Before it is saved it shows when it would have fired.
        <//>`} />
    </section>`}<//>
    ${tested && html`<${TestDialog} row=${tested} onClose=${() => setTested(null)} />`}
  <//>`;
}

const columns = (destinations) => [
  { name: "state", label: "State", kind: "nowrap", cell: (row) => html`<${State} row=${row} />` },
  {
    name: "name", label: "Name", kind: "breaks", sort: (row) => row.name,
    cell: (row) => html`<strong>${row.name}</strong> <${Declared} file=${row.file} />`,
  },
  {
    name: "target", label: "Watches",
    cell: (row) => html`<${Clip} kind="mono" text=${targetText(row.target)} />`,
  },
  {
    name: "condition", label: "Fires when", kind: "nowrap",
    cell: (row) => html`<span class="mono">${conditionText(row)}</span>`,
  },
  { name: "value", label: "Last value", num: true, cell: (row) => lastValue(row) },
  {
    name: "judged", label: "Judged until", sort: (row) => row.judged_until ?? "",
    cell: (row) => html`<${When} at=${row.judged_until} />`,
  },
  {
    name: "told", label: "Tells",
    cell: (row) => html`<${Told} ids=${row.destinations} destinations=${destinations} />`,
  },
];

function lastValue(row) {
  if (row.groups.length === 1 && !row.group_by.length) return figure(row.groups[0].value);
  if (!row.group_by.length) return "–";
  const firing = row.groups.filter((one) => one.firing).length;
  return html`<span class="nowrap">${firing} of ${plural(row.groups.length, "group")}</span>`;
}

function Groups({ row }) {
  const shown = row.groups.toSorted((left, right) => right.firing - left.firing).slice(0, 50);
  return html`<div class="stack">
    ${row.description && html`<p class="breaks">${row.description}</p>`}
    ${row.error && html`<p class="notice notice-warn">${row.error}</p>`}
    ${shown.length > 0 && html`<${Table} label="Groups" rows=${shown}
      rowKey=${(one) => JSON.stringify(one.group)} columns=${GROUPS} />`}
    ${row.groups.length > shown.length && html`<p class="small muted">
      ${plural(row.groups.length - shown.length, "more group")}.
    </p>`}
    ${!shown.length && !row.error && html`<p class="muted">No window has been judged yet.</p>`}
  </div>`;
}

const GROUPS = [
  {
    name: "group", label: "Group", kind: "breaks",
    cell: (one) => (one.group ? Object.entries(one.group).map(([name, value]) => `${name}=${value}`)
      .join(" · ") : "all"),
  },
  { name: "value", label: "Last value", num: true, cell: (one) => figure(one.value) },
  {
    name: "firing", label: "State",
    cell: (one) => (one.firing ? html`<span class="badge badge-bad">▲ Firing</span>` : "quiet"),
  },
];

function TestDialog({ row, onClose }) {
  const found = useResource((signal) => post(`/monitors/${row.id}/backtest`, {}, { signal }), [row.id]);
  return html`<${Dialog} title=${`Back-test of ${row.name}`} onClose=${onClose} wide>
    <${Loaded} of=${found} label="Judging…">
      ${(answer) => html`<${Judged} answer=${answer} monitor=${row} />`}
    <//>
  <//>`;
}

// How other screens open the form ("+ Monitor").
const NAMES = ["kind", "query", "metric", "project", "aggregate", "group_by", "name"];

mount(watchScreen({ kind: "monitors", what: "monitor", names: NAMES, Form: MonitorForm, List }));
