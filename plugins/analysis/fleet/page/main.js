// Addresses and what belongs to the whole page: theme, keys, printing.
const VIEWS = [["#/", "Overview"], ["#/hosts", "Hosts"], ["#/outliers", "Outliers"], ["#/changes", "Changes"], ["#/compare", "Compare"]];
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
    case "host": return hostView(parts[1], parts[2]);
    case "outliers": return outliersView();
    case "changes": return changesView();
    case "compare": return compareView(parameters);
    default: return missing("There is no such view on this page.");
  }
};
const go = (first) => {
  view = viewOf(location.hash);
  stage.replaceChildren(view.element);
  document.title = `${view.title} · slm-baseline fleet`;
  for (const anchor of document.querySelectorAll("nav a")) {
    const mine = anchor.getAttribute("href");
    const here = location.hash.split("?")[0] || "#/";
    if (mine === here || (mine === "#/hosts" && here.startsWith("#/host/"))) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  view.shown?.();
  if (!first) {
    scrollTo(0, 0);
    stage.querySelector("h1").focus({ preventScroll: true });
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
document.getElementById("built").textContent = `As of ${stamp(data.at_s)}`;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "/") {
    event.preventDefault();
    if (!view.search) {
      globalThis.history.pushState(null, "", "#/hosts");
      go();
    }
    view.search();
  }
});
// A target in the address would be a view, so the skip link moves the focus by itself.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  stage.querySelector("h1").focus();
});
addEventListener("hashchange", () => go());
addEventListener("resize", () => view.resized?.());
addEventListener("beforeprint", () => view.beforeprint?.());
addEventListener("afterprint", () => view.afterprint?.());
go(true);
