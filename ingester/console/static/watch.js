// What rules, alerts and monitors have in common: lists, marks, and the page that edits one.
import {
  Empty, Fragment, Head, Loaded, html, screen, useId, useMemo, useState,
} from "./ui.js";
import { del, get, patch, post, useResource } from "./api.js";
import { Editor, lqlCompletion } from "./editor.js";
import { deleteAfterAsking, toast } from "./feedback.js";
import { Field, useSend } from "./forms.js";
import { ago, time } from "./format.js";
import { setParams, urlParam } from "./url.js";

export const useDestinations = () => useResource((signal) => get("/destinations", {}, { signal }));

/** Where something is declared that is changed in its file only. */
export function Declared({ file }) {
  if (!file) return null;
  const name = file.split("/").at(-1);
  return html`<span class="badge" title=${`Declared in ${file} and changed only there`}>
    file: ${name}
  </span>`;
}

/** Firing, quiet, off, or not judged yet: a word and a mark, not a colour alone. */
export function State({ row }) {
  const open = row.open_incidents ?? (row.open_incident ? [row.open_incident] : []);
  if (open.length) {
    return html`<a class="badge badge-bad" href=${`/incidents/${open[0]}`}>
      ▲ Firing${open.length > 1 ? ` (${open.length})` : ""}
    </a>`;
  }
  if (!row.enabled) return html`<span class="badge">Off</span>`;
  if (row.error) return html`<span class="badge badge-warn" title=${row.error}>! Failing</span>`;
  if (row.judged_until === null) return html`<span class="badge">… Waiting</span>`;
  return html`<span class="badge badge-good">✓ Quiet</span>`;
}

/** A time as how long ago; the moment itself when pointed at. */
export const When = ({ at }) => html`<span class=${`nowrap ${at ? "" : "muted"}`}
  title=${at ? time(at) : ""}>${ago(at)}</span>`;

/** Names of destinations, or that nobody is told. */
export function Told({ ids, destinations }) {
  if (!ids.length) return html`<span class="muted">routes only</span>`;
  const names = new Map(destinations.map((one) => [one.id, one.name]));
  return html`<span class="chips">${ids.map(
    (id) => html`<span class="chip"><span class="clip">${names.get(id) ?? id}</span></span>`,
  )}</span>`;
}

/** Text that is cut where there is no room, whole when pointed at. */
export const Clip = ({ text, kind = "" }) => html`<span class=${`clip wide-clip ${kind}`}
  title=${text}>${text}</span>`;

export const Chips = ({ texts }) => html`<span class="chips">${texts.map(
  (text) => html`<span class="chip"><span class="clip">${text}</span></span>`,
)}</span>`;

/** The items of a row's menu that all three kinds have. `kind`: the API's word, such as "rules". */
export function watchItems(kind, row, { edit, reload }) {
  if (!screen.isAdmin || row.file) return [{ label: "Look at the form", onSelect: () => edit(row.id) }];
  const turn = async () => {
    try {
      await patch(`/${kind}/${row.id}`, { enabled: !row.enabled });
      reload();
    } catch (error) {
      toast(error, "error");
    }
  };
  return [
    { label: "Edit…", onSelect: () => edit(row.id) },
    { label: row.enabled ? "Turn off" : "Turn on", onSelect: turn },
    {
      label: "Delete…",
      danger: true,
      onSelect: () => deleteAfterAsking({
        title: `Delete ${row.name}?`,
        text: "Its open incident is resolved; resolved ones and what was sent stay.",
        remove: () => del(`/${kind}/${row.id}`),
        done: reload,
      }),
    },
  ];
}

/** A query with its label; `error` is what the server said of it, underlined at its column. */
export function QueryField({
  name, label, hint, value, onValue, onRun, error, language = "lql", table = "logs", multiline,
  placeholder,
}) {
  const fault = useMemo(
    () => (error?.column ? { column: error.column, message: error.message } : null),
    [error],
  );
  return html`<div class="field" data-field=${name}>
    <span class="legend">${label}</span>
    <${Editor} value=${value} onChange=${onValue} onRun=${onRun} language=${language} label=${label}
      fault=${fault} multiline=${multiline ?? language === "sql"} placeholder=${placeholder}
      complete=${language === "lql" ? lqlCompletion[table] : undefined} />
    ${hint && html`<p class="hint">${hint}</p>`}
    ${error && html`<p class="field-error" role="alert">${error.message}</p>`}
  </div>`;
}

