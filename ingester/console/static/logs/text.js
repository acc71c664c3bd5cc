// Texts of logs as they can be shown: terminal colours taken out, controls and marks that turn
// writing round shown as what they are, numbers with all their digits.
import { visible } from "../lines.js";

// CSI, OSC (until BEL or ST) and the two-character escapes of terminals (ECMA-48).
const ANSI = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\^_])/g;
const LINE_CHARACTERS_MAX = 2000;

export const plain = (text) => visible(text.replace(ANSI, ""));

/** A text for one line of a list. */
export function oneLine(text) {
  const shown = plain(text.slice(0, LINE_CHARACTERS_MAX)).replaceAll("\n", " ⏎ ");
  return text.length > LINE_CHARACTERS_MAX ? `${shown} …` : shown;
}

/** JSON whose numbers keep the digits that a double would lose, where the browser can. */
export function parseExactly(text) {
  if (!/[\d.]{17}|\d[eE]/.test(text) || !JSON.rawJSON) return JSON.parse(text);
  return JSON.parse(text, (key, value, context) =>
    typeof value === "number" && isLossy(value, context?.source)
      ? JSON.rawJSON(context.source) : value);
}

/** Fifteen digits are kept by every double. */
function isLossy(value, source) {
  if (source === undefined || String(value) === source) return false;
  const digits = source.replace(/[eE].*$/, "").replace(/\D/g, "").replace(/^0+/, "");
  return digits.length > 15 || !Number.isFinite(value);
}

export const isRaw = (value) => value !== null && typeof value === "object"
  && (JSON.isRawJSON?.(value) ?? false);

/** A value in a cell: text as it is, everything else as JSON. */
export function shownValue(value) {
  if (value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** `[path, value]` of all that is in a payload, objects opened, lists of plain values kept. */
export function flattened(value, path = [], found = [], max = 500) {
  if (found.length >= max) return found;
  const isOpened = value !== null && typeof value === "object" && !isRaw(value);
  if (!isOpened || (Array.isArray(value) && value.every((one) => one === null
    || typeof one !== "object" || isRaw(one)))) {
    if (path.length) found.push([path, value]);
    return found;
  }
  for (const [key, inner] of Object.entries(value)) flattened(inner, [...path, key], found, max);
  if (!Object.keys(value).length && path.length) found.push([path, value]);
  return found;
}
