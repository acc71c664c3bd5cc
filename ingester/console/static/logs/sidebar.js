// The fields of the newest rows that were found, with their usual values: a click filters.
import { Failure, html, signal, useState } from "../ui.js";
import { get } from "../api.js";
import { Field } from "../forms.js";
import { count, plural } from "../format.js";
import {
  asked as askedName, clause, fieldName, hasClause, isColumn as isColumnName, stepsOf,
  withClause,
} from "./lql.js";
import { oneLine, parseExactly, shownValue } from "./text.js";
import { ask, asks, columns, query, toggleColumn } from "./state.js";
import { useOverview } from "./histogram.js";

const OPEN_AT_FIRST = new Set(["level", "service", "environment"]);
const wanted = signal("");

export function Sidebar() {
  const found = useOverview(
    (signal) => get("/logs/fields", asks(), { signal, as: "text" }).then(parseExactly), true,
  );
  const { data } = found;
  return html`<aside class=${`card card-flush facets ${found.loading && data ? "stale" : ""}`}
    aria-label="Fields">
    <div class="facets-head">
      <${Field} name="field" label=${html`<span class="sr-only">Find a field</span>`}
        value=${wanted.value} onValue=${(value) => (wanted.value = value)} placeholder="Find a field" />
    </div>
    ${found.error
      ? html`<div class="card-body"><${Failure} error=${found.error} retry=${found.reload} /></div>`
      : data ? html`<${List} data=${data} />`
        : html`<p class="facets-note muted" role="status">Loading fields…</p>`}
  </aside>`;
}

function List({ data }) {
  const needle = wanted.value.trim().toLowerCase();
  const shown = data.fields.filter((one) => one.name.toLowerCase().includes(needle));
  const first = (one) => {
    if (columns.value.includes(nameOf(one))) return 0;
    return OPEN_AT_FIRST.has(one.name) ? 1 : 2;
  };
  const sorted = shown.toSorted((left, right) => first(left) - first(right));
  return html`
    <ul class="facets-list" tabindex="0" aria-label="Fields and their values">
      ${sorted.map((one) => html`<${One} key=${one.name} field=${one} sampled=${data.sampled} />`)}
    </ul>
    ${!sorted.length && html`<p class="facets-note muted small">No such field.</p>`}
    <p class="facets-note muted small">${data.sampled < data.sample_max
      ? `of ${plural(data.sampled, "log")}` : `of the newest ${plural(data.sampled, "log")}`}</p>`;
}

const nameOf = (field) => {
  const steps = stepsOf(field.name);
  return steps ? fieldName(steps) : askedName(field.name);
};

function One({ field, sampled }) {
  const [isToggled, setToggled] = useState(false);
  const isOpen = isToggled !== OPEN_AT_FIRST.has(field.name);
  const name = nameOf(field);
  const bare = field.name.replace(/^metadata\./, "");
  // The payload's own level is not that of the log.
  const shownName = oneLine(bare !== field.name && isColumnName(bare) ? `m.${bare}` : bare);
  const isColumn = columns.value.includes(name);
  const most = Math.max(...field.values.map((one) => one.count), 1);
  return html`<li>
    <div class="field-row">
      <button type="button" class="field-name" aria-expanded=${isOpen}
        onClick=${() => setToggled(!isToggled)}>
        <span class="field-caret" aria-hidden="true"></span>
        <bdi class="clip" title=${shownName}>${shownName}</bdi>
      </button>
      <span class="muted small num">${Math.round(field.share * 100)}%</span>
      ${name && html`<button type="button" class="icon-btn" aria-pressed=${isColumn}
        aria-label=${isColumn ? `Hide the column ${shownName}` : `Show ${shownName} as column`}
        title=${isColumn ? "Hide the column" : "Show as column"}
        onClick=${() => toggleColumn(name)}>▥</button>`}
    </div>
    ${isOpen && html`<ul class="field-values">
      ${field.values.map((one) => html`<${Top} key=${`${typeof one.value} ${shownValue(one.value)}`}
        ...${{ name, one, share: one.count / most }} />`)}
      ${field.values.length === 0 && html`<li class="muted small">no short values</li>`}
    </ul>`}
  </li>`;
}

function Top({ name, one, share }) {
  const text = oneLine(shownValue(one.value)) || "\"\"";
  // A text of a hundred characters is the beginning of one that may be longer.
  const isCut = typeof one.value === "string" && [...one.value].length >= 100;
  const part = name && !isCut && clause(name, one.value);
  return html`<li class="field-value">
    <span class="field-bar" aria-hidden="true" style=${{ "--share": share }}></span>
    ${part
      ? html`<button type="button" class="field-pick" aria-pressed=${hasClause(query.value, part)}
          title=${`Filter for ${text}`} onClick=${() => ask(withClause(query.value, part))}>
          <bdi class="clip">${text}</bdi></button>`
      : html`<bdi class="clip field-pick">${text}</bdi>`}
    <span class="num muted small">${count(one.count)}</span>
    ${part && html`<button type="button" class="icon-btn" aria-label=${`Filter out ${text}`}
      title="Filter out" onClick=${() => ask(withClause(query.value, part, true))}>−</button>`}
  </li>`;
}
