// Figures, sizes and times as people read them.
import { zone } from "./zone.js";

const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const figures = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];

export const count = (value) => (value === null || value === undefined ? "–" : integers.format(value));
export const figure = (value) => (Number.isFinite(value) ? figures.format(value) : "–");
export const compact = (value) => (Number.isFinite(value) ? short.format(value) : "–");

export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  let at = 0;
  let left = value;
  while (left >= 1024 && at < BYTES.length - 1) {
    left /= 1024;
    at += 1;
  }
  return `${at === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${BYTES[at]}`;
}

export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return `${Math.round(hours / 24)} d`;
}

/** How long ago; "never" for null. */
export function ago(iso, now = Date.now()) {
  if (!iso) return "never";
  const ms = now - Date.parse(iso);
  if (Number.isNaN(ms)) return String(iso);
  if (Math.abs(ms) < 5000) return "just now";
  const whole = duration(Math.round(Math.abs(ms) / 1000) * 1000).replace(".0 s", " s");
  return ms > 0 ? `${whole} ago` : `in ${whole}`;
}

const formats = new Map();

function formatter(kind, timeZone) {
  const name = `${kind} ${timeZone}`;
  if (!formats.has(name)) {
    const day = { year: "numeric", month: "2-digit", day: "2-digit" };
    const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
    const options = { timeZone, ...(kind === "clock" ? {} : day), ...(kind === "day" ? {} : clock) };
    if (kind === "ms") options.fractionalSecondDigits = 3;
    formats.set(name, new Intl.DateTimeFormat("sv-SE", options));
  }
  return formats.get(name);
}

/** A time in the display zone: `kind` is "second", "ms", "day" or "clock". */
export function time(at, kind = "second") {
  if (at === null || at === undefined || at === "") return "–";
  const date = at instanceof Date ? at : new Date(at);
  if (Number.isNaN(date.getTime())) return String(at);
  return formatter(kind, zone.value).format(date).replace(",", ".");
}

/** The offset of the display zone, such as "UTC" or "UTC+2". */
export function zoneName(at = Date.now()) {
  if (zone.value === "UTC") return "UTC";
  const parts = new Intl.DateTimeFormat("en", { timeZone: zone.value, timeZoneName: "shortOffset" })
    .formatToParts(new Date(at));
  return (parts.find((part) => part.type === "timeZoneName")?.value ?? zone.value)
    .replace("GMT", "UTC");
}
