// Plots over time in the colours of the theme, and small ones in a line of text.
import { html, useEffect, useRef } from "./vendor/preact.js";
import { uPlot } from "./vendor/uplot.js";
import { compact, figure, time } from "./format.js";
import { zone } from "./zone.js";

const SERIES_COLOURS = 8;
// Distance of ticks in seconds, what stands at each, and what else where a year, a month, a day, an
// hour, a minute or a second begins; the last column: 1 puts it below.
const DAY = "\n{YYYY}-{MM}-{DD}";
const TICKS = [
  [31_536_000, "{YYYY}", null, null, null, null, null, null, 1],
  [2_419_200, "{YYYY}-{MM}", null, null, null, null, null, null, 1],
  [86_400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", DAY, null, DAY, null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", DAY, null, DAY, null, null, null, 1],
  [0.001, "{ss}.{fff}", `${DAY} {HH}:{mm}`, null, DAY, null, "\n{HH}:{mm}", null, 1],
];
const BAR_SHARE = 0.85;
const WIDE_PX = 480;
/** Less of a movement is a click. */
const DRAG_PX = 3;

/** The colour that a custom property, such as "--level-error", has in the theme of now. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

export const seriesColour = (at) => colour(`--series-${(at % SERIES_COLOURS) + 1}`);

/**
 * `times`: epoch seconds, ascending; `series`: `{label, values, colour?, hidden?}`, null for a gap;
 * `kind`: "line", "area", "bars" or "stacked"; `onZoom(from, until)` gets epoch seconds after a drag,
 * or a click on a bar;
 * plots of one `sync` share the cursor; `bands`: `{from, until, colour}` behind the lines; `lines`:
 * `{value, colour, label}` across; `spanGaps`: lines go on over gaps. `label` says what is plotted, for
 * those who do not see it.
 */
export function Plot({
  times, series, kind = "line", height = 220, unit = "", onZoom, sync, label, legend = true,
  range, bands = [], lines = [], spanGaps = false,
}) {
  const place = useRef(null);
  const zoom = useRef(onZoom);
  zoom.current = onZoom;
  const timeZone = zone.value;
  useEffect(() => {
    const node = place.current;
    if (!times.length) return undefined;
    let plot = null;
    const draw = () => {
      plot?.destroy();
      const options = settings({
        series, kind, height, unit, zoom, sync, legend, range, bands, lines, timeZone, times,
        spanGaps, width: node.clientWidth,
      });
      plot = new uPlot(options, data(times, series, kind), node);
    };
    draw();
    const watch = new ResizeObserver(() => {
      if (node.clientWidth && plot.width !== node.clientWidth) {
        plot.setSize({ width: node.clientWidth, height });
      }
    });
    watch.observe(node);
    addEventListener("themechange", draw);
    return () => {
      watch.disconnect();
      removeEventListener("themechange", draw);
      plot.destroy();
    };
  }, [times, series, kind, height, unit, timeZone, range?.[0], range?.[1]]);
  if (!times.length) {
    return html`<div class="plot plot-empty" style=${{ height: `${height}px` }}>No data</div>`;
  }
  return html`<div class="plot" ref=${place} role="img" aria-label=${label}></div>`;
}

const SPARSE_MAX = 60;
const isSparse = (values) => {
  const count = values.filter((value) => value !== null && value !== undefined).length;
  return count < SPARSE_MAX && count < values.length / 2;
};

function data(times, series, kind) {
  if (kind !== "stacked") return [times, ...series.map((one) => one.values)];
  // Each lies on the sum of those before it; drawn from the highest down.
  const sums = [];
  let below = times.map(() => 0);
  for (const one of series) {
    if (!one.hidden) below = below.map((sum, at) => sum + (one.values[at] ?? 0));
    sums.push(below);
  }
  return [times, ...sums.toReversed()];
}

