// Saved searches, and what else can be made of a query: monitor, dashboard, file, link, command.
import { Failure, html, screen, useState } from "../ui.js";
import { apiUrl, del, get, patch, post, useResource } from "../api.js";
import { copyText } from "../copy.js";
import { Dialog, deleteAfterAsking, toast } from "../feedback.js";
import { Form } from "../forms.js";
import { Menu } from "../menu.js";
import { boundsOf, isoTime } from "../time.js";
import { hrefWith, setParams } from "../url.js";
import { addMonitorHref, addWidgetHref } from "../queries.js";
import { rowsOnly } from "./lql.js";
import { answer, asks, columns, isTable, query, range, saved } from "./state.js";

const shellText = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function SavedMenu() {
  const [isSaving, setSaving] = useState(false);
  return html`
    <${Menu} label="Saved searches" text="Saved" small=${false} align="left">
      ${(close) => html`<${SavedList} close=${close} save=${() => {
        close();
        setSaving(true);
      }} />`}
    <//>
    ${isSaving && html`<${SaveDialog} onClose=${() => setSaving(false)} />`}`;
}

function SavedList({ close, save }) {
  const found = useResource((signal) => get("/saved-searches", { on: "logs" }, { signal }));
  const rows = found.data?.saved_searches ?? [];
  const isMine = (row) => screen.isAdmin || row.created_by === screen.user;
  const load = (row) => {
    close();
    setParams({
      q: row.query, since: row.since || "now-2d", until: row.until || "now",
      columns: row.columns.join(","), saved: row.id, row: "",
    });
  };
  const remove = (row) => {
    close();
    deleteAfterAsking({
      title: `Delete the saved search “${row.name}”?`,
      text: "It goes for everybody.",
      remove: () => del(`/saved-searches/${row.id}`),
      done: () => toast("Deleted"),
    });
  };
  const update = async (row) => {
    close();
    const text = `“${row.name}” is what is shown now`;
    await told(() => patch(`/saved-searches/${row.id}`, shown()), text);
  };
  const isNow = (row) => row.query === query.value && row.columns.join() === columns.value.join();
  return html`<div class="saved stack">
    <button type="button" class="btn" onClick=${save}>Save this search…</button>
    <${Failure} error=${found.error} retry=${found.reload} />
    ${found.data && !rows.length && html`<p class="muted small">What you save here everybody finds: the
      query, its time span and its columns.</p>`}
    ${rows.length > 0 && html`<ul>
      ${rows.map((row) => html`<li key=${row.id} aria-current=${row.id === saved.value ? "true" : null}>
        <button type="button" class="saved-row" onClick=${() => load(row)}>
          <bdi class="clip">${row.name}</bdi>
          <code class="clip small muted">${row.query || "all logs"}</code>
        </button>
        ${isMine(row) && html`<${Menu} label=${`Actions for ${row.name}`} items=${[
          !isNow(row) && { label: "Replace with what is shown", onSelect: () => update(row) },
          { label: "Delete…", danger: true, onSelect: () => remove(row) },
        ]} />`}
      </li>`)}
    </ul>`}
  </div>`;
}

const shown = () => ({
  query: query.value, since: range.since.value, until: range.until.value,
  columns: columns.value,
});

function SaveDialog({ onClose }) {
  const submit = async ({ name }) => {
    const made = await post("/saved-searches", { name, on: "logs", ...shown() });
    saved.value = made.id;
    toast(`Saved as “${made.name}”`);
    onClose();
  };
  return html`<${Dialog} title="Save this search" onClose=${onClose}>
    <p class="mono breaks small">${query.value || "all logs"}</p>
    <${Form} submit=${submit} cancel=${onClose} action="Save"
      fields=${[{ name: "name", label: "Name", required: true, placeholder: "Slow checkouts" }]} />
  <//>`;
}

async function told(work, text) {
  try {
    await work();
    toast(text);
  } catch (error) {
    toast(error, "error");
  }
}

/** What else can watch or show the rows of the query, for those who may make it. */
export function AddLinks() {
  if (!screen.isAdmin) return null;
  const rows = rowsOnly(query.value);
  const names = answer.value?.chart?.names ?? [];
  const source = { from: "logs", q: rows, ...(names.length === 3 ? { group_by: names[1] } : {}) };
  return html`<a class="btn" href=${addMonitorHref({ kind: "logs", query: rows })}>+ Monitor</a>
    <a class="btn" href=${addWidgetHref({ kind: "series", source }, range)}>+ Dashboard</a>`;
}

const copied = (text, what) => told(() => copyText(text), `${what} copied`);

/** The address with times that mean the same tomorrow. */
function absoluteHref() {
  const bounds = boundsOf(range);
  if (!bounds) return hrefWith({});
  return hrefWith({ since: isoTime(bounds[0]), until: isoTime(bounds[1]), live: "" });
}

const curl = () => `curl -H "Authorization: Bearer $TOKEN" \\\n  ${
  shellText(location.origin + apiUrl("/logs", { ...asks(), limit: 100 }))}`;

function command() {
  const { q, since, until } = asks();
  return ["ingester search", shellText(q), `--since ${shellText(since)}`,
    until && `--until ${shellText(until)}`].filter(Boolean).join(" ");
}

export function ShareMenu() {
  return html`<${Menu} label="Share" text="Share" small=${false} items=${[
    { label: "Copy link", onSelect: () => copied(location.href, "Link") },
    {
      label: "Copy link with fixed times",
      onSelect: () => copied(location.origin + absoluteHref(), "Link"),
    },
    { label: "Copy as curl", onSelect: () => copied(curl(), "curl") },
    { label: "Copy as command", onSelect: () => copied(command(), "Command") },
  ]} />`;
}

export function ExportMenu() {
  const href = (format) => apiUrl("/logs/export", { ...asks(), format });
  return html`<${Menu} label="Export all matches" text="Export" small=${false} items=${isTable.value
    ? [{ label: "A chart is exported by the SQL tab", disabled: true, onSelect: () => {} }]
    : [
      { label: "All matches as NDJSON", href: href("ndjson") },
      { label: "All matches as CSV", href: href("csv") },
    ]} />`;
}
