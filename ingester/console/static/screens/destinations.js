// Alert settings: destinations, routes to them, labels, and at the bottom the form that adds a destination.
import { Empty, Fragment, Head, Loaded, html, mount, screen, useEffect, useRef, useState } from "../ui.js";
import { del, get, patch, post, useResource } from "../api.js";
import { Code, Secret } from "../copy.js";
import { pretty } from "../deliverylog.js";
import { DestinationForm, TYPES } from "../destinationform.js";
import { Dialog, deleteAfterAsking, toast } from "../feedback.js";
import { Form } from "../forms.js";
import { Labels } from "../labels.js";
import { Menu } from "../menu.js";
import { DryRun, Routes } from "../routes.js";
import { Table } from "../table.js";
import { count, duration, time } from "../format.js";
import { urlParam } from "../url.js";
import { Clip, Declared, When } from "../watch.js";

const adding = urlParam("add", "", { push: true });

function Settings() {
  const found = useResource((signal) => get("/destinations", {}, { signal }), [], { everyMs: 10_000 });
  const [dialog, setDialog] = useState(null);
  const close = () => setDialog(null);
  const changed = () => {
    close();
    found.reload();
  };
  return html`
    <${Head} title="Alert settings" text="Where incidents are sent to, which go where, and their labels." />
    <${Loaded} of=${found}>${({ destinations }) => html`<${Fragment}>
      <section class="card card-flush" aria-label="Destinations">
        <div class="card-head"><h2>Alert destinations</h2></div>
        <${Table} label="Destinations" rows=${destinations} rowKey=${(row) => row.id}
          columns=${COLUMNS} detail=${(row) => html`<${About} row=${row} />`}
          actions=${(row) => html`<${Menu} label=${`Actions for ${row.name}`}
            items=${items(row, { setDialog, reload: found.reload })} />`}
          empty=${html`<${Empty} title="Nobody is told yet" actions=${screen.isAdmin && html`<button
            class="btn btn-primary" type="button" onClick=${() => (adding.value = "webhook")}>
            Add a webhook</button>`}>
            Incidents are shown in this console. Add a destination below to have them sent.
          <//>`} />
      </section>
      <${Routes} destinations=${destinations} />
      <${DryRun} />
      <${Labels} />
      ${screen.isAdmin && html`<${Add} onDone=${(made) => {
        adding.value = "";
        toast(`${made.name} is added. Verify in its menu sends a sample.`);
        changed();
      }} />`}
    <//>`}<//>
    ${dialog && html`<${SomeDialog} ...${dialog} onClose=${close} done=${changed} />`}`;
}

const SomeDialog = ({ Shown, ...rest }) => html`<${Shown} ...${rest} />`;

const COLUMNS = [
  {
    name: "name", label: "Name", kind: "breaks", sort: (row) => row.name,
    cell: (row) => html`<strong>${row.name}</strong> <${Declared} file=${row.file} />`,
  },
  { name: "type", label: "Type", kind: "nowrap", cell: (row) => TYPES[row.type].label },
  {
    name: "to", label: "Address",
    cell: (row) => html`<${Clip} kind="mono" text=${addressOf(row)} />`,
  },
  { name: "state", label: "State", cell: (row) => html`<${State} row=${row} />` },
  {
    name: "pending", label: "Pending", num: true, sort: (row) => row.pending,
    cell: (row) => count(row.pending),
  },
  {
    name: "last", label: "Last success", sort: (row) => row.last_success_at ?? "",
    cell: (row) => html`<${When} at=${row.last_success_at} />`,
  },
];

const addressOf = (row) => (row.type === "incident_io"
  ? `${row.base_url ?? "https://api.incident.io"} · ${row.alert_source_config_id}` : row.url ?? "");

function State({ row }) {
  if (!row.enabled) {
    return html`<span class="badge badge-bad" title=${row.disabled_reason}>✕ Disabled</span>`;
  }
  if (row.failing_since) {
    return html`<span class="badge badge-warn" title=${`since ${time(row.failing_since)}`}>! Failing</span>`;
  }
  return html`<span class="badge badge-good">✓ On</span>`;
}

function About({ row }) {
  const metadata = row.metadata && JSON.stringify(row.metadata, null, 2);
  return html`<dl class="kv">
    <dt>Address</dt><dd class="mono">${addressOf(row)}</dd>
    ${row.headers && Object.keys(row.headers).length > 0 && html`<dt>Headers</dt>
      <dd class="mono">${Object.entries(row.headers).map(
        ([name, value]) => html`<div>${name}: ${value}</div>`,
      )}</dd>`}
    ${row.type !== "incident_io" && html`<dt>Signed</dt><dd>${row.secret ? "yes" : "no"}</dd>
      <dt>Compressed</dt><dd>${row.gzip ? "gzip" : "no"}</dd>`}
    ${row.type === "incident_io" && html`<dt>Deduplication</dt><dd>${row.key_mode}</dd>
      <dt>Metadata</dt><dd><code class="pre">${metadata ?? "none"}</code></dd>`}
    ${row.failing_since && html`<dt>Failing since</dt><dd>${time(row.failing_since)}</dd>`}
    ${!row.enabled && html`<dt>Disabled</dt><dd>${time(row.disabled_at)}: ${row.disabled_reason}</dd>`}
    <dt>Made</dt><dd>${time(row.created_at)}</dd>
  </dl>`;
}

function items(row, { setDialog, reload }) {
  const log = { label: "Attempt log", href: `/alerts/deliveries?destination=${row.id}` };
  if (!screen.isAdmin) return [log];
  const open = (Shown) => () => setDialog({ Shown, row });
  const turn = async () => {
    try {
      await patch(`/destinations/${row.id}`, { enabled: !row.enabled });
      reload();
    } catch (error) {
      toast(error, "error");
    }
  };
  return [
    { label: "Verify", onSelect: open(VerifyDialog) },
    log,
    { label: "Resend failed…", onSelect: open(ResendDialog) },
    !row.file && row.type !== "incident_io" && { label: "Rotate secret…", onSelect: open(RotateDialog) },
    !row.file && { label: "Edit…", onSelect: open(EditDialog) },
    { label: row.enabled ? "Disable" : "Enable again", onSelect: turn },
    !row.file && {
      label: "Delete…",
      danger: true,
      onSelect: () => deleteAfterAsking({
        title: `Delete ${row.name}?`,
        text: "Its routes and deliveries go with it; what is pending is not sent. Incidents stay.",
        remove: () => del(`/destinations/${row.id}`),
        done: reload,
      }),
    },
  ];
}

/** At the bottom: which kind, then its form. */
function Add({ onDone }) {
  const type = Object.hasOwn(TYPES, adding.value) ? adding.value : "";
  const place = useRef(null);
  useEffect(() => {
    if (type) place.current.scrollIntoView({ block: "nearest" });
  }, [type]);
  return html`<section class="card stack" ref=${place} aria-label="Add an alert destination">
    <h2>Add an alert destination</h2>
    <div class="types">
      ${Object.entries(TYPES).map(([name, one]) => html`<button type="button" class="type btn"
        aria-pressed=${type === name} onClick=${() => (adding.value = type === name ? "" : name)}>
        <strong>${one.add}</strong><span class="small muted">${one.text}</span>
      </button>`)}
    </div>
    ${type && html`<div class="narrow-form"><${DestinationForm} key=${type} type=${type}
      onDone=${onDone} onCancel=${() => (adding.value = "")} /></div>`}
  </section>`;
}

function EditDialog({ row, onClose, done }) {
  return html`<${Dialog} title=${`Edit ${row.name}`} onClose=${onClose}>
    <${DestinationForm} type=${row.type} row=${row} onCancel=${onClose} onDone=${done} />
  <//>`;
}

