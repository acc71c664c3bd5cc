// Settings › Rejected lines: what was not taken and why; after a fix, sent through its door again.
import {
  Empty, Failure, Fragment, Head, Loaded, html, mount, screen, useEffect, useState,
} from "../ui.js";
import { get, post, useResource } from "../api.js";
import { CopyButton } from "../copy.js";
import { Dialog, toast } from "../feedback.js";
import { Field } from "../forms.js";
import { ago, count, plural, time } from "../format.js";
import { SentLine, visible } from "../lines.js";
import { Table } from "../table.js";
import { urlParam } from "../url.js";

const PAGE = 100;
const filter = {
  door: urlParam("door", "", { push: true }),
  source: urlParam("source", "", { push: true }),
  reason: urlParam("reason", "", { push: true }),
  replayed: urlParam("replayed", "", { push: true }),
};
const STATES = [
  { value: "", label: "all" },
  { value: "false", label: "not replayed" },
  { value: "true", label: "replayed" },
];

const chosen = () => Object.fromEntries(
  Object.entries(filter).map(([name, state]) => [name, state.value]).filter(([, value]) => value),
);

function Rejected() {
  const wanted = chosen();
  const counts = useResource((signal) => get("/rejects/counts", {}, { signal }), [], {
    everyMs: 10_000,
  });
  const [turn, setTurn] = useState(0);
  const again = () => {
    setTurn(turn + 1);
    counts.reload();
  };
  const isAny = (counts.data?.rejects ?? 0) > 0;
  return html`
    <${Head} text="Lines that came in a request that was taken, but were no events. Each is kept as it was
      sent, with the reason.">
      ${screen.isAdmin && isAny && html`<${ReplayAll} wanted=${wanted} done=${again} />`}
    <//>
    <${Loaded} of=${counts}>${(data) => isAny
      ? html`<${Fragment}>
          <${Counts} rows=${data.counts} />
          <${Rows} key=${JSON.stringify([wanted, turn])} wanted=${wanted} done=${again} />
        <//>`
      : html`<section class="card"><${Empty} title="No line was rejected">
          A line that is no valid event is kept here with its reason, and can be sent again once its
          source is fixed.
        <//></section>`}
    <//>`;
}

function Counts({ rows }) {
  const choose = (row) => {
    filter.door.value = row.door;
    filter.source.value = row.source;
    filter.reason.value = row.reason;
  };
  const isChosen = (row) => filter.reason.value === row.reason && filter.source.value === row.source
    && filter.door.value === row.door;
  const clear = () => {
    for (const state of Object.values(filter)) state.value = "";
  };
  return html`<section class="card card-flush">
    <div class="card-head">
      <h2>By reason</h2>
      ${Object.keys(chosen()).length > 0 &&
      html`<button class="btn btn-small" type="button" onClick=${clear}>Show all</button>`}
    </div>
    <${Table} label="Rejected lines by reason" rows=${rows} rowKey=${keyOf} onRow=${choose} columns=${[
      {
        name: "reason", label: "Reason", sort: (row) => row.reason,
        cell: (row) => html`<button class="link" type="button" aria-pressed=${isChosen(row)}
          onClick=${() => choose(row)}>
          <span class=${`badge ${isChosen(row) ? "badge-accent" : "badge-bad"}`}>${row.reason}</span>
        </button>`,
      },
      text("source", "Source"),
      text("door", "Door"),
      number("rejects", "Kept"),
      number("replayed", "Replayed"),
      {
        name: "newest", label: "Newest", sort: (row) => row.newest_at, kind: "nowrap",
        cell: (row) => ago(row.newest_at),
      },
    ]} />
  </section>`;
}

const text = (name, label) => ({
  name, label, sort: (row) => row[name], cell: (row) => row[name], kind: "breaks",
});
const number = (name, label) => ({
  name, label, num: true, sort: (row) => row[name], cell: (row) => count(row[name]),
});

const keyOf = (row) => `${row.door}/${row.source}/${row.reason}`;

function Rows({ wanted, done }) {
  const [rows, setRows] = useState(null);
  const [cursor, setCursor] = useState(null);
  const [error, setError] = useState(null);
  const load = async (from) => {
    try {
      const page = await get("/rejects", { ...wanted, limit: PAGE, cursor: from });
      setRows((old) => [...(from ? old : []), ...page.rejects]);
      setCursor(page.cursor);
      setError(null);
    } catch (problem) {
      setError(problem);
    }
  };
  useEffect(() => {
    load();
  }, []);
  return html`<section class="card card-flush">
    <div class="card-head">
      <h2>Lines</h2>
      <div class="row"><span class="small muted" aria-hidden="true">Show</span>
        <${Field} name="replayed" label=${html`<span class="sr-only">Show</span>`} kind="select"
          value=${filter.replayed.value} options=${STATES}
          onValue=${(value) => (filter.replayed.value = value)} />
      </div>
    </div>
    <${Failure} error=${error} retry=${() => load()} />
    ${rows && html`<${Table} label="Rejected lines" rows=${rows} rowKey=${(row) => row.id} columns=${COLUMNS}
      empty=${html`<${Empty} title="None of these">No rejected line fits the filter.<//>`}
      detail=${(row) => html`<${Detail} row=${row} done=${done} />`} />`}
    ${cursor && html`<div class="card-body row">
      <button class="btn" type="button" onClick=${() => load(cursor)}>Load more</button></div>`}
  </section>`;
}

