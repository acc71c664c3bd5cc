// Fields and forms. What the server refuses is shown at the field that it names.
import { html, useEffect, useId, useRef, useState } from "./vendor/preact.js";

/** Sending a form: `send` for its submit does the `work`; `error` is what that has raised. */
export function useSend(work) {
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await work();
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };
  return { send, error, setError, isBusy };
}

/**
 * A form over one object. `fields`: `{name, label, hint?, kind?, options?, required?, ...}`;
 * `submit(values)` does the work, and what it raises is shown. `kind`: text (default), email,
 * password, number, url, select, check, area.
 */
export function Form({ fields, initial = {}, submit, action, cancel, danger = false, children }) {
  const [values, setValues] = useState(() => start(fields, initial));
  const { send, error, isBusy } = useSend(() => submit(values));
  const place = useRef(null);
  useEffect(() => {
    if (error) place.current?.querySelector(`[name="${CSS.escape(error.field ?? "")}"]`)?.focus();
  }, [error]);
  const shown = fields.filter((field) => !field.when || field.when(values));
  const isNamed = shown.some((field) => field.name === error?.field);
  return html`<form class="stack" ref=${place} onSubmit=${send}>
    ${shown.map(
      (field) => html`<${Field} key=${field.name} ...${field} value=${values[field.name]}
        error=${error?.field === field.name ? error.message : ""}
        onValue=${(value) => setValues({ ...values, [field.name]: value })} />`,
    )}
    ${children}
    ${error && !isNamed &&
    html`<p class="notice notice-error" role="alert">${String(error.message ?? error)}</p>`}
    <div class="dialog-foot">
      ${cancel && html`<button class="btn" type="button" onClick=${cancel}>Cancel</button>`}
      <button class=${`btn ${danger ? "btn-danger" : "btn-primary"}`} disabled=${isBusy}>
        ${action}
      </button>
    </div>
  </form>`;
}

function start(fields, initial) {
  const empty = (field) => (field.kind === "check" ? false : (field.options?.[0]?.value ?? ""));
  return Object.fromEntries(
    fields.map((field) => [field.name, initial[field.name] ?? field.initial ?? empty(field)]),
  );
}

/** One labelled field. `options` of a select: `[{value, label}]`. */
export function Field({
  name, label, hint, error, kind = "text", value, onValue, options, required, placeholder, mono,
  autocomplete = "off", rows = 4, ...limits
}) {
  const id = useId();
  const about = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  const common = {
    id, name, required, placeholder, "aria-describedby": about || null,
    "aria-invalid": error ? "true" : null, class: mono ? "mono" : null,
  };
  const { min, max, step, minlength, maxlength, pattern, autofocus } = limits;
  const typed = (event) => onValue(event.currentTarget.value);
  const told = html`
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${error && html`<p class="field-error" id=${`${id}-error`} role="alert">${error}</p>`}`;
  if (kind === "check") {
    return html`<div class="check">
      <input ...${common} type="checkbox" checked=${value}
        onChange=${(event) => onValue(event.currentTarget.checked)} />
      <div><label for=${id}>${label}</label>${told}</div>
    </div>`;
  }
  let control;
  if (kind === "select") {
    control = html`<select ...${common} value=${value} onChange=${typed}>
      ${options.map(
        (one) => html`<option value=${one.value} selected=${one.value === value}>${one.label}</option>`,
      )}
    </select>`;
  } else if (kind === "area") {
    control = html`<textarea ...${common} rows=${rows} value=${value} onInput=${typed}
      spellcheck=${!mono}></textarea>`;
  } else {
    control = html`<input ...${common} type=${kind} value=${value} onInput=${typed} min=${min}
      max=${max} step=${step} minlength=${minlength} maxlength=${maxlength} pattern=${pattern}
      autocomplete=${autocomplete} autofocus=${autofocus} spellcheck=${false} />`;
  }
  return html`<div class="field"><label for=${id}>${label}</label>${control}${told}</div>`;
}
