// The events themselves, newest first.
import { Empty, Failure, html, screen, useEffect, useState } from "../ui.js";
import { get, useResource } from "../api.js";
import { CopyButton } from "../copy.js";
import { Table } from "../table.js";
import { ago, count, time } from "../format.js";
import { shownText, visible } from "../lines.js";
import { addMonitorHref, addWidgetHref } from "../queries.js";
import { FilterBar, narrowTo, wholeQuery } from "./filter.js";

const PAGE_ROWS = 100;
// Of more in one node browsers hang; the copy has all.
const TEXT_SHOWN_MAX = 20_000;

export function EventsTab({ range }) {
  const query = wholeQuery();
  const [more, setMore] = useState({ rows: [], cursor: undefined, error: null });
  const asked = {
    q: query, since: range.since.value, limit: PAGE_ROWS,
    until: range.until.value === "now" ? "" : range.until.value,
  };
  const found = useResource((abort) => get("/events", asked, { signal: abort }), [JSON.stringify(asked)]);
  useEffect(() => setMore({ rows: [], cursor: found.data?.cursor, error: null }), [found.data]);
  const rows = [...(found.data?.rows ?? []), ...more.rows];
  const load = async () => {
    try {
      const page = await get("/events", { ...asked, cursor: more.cursor });
      setMore({ rows: [...more.rows, ...page.rows], cursor: page.cursor, error: null });
    } catch (error) {
      setMore({ ...more, error });
    }
  };
  return html`
    <${FilterBar} range=${range} fault=${found.error} />
    <section class="card card-flush" aria-label="Events">
      <div class="card-head">
        <span class="small muted">${found.data
          ? `${count(rows.length)} events${more.cursor ? ", newest first; there are more" : ""}`
          : "Loading…"}</span>
        ${screen.isAdmin && html`<div class="row nowrap">
          <a class="btn btn-small" href=${addMonitorHref({ kind: "events", query })}>+ Monitor</a>
          <a class="btn btn-small" href=${addWidgetHref({
            kind: "logs", source: { from: "events", q: query },
          }, range)}>+ Dashboard</a></div>`}
      </div>
      ${found.data && html`<${Table} label="Events" rows=${rows} rowKey=${(row) => row.id} columns=${COLUMNS}
        detail=${(row) => html`<${Detail} row=${row} />`}
        empty=${html`<${Empty} title="No events in this span">
          Widen the span, or clear the filter.<//>`}
        more=${more.cursor && html`<div class="row table-note">
          <button class="btn" type="button" onClick=${load}>More</button>
          <${Failure} error=${more.error} /></div>`} />`}
    </section>`;
}

const COLUMNS = [
  {
    name: "time", label: "Time", kind: "nowrap mono",
    cell: (row) => html`<span title=${ago(row.created_at)}>${time(row.created_at, "ms")}</span>`,
  },
  {
    name: "action", label: "Action", kind: "breaks",
    cell: (row) => html`<strong>${shownText(row.action, 120)}</strong>`,
  },
  { name: "account", label: "Account", kind: "breaks", cell: (row) => shownText(row.account_id, 120) },
  { name: "user", label: "User", kind: "breaks", cell: (row) => shownText(row.user_id, 120) },
  {
    name: "session", label: "Session", kind: "breaks mono muted",
    cell: (row) => shownText(row.session_id, 60),
  },
  { name: "source", label: "Source", kind: "breaks", cell: (row) => row.source },
];

const MAIN = [["account_id", "Account"], ["user_id", "User"], ["action", "Action"],
  ["session_id", "Session"], ["source", "Source"]];

function Detail({ row }) {
  const whole = useResource(
    (abort) => get(`/events/${row.id}`, { before: 0, after: 0 }, { signal: abort }), [row.id],
    { enabled: Boolean(row.cut) },
  );
  const body = whole.data?.row.body ?? row.body;
  const text = typeof body === "string" ? body : JSON.stringify(body, null, 2);
  return html`<div class="stack">
    <dl class="kv">
      ${MAIN.map(([field, label]) => html`<dt>${label}</dt>
        <dd>${shownText(row[field], 1100)} <button class="link small" type="button"
          onClick=${() => narrowTo(field, row[field])}>only this</button></dd>`)}
      <dt>Happened</dt><dd>${time(row.created_at, "ms")}</dd>
      <dt>Arrived</dt><dd>${time(row.received_at, "ms")}</dd>
      <dt>Id</dt><dd class="mono">${row.id}</dd>
    </dl>
    <pre class="code sent" tabindex="0" aria-label="The event as it was sent">
      ${visible(text.slice(0, TEXT_SHOWN_MAX))}${text.length > TEXT_SHOWN_MAX &&
      html`<span class="muted"> … ${count(text.length - TEXT_SHOWN_MAX)} more characters</span>`}</pre>
    <div class="row">
      <${CopyButton} text=${text} label="Copy JSON of the event">Copy JSON<//>
      <a class="btn btn-small" href=${`/accounts?view=users&account=${encodeURIComponent(row.account_id)}`}>
        Users of the account</a>
    </div>
  </div>`;
}
