// Dashboards: the list, and the place where a widget of another screen finds its dashboard.
import { Empty, Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { get, patch, post, useResource } from "../api.js";
import { dashboardItems } from "../dashboardmenu.js";
import { Dialog } from "../feedback.js";
import { Field, Form, useSend } from "../forms.js";
import { shownText } from "../lines.js";
import { Menu } from "../menu.js";
import { Table } from "../table.js";
import { ago, count, plural, time } from "../format.js";
import { urlRange } from "../time.js";
import { urlParam } from "../url.js";
import { wholeWidget } from "../widgetform.js";
import { WidgetCard } from "../widgets.js";

const adding = urlParam("add");
const making = urlParam("new");

function Dashboards() {
  const dashboards = useResource((abort) => get("/dashboards", {}, { signal: abort }));
  const add = screen.isAdmin && html`<button class="btn btn-primary" type="button"
    onClick=${() => (making.value = "1")}>New dashboard</button>`;
  return html`
    <${Head} text="What is looked at together: metrics, events, logs and SQL over one span of time.">
      ${add}<//>
    <${Loaded} of=${dashboards}>
      ${({ dashboards: rows }) => html`<section class="card card-flush">
        <${Table} label="Dashboards" columns=${COLUMNS} rows=${rows} rowKey=${(row) => row.id}
          onRow=${(row) => location.assign(`/dashboards/${row.id}`)}
          actions=${(row) => html`<${Actions} row=${row} reload=${dashboards.reload} />`} />
      </section>
      ${rows.every((row) => row.built_in) && html`<${Empty} title="No dashboard of your own yet"
        actions=${add}>Two come with the console. Make one from nothing, from a copy of these, or with
        “+ Dashboard” beside any plot.<//>`}
      ${adding.value && html`<${AddDialog} rows=${rows} />`}`}
    <//>
    ${making.value && screen.isAdmin && html`<${NewDialog} />`}`;
}

const COLUMNS = [
  {
    name: "name", label: "Name", sort: (row) => row.name.toLowerCase(), kind: "breaks",
    cell: (row) => html`<a href=${`/dashboards/${row.id}`}><strong>${shownText(row.name)}</strong></a>
      ${row.built_in && html` <span class="badge">built in</span>`}
      ${row.description && html`<div class="muted small">${shownText(row.description)}</div>`}`,
  },
  {
    name: "widgets", label: "Widgets", num: true, sort: (row) => row.widget_count,
    cell: (row) => count(row.widget_count),
  },
  {
    name: "changed", label: "Changed", sort: (row) => row.updated_at ?? "",
    cell: (row) => row.updated_at
      ? html`<span class="nowrap" title=${time(row.updated_at)}>${ago(row.updated_at)}</span>
          <div class="muted small breaks">${row.updated_by}</div>`
      : html`<span class="muted">–</span>`,
  },
];

function Actions({ row, reload }) {
  if (!screen.isAdmin) return null;
  return html`<${Menu} label=${`Actions for ${row.name}`} items=${[
    !row.built_in && { label: "Edit", href: `/dashboards/${row.id}?edit=1` },
    ...dashboardItems(row, reload),
  ]} />`;
}

function NewDialog() {
  const fields = [
    { name: "name", label: "Name", required: true, maxlength: 256, autofocus: true },
    { name: "description", label: "Description", maxlength: 2000 },
  ];
  const close = () => (making.value = "");
  const submit = async (values) => {
    const made = await post("/dashboards", values);
    location.assign(`/dashboards/${made.id}?edit=1`);
  };
  return html`<${Dialog} title="New dashboard" onClose=${close}>
    <${Form} fields=${fields} submit=${submit} cancel=${close} action="Create" />
  <//>`;
}

function sentWidget() {
  try {
    const given = JSON.parse(adding.value);
    return typeof given === "object" && given ? wholeWidget(given) : null;
  } catch {
    return null;
  }
}

const NEW = "new";

function AddDialog({ rows }) {
  const [widget] = useState(sentWidget);
  const mine = rows.filter((row) => !row.built_in);
  const [target, setTarget] = useState(mine.at(-1)?.id ?? NEW);
  const [name, setName] = useState("");
  const [title, setTitle] = useState(widget?.title ?? "");
  const { send, error, isBusy } = useSend(async () => {
    const { id: _id, ...added } = { ...widget, title };
    const whole = target === NEW
      ? await post("/dashboards", {
        name, widgets: [added], since: range.since.value, until: range.until.value,
      })
      : await addTo(target, added);
    location.assign(`/dashboards/${whole.id}`);
  });
  const range = urlRange({ since: "now-24h" });
  const close = () => (adding.value = "");
  if (!widget || !screen.isAdmin) {
    return html`<${Dialog} title="Add to a dashboard" onClose=${close}>
      <p class="notice notice-error">${screen.isAdmin
        ? "The address holds no widget that could be read."
        : "Only an administrator may change dashboards."}</p>
    <//>`;
  }
  const options = [
    ...mine.map((row) => ({ value: row.id, label: `${row.name} (${plural(row.widget_count, "widget")})` })),
    { value: NEW, label: "A new dashboard" },
  ];
  return html`<${Dialog} title="Add to a dashboard" onClose=${close} wide>
    <form class="stack" onSubmit=${send}>
      <div class="fields">
        <${Field} name="target" label="Dashboard" kind="select" options=${options} value=${target}
          onValue=${setTarget} />
        ${target === NEW && html`<${Field} name="name" label="Its name" required value=${name}
          onValue=${setName} maxlength=${256} />`}
        <${Field} name="title" label="Title" value=${title} onValue=${setTitle} maxlength=${256}
          placeholder="Left empty, it is what it shows" />
      </div>
      <${WidgetCard} widget=${{ ...widget, title }} range=${range} height=${240} />
      ${error && html`<p class="notice notice-error" role="alert">${error.message}</p>`}
      <div class="dialog-foot">
        <button class="btn" type="button" onClick=${close}>Cancel</button>
        <button class="btn btn-primary" disabled=${isBusy}>Add</button>
      </div>
    </form>
  <//>`;
}

async function addTo(id, widget) {
  const whole = await get(`/dashboards/${id}`);
  return patch(`/dashboards/${id}`, {
    revision: whole.revision, widgets: [...whole.widgets, widget],
  });
}

mount(Dashboards);
