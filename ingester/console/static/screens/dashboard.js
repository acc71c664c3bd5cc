// One dashboard: its widgets over one span, and its editor.
import { Empty, Fragment, Head, Loaded, html, mount, screen, useEffect, useState } from "../ui.js";
import { get, patch, useResource } from "../api.js";
import { Grid } from "../arrange.js";
import { copyText } from "../copy.js";
import { contentOf, dashboardItems } from "../dashboardmenu.js";
import { Dialog, toast } from "../feedback.js";
import { Form } from "../forms.js";
import { shownText } from "../lines.js";
import { Menu } from "../menu.js";
import { refreshed } from "../queries.js";
import { TimePicker, boundsOf, isoTime, setRange, urlRange } from "../time.js";
import { hrefWith, urlParam } from "../url.js";
import { WidgetDialog, wholeWidget } from "../widgetform.js";
import { CompleteUpTo, WidgetCard, expanded, useMetrics } from "../widgets.js";

const ID = decodeURIComponent(location.pathname.split("/").at(-1));
const editing = urlParam("edit");
const every = urlParam("refresh");

const REFRESH = [
  { value: "0", label: "Off" },
  { value: "10", label: "10 s" },
  { value: "30", label: "30 s" },
  { value: "60", label: "1 min" },
  { value: "300", label: "5 min" },
  { value: "900", label: "15 min" },
];

function Dashboard() {
  const found = useResource((abort) => get(`/dashboards/${encodeURIComponent(ID)}`, {}, { signal: abort }));
  if (!found.data) {
    return html`<${Fragment}><h1 class="sr-only">Dashboard</h1><${Loaded} of=${found} /><//>`;
  }
  return html`<${Shown} whole=${found.data} reload=${found.reload} />`;
}

