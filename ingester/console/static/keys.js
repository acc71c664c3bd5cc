// What tokens, connections and sources have in common: copying, rotating, deleting, usage by hour.
import { Fragment, Loaded, html, useState } from "./ui.js";
import { get, post, useResource } from "./api.js";
import { CopyButton } from "./copy.js";
import { Dialog, deleteAfterAsking } from "./feedback.js";
import { Form } from "./forms.js";
import { Plot } from "./plot.js";
import { ago, count, plural, time } from "./format.js";

const OVERLAPS = [
  { value: "0", label: "End the old key now" },
  { value: "3600", label: "1 hour" },
  { value: "86400", label: "1 day" },
  { value: "604800", label: "7 days" },
];

/**
 * The dialogs of a list of keys: `adding` (in the address) opens the form, `made` is shown once it is
 * made or rotated, `rotating` is asked about. `reload` the list then.
 */
export function useKeyDialogs(adding, reload) {
  const [made, setMade] = useState(null);
  const [rotating, setRotating] = useState(null);
  const close = () => (adding.value = "");
  const tell = (key) => {
    close();
    setRotating(null);
    setMade(key);
    reload();
  };
  return { made, rotating, setRotating, close, tell, forget: () => setMade(null) };
}

/** "Copy" for a key that the server can show again, else why not. */
export function CopyKey({ path, field, isCopyable, label, masked }) {
  if (!isCopyable) {
    return html`<span class="row">
      <code>${masked}</code>
      <span class="small muted" title="Only its digest is kept. Rotate gives a new one.">shown once</span>
    </span>`;
  }
  return html`<span class="row">
    ${masked && html`<code>${masked}</code>`}
    <${CopyButton} label=${label} load=${async () => (await post(`${path}/reveal`))[field]} />
  </span>`;
}

/** Ask for the overlap, rotate, and hand on what was made. */
export function RotateDialog({ title, path, onMade, onClose }) {
  const submit = async (values) => {
    onMade(await post(`${path}/rotate`, { overlap_seconds: Number(values.overlap) }));
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p>A new key is made under the same name: history, limits and usage stay.</p>
    <${Form} submit=${submit} cancel=${onClose} action="Rotate"
      fields=${[{
        name: "overlap", label: "Old keys keep working for", kind: "select", options: OVERLAPS,
        initial: "86400",
      }]} />
  <//>`;
}

/** A menu item: end every key at once, and keep what they stand for. */
export function revokeItem(name, path, done) {
  return {
    label: "Revoke keys…",
    danger: true,
    onSelect: () => deleteAfterAsking({
      title: `Revoke every key of ${name}?`,
      text: "Requests with them are refused from now on. Rotate gives a new one; history stays.",
      action: "Revoke",
      remove: () => post(`${path}/revoke`),
      done,
    }),
  };
}

/** Requests by hour of one credential, and the last of its that were refused. */
export function Usage({ path }) {
  const [hours, setHours] = useState(24);
  const usage = useResource((signal) => get(`${path}/usage`, { hours }, { signal }), [path, hours], {
    everyMs: 10_000,
  });
  return html`<${Loaded} of=${usage}>${(data) => html`<${UsageOf} ...${{ data, hours, setHours }} />`}<//>`;
}

function UsageOf({ data, hours, setHours }) {
  const total = (name) => data.hours.reduce((sum, hour) => sum + hour[name], 0);
  const spans = [[24, "24 hours"], [168, "7 days"], [1176, "49 days"]];
  return html`<div class="stack">
    <div class="row spread">
      <div class="row" style=${{ gap: "24px" }}>
        <${Stat} value=${total("requests")} label="requests" />
        <${Stat} value=${total("accepted")} label="rows" />
        <${Stat} value=${total("rejected")} label="rejected lines" />
        <${Stat} value=${total("refused")} label="refused requests" />
        ${data.quota_left !== null &&
        html`<${Stat} value=${data.quota_left}
          label=${`of ${count(data.requests_per_hour)} left this hour`} />`}
      </div>
      <div class="btn-group" role="group" aria-label="Span">
        ${spans.map(
          ([value, label]) => html`<button type="button" class="btn btn-small"
            aria-pressed=${hours === value} onClick=${() => setHours(value)}>${label}</button>`,
        )}
      </div>
    </div>
    <${Hours} hours=${data.hours} span=${hours} />
    <p class="small muted">
      ${data.last_used_at ? `Last used ${ago(data.last_used_at)}` : "Not used yet"}${
        data.last_address ? ` from ${data.last_address}` : ""}.
    </p>
    ${data.refused.length > 0 &&
    html`<${Fragment}><h3>Refused requests</h3><${RefusedRows} rows=${data.refused.slice(0, 10)} /><//>`}
  </div>`;
}

export const Stat = ({ value, label }) => html`<div class="stat">
  <span class="stat-value">${count(value)}</span><span class="stat-label">${label}</span>
</div>`;

function Hours({ hours, span }) {
  const by = new Map(hours.map((hour) => [Date.parse(hour.hour) / 1000, hour]));
  const now = Math.floor(Date.now() / 3_600_000) * 3600;
  const times = Array.from({ length: span }, (_, at) => now - (span - 1 - at) * 3600);
  const values = (pick) => times.map((at) => (by.has(at) ? pick(by.get(at)) : 0));
  const series = [
    { label: "Taken", colour: "--series-1", values: values((hour) => hour.requests - hour.refused) },
    { label: "Refused", colour: "--bad", values: values((hour) => hour.refused) },
  ];
  return html`<${Plot} times=${times} series=${series} kind="stacked" height=${150}
    label="Requests by hour" />`;
}

export function RefusedRows({ rows }) {
  return html`<div class="table-wrap" tabindex="0" role="region" aria-label="Refused requests">
    <table class="table">
      <thead><tr>
        <th scope="col">Time</th><th scope="col" class="num">Status</th><th scope="col">Why</th>
        <th scope="col">Path</th><th scope="col">From</th>
      </tr></thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr>
            <td class="nowrap">${time(row.time)}</td>
            <td class="num"><span class="badge badge-bad">${row.status}</span></td>
            <td class="breaks">${row.reason}</td>
            <td class="mono breaks">${row.path}</td>
            <td class="mono nowrap">${row.address}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** The older keys that still work, or that ended. */
export function KeyList({ keys }) {
  if (keys.length < 2) return null;
  const state = (key) => {
    if (key.revoked_at) return html`<span class="badge">ended ${ago(key.revoked_at)}</span>`;
    if (!key.expires_at) return html`<span class="badge badge-good">works</span>`;
    const isOver = Date.parse(key.expires_at) < Date.now();
    return html`<span class=${`badge ${isOver ? "" : "badge-warn"}`}>
      ${isOver ? "ended" : "ends"} ${ago(key.expires_at)}
    </span>`;
  };
  return html`<p class="row small">
    <span class="muted">${plural(keys.length, "key")}:</span>
    ${keys.map((key) => html`<span class="row"><code>…${key.tail}</code>${state(key)}</span>`)}
  </p>`;
}
