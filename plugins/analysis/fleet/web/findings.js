// What stands out: causes, outliers, changes, drift.
// A line may break after a comma, so that `pagesize=2M,mode=0770` is not cut inside a number.
const value = (text) => (text === null || text === undefined ? h("em", {}, "absent")
  : h("code", {}, text.split(/(?<=,)/).map((part, i) => [i ? h("wbr") : null, part])));
const hostNames = (chosen, limit, address) => [
  chosen.slice(0, limit).map((host, i) => [i ? ", " : "", hostLink(host)]),
  chosen.length > limit ? [" ", address ? link(address, `and ${units.count(chosen.length - limit)} more`) : `and ${units.count(chosen.length - limit)} more`] : "",
];
const isSlower = (metric, share) => share * METRICS[metric].slower > 0;
const factFilter = (fact, here) => (columnOf(fact) ? { [fact]: here === null ? "none" : `=${here}` } : null);

const causeEnds = (cause) => {
  if (cause.low === null) return "";
  return ` [${signedPercent(cause.low - 1)}, ${signedPercent(cause.high - 1)}]${cause.is_interval ? "" : ", range seen"}`;
};
/** Causes as a table; hosts of each unfold. */
const causeTable = (found, whole) => (found.length ? plainTable("Likely causes", ["Differs", { title: "Hosts", number: true }, "How much slower", { title: "Costs a start", number: true }, "Since"],
  found.map((cause) => {
    const members = cause.hosts.map((index) => hosts[index]);
    const filters = { cause: `=${causeWords(cause)}` };
    const address = only(filters, "times", "cold_token", true);
    return h("tr", {},
      h("th", { scope: "row" }, cause.fact === null ? h("strong", {}, "No known fact differs") : [h("strong", {}, factTitle(cause.fact), " "), value(cause.here)],
        cause.fact !== null && h("div", { class: "small muted" }, "usual: ", value(cause.usual),
          cause.holders > members.length && `; ${units.count(cause.holders)} hosts have it`,
          cause.also.length ? `; always with ${cause.also.map(factTitle).join(", ")}` : ""),
        h("details", { class: "members" }, h("summary", {}, members.length === 1 ? "The host" : `The ${units.count(members.length)} hosts`),
          h("p", { class: "small" }, hostNames(members, whole ? 60 : 12, address)))),
      h("td", { class: "number" }, h("a", { href: address, "aria-label": `Show ${things(members.length, "host")}` }, units.count(members.length))),
      h("td", {}, h("span", { class: "delta worse" }, `${METRICS[cause.metric].title} ${signedPercent(cause.metric === "disk_bytes_per_s" ? 1 / cause.ratio - 1 : cause.ratio - 1)}`),
        h("span", { class: "muted" }, causeEnds(cause))),
      h("td", { class: "number" }, cause.lost_s > 0 ? units.seconds(cause.lost_s) : "–"),
      h("td", {}, cause.since_s === null ? h("span", { class: "muted" }, "before all runs") : h("span", { title: stamp(cause.since_s) }, day(cause.since_s))));
  }), "plain causes") : h("p", { class: "nothing" }, hosts.length < 5
  ? "Slow hosts are looked for among five or more like hosts, and in six or more runs of one host." : "No host is slower than its like, or than before."));
const causesView = () => ({
  title: "Causes",
  element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Likely causes"),
    h("p", { class: "note" }, "Slow hosts by what they have and their like (or they themselves, before) have not. That a difference comes with slow hosts does not prove that it slows them; "
      + "the row that most slow hosts share takes them first. Sorted by hosts × seconds that a start costs more. An interval is the 95 % one of the median over hosts."),
    h("div", { class: "card" }, causeTable(data.causes, true)),
    h("p", {}, link("#/outliers", `All ${things(data.outliers.length, "outlier")}, one by one`)))
});

const factItem = ([fact, here, usual, count, all]) =>
  h("li", {}, factTitle(fact), " ", value(here), h("span", { class: "muted" }, `; ${units.count(count)} of ${units.count(all)} hosts have `), value(usual));
const oddWords = ([metric, here, middle, , share]) =>
  h("span", { class: `delta ${isSlower(metric, share) ? "worse" : "better"}` }, `${METRICS[metric].title} ${signedPercent(share)}`,
    h("span", { class: "muted" }, ` ${METRICS[metric].unit(here)} against ${METRICS[metric].unit(middle)}`));
