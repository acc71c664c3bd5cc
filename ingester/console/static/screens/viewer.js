// Instrumentation viewer: each request to the test door as it comes, line by line.
import {
  Empty, Failure, Fragment, Head, computed, html, mount, screen, signal, useEffect,
} from "../ui.js";
import { get, post, useResource } from "../api.js";
import { Code, CopyButton } from "../copy.js";
import { Field } from "../forms.js";
import { Menu } from "../menu.js";
import { bytes, count, plural, time } from "../format.js";
import { SentLine, pretty } from "../lines.js";
import { curl, eventCurl, gzipCurl } from "../samples.js";
import { urlParam } from "../url.js";

const EVERY_MS = 1500;
const SHOWN_MAX = 500;
const PAGE = 50;

const requests = signal([]);
const fault = signal(null);
const isPaused = signal(false);
const waiting = signal([]);
const shownId = urlParam("request");
const source = urlParam("source");
const onlyBad = urlParam("only");

const listed = computed(() => requests.value.filter(
  (one) => (!source.value || one.source === source.value)
    && (onlyBad.value !== "rejected" || one.rejected > 0 || one.status !== 200),
));

let isLooking = false;

async function look() {
  if (isLooking) return;
  isLooking = true;
  const newest = (waiting.value[0] ?? requests.value[0])?.request_id;
  try {
    const { requests: found } = await get("/viewer", { after: newest, limit: newest ? SHOWN_MAX : PAGE });
    fault.value = null;
    if (!found.length) return;
    if (isPaused.value) waiting.value = [...found, ...waiting.value].slice(0, SHOWN_MAX);
    else requests.value = [...found, ...requests.value].slice(0, SHOWN_MAX);
  } catch (error) {
    fault.value = error;
  } finally {
    isLooking = false;
  }
}

function resume() {
  isPaused.value = false;
  requests.value = [...waiting.value, ...requests.value].slice(0, SHOWN_MAX);
  waiting.value = [];
}

