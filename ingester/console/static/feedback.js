// What the page says back: short notes, questions, dialogs.
import { h, html, render, signal, useEffect, useId, useRef } from "./vendor/preact.js";

const SHOWN_MS = 5000;
const notes = signal([]);
let nextId = 1;
let isMounted = false;

/** A short note at the edge; `kind` "error" stays until it is closed. */
export function toast(text, kind = "good") {
  if (!isMounted) {
    isMounted = true;
    const place = document.createElement("div");
    document.body.append(place);
    render(h(Toasts, {}), place);
  }
  const id = nextId++;
  notes.value = [...notes.value, { id, text: String(text?.message ?? text), kind }];
  if (kind !== "error") setTimeout(() => dismiss(id), SHOWN_MS);
}

function dismiss(id) {
  notes.value = notes.value.filter((note) => note.id !== id);
}

function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${notes.value.map(
      (note) => html`<div key=${note.id} class=${`toast toast-${note.kind}`}>
        <span>${note.text}</span>
        <button class="link muted" type="button" aria-label="Close"
          onClick=${() => dismiss(note.id)}>✕</button>
      </div>`,
    )}
  </div>`;
}

/** A modal dialog while it is rendered. Escape and a click beside it call `onClose`. */
export function Dialog({ title, onClose, wide = false, children }) {
  const place = useRef(null);
  const label = useId();
  useEffect(() => {
    const dialog = place.current;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  const maybeClose = (event) => {
    if (event.target === place.current) onClose();
  };
  return html`<dialog ref=${place} class=${wide ? "dialog-wide" : ""} aria-labelledby=${label}
    onCancel=${(event) => {
      event.preventDefault();
      onClose();
    }}
    onMouseDown=${maybeClose}>
    <div class="dialog-head">
      <h2 id=${label}>${title}</h2>
      <button class="btn btn-quiet btn-small" type="button" aria-label="Close"
        onClick=${onClose}>✕</button>
    </div>
    <div class="dialog-body">${children}</div>
  </dialog>`;
}

/** Ask before something that cannot be undone; true when it is confirmed. */
export function confirmDialog({ title, text, action = "Delete", danger = true }) {
  return new Promise((resolve) => {
    const place = document.createElement("div");
    document.body.append(place);
    const end = (answer) => {
      render(null, place);
      place.remove();
      resolve(answer);
    };
    const kind = danger ? "btn btn-danger" : "btn btn-primary";
    render(
      html`<${Dialog} title=${title} onClose=${() => end(false)}>
        <p>${text}</p>
        <div class="dialog-foot">
          <button class="btn" type="button" onClick=${() => end(false)}>Cancel</button>
          <button class=${kind} type="button" onClick=${() => end(true)}>${action}</button>
        </div>
      <//>`,
      place,
    );
  });
}

/** Delete after a question that says what stays. */
export async function deleteAfterAsking({ title, text, remove, done, action = "Delete" }) {
  if (!(await confirmDialog({ title, text: `${text} This cannot be undone.`, action }))) return;
  try {
    await remove();
    done();
  } catch (error) {
    toast(error, "error");
  }
}
