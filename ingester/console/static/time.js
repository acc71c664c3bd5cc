// The span of time that a screen shows: in the address as `since` and `until`, in the words that the
// API takes (`now-1h`, RFC 3339), with the picker that changes it.
import { batch, html, useState } from "./vendor/preact.js";
import { Menu } from "./menu.js";
import { Field } from "./forms.js";
import { chooseZone, isZone, localZone, zone } from "./zone.js";
import { urlParam } from "./url.js";
import { time, zoneName } from "./format.js";

const UNITS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
const PRESETS = [
  ["now-15m", "Last 15 minutes"],
  ["now-1h", "Last hour"],
  ["now-6h", "Last 6 hours"],
  ["now-24h", "Last 24 hours"],
  ["now-2d", "Last 2 days"],
  ["now-7d", "Last 7 days"],
  ["now-30d", "Last 30 days"],
  ["now-90d", "Last 90 days"],
];

/** `{since, until}` as signals. Going back undoes a change. */
export function urlRange({ since = "now-2d", until = "now" } = {}) {
  return {
    since: urlParam("since", since, { push: true }),
    until: urlParam("until", until, { push: true }),
  };
}

export function setRange(range, since, until = "now") {
  batch(() => {
    range.since.value = since;
    range.until.value = until;
  });
}

/** Epoch seconds to the words of the API. */
export const isoTime = (seconds) =>
  new Date(Math.round(seconds * 1000)).toISOString().replace(".000Z", "Z");

/** Epoch seconds of `now-1h`, RFC 3339 or a day; null for what only the server can read. */
export function timeOf(text, now = Date.now() / 1000) {
  const relative = /^now(?:-(\d+)([smhdw]))?$/.exec(text.trim());
  if (relative) return now - Number(relative[1] ?? 0) * UNITS[relative[2] ?? "s"];
  if (!/^\d{4}-\d\d-\d\d/.test(text)) return null;
  const ms = Date.parse(/[zZ]|[+-]\d\d:?\d\d$/.test(text) || text.length === 10 ? text : `${text}Z`);
  return Number.isNaN(ms) ? null : ms / 1000;
}

/** `[from, until]` in epoch seconds, or null. */
export function boundsOf(range, now = Date.now() / 1000) {
  const from = timeOf(range.since.value, now);
  const until = timeOf(range.until.value, now);
  return from === null || until === null || from >= until ? null : [from, until];
}

/** The span in words. */
export function rangeText(range) {
  const preset = PRESETS.find(([since]) => since === range.since.value);
  if (preset && range.until.value === "now") return preset[1];
  const shown = (text) => (/^\d{4}-/.test(text) ? time(text).slice(0, 16) : text);
  return `${shown(range.since.value)} – ${shown(range.until.value)}`;
}

/** The span moved by `share` of itself (-0.5 is half earlier), or widened to `factor` times. */
export function moved(range, share, factor = 1) {
  const bounds = boundsOf(range);
  if (!bounds) return;
  const [from, until] = bounds;
  const width = until - from;
  const middle = (from + until) / 2 + share * width;
  const half = (width * factor) / 2;
  setRange(range, isoTime(Math.floor(middle - half)), isoTime(Math.ceil(middle + half)));
}

/** Earlier, later, wider, and the menu with spans, own times and the zone they are shown in. */
export function TimePicker({ range, onChange = () => {} }) {
  const change = (work) => {
    work();
    onChange();
  };
  const isKnown = boundsOf(range) !== null;
  return html`<div class="row">
    <div class="btn-group" role="group" aria-label="Move the time span">
      <button class="btn" type="button" aria-label="Earlier" disabled=${!isKnown}
        onClick=${() => change(() => moved(range, -0.5))}>‹</button>
      <button class="btn" type="button" aria-label="Zoom out" disabled=${!isKnown}
        onClick=${() => change(() => moved(range, 0, 2))}>−</button>
      <button class="btn" type="button" aria-label="Later" disabled=${!isKnown}
        onClick=${() => change(() => moved(range, 0.5))}>›</button>
    </div>
    <${Menu} label="Time span" text=${`${rangeText(range)} · ${zoneName()}`} small=${false}>
      ${(close) => html`<${Choices} range=${range} close=${() => change(close)} />`}
    <//>
  </div>`;
}

function Choices({ range, close }) {
  const [since, setSince] = useState(range.since.value);
  const [until, setUntil] = useState(range.until.value);
  const apply = (event) => {
    event.preventDefault();
    setRange(range, since.trim() || "now-2d", until.trim() || "now");
    close();
  };
  const zones = [...new Set(["UTC", localZone, zone.value])].filter(isZone);
  return html`<div class="stack">
    <div class="grid-presets row">
      ${PRESETS.map(
        ([value, label]) => html`<button type="button" class="btn btn-small"
          aria-pressed=${range.since.value === value && range.until.value === "now"}
          onClick=${() => {
            setRange(range, value);
            close();
          }}>${label}</button>`,
      )}
    </div>
    <form class="stack" onSubmit=${apply}>
      <${Field} name="since" label="From" value=${since} onValue=${setSince} mono
        hint="now-1h, 2026-11-21, or 2026-11-21T08:00:00Z" />
      <${Field} name="until" label="To" value=${until} onValue=${setUntil} mono />
      <button class="btn btn-primary">Apply</button>
    </form>
    <${Field} name="zone" label="Times are shown in" kind="select" value=${zone.value}
      onValue=${chooseZone} options=${zones.map((name) => ({ value: name, label: name }))} />
  </div>`;
}
