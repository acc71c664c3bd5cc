// One of a few, kept in a signal: as buttons side by side, or as a list.
import { html } from "./vendor/preact.js";

/** `options`: `[value, label]`. */
export function Choice({ label, state, options }) {
  return html`<div class="btn-group" role="group" aria-label=${label}>
    ${options.map(([name, text]) => html`<button type="button" class="btn btn-small"
      aria-pressed=${state.value === name} onClick=${() => (state.value = name)}>${text}</button>`)}
  </div>`;
}

/** `text` stands before the list, `label` names it; `options`: `{value, label}`. */
export function Pick({ label, text, state, options }) {
  return html`<label class="row small muted pick">${text}
    <select class="inline select-small" aria-label=${label} value=${state.value}
      onChange=${(event) => (state.value = event.currentTarget.value)}>
      ${options.map((one) => html`<option value=${one.value} selected=${one.value === state.value}>
        ${one.label}</option>`)}
    </select></label>`;
}
