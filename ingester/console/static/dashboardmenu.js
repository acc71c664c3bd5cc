// What can be done with a dashboard wherever it is named: a copy of it, and its end.
import { del, get, post } from "./api.js";
import { deleteAfterAsking, toast } from "./feedback.js";

const NAME_MAX = 256;

/** What is kept of a dashboard beside its id. */
export const contentOf = ({ name, description, since, until, refresh_seconds, widgets }) =>
  ({ name, description, since, until, refresh_seconds, widgets });

/** Items of a menu; `done()` when it is deleted. */
export const dashboardItems = (row, done) => [
  { label: "Make a copy", onSelect: () => copy(row.id) },
  !row.built_in && {
    label: "Delete…",
    danger: true,
    onSelect: () => deleteAfterAsking({
      title: `Delete ${row.name}?`,
      text: "Links to it stop working. What it shows stays stored.",
      remove: () => del(`/dashboards/${row.id}`),
      done,
    }),
  },
];

async function copy(id) {
  try {
    const content = contentOf(await get(`/dashboards/${id}`));
    const name = `Copy of ${content.name}`.slice(0, NAME_MAX);
    const made = await post("/dashboards", { ...content, name });
    location.assign(`/dashboards/${made.id}?edit=1`);
  } catch (error) {
    toast(error, "error");
  }
}
