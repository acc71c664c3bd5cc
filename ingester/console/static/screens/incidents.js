// Incidents: what is wrong now, and what was.
import { Empty, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { get, useResource } from "../api.js";
import { Menu } from "../menu.js";
import { Table } from "../table.js";
import { count, duration, plural, time } from "../format.js";
import { IncidentStatus, lastsMs, resolveAfterAsking } from "../incident.js";
import { SilenceDialog, matchersOf } from "../silence.js";
import { urlParam } from "../url.js";
import { Chips, Clip, When } from "../watch.js";

const PAGE = 100;
const status = urlParam("status", "", { push: true });
const wanted = urlParam("find");
const before = urlParam("before", "", { push: true });

const STATES = [["", "All"], ["opened", "Open"], ["resolved", "Resolved"]];

function Incidents() {
  const found = useResource(
    (signal) => get("/incidents", { status: status.value, limit: PAGE, before: before.value },
      { signal }),
    [status.value, before.value],
    { everyMs: 5000 },
  );
  const [silencing, setSilencing] = useState(null);
  return html`
    <${Head} title="Incidents" text="One for each rule, alert, or group of a monitor that fires.">
      ${screen.isAdmin && html`<a class="btn" href="/alerts/monitors?new">New monitor</a>`}
    <//>
    <div class="toolbar">
      <div class="btn-group" role="group" aria-label="Status">
        ${STATES.map(([value, label]) => html`<button class="btn" type="button"
          aria-pressed=${status.value === value} onClick=${() => {
            before.value = "";
            status.value = value;
          }}>${label}</button>`)}
      </div>
      <div class="find" data-search><input type="search" aria-label="Find in titles, names and labels"
        placeholder="Find" value=${wanted.value}
        onInput=${(event) => (wanted.value = event.currentTarget.value)} /></div>
    </div>
    <${Loaded} of=${found}>${(page) => html`<${List} page=${page} silence=${setSilencing}
      reload=${found.reload} />`}<//>
    ${silencing && html`<${SilenceDialog} matchers=${matchersOf(silencing)}
      onClose=${() => setSilencing(null)} done=${found.reload} />`}`;
}

function List({ page, silence, reload }) {
  const text = wanted.value.toLowerCase();
  const rows = page.incidents.filter((one) => !text || wordsOf(one).includes(text));
  const isFirst = !before.value;
  return html`<section class="card card-flush">
    <${Table} label="Incidents" rows=${rows} rowKey=${(row) => row.id} columns=${COLUMNS}
      onRow=${(row) => location.assign(`/incidents/${row.id}`)}
      actions=${(row) => html`<${Menu} label=${`Actions for ${row.id}`} items=${[
        { label: "Open", href: `/incidents/${row.id}` },
        screen.isAdmin && { label: "Silence…", onSelect: () => silence(row) },
        screen.isAdmin && row.status === "opened" && {
          label: "Resolve…", onSelect: () => resolveAfterAsking(row, reload),
        },
      ]} />`}
      empty=${html`<${Nothing} isFiltered=${Boolean(text || status.value || !isFirst)} />`}
      more=${(page.next || !isFirst) && html`<div class="pager row">
        ${!isFirst && html`<button class="btn btn-small" type="button"
          onClick=${() => (before.value = "")}>Newest</button>`}
        ${page.next && html`<button class="btn btn-small" type="button"
          onClick=${() => (before.value = page.next)}>Older</button>`}
      </div>`} />
  </section>`;
}

function Nothing({ isFiltered }) {
  if (isFiltered) return html`<${Empty} title="No incident like that">Look at all of them.<//>`;
  return html`<${Empty} title="All quiet" actions=${screen.isAdmin && html`
    <a class="btn btn-primary" href="/alerts/monitors?new">New monitor</a>
    <a class="btn" href="/alerts/rules?new">New rule</a>
    <a class="btn" href="/alerts/settings">Alert settings</a>`}>
    Incidents show here as soon as a rule, an alert or a monitor fires.
  <//>`;
}

const wordsOf = (row) => [row.id, row.title, row.owner ?? "", ...row.labels.map((one) => one.name),
  ...row.affected.flatMap((one) => [one.name, one.absolute_path, ...Object.values(one.group ?? {})])]
  .join("\n").toLowerCase();

const COLUMNS = [
  {
    name: "status", label: "Status", kind: "nowrap", sort: (row) => row.status,
    cell: (row) => html`<${IncidentStatus} row=${row} />`,
  },
  {
    name: "title", label: "Incident", sort: (row) => row.title,
    cell: (row) => html`<a class="title-link clip" href=${`/incidents/${row.id}`} title=${row.title}>
        ${row.title}
      </a>
      <span class="small muted">${row.id}</span>`,
  },
  {
    name: "affected", label: "Affected",
    cell: (row) => html`<${Clip} kind="mono path-clip" text=${row.affected[0]?.absolute_path ?? "–"} />
      ${row.affected.length > 1 && html`<span class="small muted">
        and ${row.affected.length - 1} more</span>`}`,
  },
  {
    name: "labels", label: "Labels",
    cell: (row) => html`<${Chips} texts=${row.labels.map((one) => one.name)} />`,
  },
  {
    name: "owner", label: "Owner", sort: (row) => row.owner ?? "",
    cell: (row) => html`<${Clip} kind="owner-clip" text=${row.owner ?? "–"} />`,
  },
  {
    name: "matches", label: "Matches", num: true, sort: (row) => matches(row),
    cell: (row) => html`<span title=${plural(firings(row), "firing")}>${count(matches(row))}</span>`,
  },
  {
    name: "opened", label: "Opened", sort: (row) => row.created_at,
    cell: (row) => html`<${When} at=${row.created_at} />`,
  },
  {
    name: "lasts", label: "Lasts", num: true, sort: (row) => lastsMs(row), kind: "nowrap",
    cell: (row) => html`<span title=${row.resolved_at ? `until ${time(row.resolved_at)}` : ""}>
      ${duration(lastsMs(row))}
    </span>`,
  },
];

const matches = (row) => row.affected.reduce((sum, one) => sum + one.matches, 0);
const firings = (row) => row.affected.reduce((sum, one) => sum + one.firings, 0);

mount(Incidents);
