// What a monitor would have done over stored data: the function that judges live, as a plot.
import { Fragment, html, useEffect, useMemo, useRef, useState } from "./ui.js";
import { post } from "./api.js";
import { Plot } from "./plot.js";
import { Table } from "./table.js";
import { count, duration, figure, plural, time } from "./format.js";

const TYPED_MS = 600;
const SERIES_MAX = 8;
const SPANS = [
  ["", "200 windows"],
  ["1", "24 hours"],
  ["7", "7 days"],
  ["30", "30 days"],
];

/**
 * `monitor` as the API takes it, or null while it is not whole; it is judged again when it changes,
 * unless `byHand` (a SELECT takes a process for each window). `onFault(error or null)` gets
 * refusals that name a field.
 */
export function Backtest({ monitor, byHand = false, onFault = () => {} }) {
  const [days, setDays] = useState("");
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const under = useRef(null);
  const text = monitor ? JSON.stringify(monitor) : "";
  const run = async () => {
    under.current?.abort();
    const control = new AbortController();
    under.current = control;
    setBusy(true);
    try {
      const wanted = JSON.parse(text);
      const asked = { monitor: isOpen(wanted) ? { ...wanted, ...NEVER } : wanted };
      if (days) asked.since = new Date(Date.now() - Number(days) * 86_400_000).toISOString();
      const answer = await post("/monitors/backtest", asked, { signal: control.signal });
      if (control.signal.aborted) return;
      setFound({ answer, monitor: wanted });
      setError(null);
      onFault(null);
    } catch (problem) {
      if (control.signal.aborted) return;
      setError(problem);
      onFault(problem);
    } finally {
      if (under.current === control) setBusy(false);
    }
  };
  useEffect(() => {
    if (!text || byHand) return undefined;
    const timer = setTimeout(run, TYPED_MS);
    return () => clearTimeout(timer);
  }, [text, days, byHand]);
  useEffect(() => () => under.current?.abort(), []);
  return html`<section class="card card-flush" aria-label="Back-test" aria-busy=${isBusy}>
    <div class="card-head">
      <h2>Back-test</h2>
      <div class="row">
        <div class="btn-group" role="group" aria-label="Span of the back-test">
          ${SPANS.map(([value, label]) => html`<button type="button" class="btn btn-small"
            aria-pressed=${days === value} onClick=${() => setDays(value)}>${label}</button>`)}
        </div>
        <button class="btn btn-small" type="button" disabled=${!text || isBusy} onClick=${run}>
          ${isBusy ? "Judging…" : "Run"}
        </button>
      </div>
    </div>
    <div class="card-body stack">
      ${error && html`<p class="notice notice-error" role="alert">${error.message}</p>`}
      ${found
        ? html`<${Judged} ...${found} />`
        : html`<p class="muted" role="status">${isBusy ? "Judging…" : hint(text, byHand)}</p>`}
    </div>
  </section>`;
}

// While no threshold is named the values are shown, to choose one by.
const NEVER = { operator: ">", threshold: 1e300, recovery: null };
const isOpen = ({ operator, threshold }) => operator !== null && threshold === null;

function hint(text, byHand) {
  if (!text) return "Say what is watched and when it fires: here is shown what that would have done.";
  return byHand ? "Run shows what it would have done in the last 100 windows." : "";
}

