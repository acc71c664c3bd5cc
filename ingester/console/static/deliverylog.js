// Deliveries: their state, their attempts, the bytes that are sent, and sending again.
import { Fragment, Loaded, html, screen } from "./ui.js";
import { get, post, useResource } from "./api.js";
import { Code } from "./copy.js";
import { toast } from "./feedback.js";
import { Table } from "./table.js";
import { duration, time } from "./format.js";

const STATES = {
  pending: ["badge-accent", "… Pending"],
  delivered: ["badge-good", "✓ Delivered"],
  dead: ["badge-bad", "✕ Given up"],
  superseded: ["", "Left out"],
};

export function DeliveryState({ row }) {
  const [kind, text] = STATES[row.state] ?? ["", row.state];
  const isLate = row.state === "pending" && row.attempts > 0;
  return html`<span class=${`badge ${isLate ? "badge-warn" : kind}`}>
    ${isLate ? "↻ Retrying" : text}
  </span>`;
}

/** The attempts of a delivery and its body; it can be sent again. */
export function AttemptLog({ id, reload }) {
  const found = useResource((signal) => get(`/deliveries/${id}`, {}, { signal }), [id], {
    everyMs: 5000,
  });
  const resend = async () => {
    try {
      await post(`/deliveries/${id}/resend`);
      toast("It is sent again: the same bytes under the same id.");
      found.reload();
      reload?.();
    } catch (error) {
      toast(error, "error");
    }
  };
  return html`<${Loaded} of=${found}>${({ delivery, body, attempt_log: attempts }) => html`
    <div class="stack">
      <div class="row spread">
        <span class="small muted">${delivery.id} · event <code class="breaks">${delivery.event_id}</code>
          ${delivery.next_at ? ` · next attempt ${time(delivery.next_at)}` : ""}</span>
        ${screen.isAdmin && html`<button class="btn btn-small" type="button" onClick=${resend}>
          Resend</button>`}
      </div>
      <${Table} label="Attempts" rows=${attempts.map((one, at) => ({ ...one, at }))}
        rowKey=${(one) => one.at} columns=${ATTEMPTS}
        empty=${html`<p class="muted">No attempt has been made yet.</p>`} />
      <details><summary>Body that is sent</summary>
        <${Code} text=${pretty(body)} label="Copy the body" />
      </details>
    </div>`}<//>`;
}

const ATTEMPTS = [
  { name: "time", label: "Attempt", kind: "nowrap", cell: (one) => time(one.time) },
  { name: "status", label: "Status", num: true, cell: (one) => one.status ?? "–" },
  { name: "latency", label: "Took", num: true, kind: "nowrap", cell: (one) => duration(one.latency_ms) },
  {
    name: "answer", label: "Answer", kind: "breaks",
    cell: (one) => html`<${Fragment}>
      ${one.error && html`<span class="field-error">${one.error}</span> `}
      ${one.answer && html`<code class="breaks">${one.answer}</code>`}
    <//>`,
  },
];

/** JSON with indents; what is none as it stands. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