const outlierItem = (outlier) => {
  const [kind, label, here, middle] = outlier.phase ?? [];
  const slower = isSlower(outlier.odd[0][0], outlier.odd[0][4]);
  return h("li", { class: "finding" },
    h("div", { class: "finding-head" }, hostLink(hosts[outlier.host]),
      h("span", { class: `tag ${slower ? "worse" : "better"}` }, slower ? "slower" : "faster"),
      h("span", { class: "muted" }, ` among ${things(outlier.odd[0][3], "like host")}`)),
    h("div", { class: "deltas" }, outlier.odd.map(oddWords)),
    outlier.phase && h("p", { class: "small" }, `Largest part: ${label}, ${kind}: ${units.seconds(here)}, median of like hosts ${units.seconds(middle)}.`),
    outlier.differs.length ? h("div", { class: "small" }, "What differs:", h("ul", { class: "bare" }, outlier.differs.slice(0, 20).map(factItem)))
      : h("p", { class: "small muted" }, "No known fact or setting differs from most like hosts."));
};
const SHOWN = 100;
const capped = (items, draw, words) => {
  const list = h("ul", { class: "findings" }, items.slice(0, SHOWN).map(draw));
  const more = items.length > SHOWN && h("button", { type: "button", onclick: () => { list.append(...items.slice(SHOWN).map(draw)); more.remove(); } }, `Show all ${things(items.length, words)}`);
  return [list, more];
};
const outliersView = () => ({
  title: "Outliers",
  element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Outliers"),
    h("p", { class: "note" }, "Hosts are alike where their latest runs share model, dtype, GPUs, disk model and cold scope. In a group of at least five, a host "
      + "is an outlier in a metric where it is at least 10 % off the group's median and more than 3.5 robust standard deviations (1.4826 MAD) off it."),
    data.outliers.length ? capped(data.outliers, outlierItem, "outlier")
      : h("p", { class: "nothing" }, hosts.length < 5 ? "Outliers are looked for among five or more like hosts." : "No host is an outlier.")),
});

const changedHosts = () => {
  const groups = new Map();
  for (const change of data.changes) groups.set(change.host, [...(groups.get(change.host) ?? []), change]);
  return [...groups.values()];
};
const WEEK_S = 7 * 86400;
const slowerSince = (seconds) => changedHosts().filter(([first]) => first.ratio > 1 && data.at_s - first.since_s <= seconds);
const changeItem = (group) => {
  const [first] = group;
  const host = hosts[first.host];
  return h("li", { class: "finding" },
    h("div", { class: "finding-head" }, hostLink(host),
      h("span", { class: `tag ${first.ratio > 1 ? "worse" : "better"}` }, first.ratio > 1 ? "slower" : "faster"),
      h("span", { class: "muted" }, " since "), link(`${host.address}/${first.since}`, day(first.since_s))),
    h("div", { class: "deltas" }, group.map((each) =>
      h("span", { class: `delta ${each.ratio > 1 ? "worse" : "better"}` }, `${METRICS[each.metric].title} ${signedPercent(each.ratio - 1)}`,
        h("span", { class: "muted" }, ` [${signedPercent(each.low - 1)}, ${signedPercent(each.high - 1)}], ${each.before} runs before, ${each.after} after`)))),
    first.differs.length ? h("p", { class: "small" }, `Changed with it: ${first.differs.map(factTitle).join(", ")}.`)
      : h("p", { class: "small muted" }, "No known fact changed with it."));
};
const WINDOWS = [["7", "the last 7 days"], ["30", "the last 30 days"], ["", "all stored runs"]];
const ORDERS = { size: "largest first", date: "newest first" };
const changesView = (parameters) => {
  const days = parameters.get("days") ?? "";
  const order = parameters.get("order") === "date" ? "date" : "size";
  const address = (change) => {
    const wanted = Object.entries({ days, order, ...change }).filter(([, text]) => text && text !== "size");
    return `/changes${wanted.length ? `?${new URLSearchParams(wanted)}` : ""}`;
  };
  const within = changedHosts().filter(([first]) => !days || data.at_s - first.since_s <= Number(days) * 86400);
  const found = order === "date" ? within.toSorted((a, b) => b[0].since_s - a[0].since_s) : within;
  const choice = (id, title, options, current, change) => h("label", { class: "inline" }, title, " ", h("select", { id, onchange: (event) => { location.hash = address(change(event.target.value)); } },
    options.map(([key, words]) => h("option", { value: key, selected: key === current }, words))));
  return {
    title: "Changes", kind: "changes",
    element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Changes"),
      h("p", { class: "note" }, "A host has changed where all its runs since some day are slower (or all faster) than all comparable runs before, with at least three runs on "
        + "each side, and the interval of the difference lies beyond 5 %. The interval allows for every host and every day that was compared: in a fleet "
        + "without changes, at most one page in twenty names a host."),
      h("p", { class: "choices" }, choice("window", "Since", WINDOWS.map(([key, words]) => [key, key ? `${words} before this page` : words]), days, (text) => ({ days: text })),
        choice("order", "Order", Object.entries(ORDERS), order, (text) => ({ order: text })), h("span", { class: "count" }, things(found.length, "host"))),
      found.length ? capped(found, changeItem, "host")
        : h("p", { class: "nothing" }, data.changes.length ? "No host changed within these days."
          : hosts.some((host) => host.runs.length >= 6) ? "No host has become slower or faster." : "A change needs six comparable runs of a host.")),
  };
};

