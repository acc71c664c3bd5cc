// A button that opens a list of actions, or a panel, beside itself.
//
// What opens is in the top layer: no table that scrolls and no card cuts it off.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";

/**
 * `items`: `{label, onSelect | href, danger?, disabled?}`; with `children` (a function that gets
 * `close`) a panel instead of a list. `align` is the edge that stays at the button's.
 */
export function Menu({ label, items, children, align = "right", text, small = true, kind = "" }) {
  const [isOpen, setOpen] = useState(false);
  const place = useRef(null);
  const opened = useRef(null);
  useLayoutEffect(() => {
    if (!isOpen) return undefined;
    const list = opened.current;
    const put = () => putBeside(list, place.current.firstElementChild, align);
    list.showPopover();
    put();
    const watch = new ResizeObserver(put);
    watch.observe(list);
    // Anything that scrolls may move the button away from under it.
    addEventListener("scroll", put, true);
    addEventListener("resize", put);
    return () => {
      watch.disconnect();
      removeEventListener("scroll", put, true);
      removeEventListener("resize", put);
    };
  }, [isOpen]);
  useEffect(() => {
    if (!isOpen) return undefined;
    const away = (event) => place.current?.contains(event.target) || setOpen(false);
    addEventListener("pointerdown", away);
    place.current.querySelector(".menu-item:not(:disabled), input, select, button + div button")
      ?.focus();
    return () => removeEventListener("pointerdown", away);
  }, [isOpen]);
  const close = () => {
    setOpen(false);
    place.current?.querySelector("button")?.focus();
  };
  const onKey = (event) => {
    if (event.key === "Escape" && isOpen) {
      event.stopPropagation();
      close();
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && items && isOpen) {
      event.preventDefault();
      const all = [...place.current.querySelectorAll(".menu-item:not(:disabled)")];
      const at = all.indexOf(document.activeElement);
      all[(at + step + all.length) % all.length]?.focus();
    }
  };
  const button = `btn ${kind || (text ? "" : "btn-quiet")} ${small ? "btn-small" : ""}`;
  return html`<div class="menu" ref=${place} onKeyDown=${onKey}>
    <button type="button" class=${button} aria-expanded=${isOpen} aria-label=${text ? null : label}
      aria-haspopup=${items ? "menu" : "true"}
      onClick=${() => setOpen(!isOpen)}>${text ?? "⋯"}</button>
    ${isOpen &&
    (items
      ? html`<div class="menu-list" role="menu" aria-label=${label} popover="manual" ref=${opened}>
          ${items.filter(Boolean).map((item) => html`<${Item} item=${item} close=${close} />`)}
        </div>`
      : html`<div class="menu-list menu-panel" popover="manual" ref=${opened}>
          ${children(close)}</div>`)}
  </div>`;
}

const GAP = 4;
const EDGE = 8;

/** Below the button, above it where there is more room, and always within the window. */
function putBeside(list, button, align) {
  const at = button.getBoundingClientRect();
  const { width, height } = list.getBoundingClientRect();
  const left = align === "left" ? at.left : at.right - width;
  const below = at.bottom + GAP;
  const isAbove = below + height > innerHeight - EDGE && at.top > innerHeight - at.bottom;
  const top = isAbove ? at.top - GAP - height : below;
  list.style.left = `${Math.max(EDGE, Math.min(left, innerWidth - EDGE - width))}px`;
  list.style.top = `${Math.max(EDGE, Math.min(top, innerHeight - EDGE - height))}px`;
}

function Item({ item, close }) {
  const kind = `menu-item ${item.danger ? "menu-item-danger" : ""}`;
  if (item.href) {
    return html`<a role="menuitem" class=${kind} href=${item.href}>${item.label}</a>`;
  }
  return html`<button role="menuitem" type="button" class=${kind} disabled=${item.disabled}
    onClick=${() => {
      close();
      item.onSelect();
    }}>${item.label}</button>`;
}
