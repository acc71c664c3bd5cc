// Series as plots take them: which periods a span touches, points by group, what they come to.
import { get } from "./api.js";
import { shownText } from "./lines.js";
import { levelColour } from "./logs/levels.js";
import { both, clause, overviewTurn } from "./queries.js";
import { boundsOf, isoTime } from "./time.js";

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;
const STEPS = { minute: MINUTE, hour: HOUR, day: DAY, week: 7 * DAY };
const PERIODS_MAX = 10_000;
const MONDAY = 4 * DAY; // The epoch was a Thursday.

/** Periods that a plot of the span can show; "auto" is resolved by its width. */
export function intervalOf(range, chosen = "auto") {
  const bounds = boundsOf(range);
  const width = bounds ? bounds[1] - bounds[0] : 30 * DAY;
  if (chosen !== "auto" && (!STEPS[chosen] || width / STEPS[chosen] <= PERIODS_MAX)) return chosen;
  if (width <= 6 * HOUR) return "minute";
  if (width <= 4 * DAY) return "hour";
  if (width <= 120 * DAY) return "day";
  return width <= 3 * 365 * DAY ? "week" : "month";
}

/** The start of the period that `seconds` lies in (UTC, weeks from Monday). */
export function floorTo(seconds, interval) {
  if (interval === "month") {
    const at = new Date(seconds * 1000);
    return Date.UTC(at.getUTCFullYear(), at.getUTCMonth()) / 1000;
  }
  const step = STEPS[interval];
  const offset = interval === "week" ? MONDAY : 0;
  return Math.floor((seconds - offset) / step) * step + offset;
}

/** The start of the period behind. */
export function nextPeriod(start, interval) {
  if (interval !== "month") return start + STEPS[interval];
  const at = new Date(start * 1000);
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + 1) / 1000;
}

/** `since` and `until` of whole periods: a plot of half an hour beside whole ones would mislead. */
export function spanOf(range, interval) {
  const bounds = boundsOf(range);
  if (!bounds) {
    const until = range.until.value;
    return { since: range.since.value, until: until === "now" ? "" : until };
  }
  const last = floorTo(bounds[1], interval);
  const end = last === bounds[1] ? last : nextPeriod(last, interval);
  return { since: isoTime(floorTo(bounds[0], interval)), until: isoTime(end) };
}

function periods(span, interval) {
  const found = [];
  const end = Date.parse(span.until) / 1000;
  for (let at = Date.parse(span.since) / 1000; at < end && found.length < PERIODS_MAX;) {
    found.push(at);
    at = nextPeriod(at, interval);
  }
  return found;
}

/** Rows `{at, group, value, weight?}` as times and groups; `empty` is the value of no rows. */
export function grouped(rows, { span, interval, empty, combine }) {
  const known = Number.isNaN(Date.parse(span.since)) || Number.isNaN(Date.parse(span.until))
    ? [...new Set(rows.map((row) => row.at))].toSorted((left, right) => left - right)
    : periods(span, interval);
  const place = new Map(known.map((at, index) => [at, index]));
  const groups = new Map();
  for (const row of rows) {
    const index = place.get(row.at);
    if (index === undefined) continue;
    const name = row.group === undefined ? "" : row.group;
    if (!groups.has(name)) {
      groups.set(name, { key: name, values: known.map(() => empty), points: [] });
    }
    const group = groups.get(name);
    group.values[index] = row.value;
    group.points.push(row);
  }
  const found = [...groups.values()].map((group) => ({
    ...group,
    label: group.key === null ? "(none)" : shownText(String(group.key)),
    total: combine(group.points),
  }));
  found.sort((left, right) => (right.total ?? -Infinity) - (left.total ?? -Infinity));
  return { times: known, groups: found };
}

const sum = (points) => points.reduce((total, point) => total + (point.value ?? 0), 0);
const latest = (points) => points.at(-1)?.value ?? null;
const least = (points) => points.reduce((found, { value }) => (value < found ? value : found), Infinity);
const most = (points) => points.reduce((found, { value }) => (value > found ? value : found), -Infinity);
const mean = (points) => {
  const weight = points.reduce((total, point) => total + (point.weight ?? 1), 0);
  return points.reduce((total, point) => total + point.value * (point.weight ?? 1), 0) / weight;
};
const COMBINED = { sum, count: sum, min: least, max: most, avg: mean };

/** What one figure for a span means: the whole of it, or its newest period. */
export const isAdditive = (value) => value === "events" || value in COMBINED;

const LQL_EVENTS = {
  events: "count(*)", users: "countd(user_id)", accounts: "countd(account_id)",
  sessions: "countd(session_id)",
};
const bucketOf = (text) => Date.parse(text) / 1000;

/** Events by period: `source` is `{q, filter, value, group_by, interval}`. */
export async function eventSeries(source, range, abort) {
  const interval = intervalOf(range, source.interval);
  const span = spanOf(range, interval);
  const shape = {
    span, interval, empty: 0, combine: source.value === "events" ? sum : latest,
  };
  const query = both(source.q, source.filter);
  if (interval === "minute") {
    return byMinute("/events", query, LQL_EVENTS[source.value], source.group_by, shape, abort);
  }
  const told = await overviewTurn(() => get("/events/timeseries", {
    ...span, interval, q: query, group_by: source.group_by,
  }, { signal: abort }), abort);
  const rows = told.points.map((point) => ({
    at: bucketOf(point.bucket), group: point.group, value: point[source.value],
  }));
  return { ...grouped(rows, shape), ...about(told, interval) };
}

