// The list of logs: a line each, opened in place, more as one scrolls.
//
// A chunk is drawn once and kept: what comes below or above it costs nothing. Rows that are out of
// sight are not laid out (content-visibility), so that thousands stay light.
import { Empty, Failure, html, useEffect, useMemo, useRef, useState } from "../ui.js";
import { count, time } from "../format.js";
import { zone } from "../zone.js";
import { Detail } from "./detail.js";
import { valueAt } from "./lql.js";
import { oneLine, shownValue } from "./text.js";
import {
  ROWS_MAX, answer, chunks, columns, hasMore, isLoading, isLoadingMore, more, moreFault, query,
  rowCount, wraps,
} from "./state.js";

const AHEAD = "600px";

export function Rows({ onOpen }) {
  const list = useRef(null);
  useKeys(list);
  const shown = columns.value;
  const timeZone = zone.value;
  if (!rowCount.value) {
    return isLoading.value || !answer.value ? html`<${Skeleton} />` : html`<${Nothing} />`;
  }
  const kinds = `${wraps.value ? "loglist-wrap" : ""} ${isLoading.value ? "stale" : ""}`;
  return html`<div class=${`loglist ${kinds}`} style=${{ "--columns": gridOf(shown) }}>
    ${shown.length > 0 && html`<div class="log-head" aria-hidden="true">
      <span></span><span>Time</span><span>Level</span>
      ${shown.map((name) => html`<span class="clip" title=${name}>${name}</span>`)}<span>Message</span>
    </div>`}
    <ol class="log" ref=${list} aria-label="Logs">
      ${chunks.value.map((chunk) => html`<${Chunk} key=${chunk.id}
        ...${{ chunk, shown, timeZone, onOpen }} isFirst=${chunk === chunks.value[0]} />`)}
    </ol>
    <${End} />
  </div>`;
}

const gridOf = (shown) => shown.map(() => "minmax(64px, 150px)").join(" ");

function Chunk({ chunk, shown, timeZone, onOpen, isFirst }) {
  return useMemo(
    () => chunk.rows.map((row, at) => html`<${Row} key=${row.id}
      ...${{ row, shown, onOpen }} isFirst=${isFirst && at === 0} />`),
    [chunk, shown, timeZone, isFirst],
  );
}

function Row({ row, shown, onOpen, isFirst }) {
  const [isOpen, setOpen] = useState(false);
  const toggle = () => {
    if (!isOpen) onOpen?.();
    setOpen(!isOpen);
  };
  const onClick = (event) => {
    if (event.target.closest("a, button, .log-detail") || String(getSelection())) return;
    toggle();
  };
  return html`<li class=${isOpen ? "open" : ""} data-id=${row.id}>
    <div class="log-line" onClick=${onClick}>
      <button type="button" class="log-toggle" aria-expanded=${isOpen} tabindex=${isFirst ? 0 : -1}
        aria-label=${`${row.level} at ${time(row.time)}`} data-level=${row.level}
        onClick=${toggle}></button>
      <time class="log-time" datetime=${row.time} title=${row.time}>${time(row.time, "ms")}</time>
      <span class=${`level level-${row.level}`}>${row.level}</span>
      ${shown.length
        ? shown.map((name) => html`<${Cell} row=${row} name=${name} />`)
        : html`<span class="log-service clip">${row.service}</span>`}
      <${Message} row=${row} />
    </div>
    ${isOpen && html`<div class="log-detail"><${Detail} row=${row} /></div>`}
  </li>`;
}

function Cell({ row, name }) {
  const text = oneLine(shownValue(valueAt(row, name)));
  return html`<bdi class="log-cell clip" title=${text}>${text}</bdi>`;
}

export function Message({ row }) {
  if (row.message === null && row.cut) {
    return html`<span class="log-message muted">A long line; open it to see it whole.</span>`;
  }
  return html`<bdi class="log-message">${oneLine(row.message ?? "")}</bdi>`;
}

/** Asks for the next page when its place comes near. */
function End() {
  const place = useRef(null);
  const total = rowCount.value;
  useEffect(() => {
    const watch = new IntersectionObserver(
      (entries) => entries.some((one) => one.isIntersecting) && !moreFault.value && more(),
      { rootMargin: AHEAD },
    );
    watch.observe(place.current);
    return () => watch.disconnect();
  }, [total]);
  if (moreFault.value) return html`<${Failure} error=${moreFault.value} retry=${more} />`;
  return html`<p class="log-end" ref=${place} role="status">
    ${isLoadingMore.value || (hasMore() && total) ? "Loading more…"
      : total >= ROWS_MAX ? `The newest ${count(total)} are here. Narrow the time span, or export all.`
        : "This is the end of the time span."}
  </p>`;
}

function Skeleton() {
  return html`<div class="log-skeleton" role="status"><span class="sr-only">Searching…</span>
    ${Array.from({ length: 12 }, (_, at) => `${92 - ((at * 37) % 55)}%`)
      .map((width) => html`<span style=${{ width }}></span>`)}
  </div>`;
}

function Nothing() {
  if (query.value) {
    return html`<${Empty} title="No log matches">Nothing in this time span fits the query. Widen the
      span, or take a part of the query away.<//>`;
  }
  return html`<${Empty} title="No logs in this time span"
    actions=${html`<a class="btn" href="/welcome?door=logs">Send your first log</a>`}>
    Logs appear here as soon as they are sent to the log door.<//>`;
}

/** j and k, or the arrows, go from row to row; Enter opens (a button does by itself). */
function useKeys(list) {
  useEffect(() => {
    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
      const inList = list.current?.contains(event.target);
      const isToggle = event.target.classList?.contains("log-toggle");
      const step = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step || !list.current || document.querySelector("dialog[open]")) return;
      const isLetter = event.key.length === 1;
      if (isLetter ? isTyping(event.target) : !isToggle) return;
      const all = [...list.current.querySelectorAll(".log-toggle")];
      const at = inList ? all.indexOf(event.target.closest("li").querySelector(".log-toggle")) : -1;
      const next = all[at < 0 ? 0 : at + step];
      if (!next) return;
      event.preventDefault();
      next.focus({ preventScroll: true });
      next.closest("li").scrollIntoView({ block: "nearest" });
    };
    // One row can be reached by Tab: that which had the focus last.
    const onFocus = (event) => {
      if (!event.target.classList.contains("log-toggle")) return;
      const before = list.current.querySelectorAll('.log-toggle[tabindex="0"]');
      for (const one of before) one.tabIndex = -1;
      event.target.tabIndex = 0;
    };
    addEventListener("keydown", onKey);
    const node = list.current;
    node?.addEventListener("focusin", onFocus);
    return () => {
      removeEventListener("keydown", onKey);
      node?.removeEventListener("focusin", onFocus);
    };
  }, [rowCount.value > 0]);
}

const isTyping = (target) => target.isContentEditable
  || /^(?:INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
