// A line of a body as it was sent, with the place that was objected to.
import { html } from "./ui.js";

const BEFORE = 400;
const AFTER = 400;

/**
 * `column` counts characters from 1; 0 marks nothing. Of a long line only what is around it is
 * shown: a megabyte in one text node is what browsers hang on.
 */
export function SentLine({ text, column = 0 }) {
  const at = column > 0 ? Math.min(column - 1, text.length) : 0;
  const from = column > 0 && at > BEFORE ? at - BEFORE : 0;
  const until = Math.min(text.length, Math.max(at, from) + BEFORE + AFTER);
  const mark = column > 0 ? (text.slice(at, at + 1) || "⏎") : "";
  const rest = text.length - until;
  const parts = [
    from > 0 && html`<span class="muted">${from} characters before … </span>`,
    visible(text.slice(from, column > 0 ? at : until)),
    mark && html`<mark title=${`column ${column}`}>${visible(mark)}</mark>`,
    column > 0 ? visible(text.slice(at + 1, until)) : "",
    rest > 0 && html`<span class="muted"> … ${rest} more characters</span>`,
  ];
  return html`<div class="code sent" tabindex="0" role="group" aria-label="The line as sent">
    ${parts}</div>`;
}

/** Controls and marks that turn writing round are shown as what they are. */
export function visible(text) {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A text of strangers in a line: marks made visible, and no more of it than can be looked at. */
export function shownText(value, most = 300) {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  const rest = text.length - most;
  return visible(text.slice(0, most)) + (rest > 0 ? ` … ${rest} more characters` : "");
}

/** JSON over several lines; text that is none as it stands. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
