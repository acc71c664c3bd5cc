// First run: send your first event. Ready commands for each door, and whether it has arrived.
//
// Arrival counts, not the time within the event: samples of documents carry old dates. A row that a
// screen would not show by default is named, with a link that shows it.
import {
  Failure, Fragment, Head, html, mount, screen, useEffect, useRef, useState,
} from "../ui.js";
import { get, post, sqlRows, sqlText, useResource } from "../api.js";
import { Code } from "../copy.js";
import { toast } from "../feedback.js";
import { Field } from "../forms.js";
import { plural, time } from "../format.js";
import { eventCurl, gzipCurl, honestCurl, logCurl, metricCurl } from "../samples.js";
import { urlParam } from "../url.js";

const EVERY_MS = 2000;
const QUERYABLE_TRIES = 5;
// What Logs, Explorer and Metrics show without being asked for another span.
const SHOWN_MS = 2 * 86_400_000;
const PAD_MS = 60_000;

const door = urlParam("door", "logs");

// Two doors take tokens and store logs.
const TOKENS = {
  settings: "/settings/events", list: "/tokens",
  rows: (data) => data.tokens.filter((row) => row.scopes.includes("ingest")),
  name: (row) => `${row.service} · ${row.environment}`,
  path: (row) => `/tokens/${row.id}`,
  noun: "token", action: "Create a token",
  make: () => post("/tokens", { service: "my-service", environment: "production" }),
  table: "logs", when: "time", where: (row) =>
    `service = ${sqlText(row.service)} AND environment = ${sqlText(row.environment)}`,
  what: "message", screen: "/logs", title: "Logs",
};

const DOORS = {
  logs: {
    ...TOKENS, label: "Logs",
    commands: (key) => [["One event", logCurl(key.url, key.token)]],
    text: "Any JSON becomes a log. Level and message are found in it.",
  },
  metrics: {
    label: "Metrics", settings: "/settings/webhooks", list: "/connections", rows: (data) => data.connections,
    name: (row) => row.name, path: (row) => `/connections/${row.id}`,
    noun: "connection", action: "Create a connection",
    make: () => post("/connections", { name: "My first webhook" }),
    commands: (key) => [["One metric", metricCurl(key.webhook_url, key.api_key, key.project_id)]],
    table: "metrics", when: "time", where: (row) => `project_id = ${sqlText(row.project_id)}`,
    what: "metric_name || ': ' || value", screen: "/custom-metrics", title: "Metrics",
    text: "Numbers of your own, by a webhook that any tool can call.",
  },
  events: {
    label: "Product events", settings: "/settings/sources", list: "/sources", rows: (data) => data.sources,
    name: (row) => row.source, path: (row) => `/sources/${encodeURIComponent(row.source)}`,
    noun: "source", action: "Create a source",
    make: () => post("/sources", { name: "my-product" }),
    commands: (key) => [["One event", eventCurl(key.url)], ["Compressed", gzipCurl(key.url)]],
    table: "events", when: "created_at", where: (row) => `source = ${sqlText(row.source)}`,
    what: "action || ' by ' || user_id || ' of ' || account_id", screen: "/explorer",
    title: "Explorer", text: "Who does what in your product, one JSON object a line.",
  },
  honest: {
    ...TOKENS, label: "Anything",
    commands: (key) => [["Two lines", honestCurl(screen.intakeUrl, key.token)]],
    text: "NDJSON or arrays of any shape; the answer says what became of every line.",
  },
};

function Welcome() {
  const kind = DOORS[door.value] ?? DOORS.logs;
  return html`
    <${Head} text="Choose a way in, paste the command into a terminal, and watch it arrive." />
    <div class="tabs" role="tablist" aria-label="Ways in">
      ${Object.entries(DOORS).map(
        ([name, one]) => html`<button type="button" role="tab" aria-selected=${one === kind}
          onClick=${() => (door.value = name)}>${one.label}</button>`,
      )}
    </div>
    <${Way} key=${door.value} kind=${kind} />`;
}

function Way({ kind }) {
  const found = useResource((signal) => get(kind.list, {}, { signal }));
  const [chosen, setChosen] = useState(null);
  const rows = found.data ? kind.rows(found.data).filter((row) => row.copyable) : null;
  const row = rows?.find((one) => kind.path(one) === chosen) ?? rows?.[0];
  const make = async () => {
    try {
      await kind.make();
      found.reload();
    } catch (error) {
      toast(error, "error");
    }
  };
  return html`<div class="stack">
    <p class="muted">${kind.text}</p>
    <${Failure} error=${found.error} retry=${found.reload} />
    <ol class="steps">
      <li class="card stack">
        <h2>1. A ${kind.noun}</h2>
        ${rows?.length === 0 && html`<div class="row">
          <button class="btn btn-primary" type="button" onClick=${make}>${kind.action}</button>
        </div>`}
        ${rows?.length === 1 && html`<p>Using <strong>${kind.name(row)}</strong>.
          ${" "}<a href=${kind.settings}>Others</a> are made in the settings.</p>`}
        ${rows?.length > 1 && html`<div class="choice"><${Field} name="key" label="Using" kind="select"
          value=${kind.path(row)} onValue=${setChosen}
          options=${rows.map((one) => ({ value: kind.path(one), label: kind.name(one) }))} /></div>`}
      </li>
      ${row && html`<${Send} key=${kind.path(row)} kind=${kind} row=${row} />`}
    </ol>
  </div>`;
}

