// Monitors: values in windows, judged; the form with its back-test.
import { Empty, Fragment, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { get, post, useResource } from "../api.js";
import { Judged } from "../backtest.js";
import { Dialog } from "../feedback.js";
import { figure, plural } from "../format.js";
import { Menu } from "../menu.js";
import { MonitorForm, conditionText, targetText } from "../monitorform.js";
import { Table } from "../table.js";
import { setParams, urlParam } from "../url.js";
import { Clip, Declared, State, Told, When, useDestinations, watchItems } from "../watch.js";

// `?new&kind=logs&query=…` is how other screens open the form ("+ monitor").
const asksNew = urlParam("new", null, { push: true });
const editing = urlParam("edit", "", { push: true });
const kind = urlParam("kind");
const query = urlParam("query");
const metric = urlParam("metric");
const project = urlParam("project");
const aggregate = urlParam("aggregate");
const groupBy = urlParam("group_by");
const wantedName = urlParam("name");

const closeForm = () => setParams({
  new: null, edit: "", kind: "", query: "", metric: "", project: "", aggregate: "", group_by: "", name: "",
});

function Monitors() {
  const found = useResource((signal) => get("/monitors", {}, { signal }), [], { everyMs: 5000 });
  const done = () => {
    closeForm();
    found.reload();
  };
  if (asksNew.value !== null) {
    const asked = {
      kind: kind.value, query: query.value, metric: metric.value, project: project.value,
      aggregate: aggregate.value, group_by: groupBy.value, name: wantedName.value || undefined,
    };
    return html`<${MonitorForm} asked=${asked} onDone=${done} />`;
  }
  if (editing.value) {
    return html`<${Loaded} of=${found}>${({ monitors }) => {
      const row = monitors.find((one) => one.id === editing.value);
      if (!row) return html`<${Gone} />`;
      return html`<${MonitorForm} key=${row.id} row=${row} onDone=${done} />`;
    }}<//>`;
  }
  return html`<${List} found=${found} />`;
}

const Gone = () => html`<${Empty} title="There is no such monitor"
  actions=${html`<a class="btn" href="/alerts/monitors">All monitors</a>`}>
  It may have been deleted.
<//>`;

function List({ found }) {
  const destinations = useDestinations();
  const [tested, setTested] = useState(null);
  const add = screen.isAdmin && html`<button class="btn btn-primary" type="button"
    onClick=${() => (asksNew.value = "1")}>New monitor</button>`;
  const edit = (id) => (editing.value = id);
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
          ...(row.file || !screen.isAdmin
            ? [{ label: "Look at the form", onSelect: () => edit(row.id) }] : []),
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

mount(Monitors);
