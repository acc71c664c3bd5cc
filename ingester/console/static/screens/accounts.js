// Accounts and users: who they are, when they were seen, what they do.
import { Empty, Failure, Head, Loaded, html, mount, useEffect, useState } from "../ui.js";
import { get, sqlRows, sqlText, useResource } from "../api.js";
import { Choice } from "../choice.js";
import { ago, count, time } from "../format.js";
import { shownText } from "../lines.js";
import { Plot, Sparkline } from "../plot.js";
import { clause, explorerHref, queryTurn } from "../queries.js";
import { eventSeries } from "../series.js";
import { Table } from "../table.js";
import { urlParam } from "../url.js";
import { Bars, CompleteUpTo, useUntilComplete } from "../widgets.js";

const view = urlParam("view", "accounts", { push: true });
const search = urlParam("q");
const account = urlParam("account", "", { push: true });
const PAGE_ROWS = 100;
const ACTIVITY_DAYS = 30;
const DAY_MS = 86_400_000;

/** The rest of a text that is typed, once it rests. */
function useSettled(text, ms = 250) {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), ms);
    return () => clearTimeout(timer);
  }, [text]);
  return settled;
}

function Accounts() {
  const isUsers = view.value === "users";
  const wanted = useSettled(search.value.trim());
  const asked = {
    search: wanted, limit: PAGE_ROWS, account_id: isUsers ? account.value : "",
  };
  const path = isUsers ? "/users" : "/accounts";
  const found = useResource(
    (abort) => get(path, asked, { signal: abort }), [path, JSON.stringify(asked)],
  );
  useUntilComplete(found);
  const [more, setMore] = useState({ rows: [], cursor: null, error: null });
  useEffect(() => setMore({ rows: [], cursor: found.data?.cursor, error: null }), [found.data]);
  const first = found.data?.[isUsers ? "users" : "accounts"] ?? (found.data ? [] : undefined);
  const rows = [...(first ?? []), ...more.rows];
  const load = async () => {
    try {
      const page = await get(path, { ...asked, cursor: more.cursor });
      setMore({
        rows: [...more.rows, ...page[isUsers ? "users" : "accounts"]], cursor: page.cursor, error: null,
      });
    } catch (error) {
      setMore({ ...more, error });
    }
  };
  const courses = useCourses(isUsers ? [] : rows);
  return html`
    <${Head} text="Who the events are of. Details are what identifyAccount and identifyUser said last." />
    <div class="row spread">
      <div class="row grow">
        <${Choice} label="Of" state=${view} options=${[["accounts", "Accounts"], ["users", "Users"]]} />
        <input type="search" class="inline search" aria-label="Search" data-search value=${search.value}
          placeholder="Search ids and details"
          onInput=${(event) => (search.value = event.currentTarget.value)} />
        ${isUsers && account.value && html`<span class="chip">Account: ${account.value}
          <button class="link" type="button" aria-label="Of all accounts"
            onClick=${() => (account.value = "")}>✕</button></span>`}
      </div>
      <${CompleteUpTo} at=${found.data?.complete_up_to} />
    </div>
    <${Loaded} of=${found}>
      ${() => html`<section class="card card-flush">
        <${Table} key=${path} label=${isUsers ? "Users" : "Accounts"} rows=${rows}
          columns=${isUsers ? USER_COLUMNS : accountColumns(courses)}
          rowKey=${(row) => JSON.stringify([row.source, row.account_id, row.user_id])}
          detail=${(row) => html`<${Detail} row=${row} />`}
          empty=${html`<${Nobody} isSearch=${Boolean(wanted)} isUsers=${isUsers} />`}
          more=${more.cursor && html`<div class="row table-note">
            <button class="btn" type="button" onClick=${load}>More</button>
            <${Failure} error=${more.error} /></div>`} />
      </section>`}
    <//>`;
}

function Nobody({ isSearch, isUsers }) {
  const who = isUsers ? "users" : "accounts";
  return isSearch
    ? html`<${Empty} title="Nobody fits">No id and no detail has that text.<//>`
    : html`<${Empty} title=${`No ${who} yet`}
        actions=${html`<a class="btn" href="/settings/sources">Sources</a>`}>
        They appear with the first product event of each.<//>`;
}

/** Events by day of the accounts that are shown, in one query. */
function useCourses(rows) {
  const since = new Date(Math.floor(Date.now() / DAY_MS - ACTIVITY_DAYS + 1) * DAY_MS);
  const names = rows.map((row) => row.account_id);
  return useResource(async (abort) => {
    const listed = [...new Set(names)].map(sqlText).join(", ");
    const told = await queryTurn(() => sqlRows(
      "SELECT source, account_id, bucket, sum(events)::BIGINT AS events FROM accounts_daily WHERE"
        + ` bucket >= TIMESTAMP '${since.toISOString().slice(0, 19).replace("T", " ")}'`
        + ` AND account_id IN (${listed}) GROUP BY ALL`,
      { signal: abort },
    ), abort);
    const found = new Map();
    for (const row of told) {
      const key = JSON.stringify([row.source, row.account_id]);
      if (!found.has(key)) found.set(key, Array(ACTIVITY_DAYS).fill(0));
      const at = Math.round((Date.parse(row.bucket) - since.getTime()) / DAY_MS);
      if (at < ACTIVITY_DAYS) found.get(key)[at] = row.events;
    }
    return found;
  }, [JSON.stringify(names)], { enabled: names.length > 0 }).data;
}

