// Clauses of LQL made of what is clicked: names and values of strangers, quoted so that a query
// reads them back as what they are.

const COLUMNS = new Set(["id", "level", "service", "environment", "received_at", "event_message"]);
const KEY = /^[A-Za-z_]\w*$/;
const PLAIN = /^[A-Za-z][\w./-]*$/;
const WORDS = /^(?:true|false|null|or|and|nan|inf|infinity|now|today|yesterday)$/i;

/** How a query names a path of the payload; null for a key that cannot be written. */
export function fieldName(path) {
  if (path.some((key) => key === "" || key.includes("`"))) return null;
  return `m.${path.map((key) => (KEY.test(key) ? key : `\`${key}\``)).join(".")}`;
}

/** A value as a query writes it. */
export function literal(value) {
  if (value === null) return "NULL";
  if (typeof value !== "string") return String(value?.rawJSON ?? value);
  if (PLAIN.test(value) && !WORDS.test(value)) return value;
  return `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

export const clause = (name, value) => `${name}:${literal(value)}`;

/** A query that also asks for `part`; or, with `isNot`, for what is not so. */
export function withClause(query, part, isNot = false) {
  const text = query.trim();
  const wanted = isNot ? `-${part}` : part;
  if (` ${text} `.includes(` ${wanted} `)) return text;
  const without = withoutClause(text, isNot ? part : `-${part}`);
  if (!without) return wanted;
  const bare = without.replace(/"(?:[^"\\]|\\.)*"/g, '""');
  const isMixed = /(?:^|[\s)])OR(?=[\s(]|$)/.test(bare.replace(/\([^()]*\)/g, "()"));
  return `${isMixed ? `(${without})` : without} ${wanted}`;
}

/** A query without one of its clauses, where it stands by itself. */
export function withoutClause(query, part) {
  const padded = ` ${query} `;
  const at = padded.indexOf(` ${part} `);
  if (at < 0) return query.trim();
  return `${padded.slice(0, at)} ${padded.slice(at + part.length + 2)}`.trim();
}

const PARTS = /"(?:[^"\\]|\\.)*"?|`[^`]*`?|\s+|[()]|[^\s"`()]+/g;

/** A query without its `c:` and `s:` clauses: the rows that it is about. */
export function rowsOnly(query) {
  const kept = [];
  let depth = 0;
  let before = " ";
  let droppedAt = null;
  for (const [part] of query.matchAll(PARTS)) {
    if (droppedAt === null && /^[\s(]/.test(before) && /^(?:c|chart|s|select):/i.test(part)) {
      droppedAt = depth;
    }
    if (part === "(") depth += 1;
    else if (part === ")") depth -= 1;
    if (droppedAt !== null && (depth < droppedAt || (depth === droppedAt && !part.trim()))) {
      droppedAt = null;
    }
    if (droppedAt === null) kept.push(part);
    before = part;
  }
  return kept.join("").replace(/\s+$/, "").trimStart();
}

export const hasClause = (query, part) => ` ${query} `.includes(` ${part} `);

/** As results and `/logs/fields` name a field (`metadata.a.b`), as a query does (`m.a.b`). */
export const asked = (name) => name.replace(/^metadata\./, "m.");

/** The steps of a name of `/logs/fields`; null for a column. */
export function stepsOf(name) {
  const found = /^(?:metadata|m)\.(.+)$/s.exec(name);
  if (!found) return null;
  return [...found[1].matchAll(/`([^`]*)`|([^.`]+)/g)].map(([, exact, plain]) => exact ?? plain);
}

/** The value of a field in a row: the first, where lists are passed through. */
export function valueAt(row, name) {
  const steps = stepsOf(name);
  if (!steps) return name === "event_message" ? row.message : row[name];
  return steps.reduce(step, row.attributes);
}

function step(value, key) {
  if (Array.isArray(value)) {
    return value.map((one) => step(one, key)).find((one) => one !== undefined);
  }
  return value !== null && typeof value === "object" && Object.hasOwn(value, key)
    ? value[key] : undefined;
}

/** Whether it is a column of logs. */
export const isColumn = (name) => COLUMNS.has(name);
