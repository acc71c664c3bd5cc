// The frame around every screen: menu on small screens, theme, and keys to get about.
const root = document.documentElement;
const THEME_SECONDS = 365 * 86400;

const rail = document.querySelector(".rail");
const toggle = document.querySelector(".rail-toggle");
toggle?.addEventListener("click", () => {
  const isOpen = rail.classList.toggle("rail-open");
  toggle.setAttribute("aria-expanded", String(isOpen));
});

// On a small screen the row of settings scrolls: the entry of this page is seen.
document.querySelector(".subnav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

const themeSwitch = document.getElementById("theme-switch");
if (themeSwitch) {
  themeSwitch.hidden = false;
  const label = themeSwitch.querySelector("span");
  const isDark = () =>
    root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
  const tell = () => {
    label.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  themeSwitch.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    // The server writes it into the next page, so that nothing flashes.
    document.cookie =
      `ingester_theme=${root.dataset.theme}; path=/; max-age=${THEME_SECONDS}; SameSite=Lax`;
    tell();
    dispatchEvent(new CustomEvent("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    tell();
    dispatchEvent(new CustomEvent("themechange"));
  });
  tell();
}

const PLACES = {
  l: "/logs",
  e: "/explorer",
  d: "/dashboards",
  m: "/custom-metrics",
  u: "/accounts",
  a: "/alerts",
  p: "/pipeline",
  s: "/settings",
};
let wasG = 0;

function isTyping(target) {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}

// `/` goes to what is marked data-search; `g l` and the like go to a screen.
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    if (!search) return;
    event.preventDefault();
    (search.querySelector("[contenteditable=true], input") ?? search).focus();
  } else if (event.key === "g") {
    wasG = event.timeStamp;
  } else if (wasG && event.timeStamp - wasG < 1500 && PLACES[event.key]) {
    location.assign(PLACES[event.key]);
  } else {
    wasG = 0;
  }
});
