// What the explorer's views are narrowed to: a query, and a value for each of the usual fields.
import { html, useEffect, useId, useState } from "../ui.js";
import { get, useResource } from "../api.js";
import { Typed } from "../choice.js";
import { Editor, lqlCompletion } from "../editor.js";
import { EVENT_FIELDS, both, clause } from "../queries.js";
import { urlParam } from "../url.js";

export const query = urlParam("q", "", { push: true });

const SHORT = {
  account_id: "account", user_id: "user", action: "action",
  "metadata.module": "module", "metadata.feature": "feature",
};

/** The value that a field is narrowed to; "" for all. */
export const chosen = Object.fromEntries(
  EVENT_FIELDS.map(({ name }) => [name, urlParam(SHORT[name], "", { push: true })]),
);

/** The fields as clauses. */
export const chosenText = () =>
  both(...EVENT_FIELDS.map(({ name }) => chosen[name].value && clause(name, chosen[name].value)));

/** All that the views ask for. */
export const wholeQuery = () => both(query.value, chosenText());

/** Narrow to one value of a field, whichever it is; null is rows without it. */
export function narrowTo(field, value) {
  const name = field.replace(/^m\./, "metadata.");
  if (chosen[name] && value !== null && value !== "") chosen[name].value = String(value);
  else query.value = both(query.value, clause(field, value));
}

/** The editor and the fields. `fault` is the server's refusal of the query. */
export function FilterBar({ range, fault }) {
  const [text, setText] = useState(query.value);
  useEffect(() => setText(query.value), [query.value]);
  const known = useResource((abort) => get("/events/fields", {
    since: range.since.value, until: range.until.value === "now" ? "" : range.until.value,
  }, { signal: abort }), [range.since.value, range.until.value]);
  const run = () => (query.value = text.trim());
  const place = fault?.column && text.trim() === query.value
    ? { column: fault.column, message: fault.message.replace(/^column \d+: /, "") }
    : null;
  const isNarrowed = query.value || chosenText();
  return html`<div class="stack filters">
    <div class="row filters-query">
      <div class="grow"><${Editor} label="Query (LQL)" language="lql" search value=${text} onChange=${setText}
        onRun=${run} complete=${lqlCompletion.events} fault=${place}
        placeholder='All events. For example: action:checkout -m.plan:"free"' /></div>
      <button class="btn btn-primary" type="button" onClick=${run}>Run</button>
    </div>
    <div class="filters-fields">
      ${EVENT_FIELDS.map(({ name, label }) => html`<${FieldFilter} key=${name} label=${label}
        state=${chosen[name]} values=${valuesOf(known.data, name)} />`)}
      <button class="btn btn-quiet" type="button" disabled=${!isNarrowed} onClick=${() => {
        query.value = "";
        for (const state of Object.values(chosen)) state.value = "";
      }}>Clear</button>
    </div>
    ${fault && html`<p class="notice notice-error" role="alert">${fault.message}</p>`}
  </div>`;
}

const valuesOf = (fields, name) =>
  fields?.fields.find((one) => one.name === name)?.values.map(({ value }) => value) ?? [];

function FieldFilter({ label, state, values }) {
  const list = useId();
  return html`<label class="filter-field">
    <span class="small muted">${label}</span>
    <${Typed} state=${state} type="search" list=${list} placeholder="any" />
    <datalist id=${list}>${values.map((value) => html`<option value=${String(value)}></option>`)}</datalist>
  </label>`;
}