function Send({ kind, row }) {
  const key = useResource(() => post(`${kind.path(row)}/reveal`));
  return html`<${Fragment}>
    <li class="card stack">
      <h2>2. Send</h2>
      <${Failure} error=${key.error} retry=${key.reload} />
      ${key.data && kind.commands(key.data).map(
        ([title, text]) => html`<div>
          <h3>${title}</h3><${Code} text=${text} label=${`Copy: ${title}`} />
        </div>`,
      )}
    </li>
    <li class="card stack">
      <h2>3. See it arrive</h2>
      ${key.data && html`<${Arrival} kind=${kind} row=${row} />`}
    </li>
  <//>`;
}

const sums = (usage) => usage.hours.reduce(
  (sum, hour) => ({
    accepted: sum.accepted + hour.accepted,
    rejected: sum.rejected + hour.rejected,
    refused: sum.refused + hour.refused,
  }),
  { accepted: 0, rejected: 0, refused: 0 },
);

/** Looks at the key's counters, which cost little, and at the rows when these have risen. */
function Arrival({ kind, row }) {
  const [state, setState] = useState({ rows: [], refused: null, rejected: 0 });
  const before = useRef(null);
  const newest = useRef(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    let isGone = false;
    let isLooking = false;
    const look = async () => {
      if (document.hidden || isLooking) return;
      isLooking = true;
      try {
        const usage = await get(`${kind.path(row)}/usage`, { hours: 48 });
        const now = sums(usage);
        const last = before.current;
        if (last === null) newest.current = await newestArrival(kind, row);
        before.current = now;
        setError(null);
        if (last === null || isGone) return;
        const update = {};
        if (now.refused > last.refused) update.refused = usage.refused[0];
        if (now.rejected > last.rejected) update.rejected = now.rejected - last.rejected;
        if (now.accepted > last.accepted) {
          update.rows = await arrived(kind, row, newest.current);
          update.refused = null;
        }
        if (!isGone && Object.keys(update).length) setState((old) => ({ ...old, ...update }));
      } catch (problem) {
        setError(problem);
      } finally {
        isLooking = false;
      }
    };
    look();
    const timer = setInterval(look, EVERY_MS);
    return () => {
      isGone = true;
      clearInterval(timer);
    };
  }, []);
  return html`<div class="stack" role="status" aria-live="polite">
    <${Failure} error=${error} />
    ${state.refused && html`<p class="notice notice-error">
      The server refused a request (${state.refused.status}): ${state.refused.reason}</p>`}
    ${state.rejected > 0 && html`<p class="notice notice-warn">
      ${plural(state.rejected, "line")} did not fit. <a href="/settings/rejected">See why</a>.</p>`}
    ${state.rows.length
      ? state.rows.map((one) => html`<${Arrived} key=${one.id} kind=${kind} one=${one} />`)
      : html`<p class="row"><span class="dot dot-live"></span>Waiting for the first request…</p>`}
  </div>`;
}

function Arrived({ kind, one }) {
  const at = Date.parse(`${one.at}`);
  const isHidden = at < Date.now() - SHOWN_MS || at > Date.now() + PAD_MS;
  const iso = (ms) => new Date(ms).toISOString();
  const span = `since=${iso(at - PAD_MS)}&until=${iso(at + PAD_MS)}`;
  return html`<div class="notice notice-good stack">
    <p><strong>It arrived</strong> at ${time(one.received_at)}: <span class="breaks">${one.what}</span></p>
    ${isHidden
      ? html`<p>It is dated ${time(at)}, which is outside of the time that ${kind.title} shows at first.
          <a href=${`${kind.screen}?${span}`}>Show it there</a>.</p>`
      : html`<p><a href=${kind.screen}>Open ${kind.title}</a></p>`}
  </div>`;
}

async function newestArrival(kind, row) {
  const [one] = await sqlRows(
    `SELECT max(received_at) AS at FROM ${kind.table} WHERE ${kind.where(row)}`,
  );
  return one.at ?? "1970-01-01T00:00:00Z";
}

/** Rows that came after `since`; what was acknowledged can be queried a moment later. */
async function arrived(kind, row, since) {
  for (let turn = 0; turn < QUERYABLE_TRIES; turn += 1) {
    const rows = await sqlRows(
      `SELECT id, received_at, ${kind.when} AS at, left(${kind.what}, 300) AS what
       FROM ${kind.table} WHERE ${kind.where(row)}
         AND received_at > CAST(${sqlText(since.replace("Z", ""))} AS TIMESTAMP)
       ORDER BY received_at DESC LIMIT 3`,
    );
    if (rows.length) return rows;
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
  return [];
}

mount(Welcome);
