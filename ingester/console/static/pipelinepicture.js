// The picture of the pipeline: boxes and arrows, laid out for the width that there is.
import { Fragment, html, useEffect, useRef, useState } from "./ui.js";

const NARROW_PX = 720;
const LINE_PX = 16;
const MARKS = { works: "●", idle: "○", attention: "▲" };
const WORDS = { works: "working", idle: "idle", attention: "look" };

// Column and row of each box.
const WIDE = {
  intake: [0, 1], journal: [1, 0], loader: [2, 0], decode: [1, 2], insert: [2, 2], store: [3, 1],
  rollups: [4, 0], sealer: [4, 1], watch: [4, 2], delivery: [4, 3], queries: [3, 3],
};
// Column (2: both) and row.
const SLIM = {
  intake: [2, 0], journal: [0, 1], decode: [1, 1], loader: [0, 2], insert: [1, 2], store: [2, 3],
  rollups: [0, 4], sealer: [1, 4], watch: [0, 5], queries: [1, 5], delivery: [0, 6],
};

export function Picture({ nodes, edges }) {
  const place = useRef(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const node = place.current;
    const measure = () => setWidth(Math.floor(node.clientWidth));
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(node);
    return () => watch.disconnect();
  }, []);
  return html`<div ref=${place} class="picture">
    ${width > 0 && html`<${Drawn} ...${{ nodes, edges, width }} />`}
  </div>`;
}

function Drawn({ nodes, edges, width }) {
  const isSlim = width < NARROW_PX;
  const { boxes, height } = isSlim ? slim(width) : wide(width);
  const told = nodes.map((one) => `${one.title}: ${WORDS[one.state]}${one.why ? `, ${one.why}` : ""}`);
  return html`<svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img"
    aria-label=${`The pipeline. ${told.join("; ")}. The tables below say the same.`}>
    <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
      orient="auto-start-reverse"><path class="arrow-head" d="M0 0.5 8 4 0 7.5z" /></marker></defs>
    ${edges.filter((edge) => boxes[edge.from] && boxes[edge.to]).map((edge) => html`<${Edge}
      key=${`${edge.from}${edge.to}`} edge=${edge} isSlim=${isSlim} from=${boxes[edge.from]}
      to=${boxes[edge.to]} />`)}
    ${nodes.map((node) => html`<${Box} key=${node.id} node=${node} box=${boxes[node.id]} />`)}
  </svg>`;
}

function wide(width) {
  const gap = Math.max(58, Math.min(96, width * 0.075));
  const w = (width - 2 - 4 * gap) / 5;
  const h = 92;
  const step = h + 36;
  const boxes = {};
  for (const [id, [column, row]] of Object.entries(WIDE)) {
    boxes[id] = { x: 1 + column * (w + gap), y: 1 + row * step, w, h };
  }
  return { boxes, height: 3 * step + h + 2 };
}

function slim(width) {
  const gap = 14;
  const half = (width - 2 - gap) / 2;
  const h = 92;
  const step = h + 44;
  const boxes = {};
  for (const [id, [column, row]] of Object.entries(SLIM)) {
    const isWhole = column === 2;
    boxes[id] = {
      x: 1 + (column === 1 ? half + gap : 0), y: 1 + row * step, w: isWhole ? width - 2 : half, h,
    };
  }
  return { boxes, height: 6 * step + h + 2 };
}

function Box({ node, box: { x, y, w, h } }) {
  const lines = node.why ? [...node.lines.slice(0, 2), node.why] : node.lines;
  return html`<g class=${`box box-${node.state}`}>
    <title>${`${node.title}: ${WORDS[node.state]}`}</title>
    <rect x=${x} y=${y} width=${w} height=${h} rx="7" />
    <text class="box-title" x=${x + 12} y=${y + 21}>${node.title}</text>
    <text class="box-mark" x=${x + w - 11} y=${y + 21} text-anchor="end">${MARKS[node.state]}</text>
    ${lines.map((line, at) => html`<text class=${line === node.why ? "box-why" : "box-line"}
      x=${x + 12} y=${y + 42 + at * LINE_PX}>${line}</text>`)}
  </g>`;
}

function Edge({ edge, from, to, isSlim }) {
  const { d, x, y, isUpright } = isSlim ? upright(from, to) : route(from, to);
  const isTight = edge.share > 0.5 || edge.blocked > 0.05;
  const fill = edge.capacity === undefined ? edge.depth : `${edge.depth} of ${edge.capacity}`;
  const texts = [edge.depth === undefined ? "" : (edge.label ?? fill), edge.told].filter(Boolean);
  const lines = isUpright ? [texts.join(" · ")] : texts.flatMap((one) => one.split(/ (?=of )/));
  return html`<g class=${`edge ${isTight ? "edge-tight" : ""}`}>
    <title>${edge.name}</title>
    <path d=${d} marker-end="url(#arrow)" />
    ${lines[0] && html`<${Fragment}>${lines.map((line, at) => html`<text class="edge-text"
      x=${x} y=${y + at * 12 - (isUpright ? -4 : (lines.length - 1) * 6 + 8)}
      text-anchor="middle">${line}</text>`)}<//>`}
  </g>`;
}

/** From the right side of one box to the left side of another, or downwards in one column. */
function route(from, to) {
  if (Math.abs(from.x - to.x) < 1) return upright(from, to);
  const x1 = from.x + from.w;
  const y1 = from.y + from.h / 2;
  const x2 = to.x;
  const y2 = to.y + to.h / 2;
  const middle = (x1 + x2) / 2;
  const d = `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2 - 1} ${y2}`;
  return { d, x: middle, y: (y1 + y2) / 2, isUpright: false };
}

function upright(from, to) {
  const x1 = from.w > to.w ? to.x + to.w / 2 : from.x + from.w / 2;
  const x2 = to.w > from.w ? x1 : to.x + to.w / 2;
  const y1 = from.y + from.h;
  const middle = (y1 + to.y) / 2;
  const d = `M${x1} ${y1}C${x1} ${middle} ${x2} ${middle} ${x2} ${to.y - 1}`;
  return { d, x: (x1 + x2) / 2, y: middle, isUpright: true };
}
