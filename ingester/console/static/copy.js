// Copy buttons. Browsers give the clipboard to secure pages only; on plain http an older way works.
import { html, useState } from "./vendor/preact.js";
import { toast } from "./feedback.js";

const TOLD_MS = 1500;

export async function copyText(text) {
  if (navigator.clipboard && isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "sr-only";
  // Within an open dialog nothing outside of it can have the focus.
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  if (!isDone) throw new Error("The browser did not let the page copy; select the text instead.");
}

/** Copies `text`, or what `load()` gives then. `label` names the button for those who only hear. */
export function CopyButton({ text, load, label = "Copy", children, kind = "btn btn-small" }) {
  const [isDone, setDone] = useState(false);
  const copy = async (event) => {
    event.stopPropagation();
    try {
      await copyText(load ? await load() : text);
      setDone(true);
      setTimeout(() => setDone(false), TOLD_MS);
    } catch (error) {
      toast(error, "error");
    }
  };
  return html`<button type="button" class=${kind} aria-label=${isDone ? "Copied" : label}
    onClick=${copy}>
    ${isDone ? "Copied" : (children ?? "Copy")}
  </button>`;
}

/** Text to be copied as it stands: a command, a document. */
export function Code({ text, label = "Copy" }) {
  return html`<div class="code" tabindex="0" role="group" aria-label=${label}>
    <span class="code-copy"><${CopyButton} text=${text} label=${label} /></span>${text}
  </div>`;
}

/** One value in a line, with its button: a URL, a key, an id. */
export function Secret({ text, label }) {
  return html`<div class="secret">
    <code>${text}</code><${CopyButton} text=${text} label=${`Copy ${label}`} />
  </div>`;
}
