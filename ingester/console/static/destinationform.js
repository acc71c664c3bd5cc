// The form of a destination; one for each type. Secrets come as REDACTED and go back so.
import { Fragment, html, useState } from "./ui.js";
import { patch, post } from "./api.js";
import { Field, useSend } from "./forms.js";

export const TYPES = {
  webhook: {
    label: "Webhook", add: "Add webhook",
    text: "Every revision of an incident, opened and resolved, as JSON.",
  },
  incident_io: {
    label: "incident.io", add: "Add incident.io",
    text: "Alert events to the incident.io HTTP API.",
  },
  generic: {
    label: "Generic webhook", add: "Add generic webhook",
    text: "The rows of an alert, the events of a rule, the incident of a monitor.",
  },
};

const KEY_MODES = [
  { value: "incident", label: "One alert an incident, resolved with it" },
  { value: "logflare", label: "As Logflare: each run and batch by itself, never resolved" },
];

/** `priority=high,service=logflare` as an object. Raises what is wrong with it. */
export function metadataOf(text) {
  const found = {};
  if (!text.trim()) return found;
  if (text.trim().startsWith("{")) return JSON.parse(text);
  for (const pair of text.split(",")) {
    const at = pair.indexOf("=");
    if (at < 1) throw new Error(`“${pair.trim()}” is no key=value`);
    found[pair.slice(0, at).trim()] = pair.slice(at + 1).trim();
  }
  return found;
}

/** The other way; what does not fit into pairs stays JSON. */
export function metadataText(metadata) {
  const pairs = Object.entries(metadata ?? {});
  const fits = pairs.every(
    ([name, value]) => typeof value === "string" && !/[,={]/.test(name) && !value.includes(","),
  );
  return fits ? pairs.map(([name, value]) => `${name}=${value}`).join(",") : JSON.stringify(metadata);
}

function headersOf(text) {
  const found = {};
  for (const line of text.split("\n")) {
    if (!line.trim()) continue;
    const at = line.indexOf(":");
    if (at < 1) {
      throw Object.assign(new Error(`“${line.trim()}” is no Name: value`), { field: "headers" });
    }
    found[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return found;
}

const headersText = (headers) =>
  Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`).join("\n");

const startOf = (row) => ({
  name: row?.name ?? "",
  url: row?.url ?? "",
  headers: headersText(row?.headers),
  secret: row?.secret ?? "",
  gzip: row?.gzip ?? false,
  api_token: row?.api_token ?? "",
  alert_source_config_id: row?.alert_source_config_id ?? "",
  metadata: metadataText(row?.metadata),
  base_url: row?.base_url ?? "",
  key_mode: row?.key_mode ?? "incident",
});

function bodyOf(type, values) {
  const body = { name: values.name };
  if (type === "incident_io") {
    let metadata;
    try {
      metadata = metadataOf(values.metadata);
    } catch (error) {
      throw Object.assign(error, { field: "metadata" });
    }
    return {
      ...body, metadata, key_mode: values.key_mode,
      api_token: values.api_token || null,
      alert_source_config_id: values.alert_source_config_id || null,
      base_url: values.base_url || null,
    };
  }
  return {
    ...body, url: values.url || null, headers: headersOf(values.headers),
    secret: values.secret || null, gzip: values.gzip,
  };
}

export function DestinationForm({ type, row = null, onDone, onCancel }) {
  const [values, setValues] = useState(() => startOf(row));
  const { send, error, isBusy } = useSend(async () => {
    const body = bodyOf(type, values);
    onDone(row ? await patch(`/destinations/${row.id}`, body)
      : await post("/destinations", { ...body, type }));
  });
  const field = (name, more) => html`<${Field} name=${name} value=${values[name]}
    onValue=${(value) => setValues((old) => ({ ...old, [name]: value }))}
    error=${error?.field === name ? error.message : ""} ...${more} />`;
  const isNamed = error && Object.hasOwn(values, error.field ?? "");
  return html`<form class="stack" onSubmit=${send} aria-label=${TYPES[type].label}>
    ${field("name", { label: "Name", required: true, maxlength: 256, autofocus: true,
      placeholder: type === "incident_io" ? "incident.io" : "On call" })}
    ${type === "incident_io" ? IncidentIo({ field, values }) : Webhook({ field, type })}
    ${error && !isNamed && html`<p class="notice notice-error" role="alert">${error.message}</p>`}
    <div class="dialog-foot">
      <button class="btn" type="button" onClick=${onCancel}>Cancel</button>
      <button class="btn btn-primary" disabled=${isBusy}>${row ? "Save" : "Add destination"}</button>
    </div>
  </form>`;
}

function Webhook({ field, type }) {
  return html`<${Fragment}>
    ${field("url", { label: "URL", required: true, mono: true, placeholder: "https://example.org/hook",
      hint: "Private networks are refused unless [delivery] allow_networks opens them." })}
    ${field("secret", { label: "Signing secret", mono: true, placeholder: "whsec_…",
      hint: `Optional. Signs each request as Standard Webhooks say. Rotate secret… in the row's menu
        makes one.` })}
    ${field("headers", { label: "Headers", kind: "area", rows: 2, mono: true,
      placeholder: "X-Team: platform",
      hint: "One a line, Name: value. Credentials are kept sealed and shown as REDACTED." })}
    ${field("gzip", { label: "Compress bodies (gzip)", kind: "check",
      hint: type === "generic" ? "" : "Only for receivers that take Content-Encoding: gzip." })}
  <//>`;
}

function IncidentIo({ field, values }) {
  return html`<${Fragment}>
    ${field("api_token", { label: "API token", required: true, mono: true })}
    ${field("alert_source_config_id", { label: "Alert source config ID", required: true, mono: true })}
    ${field("metadata", { label: "Metadata", mono: true, placeholder: "priority=high,service=logflare",
      hint: "Pairs with commas between them, or a JSON object." })}
    <${Preview} text=${values.metadata} />
    <details open=${Boolean(values.base_url) || values.key_mode !== "incident"}>
      <summary>Deduplication, other address</summary>
      <div class="stack details-body">
        ${field("key_mode", { label: "Deduplication", kind: "select", options: KEY_MODES })}
        ${field("base_url", { label: "Address", mono: true, placeholder: "https://api.incident.io" })}
      </div>
    </details>
  <//>`;
}

/** What the pairs come to: the JSON that goes with every alert event. */
function Preview({ text }) {
  let shown;
  try {
    shown = JSON.stringify({ metadata: { ...metadataOf(text), data: "" } }, null, 2)
      .replace(/""\n  }\n}$/, "[…]\n  }\n}");
  } catch (error) {
    return html`<p class="field-error" role="alert">${error.message}</p>`;
  }
  return html`<figure class="metadata-json">
    <figcaption class="small muted">Sent with every alert event</figcaption>
    <pre class="code" tabindex="0" aria-label="Metadata as JSON">${shown}</pre>
  </figure>`;
}
