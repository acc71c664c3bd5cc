// Labels of incidents: the names there are, and on how many incidents each is.
import { Empty, Loaded, html, screen, useState } from "./ui.js";
import { del, get, patch, post, useResource } from "./api.js";
import { Dialog, deleteAfterAsking } from "./feedback.js";
import { Form } from "./forms.js";
import { count, plural } from "./format.js";
import { Menu } from "./menu.js";
import { Table } from "./table.js";

export function Labels() {
  const found = useResource((signal) => get("/labels", {}, { signal }), [], { everyMs: 15_000 });
  const [editing, setEditing] = useState(null);
  const add = screen.isAdmin && html`<button class="btn btn-small" type="button"
    onClick=${() => setEditing({})}>Add label</button>`;
  return html`<section class="card card-flush" aria-label="Labels">
    <div class="card-head">
      <div><h2>Labels</h2><p class="small muted">Incidents get them from rules, alerts and monitors, or by
        hand. Routes and silences can ask for them.</p></div>
      ${add}
    </div>
    <${Loaded} of=${found}>${({ labels }) => html`<${Table} label="Labels" rows=${labels}
      rowKey=${(row) => row.id} columns=${COLUMNS}
      actions=${screen.isAdmin ? (row) => html`<${Menu} label=${`Actions for ${row.name}`}
        items=${items(row, { setEditing, reload: found.reload })} />` : undefined}
      empty=${html`<${Empty} title="No labels">
        One is made here, or by naming it in a rule, an alert, a monitor, or on an incident.
      <//>`} />`}<//>
    ${editing && html`<${LabelDialog} row=${editing} onClose=${() => setEditing(null)}
      done=${found.reload} />`}
  </section>`;
}

const COLUMNS = [
  {
    name: "name", label: "Name", kind: "breaks", sort: (row) => row.name,
    cell: (row) => html`<span class="chip"><bdi class="clip">${row.name}</bdi></span>`,
  },
  {
    name: "incidents", label: "Incidents", num: true, sort: (row) => row.incidents,
    cell: (row) => count(row.incidents),
  },
];

const items = (row, { setEditing, reload }) => [
  { label: "Rename…", onSelect: () => setEditing(row) },
  {
    label: "Delete…",
    danger: true,
    onSelect: () => deleteAfterAsking({
      title: `Delete the label ${row.name}?`,
      text: `It is taken off ${plural(row.incidents, "incident")}. What names it, such as a rule, makes it
        anew with its next incident.`,
      remove: () => del(`/labels/${row.id}`),
      done: reload,
    }),
  },
];

function LabelDialog({ row, onClose, done }) {
  const submit = async ({ name }) => {
    await (row.id ? patch(`/labels/${row.id}`, { name }) : post("/labels", { name }));
    onClose();
    done();
  };
  return html`<${Dialog} title=${row.id ? "Rename the label" : "Add label"} onClose=${onClose}>
    ${row.id && html`<p class="muted">Incidents that have it show the new name. Rules, alerts, monitors,
      routes and silences that name the old one keep doing so.</p>`}
    <${Form} submit=${submit} cancel=${onClose} action=${row.id ? "Rename" : "Add label"}
      initial=${{ name: row.name ?? "" }}
      fields=${[{ name: "name", label: "Name", required: true, maxlength: 256, autofocus: true }]} />
  <//>`;
}
