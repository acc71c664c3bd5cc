// Silences: made from matchers and a span, with what they would cover shown before.
import { Fragment, html, useEffect, useState } from "./ui.js";
import { post } from "./api.js";
import { Dialog, toast } from "./feedback.js";
import { Field, useSend } from "./forms.js";
import { plural } from "./format.js";
import { IncidentStatus } from "./incident.js";
import { Matchers, NEW_MATCHER, isWhole } from "./matchers.js";

const TYPED_MS = 400;
const SPANS = [
  ["1800", "30 minutes"], ["3600", "1 hour"], ["14400", "4 hours"], ["28800", "8 hours"],
  ["86400", "1 day"], ["604800", "7 days"], ["", "Until…"],
].map(([value, label]) => ({ value, label }));

/** A silence for an incident begins with its first rule, alert or monitor. */
export const matchersOf = (incident) => [{
  field: "monitor", match: "exact", value: incident.affected[0]?.name ?? "",
}];

export function SilenceDialog({ matchers: given, onClose, done }) {
  const [matchers, setMatchers] = useState(given ?? [{ ...NEW_MATCHER }]);
  const [seconds, setSeconds] = useState("3600");
  const [endsAt, setEndsAt] = useState("");
  const [reason, setReason] = useState("");
  const { send, error, isBusy } = useSend(async () => {
    const span = seconds
      ? { seconds: Number(seconds) }
      : { ends_at: new Date(endsAt).toISOString() };
    await post("/silences", { matchers, reason, ...span });
    toast("Silenced: nobody is told of what matches.");
    onClose();
    done?.();
  });
  return html`<${Dialog} title="New silence" onClose=${onClose} wide>
    <p class="muted">While it lasts, nobody is told of incidents that match all conditions. They are
      opened and shown here all the same.</p>
    <form class="stack" onSubmit=${send}>
      <${Matchers} legend="What is silenced" value=${matchers} onValue=${setMatchers} min=${1} />
      <div class="fields">
        <${Field} name="seconds" label="For" kind="select" options=${SPANS} value=${seconds}
          onValue=${setSeconds} />
        ${!seconds && html`<${Field} name="ends_at" label="Ends (your local time)"
          kind="datetime-local" required value=${endsAt} onValue=${setEndsAt}
          error=${error?.field === "ends_at" ? error.message : ""} />`}
        <${Field} name="reason" label="Reason" value=${reason} onValue=${setReason}
          placeholder="New disks are being put in" />
      </div>
      <${Preview} matchers=${matchers} />
      ${error && error.field !== "ends_at" && html`<p class="notice notice-error" role="alert">
        ${error.message}
      </p>`}
      <div class="dialog-foot">
        <button class="btn" type="button" onClick=${onClose}>Cancel</button>
        <button class="btn btn-primary" disabled=${isBusy || !isWhole(matchers)}>Silence</button>
      </div>
    </form>
  <//>`;
}

/** Open incidents that would be covered now. */
function Preview({ matchers }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const text = isWhole(matchers) ? JSON.stringify(matchers) : "";
  useEffect(() => {
    if (!text) {
      setFound(null);
      return undefined;
    }
    const control = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const body = { matchers: JSON.parse(text) };
        const answer = await post("/silences/preview", body, { signal: control.signal });
        setFound(answer.incidents);
        setError(null);
      } catch (problem) {
        if (problem.name !== "AbortError") setError(problem);
      }
    }, TYPED_MS);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [text]);
  return html`<section class="preview" aria-label="What it would cover" aria-live="polite">
    ${error && html`<p class="field-error">${error.message}</p>`}
    ${!error && found === null && html`<p class="muted">Fill in the conditions to see what they cover.</p>`}
    ${!error && found && html`<${Fragment}>
      <h3>Covers ${plural(found.length, "open incident")} now</h3>
      <ul class="plain-list">
        ${found.slice(0, 8).map((one) => html`<li class="row nowrap-row">
          <${IncidentStatus} row=${one} /><span class="clip">${one.title}</span>
        </li>`)}
      </ul>
      ${found.length > 8 && html`<p class="muted small">and ${found.length - 8} more</p>`}
    <//>`}
  </section>`;
}
