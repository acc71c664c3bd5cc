// What the Logs screen shows and asks: everything that a link should carry is in the address, the
// rows are here.
//
// 1. Rows are asked for first; histogram and fields when the rows are there, or soon.
// 2. What is superseded is cancelled, and an answer that comes too late is dropped.
// 3. Nothing is asked for that is not shown: a page at a time, as far as one scrolls.
import { batch, computed, signal } from "../vendor/preact.js";
import { api } from "../api.js";
import { urlParam } from "../url.js";
import { setRange, urlRange } from "../time.js";
import { parseExactly } from "./text.js";

const PAGE_ROWS = 100;
/** More than these are not read by scrolling, and hold up the browser. */
export const ROWS_MAX = 5_000;

export const query = urlParam("q", "", { push: true });
export const range = urlRange();
export const columnsText = urlParam("columns");
export const wraps = urlParam("wrap");
export const linked = urlParam("row", "", { push: true });
export const saved = urlParam("saved");
export const live = urlParam("live");
/** "1" shows, "0" hides; "" as wide as the window is. */
export const sidebar = urlParam("fields");
export const chart = urlParam("chart");

/** What stands in the editor and is not asked yet. */
export const draft = signal(query.value);
export const chunks = signal([]);
export const answer = signal(null);
export const fault = signal(null);
export const isLoading = signal(false);
export const isLoadingMore = signal(false);
export const moreFault = signal(null);
/** Changes with every new question; what goes over the whole range waits for `hasRows`. */
export const asked = signal(0);
export const hasRows = signal(0);

export const rowCount = computed(() => chunks.value.reduce((sum, one) => sum + one.rows.length, 0));
export const columns = computed(() => splitColumns(columnsText.value));
export const isTable = computed(() => Boolean(answer.value?.chart ?? answer.value?.select));

const known = new Set();
let control = null;
let cursor = null;
let chunkId = 0;

/** What every question of this search has; an end at "now" is open, for clocks that are ahead. */
export function asks() {
  return {
    q: query.value,
    since: range.since.value,
    until: range.until.value === "now" ? undefined : range.until.value,
  };
}

/** Ask anew. Old rows stay until there are others. */
export async function run() {
  control?.abort();
  const mine = new AbortController();
  control = mine;
  batch(() => {
    isLoading.value = true;
    isLoadingMore.value = false;
    moreFault.value = null;
    asked.value += 1;
  });
  const turn = asked.value;
  try {
    const page = await pageOf({}, mine.signal);
    if (mine.signal.aborted) return null;
    known.clear();
    cursor = page.cursor;
    batch(() => {
      chunks.value = page.rows.length ? [chunkOf(page.rows)] : [];
      answer.value = page;
      fault.value = null;
    });
    return page;
  } catch (error) {
    if (mine.signal.aborted) return null;
    cursor = null;
    batch(() => {
      fault.value = error;
      if (error.status === 400 || error.status === 422) return;
      chunks.value = [];
      answer.value = null;
    });
    return null;
  } finally {
    if (!mine.signal.aborted) {
      batch(() => {
        isLoading.value = false;
        hasRows.value = turn;
      });
    }
  }
}

export const hasMore = () => cursor !== null && rowCount.value < ROWS_MAX;

/** The next page, below. */
export async function more() {
  if (!hasMore() || isLoading.value || isLoadingMore.value) return;
  const mine = control;
  isLoadingMore.value = true;
  try {
    const page = await pageOf({ cursor }, mine.signal);
    if (mine.signal.aborted) return;
    cursor = page.cursor;
    batch(() => {
      const rows = page.rows.filter((row) => !known.has(row.id));
      chunks.value = rows.length ? [...chunks.value, chunkOf(rows)] : chunks.value;
      moreFault.value = null;
    });
  } catch (error) {
    if (!mine.signal.aborted) moreFault.value = error;
  } finally {
    if (!mine.signal.aborted) isLoadingMore.value = false;
  }
}

/** Rows of a live tail, newest first, above. The oldest go, so that the page stays light. */
export function prepend(rows) {
  const fresh = rows.filter((row) => !known.has(row.id));
  if (!fresh.length) return;
  const next = [chunkOf(fresh), ...chunks.value];
  let count = 0;
  let kept = 0;
  while (kept < next.length && count < ROWS_MAX / 2) count += next[kept++].rows.length;
  if (kept < next.length) {
    cursor = null;
    for (const gone of next.slice(kept)) for (const row of gone.rows) known.delete(row.id);
  }
  chunks.value = next.slice(0, kept);
}

/** One row whole, with lines around it. */
export async function context(id, before, after, signal) {
  const text = await api("GET", `/logs/${encodeURIComponent(id)}`, {
    query: { before, after }, signal, as: "text",
  });
  return parseExactly(text);
}

export function setColumns(names) {
  columnsText.value = names.join(",");
}

/** A column more, or less. */
export function toggleColumn(name) {
  setColumns(columns.value.includes(name)
    ? columns.value.filter((one) => one !== name) : [...columns.value, name]);
}

/** Run `text`; the same once more when it is the same. */
export function ask(text) {
  draft.value = text;
  if (text === query.value) run();
  else query.value = text;
}

/** A live tail has no end, and begins now. */
export function turnLive(isOn) {
  batch(() => {
    if (isOn && range.until.value !== "now") {
      setRange(range, "now-15m");
    }
    live.value = isOn ? "1" : "";
  });
}

function pageOf(extra, signal) {
  return api("GET", "/logs", {
    query: { ...asks(), limit: PAGE_ROWS, ...extra }, signal, as: "text",
  }).then(parseExactly);
}

function chunkOf(rows) {
  for (const row of rows) known.add(row.id);
  return { id: ++chunkId, rows };
}

/** Names may hold commas only within backticks. */
function splitColumns(text) {
  return text ? text.match(/(?:`[^`]*`|[^,`])+/g) ?? [] : [];
}
