// Moving and resizing widgets in a grid: by pointer, and by keys on the same handles.
import { html, useRef, useState } from "./ui.js";
import { GAP_PX, ROW_PX } from "./widgets.js";

const COLUMNS = 12;
const WIDTH_MIN = 2;
const HEIGHT_MAX = 12;

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** The list with the widget of `id` at another place. */
export function movedTo(widgets, id, place) {
  const at = widgets.findIndex((one) => one.id === id);
  const target = clamp(place, 0, widgets.length - 1);
  if (at < 0 || at === target) return widgets;
  const rest = widgets.toSpliced(at, 1);
  return rest.toSpliced(target, 0, widgets[at]);
}

/** The list with the widget of `id` in another size. */
export function resized(widgets, id, width, height) {
  return widgets.map((one) => (one.id === id
    ? { ...one, width: clamp(width, WIDTH_MIN, COLUMNS), height: clamp(height, 1, HEIGHT_MAX) }
    : one));
}

function cellState(held, id) {
  if (held?.id === id) return "widget-held";
  return held?.target === id ? (held.isBehind ? "widget-behind" : "widget-before") : "";
}

/**
 * Widgets one behind the other. `render(widget, handle)`; with `onChange(widgets)` they can be
 * arranged, else `handle` is null.
 */
export function Grid({ widgets, render, onChange }) {
  const place = useRef(null);
  const [held, setHeld] = useState(null);
  const [told, setTold] = useState("");
  const now = useRef(widgets);
  now.current = widgets;

  const onMove = (event) => {
    if (!held) return;
    if (held.how === "size") {
      const column = (place.current.clientWidth + GAP_PX) / COLUMNS;
      const width = held.width + Math.round((event.clientX - held.x) / column);
      const height = held.height + Math.round((event.clientY - held.y) / (ROW_PX + GAP_PX));
      onChange(resized(now.current, held.id, width, height));
      return;
    }
    setHeld({ ...held, ...targetOf(event) });
  };

  /** Where it would be put: before or behind the widget under the pointer. */
  const targetOf = (event) => {
    const over = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-widget]");
    if (!over || over.dataset.widget === held.id || !place.current.contains(over)) {
      return { target: null };
    }
    const box = over.getBoundingClientRect();
    const isWide = box.width > place.current.clientWidth * 0.9;
    const isBehind = isWide
      ? event.clientY > box.top + box.height / 2
      : event.clientX > box.left + box.width / 2;
    return { target: over.dataset.widget, isBehind };
  };

  const release = (event) => {
    if (!held) return;
    const { target, isBehind } = held.how === "place" ? targetOf(event) : {};
    setHeld(null);
    if (!target) return;
    const from = now.current.findIndex((one) => one.id === held.id);
    const to = now.current.findIndex((one) => one.id === target) + (isBehind ? 1 : 0);
    // What stood behind it moves up when it is taken out.
    onChange(movedTo(now.current, held.id, to > from ? to - 1 : to));
  };

  const hold = (event, widget, how) => {
    if (event.button) return;
    event.preventDefault();
    event.currentTarget.focus();
    place.current.setPointerCapture(event.pointerId);
    setHeld({
      id: widget.id, how, x: event.clientX, y: event.clientY, width: widget.width,
      height: widget.height,
    });
  };

  const onKey = (event, widget) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [across, down] = step;
    if (event.shiftKey) {
      const next = resized(now.current, widget.id, widget.width + across, widget.height + down);
      const { width, height } = next.find((one) => one.id === widget.id);
      onChange(next);
      setTold(`${width} of ${COLUMNS} columns wide, ${height} high`);
    } else {
      const at = now.current.findIndex((one) => one.id === widget.id);
      const next = movedTo(now.current, widget.id, at + across + down);
      onChange(next);
      setTold(`Place ${next.findIndex((one) => one.id === widget.id) + 1} of ${next.length}`);
    }
    const handle = event.currentTarget;
    requestAnimationFrame(() => handle.isConnected && handle.focus());
  };

  const handleOf = (widget) => onChange && html`<button type="button" class="grid-handle"
    aria-label=${`Move or resize ${widget.title || "widget"}: arrow keys move, with Shift they resize`}
    title="Drag to move. Arrow keys move, with Shift they resize."
    onPointerDown=${(event) => hold(event, widget, "place")}
    onKeyDown=${(event) => onKey(event, widget)}>⠿</button>`;

  return html`<div class=${`widgets ${held ? "widgets-held" : ""}`} ref=${place} onPointerMove=${onMove}
    onPointerUp=${release} onPointerCancel=${() => setHeld(null)}>
    ${widgets.map((widget) => html`<div key=${widget.id} data-widget=${widget.id}
      class=${`widget-cell ${cellState(held, widget.id)}`}
      style=${{ gridColumn: `span ${widget.width}`, gridRow: `span ${widget.height}` }}>
      ${render(widget, handleOf(widget))}
      ${onChange && html`<span class="grid-corner" aria-hidden="true"
        onPointerDown=${(event) => hold(event, widget, "size")}></span>`}
    </div>`)}
    <p class="sr-only" role="status" aria-live="polite">${told}</p>
  </div>`;
}
