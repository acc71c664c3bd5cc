// Matchers of routes and silences: a field, how it must look, and the text.
import { html } from "./ui.js";

const FIELDS = [
  ["service", "Service"],
  ["monitor", "Rule, alert or monitor"],
  ["table", "Table"],
  ["label", "Label"],
];
const KINDS = [
  ["exact", "is"],
  ["prefix", "begins with"],
  ["suffix", "ends with"],
  ["regex", "matches"],
];
const fieldName = (name) => FIELDS.find(([value]) => value === name)?.[1] ?? name;
const kindName = (name) => KINDS.find(([value]) => value === name)?.[1] ?? name;

export const NEW_MATCHER = Object.freeze({ field: "service", match: "exact", value: "" });
export const isWhole = (matchers) => matchers.every((one) => one.value !== "");

/** A list that can be changed; `legend` says what it does. */
export function Matchers({ legend, hint, value, onValue, min = 0 }) {
  const change = (at, changes) =>
    onValue(value.map((one, each) => (each === at ? { ...one, ...changes } : one)));
  return html`<fieldset class="choices">
    <legend>${legend}</legend>
    ${value.map((one, at) => html`<div class="matcher" key=${at}>
      <${Choice} label="Field" options=${FIELDS} value=${one.field}
        onValue=${(field) => change(at, { field })} />
      <${Choice} label="How" options=${KINDS} value=${one.match}
        onValue=${(match) => change(at, { match })} />
      <input aria-label="Text" value=${one.value} required maxlength="1024" spellcheck=${false}
        class="mono" onInput=${(event) => change(at, { value: event.currentTarget.value })} />
      <button type="button" class="btn btn-quiet btn-small" aria-label="Remove this condition"
        disabled=${value.length <= min}
        onClick=${() => onValue(value.filter((_, each) => each !== at))}>✕</button>
    </div>`)}
    <div class="row">
      <button type="button" class="btn btn-small"
        onClick=${() => onValue([...value, { ...NEW_MATCHER }])}>Add condition</button>
      ${hint && html`<span class="hint">${hint}</span>`}
    </div>
  </fieldset>`;
}

function Choice({ label, options, value, onValue }) {
  return html`<select aria-label=${label} value=${value}
    onChange=${(event) => onValue(event.currentTarget.value)}>
    ${options.map(([name, text]) => html`<option value=${name} selected=${name === value}>
      ${text}
    </option>`)}
  </select>`;
}

/** The same, to be read. */
export function MatcherTexts({ matchers, none }) {
  if (!matchers.length) return html`<span class="muted">${none}</span>`;
  return html`<span class="chips">${matchers.map((one) => html`<span class="chip">
    <span class="muted">${fieldName(one.field)} ${kindName(one.match)}</span>
    <code class="clip">${one.value}</code>
  </span>`)}</span>`;
}
