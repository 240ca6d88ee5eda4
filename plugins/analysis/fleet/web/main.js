// Addresses and what belongs to the whole page: theme, keys, printing, and the place that Back returns to.
const VIEWS = [["#/", "Overview"], ["#/hosts", "Hosts"], ["#/causes", "Causes"], ["#/first-token", "First token"], ["#/drift", "Drift"],
  ["#/changes", "Changes"], ["#/compare", "Compare"]];
const stage = document.getElementById("stage");
let view = null;

const viewOf = (address) => {
  const [path, query = ""] = address.replace(/^#/, "").split("?", 2);
  const parameters = new URLSearchParams(query);
  let parts;
  try { parts = path.split("/").filter(Boolean).map(decodeURIComponent); } catch { return missing("This address cannot be read."); }
  switch (parts[0]) {
    case undefined: return overviewView();
    case "hosts": return tableView(parameters);
    case "host": return hostView(parts[1] ?? "", parts[2]);
    case "causes": return causesView();
    case "first-token": return firstTokenView(parameters);
    case "drift": return driftView();
    case "outliers": return outliersView();
    case "changes": return changesView(parameters);
    case "compare": return compareView(parameters);
    default: return missing("There is no such view on this page.");
  }
};

// Each entry of the browser's history has a number of its own; an entry that has one already is being returned to.
const PLACES = "slm-baseline-places";
const readPlaces = () => { try { return JSON.parse(sessionStorage.getItem(PLACES)) ?? {}; } catch { return {}; } };
const places = new Map(Object.entries(readPlaces()));
let entry = null;
const keepPlace = () => {
  if (entry === null || !view) return;
  places.set(entry, { y: scrollY, view: view.place?.() ?? null });
  try { sessionStorage.setItem(PLACES, JSON.stringify(Object.fromEntries([...places].slice(-50)))); } catch { /* the page still works without */ }
};
globalThis.history.scrollRestoration = "manual";

const go = (first) => {
  keepPlace();
  const focused = document.activeElement?.id ?? "";
  const kind = view?.kind;
  view = viewOf(location.hash);
  stage.replaceChildren(view.element);
  document.title = `${view.title} · slm-baseline fleet`;
  for (const anchor of document.querySelectorAll("nav a")) {
    const mine = anchor.getAttribute("href");
    const here = location.hash.split("?")[0] || "#/";
    if (mine === here || (mine === "#/hosts" && here.startsWith("#/host/")) || (mine === "#/causes" && here === "#/outliers")) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  view.shown?.();
  const known = globalThis.history.state?.entry;
  const place = known ? places.get(known) : null;
  entry = known ?? `${Date.now()}-${places.size}-${globalThis.history.length}`;
  if (!known) globalThis.history.replaceState({ entry }, "");
  if (place) {
    scrollTo(0, place.y);
    if (place.view) view.restore?.(place.view);
    if (!stage.contains(document.activeElement)) stage.querySelector("h1").focus({ preventScroll: true });
  } else if (!first) {
    // A choice within a view, such as another run to compare, keeps the control that was used.
    const same = kind && kind === view.kind && focused ? document.getElementById(focused) : null;
    if (same) same.focus({ preventScroll: true });
    else {
      scrollTo(0, 0);
      stage.querySelector("h1").focus({ preventScroll: true });
    }
  }
};

const THEMES = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");
const stored = () => { try { return localStorage.getItem("slm-baseline-theme") ?? "auto"; } catch { return "auto"; } };
const dress = (theme) => {
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
  themeButton.textContent = `Theme: ${theme}`;
  themeButton.value = theme;
};
themeButton.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(themeButton.value) + 1) % THEMES.length];
  dress(next);
  try { localStorage.setItem("slm-baseline-theme", next); } catch { /* a page from a folder may not be allowed to */ }
});
dress(THEMES.includes(stored()) ? stored() : "auto");

document.querySelector("nav ul").append(...VIEWS.map(([address, title]) => h("li", {}, link(address, title))));
document.getElementById("built").append("Page made ", when(data.at_s));
document.addEventListener("keydown", (event) => {
  const field = /^(SELECT|TEXTAREA)$/.test(event.target.tagName) || (event.target.tagName === "INPUT" && event.target.type !== "checkbox");
  if (event.ctrlKey || event.metaKey || event.altKey || field) return;
  if (event.key === "/") {
    event.preventDefault();
    if (!view.search) {
      globalThis.history.pushState(null, "", "#/hosts");
      go();
    }
    view.search();
  } else if (view.keys?.(event)) event.preventDefault();
});
// A target in the address would be a view, so the skip link moves the focus by itself.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  stage.querySelector("h1").focus();
});
addEventListener("pagehide", keepPlace);
addEventListener("hashchange", () => go());
addEventListener("resize", () => view.resized?.());
addEventListener("beforeprint", () => view.beforeprint?.());
addEventListener("afterprint", () => view.afterprint?.());
go(true);
