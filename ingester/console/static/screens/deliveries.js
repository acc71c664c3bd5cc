// Deliveries: what is on its way, what arrived, what was given up; sending again.
import { Empty, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { get, post, useResource } from "../api.js";
import { AttemptLog, DeliveryState } from "../deliverylog.js";
import { Dialog, toast } from "../feedback.js";
import { Form } from "../forms.js";
import { Menu } from "../menu.js";
import { Table } from "../table.js";
import { count, plural, time } from "../format.js";
import { urlParam } from "../url.js";
import { When, useDestinations } from "../watch.js";

const state = urlParam("state", "", { push: true });
const destination = urlParam("destination", "", { push: true });
const incident = urlParam("incident", "", { push: true });
const cursor = urlParam("cursor", "", { push: true });

const STATES = [["", "All"], ["pending", "Pending"], ["delivered", "Delivered"], ["dead", "Given up"]];

function Deliveries() {
  const destinations = useDestinations().data?.destinations ?? [];
  const found = useResource(
    (signal) => get("/deliveries", {
      state: state.value, destination: destination.value, incident: incident.value,
      cursor: cursor.value, limit: 100,
    }, { signal }),
    [state.value, destination.value, incident.value, cursor.value],
    { everyMs: 5000 },
  );
  const [isResending, setResending] = useState(false);
  const choose = (param, value) => {
    cursor.value = "";
    param.value = value;
  };
  return html`
    <${Head} text="Every message to every destination. What fails is tried again, for days.">
      ${screen.isAdmin && html`<button class="btn" type="button" onClick=${() => setResending(true)}>
        Resend failed…</button>`}
    <//>
    <div class="toolbar">
      <div class="btn-group" role="group" aria-label="State">
        ${STATES.map(([value, label]) => html`<button class="btn" type="button"
          aria-pressed=${state.value === value} onClick=${() => choose(state, value)}>${label}</button>`)}
      </div>
      <select class="inline" aria-label="Destination" value=${destination.value}
        onChange=${(event) => choose(destination, event.currentTarget.value)}>
        <option value="">All destinations</option>
        ${destinations.map((one) => html`<option value=${one.id} selected=${one.id === destination.value}>
          ${one.name}
        </option>`)}
      </select>
      ${incident.value && html`<span class="chip">Incident <code>${incident.value}</code>
        <button class="link" type="button" aria-label="Of all incidents"
          onClick=${() => choose(incident, "")}>✕</button></span>`}
    </div>
    <${Loaded} of=${found}>${(page) => html`<section class="card card-flush">
      <${Table} label="Deliveries" rows=${page.deliveries} rowKey=${(row) => row.id} columns=${COLUMNS}
        detail=${(row) => html`<${AttemptLog} id=${row.id} reload=${found.reload} />`}
        actions=${screen.isAdmin ? (row) => html`<${Menu} label=${`Actions for ${row.id}`} items=${[
          { label: "Resend", onSelect: () => resend(row, found.reload) },
          { label: "Open the incident", href: `/incidents/${row.incident_id}` },
        ]} />` : undefined}
        empty=${html`<${Empty} title="Nothing here">
          ${state.value || destination.value || incident.value
            ? "No delivery is like that."
            : "Once an incident is told to a destination, it shows here."}
        <//>`}
        more=${(page.cursor || cursor.value) && html`<div class="pager row">
          ${cursor.value && html`<button class="btn btn-small" type="button"
            onClick=${() => (cursor.value = "")}>Newest</button>`}
          ${page.cursor && html`<button class="btn btn-small" type="button"
            onClick=${() => (cursor.value = page.cursor)}>Older</button>`}
        </div>`} />
    </section>`}<//>
    ${isResending && html`<${ResendDialog} destinations=${destinations} chosen=${destination.value}
      onClose=${() => setResending(false)} done=${found.reload} />`}`;
}

async function resend(row, reload) {
  try {
    await post(`/deliveries/${row.id}/resend`);
    toast(`${row.id} is sent again.`);
    reload();
  } catch (error) {
    toast(error, "error");
  }
}

/** All that were given up since a time. */
function ResendDialog({ destinations, chosen, onClose, done }) {
  const submit = async ({ since, to }) => {
    const at = new Date(since);
    const body = { failed_since: Number.isNaN(at.getTime()) ? since : at.toISOString() };
    if (to) body.destination = to;
    const { resent, disabled } = await post("/deliveries/resend", body);
    const rest = disabled ? ` ${plural(disabled, "one")} of disabled destinations stay.` : "";
    toast(`${plural(resent, "delivery", "deliveries")} sent again.${rest}`);
    onClose();
    done();
  };
  const dayAgo = new Date(Date.now() - 86_400_000 - new Date().getTimezoneOffset() * 60_000);
  return html`<${Dialog} title="Resend failed deliveries" onClose=${onClose}>
    <p class="muted">What was given up since then is sent once more: the same bytes under the same id, so
      that receivers can tell a repeat.</p>
    <${Form} submit=${submit} cancel=${onClose} action="Resend"
      initial=${{ since: dayAgo.toISOString().slice(0, 16), to: chosen }}
      fields=${[
        { name: "since", label: "Failed since (your local time)", kind: "datetime-local", required: true },
        {
          name: "to", label: "Destination", kind: "select",
          options: [{ value: "", label: "All" },
            ...destinations.map((one) => ({ value: one.id, label: one.name }))],
        },
      ]} />
  <//>`;
}

const COLUMNS = [
  { name: "state", label: "State", kind: "nowrap", cell: (row) => html`<${DeliveryState} row=${row} />` },
  {
    name: "to", label: "Destination", kind: "breaks", sort: (row) => row.destination_name,
    cell: (row) => row.destination_name,
  },
  {
    name: "incident", label: "Incident",
    cell: (row) => html`<a href=${`/incidents/${row.incident_id}`}>${row.incident_id}</a>`,
  },
  { name: "kind", label: "Revision", cell: (row) => row.kind },
  {
    name: "attempts", label: "Attempts", num: true, sort: (row) => row.attempts,
    cell: (row) => count(row.attempts),
  },
  { name: "status", label: "Status", num: true, cell: (row) => row.status ?? "–" },
  {
    name: "error", label: "Last error",
    cell: (row) => html`<span class="excerpt-text" title=${row.error ?? ""}>${row.error ?? "–"}</span>`,
  },
  { name: "next", label: "Next", cell: (row) => (row.next_at ? html`<${When} at=${row.next_at} />` : "–") },
  {
    name: "made", label: "Made", kind: "nowrap", sort: (row) => row.created_at,
    cell: (row) => time(row.created_at),
  },
];

mount(Deliveries);
