// From two snapshots of the actors (`/api/v1/status`) to what the picture and its tables say.
import { bytes, compact, count, duration } from "./format.js";

/** Rates between two snapshots, as functions of a path such as "loader.rows_total". */
export function readings(now, before) {
  const seconds = before ? (now.at - before.at) / 1000 : 0;
  const value = (path) => numberAt(now.actors, path);
  const rate = (path) => {
    if (!seconds) return null;
    const found = numberAt(now.actors, path) - numberAt(before.actors, path);
    return found < 0 ? null : found / seconds; // a restart begins at zero
  };
  return { value, rate, actors: now.actors };
}

/** The number at a path; what is told by label is added up. */
function numberAt(tree, path) {
  let found = tree;
  for (const name of path.split(".")) found = found?.[name];
  return sum(found);
}

function sum(found) {
  if (typeof found === "number") return found;
  if (found === null || typeof found !== "object") return 0;
  return Object.values(found).reduce((total, one) => total + sum(one), 0);
}

const commits = (number) => `${count(number)} behind`;
const perSecond = (rate, what) => `${rate === null ? "–" : compact(rate)} ${what}/s`;

/** Where a channel has no room: the share of the time that somebody waited, over all waiters. */
const blockedText = (rate) => (rate ? `waited ${Math.round(rate * 100)} %` : "");

/** The actors: `{id, title, lines, state: "idle" | "works" | "attention", why}`. */
export function nodesOf({ value, rate, actors }) {
  const rows = { loader: rate("loader.rows_total"), bulk: rate("bulk.rows_total") };
  const stored = rows.loader === null ? null : rows.loader + rows.bulk;
  const failing = (path, why) => (value(path) > 0 ? why : "");
  const node = (id, title, lines, works, why = "") => ({
    id, title, lines: lines.filter(Boolean), why,
    state: why ? "attention" : works ? "works" : "idle",
  });
  const requests = rate("intake.requests_total");
  const dead = value("delivery.deliveries.by_state.dead");
  const lagS = value("rollups.lag_seconds");
  return [
    node("intake", "Doors", [
      perSecond(requests, "requests"),
      `${bytes(rate("intake.received_bytes_total") ?? NaN)}/s in`,
      `${count(value("intake.connections"))} connections`,
    ], requests > 0, value("disk.is_full") ? "the disk is nearly full" : ""),
    node("journal", "Journal", [
      perSecond(rate("journal.requests_total"), "requests"),
      perSecond(rate("journal.groups_total"), "syncs"),
      `${count(value("journal.lag_records"))} not loaded`,
    ], rate("journal.requests_total") > 0, failing("journal.failures_total", "writes have failed")),
    node("loader", "Loader", [
      perSecond(rows.loader, "rows"),
      perSecond(rate("loader.batches_total"), "batches"),
    ], rows.loader > 0, failing("loader.dead_letters_total", "records were put aside")),
    node("decode", "Bulk workers", [
      `${count(value("bulk.uploads"))} of ${count(value("bulk.workers"))} at work`,
      perSecond(rate("bulk.uploads_total"), "uploads"),
    ], value("bulk.uploads") > 0),
    node("insert", "Insert", [
      perSecond(rows.bulk, "rows"),
      perSecond(rate("bulk.slices_total"), "slices"),
    ], value("bulk.uploads") > 0, failing("bulk.faults_total", "uploads have met faults")),
    node("store", "Open parts", [
      perSecond(stored, "rows"),
      perSecond(rate("store.commits_total"), "commits"),
      `${count(value("store.parts"))} open, ${bytes(openBytes(value))}`,
    ], rate("store.commits_total") > 0,
      failing("store.checkpoint_failures_total", "checkpoints have failed")),
    node("rollups", "Rollups", [
      `${duration(lagS * 1000)} behind`,
      `${count(value("rollups.lag_rows"))} rows wait`,
      perSecond(rate("rollups.rows_total"), "rows"),
    ], rate("rollups.steps_total") > 0, failing("rollups.step_failures_total", "steps have failed")),
    node("sealer", "Sealer", [
      `${count(value("sealer.parts_waiting"))} parts wait`,
      `${count(value("store.sealed_files"))} files sealed`,
      bytes(value("store.sealed_file_bytes")),
    ], rate("sealer.sealed_rows_total") > 0,
      failing("sealer.parts_stuck", "a part cannot be sealed")),
    node("watch", "Watching", [
      `${perSecond(rate("watch.rule_rows_total"), "rows")}`,
      `${count(value("watch.alert_runs_total"))} alerts run`,
      `${count(value("watch.monitor_buckets_total"))} windows judged`,
    ], rate("watch.rule_rows_total") > 0 || rate("watch.monitor_buckets_total") > 0),
    node("delivery", "Delivery", [
      `${count(value("delivery.deliveries.by_state.pending"))} pending`,
      `${count(value("delivery.in_flight"))} on their way`,
      dead ? `${count(dead)} given up` : perSecond(rate("delivery.attempts_total"), "attempts"),
    ], value("delivery.in_flight") > 0 || rate("delivery.attempts_total") > 0,
      failing("delivery.unreadable_destinations", "secrets cannot be read")),
    node("queries", "Queries", [
      `${count(value("search.running") + value("queries.running"))} running`,
      `${count(value("search.waiting") + value("queries.waiting"))} waiting`,
      `${count(value("search.tails"))} live tails`,
    ], value("search.running") + value("queries.running") > 0),
  ].map((one) => {
    const again = actors.restarts?.total?.by_actor ?? {};
    const times = (ACTORS[one.id] ?? []).reduce((total, name) => total + (again[name] ?? 0), 0);
    return times ? { ...one, state: "attention", why: one.why || `restarted ${times}×` } : one;
  });
}

