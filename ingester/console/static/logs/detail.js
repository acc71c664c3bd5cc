// A log, opened: every field with what can be done with it, and the lines around it.
import { Failure, MaybeLink, html, useState } from "../ui.js";
import { useResource } from "../api.js";
import { CopyButton } from "../copy.js";
import { bytes, count, time } from "../format.js";
import { hrefWith } from "../url.js";
import { clause, fieldName, isColumn, withClause } from "./lql.js";
import { flattened, isRaw, oneLine, plain, shownValue } from "./text.js";
import { ask, columns, context, query, toggleColumn } from "./state.js";

const FIELDS_MAX = 500;
const VALUE_CHARACTERS_MAX = 20_000;
const AROUND = 10;
const AROUND_MAX = 500;

export function Detail({ row }) {
  const whole = useResource(
    async (signal) => (row.cut ? (await context(row.id, 0, 0, signal)).row : row), [row],
  );
  const [around, setAround] = useState(0);
  const shown = whole.data;
  if (!shown) {
    return whole.error ? html`<${Failure} error=${whole.error} retry=${whole.reload} />`
      : html`<p class="muted" role="status">Loading the whole line…</p>`;
  }
  return html`<div class="stack">
    <div class="row">
      <${CopyButton} text=${jsonOf(shown)} label="Copy JSON of this log">Copy JSON<//>
      <${CopyButton} text=${linkTo(row)} label="Copy link to this log">Copy link<//>
      <button type="button" class="btn btn-small" aria-pressed=${around > 0}
        onClick=${() => setAround(around ? 0 : AROUND)}>Surrounding lines</button>
      <span class="grow"></span>
      <span class="small muted">received ${time(row.received_at, "ms")}</span>
    </div>
    ${around > 0 && html`<${Around} row=${row} size=${around}
      wider=${() => setAround(Math.min(AROUND_MAX, around * 3))} />`}
    <${Fields} row=${shown} />
  </div>`;
}

const jsonOf = (row) => {
  const { cut, ...rest } = row;
  return JSON.stringify(rest, null, 2);
};

/** The row by its id, whatever the span is by then. */
const linkTo = (row) => location.origin + hrefWith({ row: row.id, live: "" });

function Fields({ row }) {
  const top = ["message", "level", "service", "environment"]
    .filter((name) => row[name] !== null && row[name] !== "")
    .map((name) => ({
      label: name, name: name === "message" ? "event_message" : name, value: row[name],
    }));
  const isObject = row.attributes !== null && typeof row.attributes === "object"
    && !isRaw(row.attributes);
  const paths = isObject ? flattened(row.attributes, [], [], FIELDS_MAX) : [];
  const inner = paths.map(([path, value]) => ({
    // The payload's own level is not that of the log.
    label: path.length === 1 && isColumn(path[0]) ? `m.${path[0]}` : path.join("."),
    name: fieldName(path),
    value,
  })).filter(({ label, value }) => !(label === "message" && value === row.message));
  return html`<div class="log-fields" role="list" aria-label="Fields">
    ${[...top, ...inner].map((one) => html`<${FieldRow}
      key=${`${one.name} ${one.label}`} ...${one} />`)}
    ${paths.length >= FIELDS_MAX && html`<p class="muted small">The first ${count(FIELDS_MAX)} fields;
      all are in Copy JSON.</p>`}
    ${!isObject && row.attributes !== row.message && html`<${FieldRow} label="payload" name=${null}
      value=${row.attributes} />`}
  </div>`;
}

function FieldRow({ label, name, value }) {
  const isList = Array.isArray(value);
  const isLeaf = value === null || typeof value !== "object" || isRaw(value);
  // What a query compares with is one value, and no longer than a query may be.
  const single = isList ? value[0] : value;
  const canFilter = name && (isLeaf || (isList && value.length > 0))
    && shownValue(single).length <= 1_000;
  const part = canFilter && clause(name, single);
  const shownLabel = plain(label);
  return html`<div class="log-field" role="listitem">
    <span class="log-field-actions">
      ${canFilter && html`
        <button type="button" class="icon-btn" aria-label=${`Filter for this ${shownLabel}`}
          title="Filter for this value" onClick=${() => ask(withClause(query.value, part))}>+</button>
        <button type="button" class="icon-btn" aria-label=${`Filter out this ${shownLabel}`}
          title="Filter out this value"
          onClick=${() => ask(withClause(query.value, part, true))}>−</button>`}
    </span>
    <bdi class="log-field-name clip" title=${shownLabel}>${shownLabel}</bdi>
    <${Value} value=${value} />
    <span class="log-field-more">
      <${CopyButton} text=${shownValue(value)} label=${`Copy the value of ${shownLabel}`}
        kind="icon-btn icon-wide">copy<//>
      ${name && html`<button type="button" class="icon-btn icon-wide"
        aria-pressed=${columns.value.includes(name)} aria-label=${`Show ${shownLabel} as column`}
        onClick=${() => toggleColumn(name)}>column</button>`}
    </span>
  </div>`;
}

function Value({ value }) {
  const [isAll, setAll] = useState(false);
  const text = shownValue(value);
  const isLong = text.length > VALUE_CHARACTERS_MAX && !isAll;
  const kind = typeof value === "string" ? "text" : value === null ? "null" : "json";
  const shown = plain(isLong ? text.slice(0, VALUE_CHARACTERS_MAX) : text);
  return html`<div class=${`log-value log-value-${kind}`}>
    <bdi>${typeof value === "string" ? html`<${MaybeLink} text=${shown} />` : shown}</bdi>
    ${isLong && html` <button type="button" class="link" onClick=${() => setAll(true)}>
      … show all (${bytes(text.length)})</button>`}
  </div>`;
}

/** Lines of the same service and environment, older first, this one marked. */
function Around({ row, size, wider }) {
  const found = useResource((signal) => context(row.id, size, size, signal), [row.id, size]);
  if (found.error) return html`<${Failure} error=${found.error} retry=${found.reload} />`;
  if (!found.data) return html`<p class="muted" role="status">Looking for the lines around it…</p>`;
  const { before, after } = found.data;
  const lines = [...before, found.data.row, ...after];
  const whose = [row.service, row.environment].filter(Boolean).join(" · ") || "no service";
  return html`<section class="around" aria-label="Surrounding lines">
    <div class="around-head row spread">
      <span class="small muted">${count(before.length)} before and ${count(after.length)} after it,
        ${" "}${whose}</span>
      ${size < AROUND_MAX && html`<button type="button" class="btn btn-small"
        onClick=${wider}>More lines</button>`}
    </div>
    <ol tabindex="0" aria-label="Lines around it">
      ${lines.map((one) => html`<li key=${one.id} aria-current=${one.id === row.id ? "true" : null}>
        <time datetime=${one.time}>${time(one.time, "ms").slice(11)}</time>
        <span class=${`level level-${one.level}`}>${one.level}</span>
        <bdi>${one.message === null && one.cut ? "a long line" : oneLine(one.message ?? "")}</bdi>
      </li>`)}
    </ol>
  </section>`;
}
