// State that lives in the address: reloading, going back and sending the link all keep it.
import { signal } from "./vendor/preact.js";

const known = new Map();
let isDue = false;
let pushes = false;

/**
 * A signal that stands in the query string under `name`; at its `initial` value it is left out.
 * With `push` a change is a step that "back" undoes.
 */
export function urlParam(name, initial = "", { push = false } = {}) {
  if (known.has(name)) return known.get(name).state;
  const state = signal(read(name, initial));
  known.set(name, { state, initial });
  let isFirst = true;
  state.subscribe(() => {
    if (isFirst) {
      isFirst = false;
      return;
    }
    pushes ||= push;
    if (!isDue) {
      isDue = true;
      queueMicrotask(write);
    }
  });
  return state;
}

/** Several at once, as one step. */
export function setParams(values) {
  for (const [name, value] of Object.entries(values)) urlParam(name).value = value;
}

/** The address of this page with other values; what is "" is left out. */
export function hrefWith(values, path = location.pathname) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === "" || value === null || value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return `${path}${text ? `?${text}` : ""}`;
}

function read(name, initial) {
  return new URLSearchParams(location.search).get(name) ?? initial;
}

function write() {
  isDue = false;
  const values = {};
  for (const [name, { state, initial }] of known) {
    values[name] = state.value === initial ? "" : state.value;
  }
  const href = hrefWith(values);
  if (href !== location.pathname + location.search) {
    history[pushes ? "pushState" : "replaceState"](null, "", href);
  }
  pushes = false;
}

addEventListener("popstate", () => {
  for (const [name, { state, initial }] of known) state.value = read(name, initial);
});