const COLUMNS = [
  { name: "time", label: "Received", kind: "nowrap", cell: (row) => time(row.received_at) },
  {
    name: "reason", label: "Reason",
    cell: (row) => html`<span class="badge badge-bad">${row.reason}</span>`,
  },
  { name: "detail", label: "What is wrong", kind: "breaks", cell: (row) => row.detail },
  {
    name: "excerpt", label: "Line", kind: "mono small excerpt",
    cell: (row) => html`<span class="excerpt-text">${visible(row.excerpt)}</span>`,
  },
  { name: "state", label: "State", cell: (row) => html`<${State} replay=${row.replay} />` },
];

function State({ replay }) {
  if (!replay) return html`<span class="muted">–</span>`;
  const kinds = { replayed: "badge-good", refused: "badge-bad", under_way: "badge-warn" };
  return html`<span class=${`badge ${kinds[replay.state]}`} title=${replay.detail ?? ""}>
    ${replay.state.replace("_", " ")}</span>`;
}

function Detail({ row, done }) {
  const [isEditing, setEditing] = useState(false);
  const isText = row.line_encoding === "utf-8";
  return html`<div class="stack">
    <${SentLine} text=${isText ? row.line : `base64: ${row.line}`}
      column=${isText ? (row.column ?? 0) : 0} />
    <dl class="kv">
      <dt>Reason</dt><dd>${row.reason}: ${row.detail}${row.column ? ` (column ${row.column})` : ""}</dd>
      ${row.field && html`<${Fragment}><dt>Field</dt><dd><code>${row.field}</code></dd><//>`}
      <dt>Place</dt><dd>line ${row.line_number} of request <code>${row.request_id}</code>
        to ${row.door}, ${row.source}</dd>
      ${row.replay && html`<${Fragment}><dt>Replay</dt><dd>${row.replay.state.replace("_", " ")}
        ${" "}${time(row.replay.at)}${row.replay.detail ? `: ${row.replay.detail}` : ""}</dd><//>`}
    </dl>
    <div class="row">
      <${CopyButton} text=${row.line} label="Copy line">Copy line<//>
      ${screen.isAdmin && isText && !row.is_cut && row.replay?.state !== "replayed" &&
      html`<button class="btn btn-small" type="button" onClick=${() => setEditing(true)}>
        Replay…</button>`}
      ${row.is_cut && html`<span class="small muted">Only its first 64 KiB are kept.</span>`}
    </div>
    ${isEditing && html`<${ReplayOne} row=${row} onClose=${() => setEditing(false)} done=${done} />`}
  </div>`;
}

function ReplayOne({ row, onClose, done }) {
  const [text, setText] = useState(row.line);
  const [told, setTold] = useState(null);
  const ask = async (isDry) => {
    try {
      const edits = text === row.line ? {} : { [row.id]: text };
      const answer = await post("/rejects/replay", { ids: [row.id], edits, dry_run: isDry });
      const [result] = answer.results;
      setTold(result);
      if (result.outcome === "replayed") {
        toast("The line was replayed.");
        onClose();
        done();
      }
    } catch (error) {
      setTold({ outcome: "failed", detail: error.message });
    }
  };
  const isGood = told?.outcome === "accepted";
  return html`<${Dialog} title="Replay a line" onClose=${onClose} wide>
    <p>It goes through its door again, with its source as it is set now, and at most once.</p>
    <${Field} name="line" label="The line to send" kind="area" mono rows=${8} value=${text}
      onValue=${setText} />
    ${told && html`<p class=${`notice ${isGood ? "notice-good" : "notice-error"}`} role="status">
      ${isGood ? "It would be taken." : `${told.reason ?? told.outcome}: ${told.detail ?? ""}`}
      ${told.column ? ` (column ${told.column})` : ""}</p>`}
    <div class="dialog-foot">
      <button class="btn" type="button" onClick=${() => ask(true)}>Check</button>
      <button class="btn btn-primary" type="button" onClick=${() => ask(false)}>Replay</button>
    </div>
  <//>`;
}

function ReplayAll({ wanted, done }) {
  const [tried, setTried] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const { replayed: _state, ...chosenFilter } = wanted;
  const run = async (isDry) => {
    setBusy(true);
    const sum = { replayed: 0, refused: 0, other: 0 };
    try {
      let cursor;
      do {
        const answer = await post("/rejects/replay", {
          filter: chosenFilter, dry_run: isDry, ...(cursor ? { cursor } : {}),
        });
        for (const name of Object.keys(sum)) sum[name] += answer[name];
        cursor = answer.cursor;
      } while (cursor);
      if (isDry) setTried(sum);
      else {
        setTried(null);
        toast(`${plural(sum.replayed, "line")} replayed, ${count(sum.refused)} refused again.`);
        done();
      }
    } catch (error) {
      toast(error, "error");
    } finally {
      setBusy(false);
    }
  };
  const what = Object.values(chosenFilter).join(", ") || "all rejected lines";
  return html`
    <button class="btn" type="button" disabled=${isBusy} onClick=${() => run(true)}>
      Replay ${Object.keys(chosenFilter).length ? "these" : "all"}…</button>
    ${tried && html`<${Dialog} title="Replay rejected lines" onClose=${() => setTried(null)}>
      <p>Of ${what}: ${plural(tried.replayed, "line")} would be taken now, ${count(tried.refused)} refused
        again${tried.other ? `, ${count(tried.other)} cannot be sent again` : ""}.</p>
      <div class="dialog-foot">
        <button class="btn" type="button" onClick=${() => setTried(null)}>Cancel</button>
        <button class="btn btn-primary" type="button" disabled=${isBusy || !tried.replayed}
          onClick=${() => run(false)}>Replay ${count(tried.replayed)}</button>
      </div>
    <//>`}`;
}

mount(Rejected);
