// Pipeline: the actors as a picture with live figures, and the same in tables.
import { Failure, Head, Loaded, html, mount, useRef } from "../ui.js";
import { get, useResource } from "../api.js";
import { Sparkline } from "../plot.js";
import { Table } from "../table.js";
import { bytes, compact, count, duration, time } from "../format.js";
import { edgesOf, innerEdges, nodesOf, openBytes, readings } from "../pipelinemodel.js";
import { Picture } from "../pipelinepicture.js";
import { When } from "../watch.js";

const EVERY_MS = 2000;
const KEPT = 90;

function Pipeline() {
  const past = useRef([]);
  const found = useResource(async (signal) => {
    const status = await get("/status", {}, { signal });
    past.current = [...past.current, { at: performance.now(), ...status }].slice(-KEPT);
    return past.current;
  }, [], { everyMs: EVERY_MS });
  const kept = useResource((signal) => get("/store/retention", {}, { signal }), [], { everyMs: 30_000 });
  return html`
    <${Head} text="What runs in this server, refreshed every two seconds while this page is seen." />
    ${found.data
      ? html`<${Failure} error=${found.error} /><${Now} past=${found.data} kept=${kept.data} />`
      : html`<${Loaded} of=${found}>${() => null}<//>`}`;
}

function Now({ past, kept }) {
  const now = past.at(-1);
  const read = readings(now, past.at(-2));
  const nodes = nodesOf(read);
  const edges = edgesOf(read);
  const trend = (path) => past.slice(1).map((one, at) => readings(one, past[at]).rate(path));
  return html`
    ${!now.ready && html`<p class="notice notice-warn" role="status">
      Not taking requests: ${now.reasons.join("; ")}.</p>`}
    <${Figures} ...${{ read, trend, kept }} />
    <section class="card" aria-label="Picture">
      <${Picture} nodes=${nodes} edges=${edges} />
      <p class="small muted keys row">
        <span>● working</span><span>○ idle</span><span>▲ look at it</span>
        <span>bold arrow: more than half full, or senders wait</span>
      </p>
    </section>
    <div class="pair">
      <div class="stack"><section class="card card-flush">
        <div class="card-head"><h2>Channels</h2>
          <span class="small muted">how full, and how long senders wait</span></div>
        <${Table} label="Channels" columns=${CHANNELS} rowKey=${(row) => `${row.from}${row.to}`}
          rows=${[...innerEdges(read), ...edges].filter((one) => one.depth ?? one.capacity)} />
      </section>
      <${Purges} kept=${kept} /></div>
      <div class="stack"><section class="card card-flush">
        <div class="card-head"><h2>Storage</h2></div>
        <${Table} label="Storage" columns=${STORAGE} rows=${storageOf(read)} rowKey=${(row) => row.what} />
      </section>
      <${Actors} nodes=${nodes} restarts=${now.actors.restarts?.total?.by_actor ?? {}} /></div>
    </div>`;
}

function Figures({ read: { value, rate }, trend, kept }) {
  const rows = rate("loader.rows_total") === null ? null
    : rate("loader.rows_total") + rate("bulk.rows_total");
  const loaded = trend("loader.rows_total");
  const rowTrend = trend("bulk.rows_total").map((one, at) =>
    (one === null || loaded[at] === null ? null : one + loaded[at]));
  const purge = kept?.purges[0];
  const rest = [
    ["Journal lag", `${count(value("journal.lag_records"))}`,
      `requests, ${bytes(value("journal.lag_bytes"))} not loaded yet`],
    ["Rollup lag", duration(value("rollups.lag_seconds") * 1000),
      `${count(value("rollups.lag_rows"))} rows wait`],
    ["Disk free", bytes(value("disk.free_bytes")),
      `${bytes(value("disk.reserve_bytes"))} kept in reserve`],
    ["Stored", bytes(kept?.stored_bytes ?? NaN),
      kept?.store_bytes_max ? `of ${bytes(kept.store_bytes_max)} at most` : "no limit by size"],
    ["Next purge", purge ? html`<${When} at=${purge.at} />` : "none",
      purge ? `${count(purge.items.reduce((sum, one) => sum + one.rows, 0))} rows by ${purge.reason}`
        : "nothing is about to be removed"],
  ];
  return html`<div class="figures">
    <${Figure} title="Requests" value=${rateText(rate("intake.requests_total"))} text="a second">
      <${Sparkline} values=${trend("intake.requests_total")} label="Requests a second, lately" />
    <//>
    <${Figure} title="Rows stored" value=${rateText(rows)} text="a second">
      <${Sparkline} values=${rowTrend} label="Rows a second, lately" />
    <//>
    ${rest.map(([title, shown, text]) => html`<${Figure} title=${title} value=${shown} text=${text} />`)}
  </div>`;
}

