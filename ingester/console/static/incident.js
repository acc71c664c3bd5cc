// What the list and the page of incidents share.
import { html } from "./ui.js";
import { patch } from "./api.js";
import { confirmDialog, toast } from "./feedback.js";

/** Open, resolved, silenced: a word and a mark, not a colour alone. */
export function IncidentStatus({ row }) {
  const isOpen = row.status === "opened";
  return html`<span class="row nowrap-row">
    <span class=${`badge ${isOpen ? "badge-bad" : "badge-good"}`}>
      ${isOpen ? "▲ Open" : "✓ Resolved"}
    </span>
    ${row.silenced && html`<span class="badge" title="Nobody is told while the silence lasts">
      Silenced
    </span>`}
  </span>`;
}

export const lastsMs = (row) =>
  (row.resolved_at ? Date.parse(row.resolved_at) : Date.now()) - Date.parse(row.created_at);

export async function resolveAfterAsking(row, done) {
  const isSure = await confirmDialog({
    title: `Resolve ${row.id}?`,
    text: `Those who were told of it are told that it is over. What fires again opens a new
      incident: a resolved one never reopens.`,
    action: "Resolve",
    danger: false,
  });
  if (!isSure) return;
  try {
    await patch(`/incidents/${row.id}`, { status: "resolved" });
    toast(`${row.id} is resolved.`);
    done();
  } catch (error) {
    toast(error, "error");
  }
}
