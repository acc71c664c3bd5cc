// What every screen imports: Preact with htm and signals, and who looks on.
//
// Text goes into the page as text nodes only: `html` escapes by making no markup, and the policy
// (trusted types) refuses every other way.
import { Fragment, h, html, render } from "./vendor/preact.js";

export * from "./vendor/preact.js";

const about = document.body.dataset;

export const screen = Object.freeze({
  role: about.role ?? "",
  isAdmin: about.role === "admin",
  user: about.user ?? "",
  intakeUrl: about.intake ?? "",
  nonce: about.nonce ?? "",
  title: document.getElementById("screen")?.dataset.title ?? "",
});

/** Show a component in the place that the template has for it. */
export function mount(Component) {
  const place = document.getElementById("screen");
  place.replaceChildren();
  render(h(Component, {}), place);
}

/** The heading of a screen: title, a sentence, and what can be done. */
export function Head({ title = screen.title, text, children }) {
  return html`<header class="head">
    <div><h1>${title}</h1>${text && html`<p>${text}</p>`}</div>
    ${children && html`<div class="row">${children}</div>`}
  </header>`;
}

/** What is shown where there is nothing yet: what it would be, and how to get there. */
export function Empty({ title, children, actions }) {
  return html`<div class="empty">
    <h2>${title}</h2>
    <p>${children}</p>
    ${actions && html`<div class="row">${actions}</div>`}
  </div>`;
}

/** A failed request, in its own words, with a way to try again. */
export function Failure({ error, retry }) {
  if (!error) return null;
  return html`<div class="notice notice-error row spread" role="alert">
    <span>${String(error.message ?? error)}</span>
    ${retry && html`<button class="btn btn-small" type="button" onClick=${retry}>Try again</button>`}
  </div>`;
}

/** `{data, error, loading}` of `useResource`, or what stands in for the data. */
export function Loaded({ of, children, label = "Loading…" }) {
  if (of.data === undefined) {
    if (of.error) return html`<${Failure} error=${of.error} retry=${of.reload} />`;
    return html`<p class="loading" role="status">${label}</p>`;
  }
  return html`<${Fragment}>
    <${Failure} error=${of.error} retry=${of.reload} />
    ${children(of.data)}
  <//>`;
}

/** An address to link to; "" unless it is http or https: nobody's `javascript:` gets a click. */
export function safeHref(text) {
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : "";
  } catch {
    return "";
  }
}

/** Text of strangers that may be a link. */
export function MaybeLink({ text }) {
  const href = safeHref(text);
  if (!href) return html`${text}`;
  return html`<a href=${href} target="_blank" rel="noopener noreferrer">${text}</a>`;
}