const UNITS = [
  { value: 1, label: "seconds" },
  { value: 60, label: "minutes" },
  { value: 3600, label: "hours" },
  { value: 86400, label: "days" },
];

/** Seconds, written in the largest unit that fits. "" is taken where `optional`. */
export function DurationField({ name, label, hint, error, value, onValue, optional }) {
  const fitting = UNITS.toReversed().find((one) => value && value % one.value === 0)?.value ?? 1;
  const [unit, setUnit] = useState(fitting);
  const shown = value === "" || value === null ? "" : String(value / unit);
  const typed = (text) => onValue(text === "" ? "" : Math.round(Number(text) * unit));
  const id = useId();
  return html`<div class="field">
    <label for=${id}>${label}</label>
    <div class="duration">
      <input id=${id} name=${name} type="number" min="0" step="any" value=${shown}
        required=${!optional} aria-invalid=${error ? "true" : null}
        onInput=${(event) => typed(event.currentTarget.value)} />
      <select aria-label=${`Unit of ${label}`} value=${unit} onChange=${(event) => {
        const next = Number(event.currentTarget.value);
        setUnit(next);
        if (value !== "" && value !== null) onValue(Math.round((value / unit) * next));
      }}>
        ${UNITS.map((one) => html`<option value=${one.value} selected=${one.value === unit}>
          ${one.label}
        </option>`)}
      </select>
    </div>
    ${hint && html`<p class="hint">${hint}</p>`}
    ${error && html`<p class="field-error" role="alert">${error}</p>`}
  </div>`;
}

export const words = (text) => text.split(",").map((one) => one.trim()).filter(Boolean);

/** Values of the fields that all three kinds have, from what is stored or from nothing. */
export const commonStart = (row) => ({
  name: row?.name ?? "",
  description: row?.description ?? "",
  destinations: row?.destinations ?? [],
  labels: (row?.labels ?? []).join(", "),
  incident_group: row?.incident_group ?? "",
  enabled: row?.enabled ?? true,
});

export const commonBody = (values) => ({
  name: values.name,
  description: values.description,
  destinations: values.destinations,
  labels: words(values.labels),
  incident_group: values.incident_group,
  enabled: values.enabled,
});

/**
 * The screen of one kind (`kind` "rules", `what` "rule"): the list, or the form that the address asks
 * for. `?new&kind=…` opens it filled in with the parameters that `names` are; `?edit=` is of one.
 */
export function watchScreen({ kind, what, names, Form, List }) {
  const asksNew = urlParam("new", null, { push: true });
  const editing = urlParam("edit", "", { push: true });
  const asked = Object.fromEntries(names.map((name) => [name, urlParam(name)]));
  const closed = { new: null, edit: "", ...Object.fromEntries(names.map((name) => [name, ""])) };
  return () => {
    const found = useResource((signal) => get(`/${kind}`, {}, { signal }), [], { everyMs: 5000 });
    const done = () => {
      setParams(closed);
      found.reload();
    };
    if (asksNew.value !== null) {
      const given = Object.entries(asked).map(([name, { value }]) => [name, value || undefined]);
      return html`<${Form} asked=${Object.fromEntries(given)} onDone=${done} />`;
    }
    if (editing.value) {
      return html`<${Loaded} of=${found}>${(data) => {
        const row = data[kind].find((one) => one.id === editing.value);
        if (row) return html`<${Form} key=${row.id} row=${row} onDone=${done} />`;
        return html`<${Empty} title=${`There is no such ${what}`}
          actions=${html`<a class="btn" href=${location.pathname}>All ${kind}</a>`}>
          It may have been deleted.<//>`;
      }}<//>`;
    }
    const add = screen.isAdmin && html`<button class="btn btn-primary" type="button"
      onClick=${() => (asksNew.value = "1")}>New ${what}</button>`;
    return html`<${List} found=${found} add=${add} edit=${(id) => (editing.value = id)} />`;
  };
}

/**
 * The page that makes or changes one. `kind`: the API's word ("rules"); `what`: ours ("rule");
 * `row`: what is stored, or null; `start`: first values; `body(values)` what is sent;
 * `fields({values, set, errorOf})`; `preview({values, body, setFault})` stands beside it.
 */
