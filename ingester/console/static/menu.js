// A button that opens a list of actions, or a panel, below itself.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";

/**
 * `items`: `{label, onSelect | href, danger?, disabled?}`; with `children` (a function that gets
 * `close`) a panel instead of a list. `align` is the edge that stays at the button's.
 */
export function Menu({ label, items, children, align = "right", text, small = true, kind = "" }) {
  const [isOpen, setOpen] = useState(false);
  const place = useRef(null);
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
      ? html`<div class=${`menu-list menu-${align}`} role="menu" aria-label=${label}>
          ${items.filter(Boolean).map((item) => html`<${Item} item=${item} close=${close} />`)}
        </div>`
      : html`<div class=${`menu-list menu-panel menu-${align}`}>${children(close)}</div>`)}
  </div>`;
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