function Shown({ whole, reload }) {
  const range = urlRange({ since: whole.since, until: whole.until });
  const [draft, setDraft] = useState(() => contentOf(whole));
  const [revision, setRevision] = useState(whole.revision);
  const [open, setOpen] = useState(null);
  const [problem, setProblem] = useState(null);
  const [complete, setComplete] = useState({});
  const isEditing = Boolean(editing.value) && screen.isAdmin && !whole.built_in;
  const isChanged = JSON.stringify(draft) !== JSON.stringify(contentOf(whole));

  useEffect(() => {
    setDraft(contentOf(whole));
    setRevision(whole.revision);
    document.title = `${whole.name} · ingester`;
  }, [whole]);
  useEffect(() => {
    const guard = (event) => isEditing && isChanged && event.preventDefault();
    addEventListener("beforeunload", guard);
    return () => removeEventListener("beforeunload", guard);
  }, [isEditing, isChanged]);
  const seconds = Number(every.value || draft.refresh_seconds);
  useEffect(() => {
    if (!(seconds >= 5)) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) refreshed.value += 1;
    }, seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);

  const change = (changes) => setDraft((before) => ({ ...before, ...changes }));
  const save = async (from = revision) => {
    setProblem(null);
    try {
      await patch(`/dashboards/${whole.id}`, { revision: from, ...draft });
      editing.value = "";
      toast("The dashboard is saved.");
      reload();
    } catch (error) {
      setProblem(error);
    }
  };
  const overwrite = async () => save((await get(`/dashboards/${whole.id}`)).revision);
  const discard = () => {
    setProblem(null);
    setDraft(contentOf(whole));
    editing.value = "";
    reload();
  };
  const keepWidget = (widget) => {
    const isNew = !draft.widgets.some((one) => one.id === widget.id);
    const kept = isNew ? { ...widget, id: freeId(draft.widgets) } : widget;
    change({
      widgets: isNew
        ? [...draft.widgets, kept]
        : draft.widgets.map((one) => (one.id === kept.id ? kept : one)),
    });
    setOpen(null);
  };
  const tell = (id, at) => setComplete((before) => ({ ...before, [id]: at }));
  const everyMetric = draft.widgets.find((one) => one.source.from === "metrics");
  const { metrics } = useMetrics(everyMetric?.source.project ?? "", Boolean(everyMetric) && !isEditing);
  // To be arranged it is one widget; to be looked at, one for each metric.
  const shown = isEditing || !metrics?.length
    ? draft.widgets
    : draft.widgets.flatMap((one) => (one.source.from === "metrics" ? expanded(one, metrics) : [one]));
  const leastComplete = Object.values(complete).toSorted()[0];

  return html`
    <${Head} title=${shownText(draft.name)} text=${shownText(draft.description, 2000)}>
      ${isEditing
        ? html`<${EditBar} ...${{ draft, change, setOpen, discard, save, isChanged }} />`
        : html`<${ViewBar} ...${{ whole, range, reload }} />`}
    <//>
    <div class="row spread">
      <div class="row"><${CompleteUpTo} at=${leastComplete} /></div>
      <div class="row">
        <button class="btn" type="button" onClick=${() => (refreshed.value += 1)}>Refresh</button>
        <label class="row small muted">every
          <select class="inline" aria-label="Refresh every" value=${String(seconds || 0)}
            onChange=${(event) => (every.value = event.currentTarget.value)}>
            ${refreshOptions(seconds).map((one) => html`<option value=${one.value}
              selected=${one.value === String(seconds || 0)}>${one.label}</option>`)}
          </select></label>
        <${TimePicker} range=${range} />
      </div>
    </div>
    ${problem && html`<${Problem} ...${{ problem, discard, overwrite }} />`}
    ${draft.widgets.length
      ? html`<${Grid} widgets=${shown} onChange=${isEditing ? (widgets) => change({ widgets }) : null}
          render=${(widget, handle) => html`<${WidgetCard} widget=${widget} range=${range}
            onComplete=${tell}
            onZoom=${(from, until) => setRange(range, isoTime(from), isoTime(until))}
            menu=${handle &&
              html`<${WidgetMenu} ...${{ widget, handle, draft, change, setOpen }} />`} />`} />`
      : html`<${Empty} title="Nothing on it yet" actions=${isEditing
          ? html`<button class="btn btn-primary" type="button"
              onClick=${() => setOpen(wholeWidget({}))}>Add widget</button>`
          : screen.isAdmin && html`<a class="btn btn-primary" href=${hrefWith({ edit: "1" })}>Edit</a>`}>
          Numbers, series, bars, tables and lists of logs stand here, over one span of time.
        <//>`}
    ${open && html`<${WidgetDialog} initial=${open} range=${range} onSave=${keepWidget}
      onClose=${() => setOpen(null)} action=${open.id ? "Change widget" : "Add widget"} />`}`;
}

function refreshOptions(seconds) {
  const isKnown = REFRESH.some((one) => Number(one.value) === (seconds || 0));
  return isKnown ? REFRESH : [...REFRESH, { value: String(seconds), label: `${seconds} s` }];
}

function freeId(widgets) {
  const taken = new Set(widgets.map((one) => one.id));
  for (let number = 1; ; number += 1) if (!taken.has(`w${number}`)) return `w${number}`;
}

function WidgetMenu({ widget, handle, draft, change, setOpen }) {
  const at = draft.widgets.findIndex((one) => one.id === widget.id);
  return html`<span class="row widget-tools">
    <${Menu} label=${`Actions for ${widget.title || "widget"}`} items=${[
      { label: "Change…", onSelect: () => setOpen(widget) },
      {
        label: "Duplicate",
        onSelect: () => change({
          widgets: draft.widgets.toSpliced(at + 1, 0, { ...widget, id: freeId(draft.widgets) }),
        }),
      },
      {
        label: "Remove", danger: true,
        onSelect: () => change({ widgets: draft.widgets.toSpliced(at, 1) }),
      },
    ]} />${handle}
  </span>`;
}

function EditBar({ draft, change, setOpen, discard, save, isChanged }) {
  const [isNaming, setNaming] = useState(false);
  return html`
    <button class="btn" type="button" onClick=${() => setOpen(wholeWidget({}))}>Add widget</button>
    <button class="btn" type="button" onClick=${() => setNaming(true)}>Settings…</button>
    <button class="btn" type="button" onClick=${discard}>Discard</button>
    <button class="btn btn-primary" type="button" disabled=${!isChanged} onClick=${() => save()}>Save</button>
    ${isNaming && html`<${SettingsDialog} draft=${draft} change=${change}
      onClose=${() => setNaming(false)} />`}`;
}

function SettingsDialog({ draft, change, onClose }) {
  const fields = [
    { name: "name", label: "Name", required: true, maxlength: 256, autofocus: true },
    { name: "description", label: "Description", maxlength: 2000 },
    { name: "since", label: "Opens with times since", mono: true, required: true, maxlength: 100 },
    { name: "until", label: "until", mono: true, required: true, maxlength: 100 },
    {
      name: "refresh_seconds", label: "Refreshed every", kind: "select",
      options: refreshOptions(draft.refresh_seconds),
    },
  ];
  const submit = async (values) => {
    change({ ...values, refresh_seconds: Number(values.refresh_seconds) });
    onClose();
  };
  return html`<${Dialog} title="Settings of the dashboard" onClose=${onClose}>
    <${Form} fields=${fields} submit=${submit} cancel=${onClose} action="Keep"
      initial=${{ ...draft, refresh_seconds: String(draft.refresh_seconds) }} />
  <//>`;
}

function ViewBar({ whole, range, reload }) {
  const link = (isAbsolute) => {
    const bounds = isAbsolute && boundsOf(range);
    const span = bounds
      ? { since: isoTime(bounds[0]), until: isoTime(bounds[1]) }
      : { since: range.since.value, until: range.until.value };
    return copyText(location.origin + hrefWith({ ...span, edit: "" })).then(
      () => toast("The link is copied."), (error) => toast(error, "error"),
    );
  };
  return html`
    <${Menu} label="Share" text="Share" small=${false} items=${[
      { label: "Copy link, span moves with time", onSelect: () => link(false) },
      { label: "Copy link to these times", onSelect: () => link(true) },
    ]} />
    ${screen.isAdmin && !whole.built_in && html`<button class="btn btn-primary" type="button"
      onClick=${() => (editing.value = "1")}>Edit</button>`}
    ${screen.isAdmin && html`<${Menu} label="More"
      items=${dashboardItems(whole, () => location.assign("/dashboards"))} />`}`;
}

function Problem({ problem, discard, overwrite }) {
  return html`<div class="notice notice-error row spread" role="alert">
    <span>${problem.message}</span>
    ${problem.status === 409 && html`<span class="row">
      <button class="btn btn-small" type="button" onClick=${discard}>Load that one, drop mine</button>
      <button class="btn btn-small btn-danger" type="button" onClick=${overwrite}>Save mine over it</button>
    </span>`}
  </div>`;
}

mount(Dashboard);
