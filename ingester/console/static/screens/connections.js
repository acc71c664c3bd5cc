// Settings › Custom › Custom Webhooks: connections for metrics.
import { Empty, Fragment, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { del, get, patch, post, useResource } from "../api.js";
import { Code, Secret } from "../copy.js";
import { Dialog, deleteAfterAsking, toast } from "../feedback.js";
import { Form } from "../forms.js";
import { CopyKey, KeyList, RotateDialog, Usage, revokeItem, useKeyDialogs } from "../keys.js";
import { Menu } from "../menu.js";
import { Table } from "../table.js";
import { ago, count, time } from "../format.js";
import { metricCurl } from "../samples.js";
import { urlParam } from "../url.js";

const ENDPOINT = `${screen.intakeUrl}/api/webhooks/custom`;
const adding = urlParam("add");

const TIERS = [
  { value: "unlimited", label: "Unlimited" },
  { value: "free", label: "Free: 100 requests an hour" },
  { value: "pro", label: "Pro: 1,000 requests an hour" },
  { value: "scale", label: "Scale: 10,000 requests an hour" },
];

function Connections() {
  const found = useResource((signal) => get("/connections", {}, { signal }), [], { everyMs: 15_000 });
  const projects = useResource((signal) => get("/projects", {}, { signal }));
  const { made, rotating, setRotating, close, tell, forget } = useKeyDialogs(adding, found.reload);
  const [limiting, setLimiting] = useState(null);
  const add = html`<button class="btn btn-primary" type="button"
    onClick=${() => (adding.value = "1")}>Connect</button>`;
  return html`
    <${Head} text="Send custom metrics from any tool that can make HTTP requests.">${add}<//>
    <${Loaded} of=${found}>
      ${(data) => html`<section class="card card-flush">
        <${Table} label="Connections" rows=${data.connections} rowKey=${(row) => row.id}
          columns=${COLUMNS}
          empty=${html`<${Empty} title="No webhook is connected" actions=${add}>
            Give one a name and get its Webhook URL, API Key and Project ID.
          <//>`}
          detail=${(row) => html`<${Fragment}>
            <${KeyList} keys=${row.keys} /><${Usage} path=${`/connections/${row.id}`} />
          <//>`}
          actions=${(row) => actions(row, { setRotating, setLimiting, reload: found.reload })} />
      </section>`}
    <//>
    ${adding.value && html`<${Connect} onMade=${tell} onClose=${close}
      projects=${projects.data?.projects ?? []} />`}
    ${rotating && html`<${RotateDialog} title=${`Rotate the key of ${rotating.name}`}
      path=${`/connections/${rotating.id}`} onMade=${tell} onClose=${() => setRotating(null)} />`}
    ${limiting && html`<${Limits} connection=${limiting} onClose=${() => setLimiting(null)}
      done=${found.reload} />`}
    ${made && html`<${Made} made=${made} onClose=${forget} />`}`;
}

const COLUMNS = [
  {
    name: "name", label: "Name", sort: (row) => row.name, kind: "breaks",
    cell: (row) => html`<strong>${row.name}</strong>`,
  },
  {
    name: "project", label: "Project ID", sort: (row) => row.project_id,
    cell: (row) => html`<code>${row.project_id}</code>`,
  },
  {
    name: "key", label: "API Key",
    cell: (row) => html`<${CopyKey} path=${`/connections/${row.id}`} field="api_key"
      masked=${row.masked} isCopyable=${row.copyable} label=${`Copy API key of ${row.name}`} />`,
  },
  {
    name: "limit", label: "Limit", num: true, sort: (row) => row.limit || Infinity,
    cell: (row) => (row.limit ? `${count(row.limit)} / h` : "none"),
  },
  {
    name: "used", label: "Last used", sort: (row) => row.last_used_at ?? "",
    cell: (row) => html`<span class=${`nowrap ${row.last_used_at ? "" : "muted"}`}
      title=${row.last_used_at ? time(row.last_used_at) : ""}>${ago(row.last_used_at)}</span>`,
  },
];

function actions(row, { setRotating, setLimiting, reload }) {
  return html`<${Menu} label=${`Actions for ${row.name}`} items=${[
    { label: "Change the limit…", onSelect: () => setLimiting(row) },
    { label: "Rotate…", onSelect: () => setRotating(row) },
    { label: "See its metrics", href: `/custom-metrics?project=${encodeURIComponent(row.project_id)}` },
    revokeItem(row.name, `/connections/${row.id}`, reload),
    {
      label: "Delete…",
      danger: true,
      onSelect: () => deleteAfterAsking({
        title: `Delete ${row.name}?`,
        text: "Requests with its key are refused from now on. Its project and metrics stay.",
        remove: () => del(`/connections/${row.id}`),
        done: reload,
      }),
    },
  ]} />`;
}

function Connect({ onMade, onClose, projects }) {
  const isMore = (values) => values.more;
  const fields = [
    {
      name: "name", label: "Name", required: true, placeholder: "Cron Job Metrics", maxlength: 256,
      autofocus: true, hint: "Give your webhook a name.",
    },
    { name: "more", label: "Project and limit", kind: "check" },
    {
      name: "project_id", label: "Project ID", initial: projects[0]?.id ?? "default", when: isMore,
      pattern: "[A-Za-z0-9._\\-]{1,64}",
      hint: "Several connections may share one. One that is not there yet is made.",
    },
    { name: "tier", label: "Limit", kind: "select", options: TIERS, when: isMore },
  ];
  const submit = async ({ name, more, project_id, tier }) => {
    onMade(await post("/connections", more ? { name, project_id, tier } : { name }));
  };
  return html`<${Dialog} title="Connect Custom Webhooks" onClose=${onClose}>
    <${Form} fields=${fields} submit=${submit} cancel=${onClose} action="Create" />
  <//>`;
}

function Limits({ connection, onClose, done }) {
  const submit = async ({ tier, requests_per_hour: limit }) => {
    const requests = limit === "" ? null : Number(limit);
    await patch(`/connections/${connection.id}`, { tier, requests_per_hour: requests });
    toast(`The limit of ${connection.name} is changed.`);
    onClose();
    done();
  };
  return html`<${Dialog} title=${`Limit of ${connection.name}`} onClose=${onClose}>
    <${Form} submit=${submit} cancel=${onClose} action="Save"
      initial=${{ tier: connection.tier, requests_per_hour: connection.requests_per_hour ?? "" }}
      fields=${[
        { name: "tier", label: "Tier", kind: "select", options: TIERS },
        {
          name: "requests_per_hour", label: "Requests an hour", kind: "number", min: 0,
          hint: "Empty: as the tier says. 0: no limit.",
        },
      ]} />
  <//>`;
}

function Made({ made, onClose }) {
  return html`<${Dialog} title=${made.name} onClose=${onClose} wide>
    <p>Keep these secure: treat them like passwords.</p>
    <div class="field"><span class="legend">Webhook URL</span>
      <${Secret} text=${made.webhook_url ?? ENDPOINT} label="webhook URL" /></div>
    <div class="field"><span class="legend">API Key</span>
      <${Secret} text=${made.api_key} label="API key" /></div>
    <div class="field"><span class="legend">Project ID</span>
      <${Secret} text=${made.project_id} label="project ID" /></div>
    <h3>Send your first metric</h3>
    <${Code} text=${metricCurl(made.webhook_url, made.api_key, made.project_id)}
      label="Copy curl for a metric" />
    <div class="dialog-foot">
      <a class="btn" href="/custom-metrics">Open Metrics</a>
      <button class="btn btn-primary" type="button" onClick=${onClose}>Done</button>
    </div>
  <//>`;
}

mount(Connections);
