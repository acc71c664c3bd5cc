// Silences: what nobody is told of for a while, and why.
import { Empty, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { del, get, patch, useResource } from "../api.js";
import { deleteAfterAsking, toast } from "../feedback.js";
import { MatcherTexts } from "../matchers.js";
import { Menu } from "../menu.js";
import { SilenceDialog } from "../silence.js";
import { Table } from "../table.js";
import { time } from "../format.js";
import { urlParam } from "../url.js";
import { When } from "../watch.js";

const ended = urlParam("ended");

function Silences() {
  const found = useResource(
    (signal) => get("/silences", { ended: ended.value ? "true" : "" }, { signal }),
    [ended.value],
    { everyMs: 10_000 },
  );
  const [isAdding, setAdding] = useState(false);
  const add = screen.isAdmin && html`<button class="btn btn-primary" type="button"
    onClick=${() => setAdding(true)}>New silence</button>`;
  return html`
    <${Head} text="Nobody is told of incidents that a silence covers; they are shown all the same.">
      ${add}
    <//>
    <div class="toolbar">
      <div class="btn-group" role="group" aria-label="Which">
        <button class="btn" type="button" aria-pressed=${!ended.value}
          onClick=${() => (ended.value = "")}>Not ended</button>
        <button class="btn" type="button" aria-pressed=${Boolean(ended.value)}
          onClick=${() => (ended.value = "1")}>All</button>
      </div>
    </div>
    <${Loaded} of=${found}>${({ silences }) => html`<section class="card card-flush">
      <${Table} label="Silences" rows=${silences} rowKey=${(row) => row.id} columns=${COLUMNS}
        actions=${screen.isAdmin ? (row) => html`<${Menu} label=${`Actions for ${row.id}`}
          items=${items(row, found.reload)} />` : undefined}
        empty=${html`<${Empty} title="Nothing is silenced" actions=${add}>
          For planned work: say what, for how long, and why.
        <//>`} />
    </section>`}<//>
    ${isAdding && html`<${SilenceDialog} onClose=${() => setAdding(false)} done=${found.reload} />`}`;
}

function items(row, reload) {
  const endNow = async () => {
    try {
      await patch(`/silences/${row.id}`, {});
      reload();
    } catch (error) {
      toast(error, "error");
    }
  };
  return [
    row.active && { label: "End now", onSelect: endNow },
    {
      label: "Delete…",
      danger: true,
      onSelect: () => deleteAfterAsking({
        title: "Delete this silence?",
        text: "It ends at once and leaves the list.",
        remove: () => del(`/silences/${row.id}`),
        done: reload,
      }),
    },
  ];
}

const state = (row) => {
  if (row.active) return html`<span class="badge badge-accent">◐ Active</span>`;
  return html`<span class="badge">${Date.parse(row.starts_at) > Date.now() ? "Coming" : "Ended"}</span>`;
};

const COLUMNS = [
  { name: "state", label: "State", cell: state },
  {
    name: "matchers", label: "Covers what matches all of",
    cell: (row) => html`<${MatcherTexts} matchers=${row.matchers} none="everything" />`,
  },
  { name: "reason", label: "Reason", kind: "breaks", cell: (row) => row.reason || "–" },
  { name: "by", label: "By", kind: "breaks", cell: (row) => row.created_by },
  {
    name: "starts", label: "Began", sort: (row) => row.starts_at, kind: "nowrap",
    cell: (row) => time(row.starts_at),
  },
  {
    name: "ends", label: "Ends", sort: (row) => row.ends_at,
    cell: (row) => html`<${When} at=${row.ends_at} />`,
  },
];

mount(Silences);
