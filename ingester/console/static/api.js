// The public JSON API, as the pages use it: the same addresses, the session instead of a token.
import { useCallback, useEffect, useRef, useState } from "./vendor/preact.js";

const BASE = "/api/v1";

// Requests under way are refused then, and must not lead elsewhere than signing out does.
let isSigningOut = false;
addEventListener("submit", (event) => {
  isSigningOut ||= event.target.getAttribute("action") === "/logout";
});

/** A refusal: `status`, the server's sentence, and `field` or `column` where one is meant. */
export class ApiError extends Error {
  constructor(status, message, { field, column, retryAfter } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.field = field;
    this.column = column;
    this.retryAfter = retryAfter;
  }
}

/** Query strings leave out what is undefined, null or "". */
export function apiUrl(path, query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") parameters.set(name, value);
  }
  const text = parameters.toString();
  return `${BASE}${path}${text ? `?${text}` : ""}`;
}

/** One request. Raises ApiError, or the AbortError of `signal`. */
export async function api(method, path, { query, body, signal, as = "json" } = {}) {
  let response;
  try {
    response = await fetch(apiUrl(path, query), {
      method,
      signal,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached.");
  }
  if (response.status === 401 && !isSigningOut && !path.startsWith("/session/")) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  if (!response.ok) throw await refusal(response);
  if (as === "blob") return response.blob();
  if (as === "text") return response.text();
  return response.json();
}

async function refusal(response) {
  const text = await response.text();
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  try {
    const { error, field, column } = JSON.parse(text);
    return new ApiError(response.status, error, { field, column, retryAfter });
  } catch {
    return new ApiError(response.status, `The server answered ${response.status}.`, { retryAfter });
  }
}

export const get = (path, query, options) => api("GET", path, { query, ...options });
export const post = (path, body = {}, options) => api("POST", path, { body, ...options });
export const patch = (path, body, options) => api("PATCH", path, { body, ...options });
export const del = (path, options) => api("DELETE", path, options);

/** Rows of a SELECT as objects. */
export async function sqlRows(sql, options) {
  const { columns, rows } = await post("/query", { sql, format: "json" }, options);
  return rows.map((row) => Object.fromEntries(columns.map((name, at) => [name, row[at]])));
}

/** A text of strangers as an SQL literal. */
export const sqlText = (text) => `'${String(text).replaceAll("'", "''")}'`;

/**
 * What `load(signal)` gives, asked again when `needs` change, and every `everyMs` while the page is
 * seen. An answer that came too late is dropped; old data stays while new is on its way.
 */
export function useResource(load, needs = [], { everyMs = 0, enabled = true } = {}) {
  const [state, setState] = useState({ data: undefined, error: null, loading: enabled });
  const under = useRef(null);
  const latest = useRef(load);
  latest.current = load;
  const reload = useCallback(async () => {
    under.current?.abort();
    const control = new AbortController();
    under.current = control;
    setState((old) => ({ ...old, loading: true }));
    try {
      const data = await latest.current(control.signal);
      if (!control.signal.aborted) setState({ data, error: null, loading: false });
    } catch (error) {
      if (!control.signal.aborted) setState((old) => ({ ...old, error, loading: false }));
    }
  }, []);
  useEffect(() => {
    if (!enabled) return undefined;
    reload();
    return () => under.current?.abort();
  }, [enabled, ...needs]);
  useEffect(() => {
    if (!enabled || !everyMs) return undefined;
    const timer = setInterval(() => document.hidden || reload(), everyMs);
    return () => clearInterval(timer);
  }, [enabled, everyMs]);
  return { ...state, reload };
}

/**
 * Follow a live stream: `onRow(row)`, `onMissed(told)`, `onState("open" | "waiting" | "closed")`.
 * The browser resumes by itself where it was cut. Returns a function that ends it.
 */
export function follow(path, query, { onRow, onMissed, onState }) {
  const source = new EventSource(apiUrl(path, query));
  source.onopen = () => onState?.("open");
  source.onerror = () => onState?.(source.readyState === EventSource.CLOSED ? "closed" : "waiting");
  source.onmessage = (event) => onRow(JSON.parse(event.data), event.lastEventId);
  source.addEventListener("missed", (event) => onMissed?.(JSON.parse(event.data)));
  return () => source.close();
}