const seen = (name, label) => ({
  name, label, sort: (row) => row[name], kind: "nowrap",
  cell: (row) => html`<span title=${time(row[name])}>${ago(row[name])}</span>`,
});

const known = {
  name: "details", label: "Known", kind: "breaks",
  cell: (row) => html`<span class="muted">${detailText(row.details)}</span>`,
};

const accountColumns = (courses) => [
  {
    name: "account", label: "Account", sort: (row) => row.account_id, kind: "breaks",
    cell: (row) => html`<strong>${shownText(row.account_id)}</strong>
      ${" "}<span class="muted small">${row.source}</span>`,
  },
  known,
  {
    name: "activity", label: "Events, 30 days",
    sort: (row) => total(courses?.get(JSON.stringify([row.source, row.account_id]))), num: true,
    cell: (row) => {
      const course = courses?.get(JSON.stringify([row.source, row.account_id]));
      return html`<span class="course">${course && html`<${Sparkline} values=${course} width=${90}
        label="Events by day" />`}<span>${courses ? count(total(course)) : "–"}</span></span>`;
    },
  },
  seen("first_seen", "First seen"),
  seen("last_seen", "Last seen"),
];

const total = (course) => (course ?? []).reduce((sum, value) => sum + value, 0);

const USER_COLUMNS = [
  {
    name: "user", label: "User", sort: (row) => row.user_id, kind: "breaks",
    cell: (row) => html`<strong>${shownText(row.user_id)}</strong>`,
  },
  {
    name: "account", label: "Account", sort: (row) => row.account_id, kind: "breaks",
    cell: (row) => html`${shownText(row.account_id)} <span class="muted small">${row.source}</span>`,
  },
  known,
  seen("first_seen", "First seen"),
  seen("last_seen", "Last seen"),
];

function detailText(details) {
  const pairs = Object.entries(details ?? {}).slice(0, 4);
  const text = pairs.map(([name, value]) => `${shownText(name, 40)}: ${shownText(value, 80)}`).join(", ");
  return text.slice(0, 160) || "–";
}

function Detail({ row }) {
  const range = { since: { value: `now-${ACTIVITY_DAYS}d` }, until: { value: "now" } };
  const query = [
    clause("source", row.source), clause("account_id", row.account_id),
    row.user_id !== undefined && clause("user_id", row.user_id),
  ].filter(Boolean).join(" ");
  const source = { q: query, value: "events", group_by: "action", interval: "day" };
  const found = useResource((abort) => eventSeries(source, range, abort), [query]);
  const who = { account: row.account_id, ...(row.user_id === undefined ? {} : { user: row.user_id }) };
  const details = Object.entries(row.details ?? {});
  return html`<div class="person">
    <div class="stack">
      <h3>Details</h3>
      ${details.length
        ? html`<dl class="kv">${details.map(([name, value]) => html`<dt>${shownText(name, 80)}</dt>
            <dd>${shownText(value, 2000)}</dd>`)}</dl>`
        : html`<p class="muted">Nothing was said of ${row.user_id === undefined ? "it" : "them"}.</p>`}
      <dl class="kv">
        <dt>First seen</dt><dd>${time(row.first_seen)}</dd>
        <dt>Last seen</dt><dd>${time(row.last_seen)}</dd>
        <dt>Source</dt><dd>${row.source}</dd>
      </dl>
      <div class="row">
        <a class="btn btn-small" href=${explorerHref({ ...who, by: "action" })}>Explore</a>
        <a class="btn btn-small" href=${explorerHref({ ...who, view: "events" })}>Events</a>
        ${row.user_id === undefined && html`<button class="btn btn-small" type="button" onClick=${() => {
          account.value = row.account_id;
          search.value = "";
          view.value = "users";
        }}>Users</button>`}
      </div>
    </div>
    <div class="stack">
      <h3>Activity, ${ACTIVITY_DAYS} days</h3>
      <${Loaded} of=${found}>
        ${(data) => data.groups.length
          ? html`<${Plot} times=${data.times} series=${data.groups} kind="stacked" height=${150}
                legend=${false} label=${`Events of ${row.user_id ?? row.account_id} by day`} />
              <${Bars} groups=${data.groups.slice(0, 8)} />
              <${CompleteUpTo} at=${data.completeUpTo} />`
          : html`<p class="muted">No events in this time.</p>`}
      <//>
    </div>
  </div>`;
}

mount(Accounts);
