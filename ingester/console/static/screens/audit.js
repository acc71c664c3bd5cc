// Settings › Audit: who changed which key, member or setting, and when.
import { Empty, Failure, Head, html, mount, useEffect, useState } from "../ui.js";
import { get } from "../api.js";
import { Table } from "../table.js";
import { time } from "../format.js";

const PAGE = 100;

function Audit() {
  const [entries, setEntries] = useState(null);
  const [hasMore, setMore] = useState(false);
  const [error, setError] = useState(null);
  const load = async (before) => {
    try {
      const page = await get("/audit", { limit: PAGE, before });
      setEntries((old) => [...(before ? old : []), ...page.entries]);
      setMore(page.entries.length === PAGE);
      setError(null);
    } catch (problem) {
      setError(problem);
    }
  };
  useEffect(() => {
    load();
  }, []);
  return html`
    <${Head} text="Changes of keys, members and settings, the newest first." />
    <${Failure} error=${error} retry=${() => load()} />
    ${entries && html`<section class="card card-flush">
      <${Table} label="Audit" rows=${entries} rowKey=${(row) => row.id} columns=${COLUMNS}
        empty=${html`<${Empty} title="Nothing was changed yet">Every change of a key or a member will
          be here.<//>`} />
      ${hasMore && html`<div class="card-body row">
        <button class="btn" type="button" onClick=${() => load(entries.at(-1).id)}>Load more</button>
      </div>`}
    </section>`}`;
}

const COLUMNS = [
  { name: "time", label: "Time", kind: "nowrap", cell: (row) => time(row.time) },
  { name: "actor", label: "Who", kind: "breaks", cell: (row) => row.actor },
  {
    name: "action", label: "What",
    cell: (row) => html`<span class=${`badge ${/deleted|revoked/.test(row.action) ? "badge-bad" : ""}`}>
      ${row.action}</span>`,
  },
  { name: "object", label: "Of", kind: "mono breaks", cell: (row) => row.object },
  {
    name: "detail", label: "Detail", kind: "mono small breaks wide muted",
    cell: (row) => Object.entries(row.detail)
      .filter(([, value]) => value !== null && value !== "")
      .map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)
      .join(", "),
  },
];

mount(Audit);