/** Settings of the fleet by what is wanted: [{knob, wanted, clean, differ: [[words, hosts]]}], most drift first. */
const driftByKnob = () => {
  const knobs = new Map();
  for (const host of hosts) {
    if (host.silent) continue;
    for (const row of host.settings) {
      if (!knobs.has(row.knob)) knobs.set(row.knob, { knob: row.knob, wanted: new Map(), clean: 0, differ: new Map() });
      const knob = knobs.get(row.knob);
      knob.wanted.set(row.desired, (knob.wanted.get(row.desired) ?? 0) + 1);
      if (row.verdict === "clean") knob.clean += 1;
      else {
        const words = driftWords(row).slice(row.knob.length + 1) || driftWords(row);
        knob.differ.set(words, [...(knob.differ.get(words) ?? []), host]);
      }
    }
  }
  const drifted = (knob) => [...knob.differ.values()].reduce((sum, each) => sum + each.length, 0);
  return [...knobs.values()].map((knob) => ({ ...knob, drifted: drifted(knob) })).sort((a, b) => b.drifted - a.drifted);
};
const driftAddress = (knob, words) => only({ drift: `${knob} ${words ?? ""}`.trim() }, "state");
const driftTable = (knobs, limit) => {
  if (!knobs.length) return h("p", { class: "nothing" }, "No setting has been compared yet.");
  return plainTable("Settings of the fleet", ["Setting", "Wanted", { title: "Have it", number: true }, "Differ: found→wanted"], knobs.map((each) => {
    const wanted = [...each.wanted].sort((a, b) => b[1] - a[1]);
    const differ = [...each.differ].sort((a, b) => b[1].length - a[1].length);
    return h("tr", {}, h("th", { scope: "row" }, h("code", {}, each.knob)),
      h("td", {}, wanted.slice(0, 3).map(([text, number], i) => [i ? ", " : "", text === null ? h("em", {}, "nothing") : value(text), wanted.length > 1 ? h("span", { class: "muted" }, ` on ${units.count(number)}`) : ""])),
      h("td", { class: "number good" }, units.count(each.clean)),
      h("td", {}, differ.length
        ? h("ul", { class: "bare" }, differ.slice(0, limit).map(([words, members]) =>
          h("li", {}, link(driftAddress(each.knob, words), things(members.length, "host")), " ", h("code", { class: "differ" }, words),
            h("span", { class: "muted" }, ": "), hostNames(members, limit > 6 ? 12 : 2, driftAddress(each.knob, words)))),
          differ.length > limit && h("li", {}, link("#/drift", `and ${things(differ.length - limit, "other value")}`)))
        : h("span", { class: "muted" }, "none")));
  }), "plain settings");
};
const driftView = () => {
  const drifted = hosts.filter((host) => host.status === "drift");
  const silent = hosts.filter((host) => host.silent);
  const writers = hosts.filter((host) => host.competitors.length);
  const possible = hosts.filter((host) => host.possible.length);
  return {
    title: "Drift",
    element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Drift by setting"),
      h("p", { class: "note" }, "What is wanted of each setting, how many hosts have it, and who has something else, as last seen by an audit or a run. ",
        silent.length ? `${things(silent.length, "host")} could not be audited and ${silent.length === 1 ? "is" : "are"} in no row.` : ""),
      h("div", { class: "card" }, driftTable(driftByKnob(), 40)),
      drifted.length > 0 && card("Put them right", "Tunes the drifted hosts again and verifies them.", limitLine("baseline.yml --tags tune", drifted)),
      writers.length > 0 && card("Competing writers", "Something else on these hosts wants another value.", h("ul", { class: "bare" }, writers.slice(0, 50).map((host) =>
        h("li", {}, hostLink(host), ": ", host.competitors.join("; "))))),
      possible.length > 0 && card("Possible writers", "Something on these hosts may want another value; the audit could not tell.", h("ul", { class: "bare" }, possible.slice(0, 50).map((host) =>
        h("li", {}, hostLink(host), ": ", host.possible.join("; ")))))),
  };
};