export function WatchEditor({ kind, what, row, start, body, fields, preview, onDone }) {
  const [values, setValues] = useState(start);
  const [fault, setFault] = useState(null);
  const { send, error, setError, isBusy } = useSend(async () => {
    const sent = body(values);
    const made = row ? await patch(`/${kind}/${row.id}`, sent) : await post(`/${kind}`, sent);
    toast(row ? `${made.name} is changed.` : `${made.name} watches from now on.`);
    onDone(made);
  });
  const destinations = useDestinations();
  const set = (changes) => {
    setValues((old) => ({ ...old, ...changes }));
    setError(null);
  };
  const told = error ?? fault;
  const errorOf = (name) => (told?.field === name ? told : null);
  const isLocked = !screen.isAdmin || Boolean(row?.file);
  return html`<${Fragment}>
    <${Head} title=${row ? row.name : `New ${what}`}
      text=${row?.file ? `Declared in ${row.file}, and changed only there.` : ""}>
      <button class="btn" type="button" onClick=${() => onDone(null)}>Back to the list</button>
    <//>
    <div class="watch-editor">
      <form class="card stack" onSubmit=${send} aria-label=${row ? `Change the ${what}` : `New ${what}`}>
        <fieldset class="plain stack" disabled=${isLocked}>
          <${Field} name="name" label="Name" required maxlength="256" value=${values.name}
            autofocus=${!row} error=${errorOf("name")?.message}
            onValue=${(name) => set({ name })} />
          ${fields({ values, set, errorOf })}
          <${Telling} values=${values} set=${set} errorOf=${errorOf}
            destinations=${destinations.data?.destinations} />
        </fieldset>
        ${error && !KNOWN.has(error.field) && html`<p class="notice notice-error" role="alert">
          ${error.message}
        </p>`}
        ${!isLocked && html`<div class="dialog-foot">
          <button class="btn" type="button" onClick=${() => onDone(null)}>Cancel</button>
          <button class="btn btn-primary" disabled=${isBusy}>
            ${row ? "Save" : `Create ${what}`}
          </button>
        </div>`}
      </form>
      <div class="watch-preview">${preview({ values, body, setFault })}</div>
    </div>
  <//>`;
}

// Fields that show their refusal themselves; what names another is shown below the form.
const KNOWN = new Set([
  "name", "lql", "query", "cron", "threshold", "operator", "recovery", "window_s", "datapoints",
  "group_by", "no_data", "target.lql", "target.filter", "target.query", "target.metric_id",
  "resolve_after_s", "labels", "delay_s",
]);

function Telling({ values, set, errorOf, destinations: known }) {
  // One that was deleted since can be taken out.
  const gone = values.destinations.filter((id) => known && !known.some((one) => one.id === id));
  const destinations = [...(known ?? []), ...gone.map((id) => ({ id, name: id, enabled: true }))];
  const turn = (id, isOn) => set({
    destinations: isOn
      ? [...values.destinations, id]
      : values.destinations.filter((one) => one !== id),
  });
  return html`<${Fragment}>
    <fieldset class="choices">
      <legend>Tell</legend>
      ${destinations.map((one) => html`<label class="choice">
        <input type="checkbox" checked=${values.destinations.includes(one.id)}
          onChange=${(event) => turn(one.id, event.currentTarget.checked)} />
        <span class="clip">${one.name}</span>
        ${!one.enabled && html`<span class="badge badge-warn">disabled</span>`}
      </label>`)}
      <p class="hint">${destinations.length
        ? "Routes add to these. With neither, incidents are shown here only."
        : html`There is no destination yet: incidents are shown here only.
          ${" "}<a href="/alerts/settings?add=webhook">Add one</a>`}</p>
    </fieldset>
    <details open=${Boolean(values.description || values.labels || values.incident_group)}>
      <summary>Description, labels, grouping</summary>
      <div class="stack details-body">
        <${Field} name="description" label="Description" kind="area" rows="2"
          value=${values.description} onValue=${(description) => set({ description })}
          hint="Shown with the incident and sent to incident.io." />
        <${Field} name="labels" label="Labels" value=${values.labels}
          error=${errorOf("labels")?.message} placeholder="storage, night"
          onValue=${(labels) => set({ labels })} hint="Put on each incident; commas between them." />
        <${Field} name="incident_group" label="Incident group" value=${values.incident_group}
          onValue=${(incident_group) => set({ incident_group })}
          hint="Those of one group share an open incident." />
        <${Field} name="enabled" label="On" kind="check" value=${values.enabled}
          onValue=${(enabled) => set({ enabled })} />
      </div>
    </details>
  <//>`;
}
