// The overview: how old all this is, two bars, what there is to gain, causes beside drift, and how times spread.
const overviewCounts = () => {
  const counts = Object.fromEntries([...Object.keys(STATUS_TITLES), ...Object.keys(MEASURED_TITLES)].map((state) => [state, 0]));
  for (const host of hosts) {
    counts[host.status] += 1;
    counts[host.measured] += 1;
  }
  return counts;
};
const ageStrip = () => {
  const audits = hosts.map((host) => host.audit?.at_s).filter(Boolean);
  const latest = hosts.filter((host) => host.latest);
  const oldest = latest.length ? latest.reduce((a, b) => (a.latest.at < b.latest.at ? a : b)) : null;
  const newest = latest.length ? Math.max(...latest.map((host) => host.latest.at)) : null;
  const old = now() - data.at_s > 2 * 86400;
  const item = (title, ...content) => h("li", {}, h("span", { class: "muted" }, title), " ", content);
  return h("ul", { class: `ages${old ? " old" : ""}`, "aria-label": "How old this is" },
    item("Page", h("strong", {}, when(data.at_s)), old ? " – run report.yml or an audit for a fresh one" : ""),
    item("Audit", audits.length ? [h("strong", {}, when(Math.max(...audits))), ` of ${things(audits.length, "host")}`] : h("strong", {}, "none yet")),
    newest !== null && item("Newest run", h("strong", {}, when(newest))),
    oldest && latest.length > 1 && item("Oldest latest run", h("strong", {}, when(oldest.latest.at)), " ", hostLink(oldest)));
};
const byFirstToken = () => hosts.filter((host) => host.firstToken?.saving > 0 && !host.recorded).sort((a, b) => b.firstToken.saving - a.firstToken.saving);
const valueTile = (address, number, words, more, state) =>
  h("div", { class: `value ${state}` }, h("a", { class: "value-link", href: address }, h("span", { class: "number" }, number), h("span", { class: "words" }, words)), more && h("p", { class: "small muted" }, more));
const valueTiles = () => {
  const saving = byFirstToken();
  const told = hosts.filter((host) => host.firstToken && !host.firstToken.problem).length;
  const idle = hosts.filter((host) => host.latest?.idle > 0);
  const idleKnown = hosts.some((host) => host.latest && host.latest.idle !== null);
  const slower = slowerSince(WEEK_S);
  const middle = median(saving.map((host) => host.firstToken.saving));
  return h("div", { class: "values" },
    valueTile("#/first-token", saving.length ? units.seconds(middle) : told ? "0 s" : "unknown",
      saving.length ? `${saving.length === 1 ? "" : "median × "}${things(saving.length, "host")}: first token could come sooner` : told ? "to gain before the first token" : "what a first token could save",
      saving.length ? [saving.length > 1 ? "Begin with " : "On ", hostLink(saving[0]), `, ${units.seconds(saving[0].firstToken.saving)}`]
        : told ? "Each measured host is near its lower bound." : "No run stored yet says it; newer ones do.", saving.length ? "gain" : "none"),
    valueTile(only({ idle_pools: "> 0" }, "state", "idle_pools", true), idleKnown ? units.size(idle.reduce((sum, host) => sum + host.latest.idle, 0)) : "unknown",
      `idle in huge page pools${idle.length ? ` on ${things(idle.length, "host")}` : ""}`, "Reserved, used by nobody when last measured, and usable by nothing else.", idle.length ? "idle" : "none"),
    valueTile("#/changes?days=7", units.count(slower.length), `${slower.length === 1 ? "host" : "hosts"} slower this week`,
      slower.length ? ["Most: ", hostLink(hosts[slower[0][0].host]), ` ${signedPercent(slower[0][0].ratio - 1)}`]
        : hosts.some((host) => host.runs.length >= 6) ? "In the 7 days before this page." : "A change needs six comparable runs of a host.", slower.length ? "slow" : "none"));
};