function VerifyDialog({ row, onClose }) {
  const found = useResource((signal) => post(`/destinations/${row.id}/verify`, {}, { signal }), [row.id]);
  return html`<${Dialog} title=${`Verify ${row.name}`} onClose=${onClose} wide>
    <p class="muted">${row.type === "incident_io"
      ? "A resolved test alert, which pages nobody. It opens no incident."
      : "A sample incident, on the way that all deliveries take. It is in no list."}</p>
    ${found.loading && html`<p class="loading" role="status">Sending…</p>`}
    ${!found.loading && html`<${Loaded} of=${found}>${(data) => html`<${Verified} ...${data} />`}<//>`}
    <div class="dialog-foot">
      <button class="btn" type="button" disabled=${found.loading} onClick=${found.reload}>Send again</button>
      <button class="btn btn-primary" type="button" onClick=${onClose}>Done</button>
    </div>
  <//>`;
}

function Verified({ ok, request, status, latency_ms: took, body, error }) {
  const headers = Object.entries(request.headers).map(([name, value]) => `${name}: ${value}`);
  return html`<${Fragment}>
    <p class=${`notice ${ok ? "notice-good" : "notice-error"}`} role="status">
      <strong>${ok ? "✓ It arrived" : "✕ It did not arrive"}</strong>: ${status ?? "no answer"} after
      ${" "}${duration(took)}.${error ? ` ${error}` : ""}
    </p>
    <h3>Request</h3>
    <div class="sent-code"><${Code} label="Copy the request"
      text=${`${request.method} ${request.url}\n${headers.join("\n")}\n\n${pretty(request.body)}`} /></div>
    <h3>Answer</h3>
    <div class="sent-code"><${Code} label="Copy the answer"
      text=${`${status ?? "no status"}\n\n${body || "(empty)"}`} /></div>
  <//>`;
}

