// The field map of a source, tried on lines before it is kept.
import { html, useEffect, useState } from "./ui.js";
import { patch, post } from "./api.js";
import { toast } from "./feedback.js";
import { Field } from "./forms.js";
import { plural, time } from "./format.js";

const PARTS = [
  ["account_id", "Account", "/organization/id"],
  ["user_id", "User", "/actor/login"],
  ["action", "Action", "/type"],
  ["session_id", "Session", "=none"],
  ["created_at", "Time", "/created_at"],
];
const UNITS = [
  ["", "milliseconds"],
  ["s", "seconds"],
  ["us", "microseconds"],
  ["ns", "nanoseconds"],
  ["rfc3339", "RFC 3339 text"],
].map(([value, label]) => ({ value, label }));

const SAMPLE = JSON.stringify({
  organization: { id: 7 }, actor: { login: "ada" }, type: "PushEvent", created_at: 1790000000000,
});
const TRY_AFTER_MS = 350;

/** What is left empty is read as always; a map without any part is none. */
function mapOf(values) {
  const given = Object.entries(values).filter(([, text]) => text.trim() !== "");
  return given.length ? Object.fromEntries(given.map(([name, text]) => [name, text.trim()])) : null;
}

export function FieldMap({ source, path, reload }) {
  const [values, setValues] = useState(() => ({ ...(source.map ?? {}) }));
  const [text, setText] = useState(SAMPLE);
  const [result, setResult] = useState(null);
  const [error, setError] = useState(null);
  const map = mapOf(values);
  useEffect(() => {
    const control = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setResult(await post(`${path}/try`, { text, map }, { signal: control.signal }));
        setError(null);
      } catch (problem) {
        if (problem.name !== "AbortError") setError(problem);
      }
    }, TRY_AFTER_MS);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [text, JSON.stringify(map)]);
  const save = async () => {
    try {
      await patch(path, { map });
      toast(map ? "The field map is saved." : "The field map is removed.");
      reload();
    } catch (problem) {
      setError(problem);
    }
  };
  const isSame = JSON.stringify(map) === JSON.stringify(source.map);
  const fault = (name) => (error?.field === `map.${name}` ? error.message : "");
  return html`<div class="stack">
    <p class="muted">Where the five properties stand in events of another shape: a JSON pointer such
      as <code>/org/id</code>, or a constant such as <code>=web</code>. What is left empty is read
      under its usual name. It counts for <code>/ingest/${source.source}?as=events</code>.</p>
    <div class="fields">
      ${PARTS.map(
        ([name, label, example]) => html`<${Field} name=${name} label=${label} mono
          placeholder=${example} value=${values[name] ?? ""} error=${fault(name)}
          onValue=${(value) => setValues({ ...values, [name]: value })} />`,
      )}
      <${Field} name="time_unit" label="Time is in" kind="select" options=${UNITS}
        value=${values.time_unit ?? ""} error=${fault("time_unit")}
        onValue=${(value) => setValues({ ...values, time_unit: value })} />
    </div>
    <${Field} name="text" label="Try it on lines" kind="area" mono value=${text} onValue=${setText}
      hint="Read as the door would read them. Nothing is stored." />
    ${error && !error.field?.startsWith("map.") &&
    html`<p class="notice notice-error" role="alert">${error.message}</p>`}
    ${result && !error && html`<${Result} result=${result} />`}
    <div class="row row-end">
      <button class="btn btn-primary" type="button" disabled=${isSame || error} onClick=${save}>
        Save map</button>
    </div>
  </div>`;
}

function Result({ result }) {
  const rows = [
    ...result.events.map((event) => ({ ...event, isGood: true })),
    ...result.rejects,
  ].toSorted((left, right) => left.line - right.line);
  return html`<div class="stack" role="status">
    <p><span class="badge badge-good">${plural(result.accepted, "event")}</span> ${" "}
      <span class=${`badge ${result.rejected ? "badge-bad" : ""}`}>${result.rejected} rejected</span></p>
    <div class="table-wrap" tabindex="0" role="region" aria-label="Result of the dry run">
      <table class="table">
        <thead><tr>
          <th scope="col" class="num">Line</th>
          ${PARTS.map(([, label]) => html`<th scope="col">${label}</th>`)}
        </tr></thead>
        <tbody>${rows.map((row) => html`<${row.isGood ? Good : Bad} row=${row} />`)}</tbody>
      </table>
    </div>
  </div>`;
}

const Good = ({ row }) => html`<tr>
  <td class="num">${row.line}</td>
  <td>${row.account_id}</td><td>${row.user_id}</td><td>${row.action}</td>
  <td>${row.session_id ?? "–"}</td><td class="nowrap">${time(row.created_at, "ms")}</td>
</tr>`;

const Bad = ({ row }) => html`<tr>
  <td class="num">${row.line}</td>
  <td colspan=${PARTS.length}><span class="badge badge-bad">${row.reason}</span> ${row.detail}
    ${row.column ? ` (column ${row.column})` : ""}</td>
</tr>`;
