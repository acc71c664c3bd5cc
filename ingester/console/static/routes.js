// Routes: who is told besides those that a rule, alert or monitor names; and who would be.
import { Empty, Fragment, Loaded, html, screen, useState } from "./ui.js";
import { del, get, patch, post, useResource } from "./api.js";
import { Dialog, deleteAfterAsking, toast } from "./feedback.js";
import { Field, useSend } from "./forms.js";
import { MatcherTexts, Matchers, isWhole } from "./matchers.js";
import { Menu } from "./menu.js";
import { Table } from "./table.js";
import { words } from "./watch.js";

export function Routes({ destinations }) {
  const found = useResource((signal) => get("/routes", {}, { signal }), [destinations.length],
    { everyMs: 15_000 });
  const [editing, setEditing] = useState(null);
  const names = new Map(destinations.map((one) => [one.id, one.name]));
  const add = screen.isAdmin && destinations.length > 0 && html`<button class="btn btn-small"
    type="button" onClick=${() => setEditing({})}>Add route</button>`;
  return html`<section class="card card-flush" aria-label="Alert routing">
    <div class="card-head">
      <div><h2>Alert routing</h2><p class="small muted">Routes add destinations to those that a rule,
        alert or monitor names.</p></div>
      ${add}
    </div>
    <${Loaded} of=${found}>${({ routes }) => html`<${Table} label="Routes" rows=${routes}
      rowKey=${(row) => row.id} columns=${columns(names)}
      actions=${screen.isAdmin ? (row) => html`<${Menu} label=${`Actions for ${row.id}`}
        items=${items(row, names, { setEditing, reload: found.reload })} />` : undefined}
      empty=${html`<${Empty} title="No routes">
        ${destinations.length ? "Only named destinations are told." : "They need a destination first."}
      <//>`} />`}<//>
    ${editing && html`<${RouteDialog} row=${editing} destinations=${destinations}
      onClose=${() => setEditing(null)} done=${found.reload} />`}
  </section>`;
}

const columns = (names) => [
  {
    name: "to", label: "Destination", kind: "breaks",
    cell: (row) => html`<strong>${names.get(row.destination) ?? row.destination}</strong>`,
  },
  {
    name: "allow", label: "Gets what matches any of",
    cell: (row) => html`<${MatcherTexts} matchers=${row.allow} none="everything" />`,
  },
  {
    name: "ignore", label: "But not",
    cell: (row) => html`<${MatcherTexts} matchers=${row.ignore} none="–" />`,
  },
];

const items = (row, names, { setEditing, reload }) => [
  { label: "Edit…", onSelect: () => setEditing(row) },
  {
    label: "Delete…",
    danger: true,
    onSelect: () => deleteAfterAsking({
      title: `Delete the route to ${names.get(row.destination) ?? row.destination}?`,
      text: "Incidents from now on do not take it; the destination stays.",
      remove: () => del(`/routes/${row.id}`),
      done: reload,
    }),
  },
];

function RouteDialog({ row, destinations, onClose, done }) {
  const [destination, setDestination] = useState(row.destination ?? destinations[0].id);
  const [allow, setAllow] = useState(row.allow ?? []);
  const [ignore, setIgnore] = useState(row.ignore ?? []);
  const { send, error, isBusy } = useSend(async () => {
    if (row.id) await patch(`/routes/${row.id}`, { allow, ignore });
    else await post("/routes", { destination, allow, ignore });
    onClose();
    done();
  });
  return html`<${Dialog} title=${row.id ? "Change the route" : "Add route"} onClose=${onClose} wide>
    <form class="stack" onSubmit=${send}>
      ${!row.id && html`<${Field} name="destination" label="Destination" kind="select"
        options=${destinations.map((one) => ({ value: one.id, label: one.name }))}
        value=${destination} onValue=${setDestination} />`}
      <${Matchers} legend="Gets what matches any of" value=${allow} onValue=${setAllow}
        hint=${allow.length ? "" : "None: everything."} />
      <${Matchers} legend="But not what matches any of" value=${ignore} onValue=${setIgnore} />
      ${error && html`<p class="notice notice-error" role="alert">${error.message}</p>`}
      <div class="dialog-foot">
        <button class="btn" type="button" onClick=${onClose}>Cancel</button>
        <button class="btn btn-primary" disabled=${isBusy || !isWhole([...allow, ...ignore])}>
          ${row.id ? "Save" : "Add route"}
        </button>
      </div>
    </form>
  <//>`;
}

const FACTS = [
  ["services", "Service", "checkout"],
  ["monitors", "Rule, alert or monitor", "queue length"],
  ["tables", "Table", "logs"],
  ["labels", "Labels", "storage, night"],
];

/** "Who would get this?" Nothing is sent. */
export function DryRun() {
  const [values, setValues] = useState({ services: "", monitors: "", tables: "", labels: "" });
  const [found, setFound] = useState(null);
  const ask = async (event) => {
    event.preventDefault();
    try {
      const facts = Object.fromEntries(FACTS.map(([name]) => [name, words(values[name])]));
      setFound((await post("/routes/test", facts)).destinations);
    } catch (error) {
      toast(error, "error");
    }
  };
  return html`<section class="card stack" aria-label="Who would get this?">
    <div><h2>Who would get this?</h2><p class="small muted">An incident that might be. Nothing is sent;
      destinations named by the rule, alert or monitor itself come on top.</p></div>
    <form class="dry-run" onSubmit=${ask}>
      ${FACTS.map(([name, label, sample]) => html`<${Field} name=${name} label=${label}
        placeholder=${sample} value=${values[name]}
        onValue=${(value) => setValues({ ...values, [name]: value })} />`)}
      <button class="btn">Try</button>
    </form>
    ${found && html`<p class="row" role="status">${found.length
      ? html`<${Fragment}><span>Routes lead to</span>${found.map((one) => html`<span class="chip">
          <strong class="clip">${one.name}</strong>
          ${!one.enabled && html`<span class="muted">(disabled)</span>`}</span>`)}<//>`
      : "No route leads anywhere for this."}</p>`}
  </section>`;
}
