// The live tail: what is stored now, above the rows that are there, without a gap.
//
// It goes on behind the first page (`position`). Paused, by the button or because somebody reads,
// it keeps what comes and counts it; the server tells how many lines a slow reader has missed.
import { batch, html, signal, useEffect } from "../ui.js";
import { follow } from "../api.js";
import { count, plural } from "../format.js";
import { answer, live, prepend, query, rowCount, turnLive } from "./state.js";

const SHOWN_EVERY_MS = 250;
const KEPT_MAX = 1_000;
const READING_PX = 160;

export const isPaused = signal(false);
const state = signal("waiting");
const waiting = signal(0);
const missed = signal(0);

let kept = [];
let timer = null;

function arrived(row) {
  kept.unshift(row);
  if (kept.length > KEPT_MAX) {
    missed.value += kept.length - KEPT_MAX;
    kept.length = KEPT_MAX;
  }
  timer ??= setTimeout(show, SHOWN_EVERY_MS);
}

/** Rows are shown some at a time: a page that is drawn for each is a page that hangs. */
function show() {
  timer = null;
  if (isPaused.value) {
    waiting.value = kept.length;
    return;
  }
  batch(() => {
    prepend(kept);
    waiting.value = 0;
  });
  kept = [];
}

export function pause() {
  if (live.value) isPaused.value = true;
}

function resume() {
  isPaused.value = false;
  scrollTo({ top: 0 });
  show();
}

/** Follows while the screen is live; anew with each question that was answered. */
export function useTail() {
  const isOn = Boolean(live.value);
  const page = answer.value;
  const position = page?.position;
  useEffect(() => {
    if (!isOn || position === undefined) return undefined;
    kept = [];
    batch(() => {
      isPaused.value = false;
      waiting.value = 0;
      missed.value = 0;
      state.value = "waiting";
    });
    const end = follow("/logs/tail", { q: query.value, last_event_id: position }, {
      onRow: arrived,
      onMissed: ({ lines, unread_rows: unread }) => (missed.value += lines + unread),
      onState: (now) => (state.value = now),
    });
    const onScroll = () => scrollY > READING_PX && pause();
    addEventListener("scroll", onScroll, { passive: true });
    return () => {
      end();
      clearTimeout(timer);
      timer = null;
      removeEventListener("scroll", onScroll);
    };
  }, [isOn, page]);
}

export function LiveButton() {
  const isOn = Boolean(live.value);
  return html`<button type="button" class="btn" aria-pressed=${isOn} onClick=${() => turnLive(!isOn)}>
    <span class=${`dot ${isOn && !isPaused.value && state.value === "open" ? "dot-live" : ""}`}></span>Live
  </button>`;
}

export function LiveBar() {
  if (!live.value) return null;
  const words = { open: "Live", waiting: "Connecting…", closed: "The stream has ended" }[state.value];
  const waits = state.value === "open" && !rowCount.value ? ", waiting for the first log" : "";
  return html`<div class="live-bar row" role="status">
    ${isPaused.value
      ? html`<button type="button" class="btn btn-small btn-primary" onClick=${resume}>Resume</button>
          <span>Paused${waiting.value ? `, ${plural(waiting.value, "new log")}` : ""}</span>`
      : html`<button type="button" class="btn btn-small" onClick=${pause}>Pause</button>
          <span>${words}${waits}</span>`}
    ${missed.value > 0 && html`<span class="badge badge-warn">${count(missed.value)} missed</span>`}
  </div>`;
}
