// Tables: dense, sorted by a click on a heading, rows that open in place.
import { Fragment, html, useMemo, useState } from "./vendor/preact.js";

/**
 * `columns`: `{name, label, cell(row), sort?(row), num?, kind?}`; `rowKey(row)` is stable. With
 * `detail(row)` a row opens below itself; `actions(row)` stands at its end. `empty` is shown
 * instead of no rows.
 */
export function Table({ columns, rows, rowKey, detail, actions, empty, label, onRow, more }) {
  const [order, setOrder] = useState(null);
  const [open, setOpen] = useState(() => new Set());
  const sorted = useMemo(() => sortedRows(rows, columns, order), [rows, order, columns]);
  if (!rows.length && empty) return empty;
  const toggle = (key) => {
    const next = new Set(open);
    if (!next.delete(key)) next.add(key);
    setOpen(next);
  };
  const width = columns.length + (actions ? 1 : 0);
  return html`<div class="table-wrap" tabindex="0" role="region" aria-label=${label}>
    <table class="table">
      <thead><tr>
        ${columns.map((column) => html`<${Heading} ...${{ column, order, setOrder }} />`)}
        ${actions && html`<th><span class="sr-only">Actions</span></th>`}
      </tr></thead>
      <tbody>
        ${sorted.map((row) => {
          const key = rowKey(row);
          const isOpen = open.has(key);
          const act = detail ? () => toggle(key) : onRow && (() => onRow(row));
          return html`<${Fragment} key=${key}>
            <tr class=${`${act ? "clickable" : ""} ${isOpen ? "open" : ""}`}
              onClick=${(event) => act && !isControl(event) && act()}>
              ${columns.map((column, at) => html`<td class=${cellClass(column)}>
                ${detail && at === 0
                  ? html`<button class="link disclose" type="button" aria-expanded=${isOpen}
                      aria-label=${isOpen ? "Close" : "Open"}
                      onClick=${() => toggle(key)}>${isOpen ? "▾" : "▸"}</button> `
                  : null}${column.cell(row)}
              </td>`)}
              ${actions && html`<td class="actions">${actions(row)}</td>`}
            </tr>
            ${isOpen && html`<tr class="detail"><td colspan=${width}>${detail(row)}</td></tr>`}
          <//>`;
        })}
      </tbody>
    </table>
    ${more}
  </div>`;
}

function Heading({ column, order, setOrder }) {
  if (!column.sort) {
    return html`<th scope="col" class=${headClass(column)}>${column.label}</th>`;
  }
  const isBy = order?.name === column.name;
  const mark = isBy ? (order.isDown ? " ↓" : " ↑") : "";
  const turn = () => setOrder({ name: column.name, isDown: isBy ? !order.isDown : !!column.num });
  return html`<th scope="col" class=${headClass(column)}
    aria-sort=${isBy ? (order.isDown ? "descending" : "ascending") : "none"}>
    <button type="button" onClick=${turn}>${column.label}${mark}</button>
  </th>`;
}

const cellClass = (column) => `${column.num ? "num" : ""} ${column.kind ?? ""}`.trim() || null;

const headClass = (column) => (column.num ? "num" : null);

const isControl = (event) => Boolean(event.target.closest("a, button, input, select, .menu"))
  || String(getSelection()).length > 0;

function sortedRows(rows, columns, order) {
  const by = order && columns.find((column) => column.name === order.name)?.sort;
  if (!by) return rows;
  const sign = order.isDown ? -1 : 1;
  return rows.toSorted((left, right) => sign * compare(by(left), by(right)));
}

function compare(left, right) {
  if (left === right) return 0;
  if (left === null || left === undefined) return -1;
  if (right === null || right === undefined) return 1;
  if (typeof left === "string") return left.localeCompare(right);
  return left < right ? -1 : 1;
}
