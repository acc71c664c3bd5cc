// Settings › Product events: sources with their key pairs, settings and field maps.
import { Empty, Fragment, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { del, get, patch, post, useResource } from "../api.js";
import { Code, Secret } from "../copy.js";
import { Dialog, deleteAfterAsking, toast } from "../feedback.js";
import { Form } from "../forms.js";
import { CopyKey, KeyList, RotateDialog, Usage, revokeItem, useKeyDialogs } from "../keys.js";
import { Menu } from "../menu.js";
import { Table } from "../table.js";
import { ago, count, time } from "../format.js";
import { eventCurl, gzipCurl } from "../samples.js";
import { urlParam } from "../url.js";
import { FieldMap } from "../fieldmap.js";

const adding = urlParam("add");

const SETTINGS = [
  {
    name: "lenient_session", label: "Take events without a session", kind: "check",
    hint: "sessionId may be missing or empty.",
  },
  {
    name: "requests_per_hour", label: "Requests an hour", kind: "number", min: 0, initial: "0",
    hint: "0 for no limit.",
  },
  {
    name: "dedup_field", label: "Leave out repeats by field", placeholder: "messageId",
    hint: "A line whose value was stored before is left out. Empty: nothing is left out.",
  },
  {
    name: "dedup_hours", label: "… within hours", kind: "number", min: 1, max: 8784, initial: "24",
  },
];

const settingsOf = (values) => ({
  lenient_session: values.lenient_session,
  requests_per_hour: Number(values.requests_per_hour),
  dedup_field: values.dedup_field.trim() || null,
  dedup_hours: Number(values.dedup_hours),
});

function Sources() {
  const found = useResource((signal) => get("/sources", {}, { signal }), [], { everyMs: 15_000 });
  const { made, rotating, setRotating, close, tell, forget } = useKeyDialogs(adding, found.reload);
  const add = html`<button class="btn btn-primary" type="button"
    onClick=${() => (adding.value = "1")}>Add Source</button>`;
  return html`
    <${Head} text="Product usage, one JSON event a line. A source has a pair of keys that stand in the
      address.">
      <a class="btn" href="/viewer">Instrumentation viewer</a>${add}
    <//>
    <${Loaded} of=${found}>
      ${(data) => html`<section class="card card-flush">
        <${Table} label="Sources" rows=${data.sources} rowKey=${(row) => row.source}
          columns=${COLUMNS}
          empty=${html`<${Empty} title="No sources yet" actions=${add}>
            A source is one product, or one environment of it, that sends its events.
          <//>`}
          detail=${(row) => html`<${Detail} source=${row} reload=${found.reload} />`}
          actions=${(row) => actions(row, { setRotating, reload: found.reload })} />
      </section>`}
    <//>
    ${adding.value && html`<${AddSource} onMade=${tell} onClose=${close} />`}
    ${rotating && html`<${RotateDialog} title=${`Rotate the pair of ${rotating.source}`}
      path=${pathOf(rotating)} onMade=${tell} onClose=${() => setRotating(null)} />`}
    ${made && html`<${Made} made=${made} onClose=${forget} />`}`;
}

const pathOf = (row) => `/sources/${encodeURIComponent(row.source)}`;

const COLUMNS = [
  {
    name: "source", label: "Source", sort: (row) => row.source, kind: "breaks",
    cell: (row) => html`<strong>${row.source}</strong>`,
  },
  {
    name: "url", label: "Address with its pair",
    cell: (row) => html`<${CopyKey} path=${pathOf(row)} field="url" isCopyable=${row.copyable}
      masked=${`/v1/…/…${row.keys.at(-1)?.tail ?? ""}`} label=${`Copy address of ${row.source}`} />`,
  },
  {
    name: "settings", label: "Settings",
    cell: (row) => html`<span class="row">
      ${row.lenient_session && html`<span class="badge">lenient</span>`}
      ${row.dedup_field && html`<span class="badge">repeats by ${row.dedup_field}</span>`}
      ${row.map && html`<span class="badge">field map</span>`}
      ${row.requests_per_hour > 0 && html`<span class="badge">${count(row.requests_per_hour)} / h</span>`}
    </span>`,
  },
  {
    name: "used", label: "Last used", sort: (row) => row.last_used_at ?? "",
    cell: (row) => html`<span class=${`nowrap ${row.last_used_at ? "" : "muted"}`}
      title=${row.last_used_at ? time(row.last_used_at) : ""}>${ago(row.last_used_at)}</span>`,
  },
];

function actions(row, { setRotating, reload }) {
  const query = encodeURIComponent(row.source);
  return html`<${Menu} label=${`Actions for ${row.source}`} items=${[
    { label: "Rejected lines", href: `/settings/rejected?source=${query}` },
    { label: "Rotate…", onSelect: () => setRotating(row) },
    revokeItem(row.source, pathOf(row), reload),
    {
      label: "Delete…",
      danger: true,
      onSelect: () => deleteAfterAsking({
        title: `Delete ${row.source}?`,
        text: "Requests to its address are refused from now on. Its events stay.",
        remove: () => del(pathOf(row)),
        done: reload,
      }),
    },
  ]} />`;
}

const TABS = [["usage", "Usage"], ["settings", "Settings"], ["map", "Field map"]];

function Detail({ source, reload }) {
  const [tab, setTab] = useState("usage");
  const save = async (values) => {
    await patch(pathOf(source), settingsOf(values));
    toast(`The settings of ${source.source} are saved.`);
    reload();
  };
  const initial = { ...source, dedup_field: source.dedup_field ?? "" };
  return html`<div class="stack">
    <div class="tabs" role="tablist" aria-label=${`About ${source.source}`}>
      ${TABS.map(
        ([name, label]) => html`<button type="button" role="tab" aria-selected=${tab === name}
          onClick=${() => setTab(name)}>${label}</button>`,
      )}
    </div>
    ${tab === "usage" && html`<${Fragment}>
      <${KeyList} keys=${source.keys} /><${Usage} path=${pathOf(source)} />
    <//>`}
    ${tab === "settings" && html`<div style=${{ maxWidth: "460px" }}>
      <${Form} fields=${SETTINGS} initial=${initial} submit=${save} action="Save" />
    </div>`}
    ${tab === "map" && html`<${FieldMap} source=${source} path=${pathOf(source)} reload=${reload} />`}
  </div>`;
}

function AddSource({ onMade, onClose }) {
  const fields = [
    {
      name: "name", label: "Name", required: true, placeholder: "shop", maxlength: 64, autofocus: true,
      pattern: "[A-Za-z0-9._\\-]{1,64}", hint: "Letters, digits, dots, dashes and underscores.",
    },
    { name: "more", label: "Settings", kind: "check" },
    ...SETTINGS.map((field) => ({ ...field, when: (values) => values.more })),
  ];
  const submit = async ({ name, more, ...values }) => {
    onMade(await post("/sources", { name, ...(more ? settingsOf(values) : {}) }));
  };
  return html`<${Dialog} title="Add Source" onClose=${onClose}>
    <${Form} fields=${fields} submit=${submit} cancel=${onClose} action="Create Source" />
  <//>`;
}

function Made({ made, onClose }) {
  const test = made.url.replace(screen.intakeUrl, `${screen.intakeUrl}/test`);
  return html`<${Dialog} title=${made.source} onClose=${onClose} wide>
    <div class="field"><span class="legend">Address</span>
      <${Secret} text=${made.url} label="address" /></div>
    <div class="fields">
      <div class="field"><span class="legend">authKey</span>
        <${Secret} text=${made.auth_key} label="authKey" /></div>
      <div class="field"><span class="legend">apiKey</span>
        <${Secret} text=${made.api_key} label="apiKey" /></div>
    </div>
    <h3>Send your first event</h3>
    <${Code} text=${eventCurl(made.url)} label="Copy curl for an event" />
    <details><summary>Compressed</summary>
      <${Code} text=${gzipCurl(made.url)} label="Copy curl for compressed events" /></details>
    <details><summary>Only look, store nothing (Instrumentation viewer)</summary>
      <${Code} text=${eventCurl(test)} label="Copy curl for the test door" /></details>
    <div class="dialog-foot">
      <button class="btn btn-primary" type="button" onClick=${onClose}>Done</button>
    </div>
  <//>`;
}

mount(Sources);
