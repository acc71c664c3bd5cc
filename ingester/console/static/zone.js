// The time zone that times are shown in. What is asked of the server is never in it.
import { urlParam } from "./url.js";

const KEPT = "ingester.zone";

export const localZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** In the address as `tz`, else as chosen last in this browser, else UTC. */
export const zone = urlParam("tz", kept() ?? "UTC");

export function chooseZone(name) {
  zone.value = name;
  try {
    localStorage.setItem(KEPT, name);
  } catch {
    // Without storage the address still has it.
  }
}

function kept() {
  try {
    const name = localStorage.getItem(KEPT);
    return name && isZone(name) ? name : null;
  } catch {
    return null;
  }
}

export function isZone(name) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

if (!isZone(zone.value)) zone.value = "UTC";
