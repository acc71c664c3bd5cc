// What is chosen and kept in a signal: one of a few, as buttons side by side or as a list, or a text.
import { html, useEffect, useState } from "./vendor/preact.js";

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

/**
 * A field whose text counts once it is confirmed or left. What is being typed is the field's own, so
 * that rows that come in meanwhile do not undo it. `given`: attributes of the field.
 */
export function Typed({ state, ...given }) {
  const [text, setText] = useState(state.value);
  useEffect(() => setText(state.value), [state.value]);
  const keep = (event) => (state.value = event.currentTarget.value.trim());
  return html`<input type="text" autocomplete="off" spellcheck=${false} ...${given} value=${text}
    onInput=${(event) => setText(event.currentTarget.value)} onChange=${keep}
    onKeyDown=${(event) => event.key === "Enter" && keep(event)} />`;
}