function Viewer() {
  useEffect(() => {
    look();
    const timer = setInterval(() => document.hidden || look(), EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  const shown = listed.value.find((one) => one.request_id === shownId.value) ?? listed.value[0];
  return html`
    <${Head} text="Requests to the test door, checked as the real one checks them. Nothing of them is stored:
      they are shown here, and gone with the next start.">
      ${isPaused.value
        ? html`<button class="btn btn-primary" type="button" onClick=${resume}>
            Resume${waiting.value.length ? ` (${count(waiting.value.length)} waiting)` : ""}</button>`
        : html`<span class="badge badge-good"><span class="dot dot-live"></span>live</span>
            <button class="btn" type="button" onClick=${() => (isPaused.value = true)}>Pause</button>`}
      ${requests.value.length > 0 && html`<${Menu} label="How to send" text="How to send"
        small=${false}>${() => html`<${Instructions} />`}<//>`}
    <//>
    <${Failure} error=${fault.value} retry=${look} />
    ${requests.value.length
      ? html`<div class="viewer">
          <${List} shown=${shown} />
          ${shown
            ? html`<${Request} key=${shown.request_id} request=${shown} />`
            : html`<section class="card">
                <${Empty} title="None of these">No request fits the filter.<//></section>`}
        </div>`
      : html`<section class="card viewer-start">
          <${Empty} title="Waiting for a request">Paste one of these into a terminal, or point your
            product's URL here. It appears within two seconds.<//>
          <${Instructions} />
        </section>`}`;
}

function List({ shown }) {
  const names = [...new Set(requests.value.map((one) => one.source))].filter(Boolean);
  return html`<section class="card card-flush viewer-list" aria-label="Requests">
    <div class="card-head">
      <${Field} name="source" label=${html`<span class="sr-only">Source</span>`} kind="select"
        value=${source.value} onValue=${(value) => (source.value = value)}
        options=${[{ value: "", label: "all sources" },
          ...names.map((value) => ({ value, label: value }))]} />
      <${Field} name="only" label="only with faults" kind="check" value=${onlyBad.value === "rejected"}
        onValue=${(isOn) => (onlyBad.value = isOn ? "rejected" : "")} />
    </div>
    <ul>
      ${listed.value.map((one) => html`<li key=${one.request_id}>
        <button type="button" class="viewer-row" aria-current=${one === shown ? "true" : null}
          onClick=${() => (shownId.value = one.request_id)}>
          <span class="row spread">
            <span><strong>${one.method}</strong> <span class="muted">${one.source ?? "no pair"}</span></span>
            <span class=${`badge ${one.status === 200 ? "badge-good" : "badge-bad"}`}>${one.status}</span>
          </span>
          <span class="row spread small muted">
            <span>${time(one.received_at, "clock")}</span>
            <span>${count(one.accepted)} taken${one.rejected > 0
              ? html`, <span class="bad">${count(one.rejected)} rejected</span>` : ""}</span>
          </span>
        </button>
      </li>`)}
    </ul>
  </section>`;
}

function Request({ request }) {
  const encoding = request.headers.find(([name]) => name.toLowerCase() === "content-encoding")?.[1];
  return html`<section class="stack viewer-request" aria-label="Request">
    <div class="card stack">
      <div class="row spread">
        <h2 class="mono breaks">${request.method} ${request.path}</h2>
        <span class="row">
          <span class=${`badge ${request.status === 200 ? "badge-good" : "badge-bad"}`}>
            ${request.status}</span>
          <${CopyButton} text=${asCurl(request)} label="Copy as curl: the request">Copy as curl<//>
        </span>
      </div>
      ${request.warnings.map((text) => html`<p class="notice notice-warn">${sentence(text)}</p>`)}
      <dl class="kv">
        <dt>Received</dt><dd>${time(request.received_at)} from <code>${request.client_address}</code></dd>
        <dt>Source</dt><dd>${request.source ?? html`<span class="bad">the path names no key pair</span>`}</dd>
        <dt>Encoding</dt><dd>${encoding ?? "none"}</dd>
        <dt>Size</dt><dd>${bytes(request.bytes_in)} on the wire${request.bytes_raw !== request.bytes_in
          ? `, ${bytes(request.bytes_raw)} unpacked` : ""}</dd>
        <dt>Lines</dt><dd>${count(request.accepted)} accepted, ${count(request.rejected)} rejected</dd>
      </dl>
      <details><summary>${plural(request.headers.length, "header")}</summary>
        <dl class="kv mono small headers">
          ${request.headers.map(([name, value]) => html`<${Fragment}><dt>${name}</dt><dd>${value}</dd><//>`)}
        </dl>
      </details>
    </div>
    <${Lines} request=${request} />
  </section>`;
}

function Lines({ request }) {
  const lines = [
    ...request.events.map((text, at) => ({ line: request.event_lines[at], text, isGood: true })),
    ...request.rejects,
  ].toSorted((left, right) => left.line - right.line);
  const hidden = request.accepted + request.rejected - lines.length;
  if (!lines.length) return null;
  return html`<div class="card card-flush">
    <div class="card-head"><h2>Line by line</h2>
      ${hidden > 0 && html`<span class="small muted">the first ${count(lines.length)} of
        ${" "}${count(lines.length + hidden)}</span>`}</div>
    <ol class="verdicts">
      ${lines.map((one) => html`<li key=${one.line}><${Verdict} one=${one} /></li>`)}
    </ol>
  </div>`;
}

function Verdict({ one }) {
  const tag = one.isGood
    ? html`<span class="badge badge-good">accepted</span>`
    : html`<span class="badge badge-bad">${one.reason}</span>`;
  const what = one.isGood ? summary(one.text) : one.detail;
  const where = one.isGood || !one.column ? "" : `column ${one.column}`;
  return html`<details open=${!one.isGood}>
    <summary><span class="num muted">${one.line}</span>${tag}
      <span class="grow breaks">${what}</span><span class="muted small nowrap">${where}</span></summary>
    ${one.isGood
      ? html`<${SentLine} text=${pretty(one.text)} />`
      : html`<${SentLine} text=${one.excerpt} column=${one.column} />`}
  </details>`;
}

/** Who did what, of a parsed event. */
function summary(text) {
  try {
    const event = JSON.parse(text);
    const pick = (camel, snake) => event[camel] ?? event[snake];
    const at = time(Number(pick("createdAt", "created_at")));
    return `${pick("accountId", "account_id")} · ${pick("userId", "user_id")} · ${event.action} · ${at}`;
  } catch {
    return text.slice(0, 200);
  }
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`.replace(/\.\.$/, ".");

const OF_THE_CONNECTION = new Set([
  "host", "content-length", "content-encoding", "accept", "user-agent", "connection", "expect",
  "transfer-encoding",
]);

function asCurl(request) {
  const lines = [
    ...request.events.map((text, at) => [request.event_lines[at], text]),
    ...request.rejects.map((one) => [one.line, one.excerpt]),
  ].toSorted(([left], [right]) => left - right).map(([, text]) => text);
  const headers = Object.fromEntries(
    request.headers.filter(([name]) => !OF_THE_CONNECTION.has(name.toLowerCase())),
  );
  // Whichever way it came: pasted, it shall not be stored.
  const path = (request.path.startsWith("/test/") ? request.path : `/test${request.path}`)
    .replace("***", "$AUTH_KEY")
    .replace("***", "$API_KEY");
  const body = lines.length ? lines.join("\n") : undefined;
  return curl(`${screen.intakeUrl}${path}`, { method: request.method, headers, body })
    .replace(/'([^']*\$AUTH_KEY[^']*)'/, '"$1"');
}

function Instructions() {
  const sources = useResource(async (signal) => {
    if (!screen.isAdmin) return [];
    return (await get("/sources", {}, { signal })).sources;
  });
  const names = (sources.data ?? []).map((row) => row.source);
  const chosen = names.includes(source.value) ? source.value : names[0];
  const pair = useResource(async () => {
    if (!chosen) return "AUTH_KEY/API_KEY";
    const made = await post(`/sources/${encodeURIComponent(chosen)}/reveal`);
    return `${made.auth_key}/${made.api_key}`;
  }, [chosen], { enabled: sources.data !== undefined });
  const keys = pair.data ?? "AUTH_KEY/API_KEY";
  const url = `${screen.intakeUrl}/test/v1/${keys}`;
  return html`<div class="stack instructions">
    ${names.length > 1 && html`<${Field} name="pair" label="With the pair of" kind="select"
      value=${chosen} onValue=${(value) => (source.value = value)}
      options=${names.map((value) => ({ value, label: value }))} />`}
    ${!names.length && html`<p class="small muted">${screen.isAdmin
      ? html`There is no source yet: <a href="/settings/sources?add=1">Add Source</a>.`
      : "Put the pair of your source into the address."}</p>`}
    ${pair.error && html`<p class="small muted">${pair.error.message}</p>`}
    <div><h3>Plain</h3><${Code} text=${eventCurl(url)} label="Copy plain curl" /></div>
    <div><h3>Compressed</h3><${Code} text=${gzipCurl(url)} label="Copy compressed curl" /></div>
  </div>`;
}

mount(Viewer);
