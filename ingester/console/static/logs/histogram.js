// How many logs there are by time and level. It never holds up the rows: it is asked for when they
// are there, or after a moment, and cancelled when another search begins.
import { Failure, html, signal, useEffect, useMemo, useRef, useState } from "../ui.js";
import { get } from "../api.js";
import { Plot } from "../plot.js";
import { count } from "../format.js";
import { isoTime, setRange } from "../time.js";
import { levelSeries } from "../series.js";
import { LEVELS } from "./levels.js";
import { clause, hasClause, withClause, withoutClause } from "./lql.js";
import { answer, ask, asked, asks, chart, fault, hasRows, live, query, range } from "./state.js";

// Rows are to be there within a second; what takes longer shares the processors.
const ROWS_FIRST_MS = 1_000;
const LIVE_EVERY_MS = 5_000;
// Of the time that a live histogram costs the server, this is the reciprocal.
const LIVE_REST = 20;
const HEIGHT = 128;

export const total = signal(null);

/** What goes over the whole range: asked for when the rows are there, or soon. */
export function useOverview(load, enabled, everyMs = 0) {
  const [state, setState] = useState({ data: null, error: null, loading: true });
  const control = useRef(null);
  const latest = useRef(load);
  latest.current = load;
  const turn = asked.value;
  const isDue = enabled && turn > 0;
  const areRowsHere = hasRows.value === turn;
  const done = useRef(0);
  const work = async () => {
    control.current?.abort();
    const mine = new AbortController();
    control.current = mine;
    done.current = turn;
    setState((old) => ({ ...old, loading: true }));
    try {
      const data = await latest.current(mine.signal);
      if (!mine.signal.aborted) setState({ data, error: null, loading: false });
    } catch (error) {
      if (mine.signal.aborted) return;
      // A query that is refused is told of where it stands, and what was found before stays.
      if (isRefused(error)) setState((old) => ({ ...old, error: null, loading: false }));
      else setState({ data: null, error, loading: false });
    }
  };
  useEffect(() => {
    if (!isDue || done.current === turn) return undefined;
    control.current?.abort();
    if (areRowsHere && fault.value) {
      const stays = isRefused(fault.value);
      setState((old) => ({ data: stays ? old.data : null, error: null, loading: false }));
      return undefined;
    }
    const timer = setTimeout(work, areRowsHere ? 0 : ROWS_FIRST_MS);
    return () => clearTimeout(timer);
  }, [isDue, turn, areRowsHere]);
  useEffect(() => () => control.current?.abort(), []);
  useEffect(() => {
    if (!isDue || !everyMs) return undefined;
    const timer = setInterval(() => document.hidden || work(), everyMs);
    return () => clearInterval(timer);
  }, [isDue, everyMs, turn]);
  return { ...state, reload: work };
}

const isRefused = (error) => error.status === 400 || error.status === 422;

export function Histogram() {
  const isShown = chart.value !== "0";
  const [costMs, setCostMs] = useState(0);
  const found = useOverview(
    (signal) => get("/logs/histogram", asks(), { signal }),
    isShown, live.value ? Math.max(LIVE_EVERY_MS, costMs * LIVE_REST) : 0,
  );
  const { data } = found;
  useEffect(() => {
    total.value = data?.count ?? null;
    setCostMs(Math.ceil((data?.cost.ms ?? 0) / 100) * 100);
  }, [data]);
  const drawn = useMemo(() => (data ? drawnOf(data) : null), [data]);
  const zoom = (from, until) => setRange(
    range, isoTime(Math.floor(from)), isoTime(Math.max(Math.ceil(until), Math.floor(from) + 1)),
  );
  if (!isShown || answer.value?.chart || (!drawn && !found.loading && !found.error)) return null;
  return html`<section class=${`card card-flush histogram ${found.loading ? "stale" : ""}`}
    aria-label="Logs by time">
    ${found.error
      ? html`<div class="card-body"><${Failure} error=${found.error} retry=${found.reload} /></div>`
      : !drawn ? html`<div class="histogram-wait" style=${{ height: `${HEIGHT + 24}px` }}></div>`
        : html`<${Levels} drawn=${drawn} data=${data} />
          ${data.count > 0 && html`<${Plot} times=${drawn.times} series=${drawn.series}
            kind="stacked" height=${HEIGHT}
            legend=${false} onZoom=${zoom} range=${drawn.range}
            label=${`${count(data.count)} logs by time and level; click a bar or drag to zoom`} />`}`}
  </section>`;
}

/** How many of each level; a click asks for it alone, or no longer. */
function Levels({ drawn, data }) {
  const toggle = (name) => {
    const part = clause("level", name);
    const change = hasClause(query.value, part) ? withoutClause : withClause;
    ask(change(query.value, part));
  };
  return html`<div class="levels">
    <strong class="levels-total">${count(data.count)} ${data.count === 1 ? "log" : "logs"}</strong>
    ${drawn.series.toReversed().map((one) => html`<button type="button" class="level-chip"
      key=${one.label}
      aria-pressed=${hasClause(query.value, clause("level", one.label))}
      onClick=${() => toggle(one.label)}>
      <span class="level-mark" data-level=${one.label}></span>${one.label}
      <span class="muted">${count(one.total)}</span>
    </button>`)}
    ${data.count > 0 && html`<span class="levels-hint muted small">a bar is
      ${" "}${spanText(data.bucket_seconds)}; click or drag to zoom</span>`}
  </div>`;
}

/** Every period of the range, also those without rows; the least severe level first. */
function drawnOf(data) {
  if (!data.count) return { times: [], series: [], range: null };
  const { times, groups } = levelSeries(data);
  const series = groups.toSorted((left, right) => LEVELS.indexOf(left.key) - LEVELS.indexOf(right.key));
  return { times, series, range: [times[0], times.at(-1) + data.bucket_seconds] };
}

function spanText(seconds) {
  for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size && seconds % size === 0) return `${seconds / size} ${name}`;
  }
  return `${seconds} s`;
}