function settings({
  series, kind, height, unit, zoom, sync, legend, range, bands, lines, timeZone, width, times, spanGaps,
}) {
  const isBars = kind === "bars" || kind === "stacked";
  const text = colour("--muted");
  const grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: text, grid, ticks: { ...grid, size: 4 }, font: "11px system-ui, sans-serif" };
  const bars = isBars ? uPlot.paths.bars({ size: [BAR_SHARE, 40], align: 1 }) : undefined;
  const step = times.length > 1 ? times[1] - times[0] : 60;
  const until = range?.[1] ?? times.at(-1) + step;
  const drawn = series.map((one, at) => {
    const stroke = one.colour?.startsWith("--") ? colour(one.colour) : one.colour ?? seriesColour(at);
    return {
      label: one.label,
      show: !one.hidden,
      stroke,
      fill: isBars ? stroke : kind === "area" ? translucent(stroke) : undefined,
      width: isBars ? 0 : 1.5,
      paths: bars,
      spanGaps,
      // A value between gaps is a point: a line would not show it.
      points: {
        show: !isBars && (times.length < 3 || (spanGaps && isSparse(one.values))),
        filter: isBars || spanGaps ? undefined : lonely,
      },
      value: (plot, value, index, place) => {
        const raw = kind === "stacked" && place !== null ? one.values[place] : value;
        return raw === null || raw === undefined ? "–" : `${figure(raw)}${unit && ` ${unit}`}`;
      },
    };
  });
  return {
    width,
    height,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), timeZone),
    // The last date stands half beyond its tick.
    padding: [8, width > WIDE_PX ? 34 : 8, 0, 0],
    legend: { show: legend, live: true },
    cursor: {
      y: false,
      drag: { x: Boolean(zoom.current), y: false, setScale: false },
      sync: sync ? { key: sync } : undefined,
      points: { show: !isBars },
    },
    scales: {
      x: { time: true, range: () => range ?? [times[0], isBars ? until : times.at(-1)] },
      y: { range: (plot, low, high) => extent(low, high, isBars || kind === "area", lines) },
    },
    axes: [
      { ...axis, space: 70, values: TICKS },
      { ...axis, size: 56, values: (plot, ticks) => ticks.map(compact) },
    ],
    series: [
      { label: "Time", value: (plot, value) => (value === null ? "–" : time(value * 1000)) },
      ...(kind === "stacked" ? drawn.toReversed() : drawn),
    ],
    hooks: {
      drawClear: [(plot) => drawBands(plot, bands)],
      draw: [(plot) => drawLines(plot, lines)],
      ready: [(plot) => {
        plot.over.addEventListener("mousedown", (event) => (pressed = { plot, x: event.clientX }));
        // Before uPlot's own, which keeps clicks to itself after the least movement.
        if (isBars) plot.root.addEventListener("click", (event) => clicked(plot, event, until, zoom), true);
      }],
      setSelect: [(plot) => told(plot, zoom)],
    },
  };
}

/** Values between gaps: no line goes to them, so they get a dot. */
function lonely(plot, at, isShown) {
  if (isShown) return null;
  const values = plot.data[at];
  const isGap = (value) => value === null || value === undefined;
  const found = [];
  values.forEach((value, each) => {
    if (!isGap(value) && isGap(values[each - 1]) && isGap(values[each + 1])) found.push(each);
  });
  return found.length ? found : null;
}

// What is filled stands on zero.
function extent(low, high, isFilled, lines) {
  const values = lines.map((one) => one.value);
  const least = Math.min(low ?? 0, ...values, isFilled ? 0 : Infinity);
  const most = Math.max(high ?? 1, ...values);
  if (least === most) return [Math.min(0, least), most ? most * 1.2 : 1];
  const room = (most - least) * 0.08;
  return [least >= 0 ? Math.max(0, least - room) : least - room, most + room];
}

// Where the drag began: plots that share a cursor share the selection, too.
let pressed = null;

function told(plot, zoom) {
  const { left, width } = plot.select;
  if (width < DRAG_PX || plot !== pressed?.plot) return;
  const from = plot.posToVal(left, "x");
  const until = plot.posToVal(left + width, "x");
  plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  zoom.current?.(from, until);
}

/** A click on a bar, or above it, is its period; `until` is where the last one ends. */
function clicked(plot, event, until, zoom) {
  if (event.target !== plot.over || Math.abs(event.clientX - pressed?.x) >= DRAG_PX) return;
  const [times, ...values] = plot.data;
  const x = plot.posToVal(event.clientX - plot.over.getBoundingClientRect().left, "x");
  const at = times.findLastIndex((time) => time <= x);
  if (times.length > 1 && values.some((one) => one[at])) {
    zoom.current?.(times[at], times[at + 1] ?? until);
  }
}

function drawBands(plot, bands) {
  const { ctx, bbox } = plot;
  for (const band of bands) {
    const left = plot.valToPos(band.from, "x", true);
    const right = plot.valToPos(band.until, "x", true);
    ctx.fillStyle = translucent(colour(band.colour ?? "--bad"));
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
  }
}

function drawLines(plot, lines) {
  const { ctx, bbox } = plot;
  for (const line of lines) {
    const y = plot.valToPos(line.value, "y", true);
    ctx.strokeStyle = colour(line.colour ?? "--bad");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([6, 4]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.setLineDash([]);
  }
}

const translucent = (text) => text.replace(/^rgb\((.*)\)$/, "rgba($1, 0.18)");

/** A line of values, without axes: for a cell of a table. */
export function Sparkline({ values, width = 96, height = 22, label = "" }) {
  const shown = values.filter((value) => value !== null && value !== undefined);
  if (shown.length < 2) return html`<span class="muted">–</span>`;
  const low = Math.min(...shown);
  const span = Math.max(...shown) - low || 1;
  const points = shown.map((value, at) => {
    const x = (at / (shown.length - 1)) * (width - 2) + 1;
    const y = height - 2 - ((value - low) / span) * (height - 4);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  const told = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  return html`<svg class="spark" width=${width} height=${height} ...${told}>
    <polyline points=${points.join(" ")} fill="none" stroke="var(--accent)" stroke-width="1.5" />
  </svg>`;
}
