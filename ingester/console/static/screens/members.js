// Settings › Members: who may sign in, as what.
import { Head, Loaded, html, mount, screen, useState } from "../ui.js";
import { del, get, patch, post, useResource } from "../api.js";
import { Secret } from "../copy.js";
import { Dialog, deleteAfterAsking, toast } from "../feedback.js";
import { Form } from "../forms.js";
import { Menu } from "../menu.js";
import { Table } from "../table.js";
import { ago, time } from "../format.js";

const ROLES = [
  { value: "viewer", label: "Viewer: sees everything but keys, members and settings" },
  { value: "admin", label: "Admin: may do everything" },
];

function Members() {
  const found = useResource((signal) => get("/members", {}, { signal }));
  const [isAdding, setAdding] = useState(false);
  const [invited, setInvited] = useState(null);
  const tell = (member) => {
    setAdding(false);
    setInvited(member);
    found.reload();
  };
  return html`
    <${Head} text="People who may sign in to this console.">
      <button class="btn btn-primary" type="button" onClick=${() => setAdding(true)}>Invite Member</button>
    <//>
    <${Loaded} of=${found}>
      ${(data) => html`<section class="card card-flush">
        <${Table} label="Members" rows=${data.members} rowKey=${(row) => row.id} columns=${COLUMNS}
          actions=${(row) => actions(row, { setInvited: tell, reload: found.reload })} />
      </section>`}
    <//>
    ${isAdding && html`<${Dialog} title="Invite Member" onClose=${() => setAdding(false)}>
      <${Form} submit=${async (values) => tell(await post("/members", values))} action="Create invitation"
        cancel=${() => setAdding(false)} fields=${[
          { name: "email", label: "E-mail address", kind: "email", required: true, autofocus: true },
          { name: "role", label: "Role", kind: "select", options: ROLES },
        ]} />
    <//>`}
    ${invited && html`<${Dialog} title=${`Invitation for ${invited.email ?? "the administrator"}`}
      onClose=${() => setInvited(null)}>
      <p>Hand on this link. It works once, until ${time(invited.expires_at)}, and is shown only now.</p>
      <${Secret} text=${invited.link} label="invitation link" />
      <div class="dialog-foot">
        <button class="btn btn-primary" type="button" onClick=${() => setInvited(null)}>Done</button>
      </div>
    <//>`}`;
}

const COLUMNS = [
  {
    name: "email", label: "Member", sort: (row) => row.email ?? "", kind: "breaks",
    cell: (row) => html`<strong>${row.email ?? "not set up yet"}</strong>
      ${row.email === screen.user && html` <span class="badge badge-accent">you</span>`}`,
  },
  {
    name: "role", label: "Role", sort: (row) => row.role,
    cell: (row) => html`<span class=${`badge ${row.role === "admin" ? "badge-accent" : ""}`}>
      ${row.role}</span>`,
  },
  {
    name: "state", label: "State",
    cell: (row) => row.is_active
      ? html`<span class="badge badge-good">active</span>`
      : html`<span class="badge badge-warn">
          ${row.invited_until ? `invited until ${time(row.invited_until).slice(0, 16)}` : "invitation over"}
        </span>`,
  },
  {
    name: "seen", label: "Last seen", sort: (row) => row.last_seen_at ?? "",
    cell: (row) => ago(row.last_seen_at),
  },
];

function actions(row, { setInvited, reload }) {
  const work = async (what) => {
    try {
      await what();
    } catch (error) {
      toast(error, "error");
    }
  };
  const other = row.role === "admin" ? "viewer" : "admin";
  return html`<${Menu} label=${`Actions for ${row.email ?? row.id}`} items=${[
    {
      label: `Make ${other === "admin" ? "an admin" : "a viewer"}`,
      onSelect: () => work(async () => {
        await patch(`/members/${row.id}`, { role: other });
        toast(`${row.email} is ${other === "admin" ? "an admin" : "a viewer"} now.`);
        reload();
      }),
    },
    {
      label: row.is_active ? "New password link" : "New invitation link",
      onSelect: () => work(async () => setInvited(await post(`/members/${row.id}/invite`))),
    },
    {
      label: "Delete…",
      danger: true,
      onSelect: () => deleteAfterAsking({
        title: `Delete ${row.email ?? row.id}?`,
        text: "They are signed out at once. What they made stays.",
        remove: () => del(`/members/${row.id}`),
        done: reload,
      }),
    },
  ]} />`;
}

mount(Members);
