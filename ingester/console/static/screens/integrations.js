// Settings › Integrations: what can send here, and how much of it is set up.
import { Head, Loaded, html, mount, screen } from "../ui.js";
import { get, useResource } from "../api.js";
import { Secret } from "../copy.js";
import { ago, plural } from "../format.js";

const newest = (rows) =>
  rows.map((row) => row.last_used_at).filter(Boolean).sort().at(-1) ?? null;

function Integrations() {
  const found = useResource(async (signal) => {
    if (!screen.isAdmin) return null;
    const [tokens, connections, sources] = await Promise.all([
      get("/tokens", {}, { signal }),
      get("/connections", {}, { signal }),
      get("/sources", {}, { signal }),
    ]);
    return {
      tokens: tokens.tokens.filter((token) => token.scopes.includes("ingest")),
      connections: connections.connections,
      sources: sources.sources,
    };
  });
  return html`
    <${Head} text="Where data comes in, and the keys that let it in.">
      ${screen.isAdmin && html`<a class="btn" href="/welcome">Send your first event</a>`}
    <//>
    ${!screen.isAdmin &&
    html`<p class="notice">You are signed in as a viewer. Keys and settings are an administrator's;
      what was sent can be seen in Logs, Explorer and Metrics.</p>`}
    <${Loaded} of=${found}>${(data) => html`<${Cards} data=${data} />`}<//>
  `;
}

function Cards({ data }) {
  return html`
    <div class="grid integrations">
      <${Card} of="Logs" title="Event Ingestion" href="/settings/events" rows=${data?.tokens}
        noun="token" add="Add Token" endpoint="/api/v1/webhook/event/log"
        text="Any JSON becomes a log with level, message, service and environment." />
      <${Card} of="Logs" title="Honest door" href="/settings/events" rows=${data?.tokens}
        noun="token" add="Add Token" endpoint="/ingest/{source}"
        text="NDJSON or arrays of any shape, by the same tokens; every line is accounted for." />
      <${Card} of="Custom" title="Custom Webhooks" href="/settings/webhooks"
        rows=${data?.connections} noun="connection" add="Connect" endpoint="/api/webhooks/custom"
        text="Metrics of your own from scripts, cron jobs, Zapier, Make or n8n." />
      <${Card} of="Product usage" title="Product events" href="/settings/sources"
        rows=${data?.sources} noun="source" add="Add Source" endpoint="/v1/{authKey}/{apiKey}"
        text="What users do in your product, line by line, in bulk or one by one." />
    </div>`;
}

function Card({ of, title, text, href, rows, noun, add, endpoint }) {
  const used = rows && newest(rows);
  return html`<article class="card stack integration">
    <div class="row spread">
      <div><p class="small muted">${of}</p><h2>${title}</h2></div>
      ${rows &&
      html`<span class=${`badge ${used ? "badge-good" : ""}`}>
        ${rows.length ? plural(rows.length, noun) : "not set up"}
      </span>`}
    </div>
    <p class="muted grow">${text}</p>
    <${Secret} text=${`${screen.intakeUrl}${endpoint}`} label=${`address of ${title}`} />
    <div class="row spread">
      <span class="small muted">
        ${rows?.length > 0 && (used ? `Last used ${ago(used)}` : "Not used yet")}</span>
      ${screen.isAdmin &&
      html`<span class="row">
        ${rows?.length > 0 && html`<a class="btn btn-small" href=${href}>Manage</a>`}
        <a class="btn btn-small btn-primary" href=${`${href}?add=1`}>${add}</a>
      </span>`}
    </div>
  </article>`;
}

mount(Integrations);