function ResendDialog({ row, onClose, done }) {
  const submit = async ({ since }) => {
    const { resent, disabled } = await post("/deliveries/resend", {
      failed_since: new Date(since).toISOString(), destination: row.id,
    });
    toast(disabled ? `${row.name} is disabled: enable it first.` : `${count(resent)} sent again.`);
    done();
  };
  const dayAgo = new Date(Date.now() - 86_400_000 - new Date().getTimezoneOffset() * 60_000);
  return html`<${Dialog} title=${`Resend what failed to ${row.name}`} onClose=${onClose}>
    <${Form} submit=${submit} cancel=${onClose} action="Resend"
      initial=${{ since: dayAgo.toISOString().slice(0, 16) }}
      fields=${[{
        name: "since", label: "Failed since (your local time)", kind: "datetime-local", required: true,
        hint: "What was given up since then, once more: the same bytes under the same id.",
      }]} />
  <//>`;
}

const OVERLAPS = [["0", "End it now"], ["3600", "1 hour"], ["86400", "1 day"], ["604800", "7 days"]]
  .map(([value, label]) => ({ value, label }));

function RotateDialog({ row, onClose, done }) {
  const [made, setMade] = useState(null);
  const submit = async ({ overlap }) => {
    setMade(await post(`/destinations/${row.id}/rotate`, { overlap_seconds: Number(overlap) }));
  };
  if (made) {
    return html`<${Dialog} title="New signing secret" onClose=${done}>
      <p>Keep it now: it is shown only here.${made.old_until
        ? ` The one before signs beside it until ${time(made.old_until)}.` : ""}</p>
      <${Secret} text=${made.secret} label="signing secret" />
      <div class="dialog-foot">
        <button class="btn btn-primary" type="button" onClick=${done}>Done</button>
      </div>
    <//>`;
  }
  return html`<${Dialog} title=${`Rotate the secret of ${row.name}`} onClose=${onClose}>
    <p>A new secret is made. ${row.secret ? "The one before keeps signing beside it for a while." : ""}</p>
    <${Form} submit=${submit} cancel=${onClose} action="Rotate" initial=${{ overlap: "86400" }}
      fields=${[{
        name: "overlap", label: "Old secret keeps signing for", kind: "select", options: OVERLAPS,
      }]} />
  <//>`;
}

mount(Settings);
