// Rows of any shape: a result, the data of an incident.
import { html } from "./ui.js";
import { Table } from "./table.js";

const COLUMNS_MAX = 12;
const TEXT_MAX = 300;

const cellText = (value) => {
  const text = value === null || value === undefined ? "–"
    : typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text;
};

/** Objects as a table: the columns of the first, then those that others add. */
export function Rows({ rows, label }) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))].slice(0, COLUMNS_MAX);
  const columns = names.map((name) => {
    const isNumber = rows.every((row) => ["number", "undefined"].includes(typeof (row[name] ?? undefined)));
    return {
      name, label: name, num: isNumber, kind: isNumber ? "" : "excerpt",
      sort: (row) => row.row[name],
      cell: (row) => html`<span class="excerpt-text mono" title=${cellText(row.row[name])}>
        ${cellText(row.row[name])}
      </span>`,
    };
  });
  return html`<${Table} label=${label} columns=${columns} rowKey=${(row) => row.at}
    rows=${rows.map((row, at) => ({ row, at }))} />`;
}
