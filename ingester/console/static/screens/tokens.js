// Settings › Event Ingestion: tokens for the log door and the honest door, and for the API.
import { Empty, Fragment, Head, Loaded, html, mount, screen } from "../ui.js";
import { del, get, post, useResource } from "../api.js";
import { Code, Secret } from "../copy.js";
import { Dialog, deleteAfterAsking } from "../feedback.js";
import { Form } from "../forms.js";
import { CopyKey, KeyList, RotateDialog, Usage, revokeItem, useKeyDialogs } from "../keys.js";
import { Menu } from "../menu.js";
import { Table } from "../table.js";
import { ago, time } from "../format.js";
import { honestCurl, logCurl } from "../samples.js";
import { urlParam } from "../url.js";

const ENDPOINT = `${screen.intakeUrl}/api/v1/webhook/event/log`;
const adding = urlParam("add");

const SCOPES = [
  { value: "ingest", label: "Send events (ingest)" },
  { value: "read", label: "Read the API (read)" },
  { value: "admin", label: "Administer (admin)" },
];

function Tokens() {
  const tokens = useResource((signal) => get("/tokens", {}, { signal }), [], { everyMs: 15_000 });
  const sources = useResource((signal) => get("/sources", {}, { signal }));
  const { made, rotating, setRotating, close, tell, forget } = useKeyDialogs(adding, tokens.reload);
  const add = html`<button class="btn btn-primary" type="button"
    onClick=${() => (adding.value = "1")}>Add Token</button>`;
  return html`
    <${Head} text="Turn arbitrary JSON events into logs. A token names the service and the environment
      that its events belong to.">${add}<//>
    <div class="card stack">
      <div class="field">
        <span class="legend">Ingestion Endpoint</span>
        <${Secret} text=${ENDPOINT} label="endpoint URL" />
      </div>
    </div>
    <${Loaded} of=${tokens}>
      ${(data) => html`<section class="card card-flush">
        <${Table} label="Tokens" rows=${data.tokens} rowKey=${(row) => row.id} columns=${COLUMNS}
          empty=${html`<${Empty} title="No tokens yet" actions=${add}>
            A token lets one service send its events, in one environment.
          <//>`}
          detail=${(row) => html`<${Fragment}>
            <${KeyList} keys=${row.keys} /><${Usage} path=${`/tokens/${row.id}`} />
          <//>`}
          actions=${(row) => actions(row, { setRotating, reload: tokens.reload })} />
      </section>`}
    <//>
    ${adding.value && html`<${AddToken} onMade=${tell} onClose=${close}
      sources=${sources.data?.sources ?? []} />`}
    ${rotating && html`<${RotateDialog} title=${`Rotate the token of ${nameOf(rotating)}`}
      path=${`/tokens/${rotating.id}`} onMade=${tell} onClose=${() => setRotating(null)} />`}
    ${made && html`<${Made} made=${made} onClose=${forget} />`}`;
}

const nameOf = (row) => [row.service, row.environment].filter(Boolean).join(" · ") || row.id;

const COLUMNS = [
  {
    name: "service", label: "Service Name", sort: (row) => row.service, kind: "breaks",
    cell: (row) => row.service
      ? html`<strong>${row.service}</strong>`
      : html`<span class="muted">${row.id}</span>`,
  },
  {
    name: "environment", label: "Environment", sort: (row) => row.environment, kind: "breaks",
    cell: (row) => row.environment || "–",
  },
  {
    name: "scope", label: "Scope",
    cell: (row) => html`<span class=${`badge ${row.scope === "ingest" ? "" : "badge-accent"}`}>
      ${row.scope}
    </span>`,
  },
  {
    name: "token", label: "Token",
    cell: (row) => html`<${CopyKey} path=${`/tokens/${row.id}`} field="token" masked=${row.masked}
      isCopyable=${row.copyable} label=${`Copy token of ${nameOf(row)}`} />`,
  },
  {
    name: "used", label: "Last used", sort: (row) => row.last_used_at ?? "",
    cell: (row) => html`<span class=${`nowrap ${row.last_used_at ? "" : "muted"}`}
      title=${row.last_used_at ? time(row.last_used_at) : ""}>${ago(row.last_used_at)}</span>`,
  },
];

function actions(row, { setRotating, reload }) {
  return html`<${Menu} label=${`Actions for ${nameOf(row)}`} items=${[
    { label: "Rotate…", onSelect: () => setRotating(row) },
    revokeItem(nameOf(row), `/tokens/${row.id}`, reload),
    {
      label: "Delete…",
      danger: true,
      onSelect: () => deleteAfterAsking({
        title: `Delete the token of ${nameOf(row)}?`,
        text: "Requests with it are refused from now on. Logs that came with it stay.",
        remove: () => del(`/tokens/${row.id}`),
        done: reload,
      }),
    },
  ]} />`;
}

function AddToken({ onMade, onClose, sources }) {
  const isIngest = (values) => values.scope === "ingest";
  const isMore = (values) => values.more;
  const fields = [
    {
      name: "service", label: "Service Name", required: true, placeholder: "payment-webhook",
      maxlength: 256, autofocus: true, when: isIngest,
      hint: "A unique identifier for the service sending events.",
    },
    {
      name: "environment", label: "Environment", required: true, placeholder: "production",
      maxlength: 256, when: isIngest,
    },
    { name: "more", label: "Scope, limits and expiry", kind: "check" },
    { name: "scope", label: "Scope", kind: "select", options: SCOPES, when: isMore },
    {
      name: "source", label: "Event source", kind: "select",
      when: (values) => isMore(values) && isIngest(values),
      hint: "Lets the token send product events by /ingest/{source}?as=events.",
      options: [{ value: "", label: "none" }, ...sources.map(({ source }) => ({
        value: source, label: source,
      }))],
    },
    {
      name: "requests_per_hour", label: "Requests an hour", kind: "number", min: 0, initial: "0",
      hint: "0 for no limit.", when: isMore,
    },
    { name: "expires_at", label: "Ends on", kind: "date", hint: "Empty: it does not.", when: isMore },
  ];
  const submit = async (values) => {
    const body = { scope: values.scope };
    if (isIngest(values)) {
      Object.assign(body, { service: values.service, environment: values.environment });
      if (values.source) body.source = values.source;
    }
    if (Number(values.requests_per_hour)) body.requests_per_hour = Number(values.requests_per_hour);
    if (values.expires_at) body.expires_at = `${values.expires_at}T23:59:59Z`;
    onMade(await post("/tokens", body));
  };
  return html`<${Dialog} title="Add Token" onClose=${onClose}>
    <${Form} fields=${fields} submit=${submit} cancel=${onClose} action="Create Token" />
  <//>`;
}

function Made({ made, onClose }) {
  const note = made.copyable
    ? "It can be copied again from the list."
    : "Keep it now: only its digest is stored, it is not shown again.";
  return html`<${Dialog} title="Your token" onClose=${onClose} wide>
    <p>${note}</p>
    <${Secret} text=${made.token} label="token" />
    ${made.url &&
    html`<${Fragment}>
      <h3>Try it</h3>
      <${Code} text=${logCurl(made.url, made.token)} label="Copy curl for the log door" />
      <details><summary>The honest door, many lines at once</summary>
        <${Code} text=${honestCurl(screen.intakeUrl, made.token)} label="Copy curl for the honest door" />
      </details>
    <//>`}
    <div class="dialog-foot">
      ${made.url && html`<a class="btn" href="/logs">Open Logs</a>`}
      <button class="btn btn-primary" type="button" onClick=${onClose}>Done</button>
    </div>
  <//>`;
}

mount(Tokens);