export const openBytes = (value) => value("store.part_file_bytes") + value("store.part_wal_bytes")
  + value("store.upload_file_bytes");

/** Which actors, as `restarts` names them, a box of the picture stands for. */
const ACTORS = {
  journal: ["journal-clean"],
  rollups: ["rollups"],
  sealer: ["sealer"],
  watch: ["rules", "alerts", "monitors"],
  delivery: ["delivery"],
  queries: ["queries"],
  store: ["maintenance"],
};

/**
 * The channels between them: `{from, to, name, depth, capacity, share, blocked, blockedTotal, label}`;
 * `share` of the capacity that is used, `blocked` of the time that somebody waited; `label` stands at
 * the arrow instead of "depth of capacity".
 */
export function edgesOf({ value, rate }) {
  const waited = (edge) => ({
    blocked: rate(`channels.blocked_seconds_total.by_edge.${edge}`) ?? 0,
    blockedTotal: value(`channels.blocked_seconds_total.by_edge.${edge}`),
  });
  const none = { blocked: null, blockedTotal: null };
  const backlog = value("journal.backlog_bytes");
  const used = value("admission.budget_used_bytes") + value("admission.whole_budget_used_bytes");
  const memory = value("admission.budget_total_bytes") + value("admission.whole_budget_total_bytes");
  const waiting = value("channels.depth.by_edge.door-bulk");
  const capacity = (edge) => value(`channels.capacity.by_edge.${edge}`);
  return [
    {
      from: "intake", to: "journal", name: "bodies in memory", depth: bytes(used),
      capacity: bytes(memory), share: memory ? used / memory : 0, ...waited("door-memory"),
    },
    {
      from: "journal", to: "loader", name: "journalled, not loaded", depth: bytes(backlog),
      capacity: bytes(value("journal.backlog_bytes_max")),
      share: backlog / (value("journal.backlog_bytes_max") || 1), ...none,
    },
    { from: "loader", to: "store", name: "one transaction a batch", share: 0, ...none },
    {
      from: "intake", to: "decode", name: "uploads for a worker",
      depth: count(waiting), capacity: count(capacity("door-bulk")), share: 0,
      label: `${count(waiting)} wait`, ...waited("door-bulk"),
    },
    {
      from: "decode", to: "insert", name: "slices of an upload",
      capacity: count(capacity("decode-insert")), share: 0, ...waited("decode-insert"),
    },
    { from: "insert", to: "store", name: "one transaction an upload", share: 0, ...none },
    {
      from: "store", to: "rollups", name: "commits behind", share: 0, ...none,
      depth: count(value("rollups.lag_commits")), label: commits(value("rollups.lag_commits")),
    },
    {
      from: "store", to: "sealer", name: "parts to be sealed", share: 0, ...none,
      depth: count(value("sealer.parts_waiting")), label: "",
    },
    { from: "store", to: "watch", name: "committed batches", share: 0, ...none },
    {
      from: "watch", to: "delivery", name: "outbox", share: 0, ...none, label: "outbox",
      depth: count(value("delivery.deliveries.by_state.pending")), capacity: "no limit",
    },
    { from: "store", to: "queries", name: "reads", share: 0, ...none },
    // Not in the picture: what a lane has taken out of the outbox.
    {
      from: "outbox", to: "lane", name: "held by lanes", share: 0, ...none,
      depth: count(value("delivery.in_flight")), capacity: `${count(capacity("outbox-lane"))} each`,
    },
  ].map((one) => ({ ...one, told: blockedText(one.blocked) }));
}

/** Between the socket and a worker: not in the picture, in the table. */
export function innerEdges({ value, rate }) {
  const path = "channels.blocked_seconds_total.by_edge.socket-decode";
  return [{
    from: "socket", to: "decode", name: "pieces of an upload",
    capacity: `${count(value("channels.capacity.by_edge.socket-decode"))} × 256 KiB`,
    blocked: rate(path) ?? 0, blockedTotal: value(path),
  }];
}
