// One incident: what happened when, who was told, and what can be done.
import { Empty, Failure, Fragment, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { get, patch, post, useResource } from "../api.js";
import { JudgedPlot, groupText } from "../backtest.js";
import { CopyButton } from "../copy.js";
import { AttemptLog, DeliveryState } from "../deliverylog.js";
import { Dialog, toast } from "../feedback.js";
import { Form } from "../forms.js";
import { IncidentStatus, lastsMs, resolveAfterAsking } from "../incident.js";
import { SilenceDialog, matchersOf } from "../silence.js";
import { both, clause, metricHref } from "../queries.js";
import { Table } from "../table.js";
import { isoTime } from "../time.js";
import { count, duration, plural, time } from "../format.js";
import { Chips, When, words } from "../watch.js";

const ID = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const PATH = `/incidents/${encodeURIComponent(ID)}`;
// Before and after it; and of one that lasts, as many as an answer has samples.
const SHOWN_WINDOWS = 60;
const JUDGED_WINDOWS_MAX = 1000;
// Rows that count came before it was opened: within a window, which is judged with some delay.
const PAD_MS = 60_000;
const LEAD_WINDOWS = 2;
const MONITORS = new Set(["METRIC", "LOG_COUNT", "EVENT_COUNT", "ROW_COUNT", "FRESHNESS", "NO_DATA"]);

function Incident() {
  const found = useResource(async (signal) => {
    const [row, history, sent] = await Promise.all([
      get(PATH, {}, { signal }),
      get(`${PATH}/history`, {}, { signal }),
      get("/deliveries", { incident: ID, limit: 200 }, { signal }),
    ]);
    return { row, revisions: history.revisions, deliveries: sent.deliveries };
  }, [], { everyMs: 5000 });
  if (found.error?.status === 404 || found.error?.status === 422) {
    return html`<${Head} title="Incident" /><${Empty} title="There is no such incident"
      actions=${html`<a class="btn" href="/alerts">All incidents</a>`}>
      Nothing is known as ${ID}.
    <//>`;
  }
  return html`<${Loaded} of=${found}>${(data) => html`<${Page} ...${data} reload=${found.reload} />`}<//>`;
}

function Page({ row, revisions, deliveries, reload }) {
  const [shown, setShown] = useState("");
  const close = () => setShown("");
  const change = async (body) => {
    await patch(PATH, body);
    close();
    reload();
  };
  return html`
    <${Head} title=${row.title}
      text=${html`<span class="row"><${IncidentStatus} row=${row} />
        <span>${row.id} · opened ${time(row.created_at)} ·
        ${row.resolved_at ? " lasted" : " for"} ${duration(lastsMs(row))}</span></span>`}>
      <${CopyButton} text=${row.url} label="Copy link" kind="btn">Copy link<//>
      ${screen.isAdmin && html`<${Fragment}>
        <button class="btn" type="button" onClick=${() => setShown("silence")}>Silence…</button>
        ${row.status === "opened" && html`<button class="btn btn-primary" type="button"
          onClick=${() => resolveAfterAsking(row, reload)}>Resolve…</button>`}
      <//>`}
    <//>
    ${row.description && html`<p class="breaks pre">${row.description}</p>`}
    <div class="incident">
      <div class="stack">
        <${Seen} row=${row} />
        <section class="card card-flush">
          <div class="card-head"><h2>Affected</h2></div>
          <${Table} label="Affected" rows=${row.affected} rowKey=${(one) => one.id}
            columns=${AFFECTED} />
        </section>
        <${Deliveries} ...${{ deliveries, reload }} />
      </div>
      <div class="stack">
        <section class="card stack" aria-label="About">
          <${About} row=${row} edit=${setShown} sent=${deliveries.length} />
        </section>
        <section class="card card-flush">
          <div class="card-head"><h2>Timeline</h2>
            <span class="small muted">${plural(revisions.length, "revision")}</span></div>
          <${Timeline} ...${{ revisions, deliveries }} />
        </section>
      </div>
    </div>
    ${shown === "silence" && html`<${SilenceDialog} matchers=${matchersOf(row)} onClose=${close}
      done=${reload} />`}
    ${shown === "labels" && html`<${Dialog} title="Labels" onClose=${close}>
      <${Form} action="Save" cancel=${close}
        initial=${{ labels: row.labels.map((one) => one.name).join(", ") }}
        submit=${({ labels }) => change({ labels: words(labels) })}
        fields=${[{
          name: "labels", label: "Labels", autofocus: true, placeholder: "storage, known",
          hint: "Commas between them. Those who were told of the incident are told again.",
        }]} />
    <//>`}
    ${shown === "owner" && html`<${Dialog} title="Owner" onClose=${close}>
      <${Form} action="Save" cancel=${close} initial=${{ owner: row.owner ?? "" }}
        submit=${({ owner }) => change({ owner: owner.trim() || null })}
        fields=${[{
          name: "owner", label: "Owner", autofocus: true, maxlength: 256,
          hint: "Who looks after it. Empty: nobody.",
        }]} />
      ${row.owner !== screen.user && html`<p><button class="btn btn-small" type="button"
        onClick=${() => change({ owner: screen.user }).catch((error) => toast(error, "error"))}>
        Take it: ${screen.user}</button></p>`}
    <//>`}`;
}

function About({ row, edit, sent }) {
  const button = (what, text) => screen.isAdmin && html`<button class="link small" type="button"
    onClick=${() => edit(what)}>${text}</button>`;
  return html`<dl class="kv">
    <dt>Status</dt><dd><${IncidentStatus} row=${row} /></dd>
    <dt>Owner</dt><dd>${row.owner ?? "nobody"} ${button("owner", "Change")}</dd>
    <dt>Labels</dt><dd>${row.labels.length
      ? html`<${Chips} texts=${row.labels.map((one) => one.name)} /> ` : "none "}
      ${button("labels", "Change")}</dd>
    <dt>Opened</dt><dd>${time(row.created_at)}</dd>
    <dt>Last change</dt><dd>${time(row.updated_at)}</dd>
    <dt>Resolved</dt><dd>${row.resolved_at ? time(row.resolved_at) : "–"}</dd>
    <dt>Told</dt><dd>${row.silenced ? "no: silenced" : row.told && sent ? "yes" : "nobody"}</dd>
  </dl>`;
}

const pageOf = ({ type, monitor_id: id }) => {
  const place = type === "RULE" ? "rules" : type === "ALERT" ? "alerts" : "monitors";
  return `/alerts/${place}?edit=${encodeURIComponent(id)}`;
};

const AFFECTED = [
  {
    name: "name", label: "Name", kind: "breaks",
    cell: (one) => html`<a href=${pageOf(one)}>${one.name}</a>
      ${one.group && html`<div class="small mono">${groupText(one.group)}</div>`}
      <div class="small muted mono">${one.absolute_path}</div>`,
  },
  { name: "type", label: "Type", cell: (one) => html`<span class="badge">${one.type}</span>` },
  { name: "firings", label: "Firings", num: true, cell: (one) => count(one.firings) },
  { name: "matches", label: "Matches", num: true, cell: (one) => count(one.matches) },
  { name: "last", label: "Last fired", cell: (one) => html`<${When} at=${one.last_fired_at} />` },
  {
    name: "state", label: "State", kind: "nowrap",
    cell: (one) => (one.resolved_at ? html`<span title=${time(one.resolved_at)}>✓ recovered</span>`
      : html`<span class="badge badge-bad">▲ firing</span>`),
  },
];

/** What the first affected has seen: the values of a monitor, the query of a rule. */
function Seen({ row }) {
  const first = row.affected[0];
  if (first?.type === "RULE") return html`<${Matched} row=${row} first=${first} />`;
  return html`<${Measured} row=${row} first=${first} />`;
}

/** By what is watched, where it is shown: logs, events, a metric. */
const SCREENS = {
  logs: ({ lql }) => ["/logs", { q: lql }],
  events: ({ lql }) => ["/explorer", { q: lql, view: "events" }],
  metric: ({ metric_id: id, project_id: project, filter }) => [metricHref(id), { project, q: filter }],
};

/** To the rows around the incident: of a rule, or of a monitor's target. `lead` in milliseconds. */
function RowsLink({ row, first, target, lead = 0 }) {
  if (!SCREENS[target.kind]) return null;
  const [path, asked] = SCREENS[target.kind](target);
  const end = Date.parse(first.resolved_at ?? first.last_fired_at) + PAD_MS;
  const group = Object.entries(first.group ?? {}).map(([name, value]) => clause(name, value));
  const query = new URLSearchParams({
    ...asked,
    q: both(asked.q, ...group),
    since: isoTime((Date.parse(row.created_at) - PAD_MS - lead) / 1000),
    until: isoTime(end / 1000),
  });
  return html`<a class="btn btn-small" href=${`${path}?${query}`}>Show the ${target.kind}</a>`;
}

function Matched({ row, first }) {
  const found = useResource((signal) => get(`/rules/${first.monitor_id}`, {}, { signal }),
    [first.monitor_id]);
  if (!found.data) {
    return found.error && found.error.status !== 404 ? html`<${Failure} error=${found.error} />` : null;
  }
  const { name, lql, on } = found.data;
  return html`<section class="card card-flush" aria-label="Matches">
    <div class="card-head"><h2>${name}</h2>
      <${RowsLink} row=${row} first=${first} target=${{ kind: on, lql }} /></div>
    <div class="card-body"><code class="pre breaks">${lql}</code></div>
  </section>`;
}

function Measured({ row, first }) {
  const isMonitor = Boolean(first) && MONITORS.has(first.type);
  const found = useResource(async (signal) => {
    const monitor = await get(`/monitors/${first.monitor_id}`, {}, { signal });
    if (monitor.target.kind === "sql") return null;
    const before = SHOWN_WINDOWS * monitor.window_s * 1000;
    const end = row.resolved_at ? Date.parse(row.resolved_at) + before : Infinity;
    const until = Math.min(Date.now(), end);
    const most = JUDGED_WINDOWS_MAX * monitor.window_s * 1000;
    const since = Math.max(0, Date.parse(row.created_at) - before, until - most);
    const answer = await post(`/monitors/${monitor.id}/backtest`, {
      since: new Date(since).toISOString(), until: new Date(until).toISOString(),
    }, { signal });
    return { monitor, answer };
  }, [first?.monitor_id, row.updated_at, row.status], { enabled: isMonitor });
  if (!isMonitor || !found.data) {
    return found.error && found.error.status !== 404 ? html`<${Failure} error=${found.error} />` : null;
  }
  const { monitor, answer } = found.data;
  return html`<section class="card card-flush" aria-label="Values">
    <div class="card-head"><h2>${monitor.name}</h2>
      <span class="row"><span class="small muted">windows of ${duration(monitor.window_s * 1000)}</span>
        <${RowsLink} row=${row} first=${first} target=${monitor.target}
          lead=${LEAD_WINDOWS * monitor.window_s * 1000} /></span></div>
    <div class="card-body"><${JudgedPlot} answer=${answer} monitor=${monitor} group=${first.group} /></div>
  </section>`;
}

const KINDS = {
  opened: ["▲", "Opened"],
  joined: ["＋", "Joined"],
  monitor_resolved: ["−", "Recovered"],
  changed: ["✎", "Changed"],
  resolved: ["✓", "Resolved"],
};

/** Revisions and what was sent, newest first. */
function Timeline({ revisions, deliveries }) {
  const ends = deliveries.filter((one) => one.finished_at && one.state !== "superseded");
  const items = [
    ...revisions.map((one, at) => ({ at: Date.parse(one.updated_at), order: at, revision: one })),
    ...ends.map((one, at) => ({ at: Date.parse(one.finished_at), order: -at, delivery: one })),
  // Within a second what was told came behind what it tells of.
  ].sort((left, right) => right.at - left.at || Boolean(right.delivery) - Boolean(left.delivery)
    || right.order - left.order);
  return html`<ol class="timeline">${items.map(({ revision, delivery }) => (revision
    ? html`<${Revision} one=${revision} />`
    : html`<${Sent} one=${delivery} />`))}</ol>`;
}

function Revision({ one }) {
  const [mark, word] = KINDS[one.kind] ?? ["·", one.kind];
  return html`<li class=${`timeline-${one.kind}`}>
    <span class="timeline-mark" aria-hidden="true">${mark}</span>
    <div class="grow">
      <p><strong>${word}</strong> <span class="breaks">${one.note}</span></p>
      <p class="small muted">${time(one.updated_at)} · ${one.actor}
        ${one.told ? "" : " · nobody was told"}</p>
    </div>
  </li>`;
}

function Sent({ one }) {
  const isGood = one.state === "delivered";
  return html`<li class=${isGood ? "timeline-sent" : "timeline-dead"}>
    <span class="timeline-mark" aria-hidden="true">${isGood ? "→" : "!"}</span>
    <div class="grow">
      <p>${isGood ? "Told" : "Could not tell"} <strong class="breaks">${one.destination_name}</strong>
        ${" "}(${one.kind}${one.status ? `, ${one.status}` : ""})</p>
      <p class="small muted">${time(one.finished_at)} · ${plural(one.attempts, "attempt")}
        ${one.error ? ` · ${one.error}` : ""}</p>
    </div>
  </li>`;
}

function Deliveries({ deliveries, reload }) {
  return html`<section class="card card-flush">
    <div class="card-head"><h2>Deliveries</h2></div>
    <${Table} label="Deliveries" rows=${deliveries} rowKey=${(one) => one.id} columns=${SENT}
      detail=${(one) => html`<${AttemptLog} id=${one.id} reload=${reload} />`}
      empty=${html`<${Empty} title="Nobody is told of this incident">
        Neither its rule, alert or monitor nor a route names a destination.
        ${" "}<a href="/alerts/settings">Alert settings</a>
      <//>`} />
  </section>`;
}

const SENT = [
  { name: "to", label: "Destination", kind: "breaks", cell: (one) => one.destination_name },
  { name: "kind", label: "Revision", cell: (one) => one.kind },
  { name: "state", label: "State", cell: (one) => html`<${DeliveryState} row=${one} />` },
  { name: "attempts", label: "Attempts", num: true, cell: (one) => count(one.attempts) },
  { name: "status", label: "Status", num: true, cell: (one) => one.status ?? "–" },
  { name: "at", label: "Made", kind: "nowrap", cell: (one) => time(one.created_at) },
];

mount(Incident);
