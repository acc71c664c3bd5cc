// What series, widgets and the explorer have in common: clauses of LQL, links that add what is shown
// to a dashboard or a monitor, and turns, so that a page of plots does not crowd the server.
import { signal } from "./vendor/preact.js";

/** A text of strangers as LQL writes it. */
export const quoted = (text) =>
  `"${String(text).replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

/** A clause; null is "has no such field". */
export const clause = (field, value) => `${field}:${value === null ? "NULL" : quoted(value)}`;

/** Several queries as one that finds what all find. */
export const both = (...texts) =>
  texts.map((text) => text?.trim()).filter(Boolean)
    .map((text) => (/(^|\s)OR(\s|$)/.test(text) ? `(${text})` : text)).join(" ");

/** Fields that product events are told apart by. */
export const EVENT_FIELDS = [
  { name: "account_id", label: "Account" },
  { name: "user_id", label: "User" },
  { name: "action", label: "Action" },
  { name: "metadata.module", label: "Module" },
  { name: "metadata.feature", label: "Feature" },
];
export const EVENT_VALUES = [
  { value: "events", label: "Events" },
  { value: "users", label: "Users" },
  { value: "accounts", label: "Accounts" },
  { value: "sessions", label: "Sessions" },
];
export const METRIC_VALUES = ["avg", "sum", "min", "max", "last", "count", "p50", "p90", "p95", "p99"];

/** The screen that adds a widget to a dashboard; a new one opens with the span of `range`. */
export const addWidgetHref = (widget, range) => `/dashboards?${new URLSearchParams({
  add: JSON.stringify(widget),
  ...(range && { since: range.since.value, until: range.until.value }),
})}`;

/**
 * The form of a new monitor, filled in: `{kind, query?, metric?, project?, aggregate?, group_by?, name?}`;
 * what is "" is left out.
 */
export const addMonitorHref = (asked) => `/alerts/monitors?${new URLSearchParams({
  new: "1", ...Object.fromEntries(Object.entries(asked).filter(([, text]) => text)),
})}`;

/** Where a metric has its page. */
export const metricHref = (metricId, project) =>
  `/custom-metrics/${encodeURIComponent(metricId)}${
    project ? `?project=${encodeURIComponent(project)}` : ""}`;

/** The explorer with these parameters. */
export const explorerHref = (parameters) => `/explorer?${new URLSearchParams(parameters)}`;

/** At most `most` of what `work` does at a time; who gives up by `abort` lets the next one in. */
function turns(most) {
  let busy = 0;
  const waiting = [];
  const next = () => {
    busy -= 1;
    waiting.shift()?.();
  };
  return async (work, abort) => {
    if (busy >= most) await new Promise((resolve) => waiting.push(resolve));
    busy += 1;
    try {
      abort?.throwIfAborted();
      return await work();
    } finally {
      next();
    }
  };
}

// The server looks at one whole range at a time and runs two queries.
export const overviewTurn = turns(3);
export const queryTurn = turns(2);

/** A count that makes everything on the page ask again. */
export const refreshed = signal(0);