const overviewView = () => {
  const found = overviewCounts();
  const models = new Map();
  const measured = hosts.filter((host) => host.latest && !host.latest.failed);
  for (const host of measured) models.set(host.latest.environment.model, (models.get(host.latest.environment.model) ?? 0) + 1);
  const ranked = [...models].sort((a, b) => b[1] - a[1]).map(([model]) => model);
  const picture = h("div");
  const show = (model) => {
    const alike = measured.filter((host) => host.latest.environment.model === model);
    const values = (metric) => alike.map((host) => [host, host.latest.value(metric)]).filter((pair) => pair[1] !== null);
    const rows = [["Cold", "cold", "cold_token", values("cold_time_to_first_token_s")], ["Warm", "warm", "warm_token", values("warm_time_to_first_token_s")]]
      .filter((row) => row[3].length);
    picture.replaceChildren(distribution(rows, ranked.length > 1 ? model : null),
      h("dl", { class: "spread" }, rows.map(([title, , , pairs]) => [h("dt", {}, title), h("dd", {}, spread(pairs))])));
  };
  const few = measured.length > 0 && measured.length <= 3;
  if (few) {
    picture.append(...measured.map((host) => h("div", { class: "single" }, h("h3", {}, hostLink(host)), h("p", { class: "lede" }, sentence(host)),
      h("dl", { class: "spread" }, ["cold", "warm"].map((kind) => [h("dt", {}, kind === "cold" ? "Cold" : "Warm"),
        h("dd", {}, units.interval(host.latest.figure(`${kind}_time_to_first_token_s`), units.seconds))])),
      phaseBars([{ title: "Cold", phases: host.latest.phasesOf("cold") }, { title: "Warm", phases: host.latest.phasesOf("warm") }]))));
  } else if (ranked.length) show(ranked[0]);
  else picture.append(h("p", { class: "nothing" }, hosts.some((host) => host.latest)
    ? "No latest run has a valid sample." : "Nothing has been measured yet. Next: ansible-playbook baseline.yml -l gpu-hosts"));
  const statuses = [["clean", "clean"], ["drift", "drifted"], ["unreachable", "unreachable"], ["error", found.error === 1 ? "error" : "errors"], ["unknown", "not compared"]]
    .map(([state, words]) => [state, words, found[state], only({ status: `=${STATUS_TITLES[state]}` }, "state")]);
  const states = [["measured", "measured"], ["stale", `stale, over ${things(data.stale_after_s / 86400, "day")}`], ["failed", "failed last"], ["never", "never measured"]]
    .map(([state, words]) => [state, words, found[state], only({ measured: `=${MEASURED_TITLES[state]}` })]);
  const knobs = driftByKnob();
  const drifted = knobs.filter((knob) => knob.drifted);
  return {
    title: "Overview",
    element: h("div", { class: "view" },
      h("h1", { tabindex: "-1" }, hosts.length === 1 ? "One host" : `${things(hosts.length, "host")} at a glance`),
      ageStrip(),
      h("div", { class: "shares card" }, shareBar("Settings", statuses, hosts.length), shareBar("Measurement", states, hosts.length)),
      valueTiles(),
      h("div", { class: "halves" },
        card("Likely causes", "What slow hosts have and their like have not.", causeTable(data.causes.slice(0, 4)),
          h("p", {}, link("#/causes", data.causes.length > 4 ? `All ${data.causes.length} causes` : "All causes"), " · ", link("#/changes", "Changes"), " · ", link("#/outliers", "Outliers"))),
        card("Settings", drifted.length ? "Wanted, had, and what differs." : "Every setting is as wanted where anybody could look.",
          driftTable((drifted.length ? drifted : knobs).slice(0, 5), 4), h("p", {}, link("#/drift", "All settings")))),
      card("Time to first token", `Latest run of each host, from process start to the first token's text.${few || !ranked.length ? "" : " A dot or a column leads to its hosts."}`,
        ranked.length > 1 && !few && h("label", { class: "inline" }, "Model ", h("select", { onchange: (event) => show(ranked[event.target.selectedIndex]) },
          ranked.map((model) => h("option", {}, `${model ?? "unknown"} (${models.get(model)})`)))),
        picture),
      leftOutCard()),
  };
};
const leftOutCard = () => (data.left_out.length
  ? card("Files left out", "These could not be read; everything else is here.",
    h("ul", { class: "bare" }, data.left_out.slice(0, 50).map(([file, why]) => h("li", {}, h("code", {}, file), h("span", { class: "muted" }, ` ${why}`))),
      data.left_out.length > 50 && h("li", {}, `and ${things(data.left_out.length - 50, "other file")}`)))
  : null);
