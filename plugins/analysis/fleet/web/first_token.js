// How soon a first token could come, host by host: the lower bound, and what each remedy takes off.
const GROUPINGS = { "": "nothing", model: "model", gpu: "GPU", limit: "what limits", group: "group" };
const groupsOf = (host, grouping) => {
  if (grouping === "group") return host.groups.length ? host.groups : ["no group"];
  if (grouping === "limit") return [host.firstToken.limit ?? "unknown"];
  return [grouping ? host.latest.environment[grouping] ?? "unknown" : ""];
};
const BARS = 40;
const firstTokenRows = (members, longest, title) => {
  const row = (host) => h("tr", {}, h("th", { scope: "row" }, hostLink(host), host.recorded && h("div", { class: "small muted" }, "start recorded")),
    h("td", { class: "bar-cell" }, remedyBar(host.firstToken, longest)),
    h("td", { class: "number" }, units.seconds(host.firstToken.now)), h("td", { class: "number" }, units.seconds(host.firstToken.bound)),
    h("td", { class: "number strong" }, units.seconds(host.firstToken.saving)));
  const table = plainTable(title, ["Host", "Cold start: lower bound, then what could be saved", { title: "Now", number: true }, { title: "Lower bound", number: true }, { title: "Could save", number: true }],
    members.slice(0, BARS).map(row), "plain remedies");
  const more = members.length > BARS && h("button", { type: "button", onclick: () => { table.querySelector("tbody").append(...members.slice(BARS).map(row)); more.remove(); } }, `Show all ${things(members.length, "host")}`);
  return [table, more];
};
const firstTokenView = (parameters) => {
  const grouping = Object.hasOwn(GROUPINGS, parameters.get("by") ?? "") ? parameters.get("by") ?? "" : "";
  const told = hosts.filter((host) => host.firstToken && !host.firstToken.problem).sort((a, b) => b.firstToken.saving - a.firstToken.saving || a.index - b.index);
  const longest = Math.max(...told.map((host) => host.firstToken.now), 1e-9);
  const silent = hosts.filter((host) => host.latest && !told.includes(host));
  const problems = new Map();
  for (const host of silent) {
    const why = host.firstToken?.problem ?? "its latest run is from a version that did not say";
    problems.set(why, [...(problems.get(why) ?? []), host]);
  }
  const groups = new Map();
  for (const host of told) for (const name of groupsOf(host, grouping)) groups.set(name, [...(groups.get(name) ?? []), host]);
  const total = (members) => members.reduce((sum, host) => sum + host.firstToken.saving, 0);
  const ranked = [...groups].sort((a, b) => total(b[1]) - total(a[1]));
  const unknown = data.remedies.filter((name) => told.length && told.every((host) => host.firstToken.saves[name] === null));
  const chosen = (members) => members.filter((host) => host.firstToken.saving > 0 && !host.recorded);
  return {
    title: "First token", kind: "first-token",
    element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "First token: what could be saved"),
      h("p", { class: "note" }, "From each host's latest run, cold, quiet blocks alone. The lower bound is what its disk and the work that stays allow. Bytecode saves at least, replay at most what is drawn; "
        + "savings within noise or under a tenth count as none.", unknown.length ? ` Nothing is known yet of: ${unknown.map((name) => titleIn(REMEDY_TITLES, name)).join(", ")}.` : ""),
      told.length > 0 && h("p", { class: "choices" }, h("label", { class: "inline" }, "Group by ", h("select", { id: "grouping", onchange: (event) => {
        location.hash = event.target.value ? `/first-token?by=${event.target.value}` : "/first-token"; } },
      Object.entries(GROUPINGS).map(([key, words]) => h("option", { value: key, selected: key === grouping }, words))))),
      told.length ? remedyLegend(told.map((host) => host.firstToken)) : h("p", { class: "nothing" }, hosts.some((host) => host.latest) ? "No latest run says how soon its first token could come." : "Nothing has been measured yet."),
      ranked.map(([name, members]) => {
        const gain = chosen(members);
        return h("section", { class: "card" }, h("h2", {}, grouping ? `${name} · ` : "", things(gain.length, "host"), gain.length ? ` could save ${units.seconds(median(gain.map((host) => host.firstToken.saving)))} a start (median)` : " with nothing left to save"),
          gain.length > 0 && limitLine("first_token.yml", gain),
          firstTokenRows(members, longest, `First token by host${grouping ? `: ${name}` : ""}`));
      }),
      problems.size > 0 && card("Not known", null, h("ul", { class: "bare" }, [...problems].map(([why, members]) =>
        h("li", {}, `${things(members.length, "host")}: ${why} `, h("span", { class: "muted" }, "("), hostNames(members, 4), h("span", { class: "muted" }, ")")))))),
  };
};