/** `answer` of a back-test of `monitor`. */
export function Judged({ answer, monitor }) {
  const span = Date.parse(answer.until) - Date.parse(answer.since);
  const fired = answer.firings_count;
  return html`<${Fragment}>
    ${isOpen(monitor) ? html`<p class="verdict" role="status">
      <strong>Values of the last ${duration(span)}</strong>: name a threshold to see when it fires.
    </p>` : html`<p class="verdict" role="status">
      <strong>${fired ? `Would have fired ${plural(fired, "time")}` : "Would not have fired"}</strong>
      ${" "}in ${duration(span)}: ${count(answer.firing_buckets)} of
      ${" "}${plural(answer.buckets, "window")} of ${duration(monitor.window_s * 1000)} firing.
    </p>`}
    <${JudgedPlot} ...${{ answer, monitor }} />
    ${answer.groups_left_out > 0 && html`<p class="notice notice-warn">
      Up to ${plural(answer.groups_left_out, "group")} in a window were beyond what is told apart.
    </p>`}
    ${answer.firings.length > 0 && html`<${Table} label="Firings" rowKey=${(row) => row.at}
      rows=${answer.firings.slice(-20).toReversed().map((one, at) => ({ ...one, at }))}
      columns=${FIRINGS} />`}
  <//>`;
}

/** Values, threshold and firings; of `group` only, if one is named. */
export function JudgedPlot({ answer, monitor, group, height = 230 }) {
  const only = group === undefined ? null : groupText(group);
  const { times, series, left, firings } = useMemo(
    () => plotted(answer, monitor.window_s, only), [answer, only],
  );
  const lines = [];
  if (typeof monitor.threshold === "number") {
    lines.push({ value: monitor.threshold, colour: "--bad" });
    if (typeof monitor.recovery === "number") {
      lines.push({ value: monitor.recovery, colour: "--good" });
    }
  }
  const bands = firings.map((one) => ({
    from: Date.parse(one.fired_at) / 1000,
    until: Date.parse(one.recovered_at ?? answer.until) / 1000,
  }));
  return html`<${Fragment}>
    <${Plot} times=${times} series=${series} lines=${lines} bands=${bands} height=${height}
      legend=${series.length > 1}
      label=${`Value of each window; ${bands.length ? plural(bands.length, "firing") : "no firing"}`} />
    <p class="small muted row keys">
      ${lines.length > 0 && html`<span><span class="dash dash-bad"></span>
        ${monitor.operator} ${figure(monitor.threshold)}</span>`}
      ${lines.length > 1 && html`<span><span class="dash dash-good"></span>
        recovers at ${figure(monitor.recovery)}</span>`}
      ${bands.length > 0 && html`<span><span class="band-key"></span> firing</span>`}
      ${left > 0 && html`<span>${plural(left, "more group")} judged, not plotted</span>`}
    </p>
  <//>`;
}

export const groupText = (group) => Object.entries(group ?? {})
  .map(([name, value]) => `${name}=${value || '""'}`).join(" · ");

const FIRINGS = [
  { name: "at", label: "Fired", kind: "nowrap", cell: (row) => time(row.fired_at) },
  {
    name: "until", label: "Recovered", kind: "nowrap",
    cell: (row) => (row.recovered_at ? time(row.recovered_at) : html`<em>still firing</em>`),
  },
  { name: "group", label: "Group", kind: "breaks", cell: (row) => groupText(row.group) || "–" },
  { name: "value", label: "Value", num: true, cell: (row) => figure(row.value) },
];

function plotted(answer, windowSeconds, only) {
  const by = new Map();
  const moments = new Set();
  for (const sample of answer.samples) {
    const name = groupText(sample.group);
    if (only !== null && name !== only) continue;
    // A window is judged when it is over; a firing begins there.
    const at = Date.parse(sample.window_start) / 1000 + windowSeconds;
    moments.add(at);
    if (!by.has(name)) by.set(name, new Map());
    by.get(name).set(at, sample.value);
  }
  const firings = answer.firings.filter((one) => only === null || groupText(one.group) === only);
  const times = [...moments].sort((left, right) => left - right);
  const firing = new Set(firings.map((one) => groupText(one.group)));
  const names = [...by.keys()].sort((left, right) => firing.has(right) - firing.has(left));
  const series = names.slice(0, SERIES_MAX).map((name) => ({
    label: name || "value",
    values: times.map((at) => by.get(name).get(at) ?? null),
  }));
  return { times, series, firings, left: Math.max(0, names.length - SERIES_MAX) };
}