/** A metric by period: `source` is `{metric_id, project, value, group_by, filter, interval}`. */
export async function metricSeries(source, range, abort) {
  const interval = intervalOf(range, source.interval);
  const span = spanOf(range, interval);
  const isPercentile = source.value.startsWith("p");
  const shape = { span, interval, empty: null, combine: COMBINED[source.value] ?? latest };
  if (interval === "minute") return metricMinutes(source, shape, abort);
  const told = await overviewTurn(() => get(
    `/metrics/${encodeURIComponent(source.metric_id)}/timeseries`,
    {
      ...span, interval, project: source.project, group_by: source.group_by, q: source.filter,
      percentiles: isPercentile ? source.value.slice(1) : "",
    },
    { signal: abort },
  ), abort);
  const rows = told.points.map((point) => ({
    at: bucketOf(point.bucket),
    group: point.group,
    value: isPercentile ? (point.percentiles?.[source.value] ?? null) : point[source.value],
    weight: point.count,
  }));
  const gone = isPercentile ? told.points.filter((point) => point.percentiles === null).length : 0;
  return {
    ...grouped(rows, shape), ...about(told, interval), points: told.points, unit: told.unit ?? "",
    name: told.metric_name, gone,
  };
}

async function metricMinutes(source, shape, abort) {
  const only = both(
    clause("metric_id", source.metric_id),
    source.project && clause("project_id", source.project),
    source.filter,
  );
  if (source.value !== "last") {
    const value = source.value === "count" ? "count(*)" : `${source.value}(value)`;
    return byMinute("/metrics", only, value, source.group_by, shape, abort);
  }
  const told = await overviewTurn(() => get("/metrics", {
    ...shape.span, q: source.filter, metric_id: source.metric_id, project: source.project,
    limit: 1000,
  }, { signal: abort }), abort);
  const rows = told.rows.toReversed().map((row) => ({
    at: Math.floor(bucketOf(row.time) / MINUTE) * MINUTE, value: row.value,
  }));
  return { ...grouped(rows, shape), interval: "minute", unit: told.rows[0]?.unit ?? "" };
}

/** By minute there are no rollups: LQL's charts count the rows of some hours. */
async function byMinute(path, query, value, groupBy, shape, abort) {
  const by = groupBy ? `t::minute, ${groupBy}` : "t::minute";
  const q = both(query, `c:${value} c:group_by(${by})`);
  const told = await overviewTurn(
    () => get(path, { ...shape.span, q, limit: 1 }, { signal: abort }), abort,
  );
  const rows = told.chart.rows.map((row) => ({
    at: bucketOf(row[0]), group: groupBy ? row[1] : undefined, value: Number(row.at(-1)),
  }));
  return {
    ...grouped(rows, shape), interval: "minute", truncated: told.chart.truncated,
    completeUpTo: new Date().toISOString(), answeredFrom: "rows", ms: told.cost.ms,
  };
}

const about = (told, interval) => ({
  interval,
  completeUpTo: told.complete_up_to,
  answeredFrom: told.answered_from,
  truncated: told.truncated,
  ms: told.cost.ms,
});

/** Logs by period: by level, or by a field. */
export async function logSeries(source, range, abort) {
  if (!source.group_by || source.group_by === "level") {
    const { since, until } = { since: range.since.value, until: range.until.value };
    const told = await overviewTurn(() => get("/logs/histogram", {
      q: source.q, since, until: until === "now" ? "" : until,
    }, { signal: abort }), abort);
    return levelSeries(told);
  }
  const interval = intervalOf(range);
  const unit = interval === "week" || interval === "month" ? "day" : interval;
  const shape = { span: spanOf(range, unit), interval: unit, empty: 0, combine: sum };
  const q = both(source.q, `c:count(*) c:group_by(t::${unit}, ${source.group_by})`);
  const told = await overviewTurn(
    () => get("/logs", { ...shape.span, q, limit: 1 }, { signal: abort }), abort,
  );
  const rows = told.chart.rows.map((row) => ({
    at: bucketOf(row[0]), group: row[1], value: Number(row.at(-1)),
  }));
  return { ...grouped(rows, shape), interval: unit, truncated: told.chart.truncated };
}

/** The answer of a histogram: every period of its range, and how many of each level. */
export function levelSeries(told) {
  const step = told.bucket_seconds;
  const first = Math.floor(bucketOf(told.since ?? told.buckets[0]?.time) / step) * step;
  const last = Math.max(bucketOf(told.until ?? new Date().toISOString()), first + 1);
  const times = [];
  for (let at = first; at < last && times.length < PERIODS_MAX; at += step) times.push(at);
  const place = new Map(times.map((at, index) => [at, index]));
  const groups = new Map();
  for (const bucket of told.buckets) {
    for (const [level, count] of Object.entries(bucket.groups)) {
      if (!groups.has(level)) {
        groups.set(level, {
          key: level, label: shownText(level), total: 0, values: times.map(() => 0),
          colour: levelColour(level),
        });
      }
      const group = groups.get(level);
      group.total += count;
      const index = place.get(bucketOf(bucket.time));
      if (index !== undefined) group.values[index] += count;
    }
  }
  return { times, groups: [...groups.values()], total: told.count, interval: `${step} s` };
}
