// Settings › Your account: password, and how this browser shows things.
import { Head, Loaded, html, mount } from "../ui.js";
import { get, post, useResource } from "../api.js";
import { toast } from "../feedback.js";
import { Field, Form } from "../forms.js";
import { chooseZone, isZone, localZone, zone } from "../zone.js";
import { time } from "../format.js";
import { useState } from "../ui.js";

const ZONES = [...new Set(["UTC", localZone, ...Intl.supportedValuesOf("timeZone")])];

function You() {
  const session = useResource((signal) => get("/session", {}, { signal }));
  return html`
    <${Head} />
    <${Loaded} of=${session}>${(data) => html`
      <section class="card stack">
        <dl class="kv">
          <dt>Signed in as</dt><dd>${data.email ?? data.name}</dd>
          <dt>Role</dt><dd>${data.role === "admin" ? "Admin" : "Viewer"}</dd>
          ${data.expires_at && html`<dt>Until</dt><dd>${time(data.expires_at)}</dd>`}
        </dl>
      </section>
      <section class="card stack">
        <h2>Time zone</h2>
        <div style=${{ maxWidth: "360px" }}>
          <${Field} name="zone" label="Times are shown in" kind="select" value=${zone.value}
            onValue=${(name) => isZone(name) && chooseZone(name)}
            hint=${`It is ${time(Date.now())} there. Kept in this browser.`}
            options=${ZONES.map((value) => ({ value, label: value }))} />
        </div>
      </section>
      ${data.email && html`<${Password} />`}`}
    <//>`;
}

function Password() {
  const [turn, setTurn] = useState(0);
  const submit = async (values) => {
    await post("/session/password", values);
    toast("The password is changed. Every other session has ended.");
    setTurn(turn + 1);
  };
  return html`<section class="card stack">
    <h2>Password</h2>
    <div style=${{ maxWidth: "360px" }}>
      <${Form} key=${turn} submit=${submit} action="Change password" fields=${[
        {
          name: "old_password", label: "Present password", kind: "password", required: true,
          autocomplete: "current-password",
        },
        {
          name: "new_password", label: "New password", kind: "password", required: true, minlength: 8,
          autocomplete: "new-password", hint: "At least 8 characters. Other sessions end.",
        },
      ]} />
    </div>
  </section>`;
}

mount(You);
