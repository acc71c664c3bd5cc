// Settings › Refused requests: the last that were answered 4xx, with why.
import { Empty, Head, Loaded, html, mount } from "../ui.js";
import { get, useResource } from "../api.js";
import { RefusedRows } from "../keys.js";
import { Field } from "../forms.js";
import { urlParam } from "../url.js";

const credential = urlParam("credential");

function RefusedScreen() {
  const found = useResource(
    (signal) => get("/refused", { limit: 500, credential: credential.value }, { signal }),
    [credential.value],
    { everyMs: 5_000 },
  );
  const names = [...new Set((found.data?.refused ?? []).map((row) => row.credential))].filter(Boolean);
  const options = [...new Set([credential.value, ...names])].filter(Boolean);
  return html`
    <${Head} text="Whole requests that were not taken: wrong keys, broken bodies, quotas. Nothing of them
      was stored. Keys in paths are masked." />
    <${Loaded} of=${found}>
      ${(data) => html`<section class="card card-flush">
        ${(data.refused.length > 0 || credential.value) && html`<div class="card-head">
          <div style=${{ minWidth: "220px" }}>
            <${Field} name="credential" label="Key" kind="select" value=${credential.value}
              onValue=${(value) => (credential.value = value)}
              options=${[{ value: "", label: "all, and none" },
                ...options.map((value) => ({ value, label: value }))]} />
          </div>
        </div>`}
        ${data.refused.length
          ? html`<${RefusedRows} rows=${data.refused} />`
          : html`<${Empty} title="No request was refused">The last hundred of each key are kept.<//>`}
      </section>`}
    <//>`;
}

mount(RefusedScreen);