const rateText = (rate) => (rate === null ? "–" : compact(rate));

const Figure = ({ title, value, text, children }) => html`<div class="card stat figure-card">
  <span class="stat-label">${title}</span>
  <span class="row spread nowrap-row"><span class="stat-value">${value}</span>${children}</span>
  <span class="small muted">${text}</span>
</div>`;

const CHANNELS = [
  {
    name: "edge", label: "Channel",
    cell: (row) => html`<span title=${`${row.from} → ${row.to}`}>${row.name}</span>`,
  },
  { name: "depth", label: "Holds", num: true, kind: "nowrap", cell: (row) => row.depth ?? "–" },
  { name: "capacity", label: "At most", num: true, kind: "nowrap", cell: (row) => row.capacity ?? "–" },
  {
    name: "blocked", label: "Wait now", num: true, sort: (row) => row.blocked ?? -1,
    cell: (row) => (row.blocked === null ? "–" : `${Math.round(row.blocked * 100)} %`),
  },
  {
    name: "total", label: "In all", num: true, sort: (row) => row.blockedTotal ?? -1,
    cell: (row) => (row.blockedTotal === null ? "–" : duration(row.blockedTotal * 1000)),
  },
];

function storageOf({ value }) {
  const of = (what, text, size, number = null) => ({ what, text, bytes: size, count: number });
  return [
    of("Open parts", "newest with its WAL, uploads", openBytes(value), value("store.parts")),
    of("Upload files", "of open parts", value("store.upload_file_bytes"), value("store.upload_files")),
    of("Sealed files", "Parquet by day", value("store.sealed_file_bytes"), value("store.sealed_files")),
    of("Rollups", "with their WAL", value("rollups.file_bytes") + value("rollups.wal_bytes")),
    of("Journal", "not loaded yet", value("journal.lag_bytes"), value("journal.lag_records")),
    of("Kept rejects", "to be looked at, replayed", value("rejects.kept_bytes")),
  ];
}

const STORAGE = [
  { name: "what", label: "What", cell: (row) => html`${row.what}
    <div class="small muted">${row.text}</div>` },
  { name: "count", label: "Number", num: true, cell: (row) => count(row.count) },
  { name: "bytes", label: "Size", num: true, sort: (row) => row.bytes, cell: (row) => bytes(row.bytes) },
];

/** What goes next, and what is kept how long. */
function Purges({ kept }) {
  const days = Object.entries(kept?.days ?? {});
  const rows = (kept?.purges ?? []).flatMap((purge) => purge.items.map((one) => ({ ...one, ...purge })));
  return html`<section class="card card-flush">
    <div class="card-head"><h2>Next purge</h2>
      <span class="small muted">${days.length
        ? `kept: ${days.map(([table, n]) => `${table} ${n} d`).join(", ")}`
        : "everything is kept"}</span></div>
    <${Table} label="Next purge" rows=${rows} rowKey=${(row) => `${row.table}${row.at}`} columns=${PURGES}
      empty=${html`<p class="muted pad">${kept ? "Nothing is about to be removed." : "Loading…"}</p>`} />
  </section>`;
}

const PURGES = [
  { name: "at", label: "When", kind: "nowrap", cell: (row) => time(row.at) },
  { name: "table", label: "Table", cell: (row) => row.table },
  {
    name: "days", label: "Days",
    cell: (row) => (row.days.length > 1 ? `${row.days[0]} – ${row.days.at(-1)}` : row.days[0]),
  },
  { name: "rows", label: "Rows", num: true, cell: (row) => count(row.rows) },
  { name: "bytes", label: "Size", num: true, cell: (row) => bytes(row.bytes) },
  { name: "reason", label: "By", cell: (row) => row.reason },
];

const STATES = { works: "● working", idle: "○ idle", attention: "▲ look at it" };

function Actors({ nodes, restarts }) {
  const again = Object.entries(restarts).filter(([, times]) => times > 0);
  return html`<section class="card card-flush">
    <div class="card-head"><h2>Actors</h2>
      <span class="small muted">${again.length
        ? `restarted: ${again.map(([name, times]) => `${name} ${times}×`).join(", ")}`
        : "none was restarted"}</span></div>
    <${Table} label="Actors" rows=${nodes} rowKey=${(row) => row.id} columns=${ACTORS} />
  </section>`;
}

const ACTORS = [
  { name: "title", label: "Actor", cell: (row) => html`<strong>${row.title}</strong>` },
  {
    name: "state", label: "State", kind: "nowrap",
    cell: (row) => html`${STATES[row.state]}${row.why && html`<div class="small">${row.why}</div>`}`,
  },
  {
    name: "does", label: "Does",
    cell: (row) => html`<span class="small muted">${row.lines.join(" · ")}</span>`,
  },
];

mount(Pipeline);
