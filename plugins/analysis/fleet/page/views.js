// The other views: overview, one host, outliers, changes, comparison.
const tile = (number, noun, address, state) =>
  h("a", { class: `tile ${state}${number ? "" : " zero"}`, href: address }, h("span", { class: "number" }, units.count(number)), h("span", {}, noun));
const only = (filters) => addressOf({ query: "", sort: "host", down: false, columns: DEFAULT, filters });

const overviewView = () => {
  const found = data.overview;
  const silent = found.unreachable + found.error;
  const models = new Map();
  for (const host of hosts) {
    if (host.latest && !host.latest.failed) models.set(host.latest.environment.model, (models.get(host.latest.environment.model) ?? 0) + 1);
  }
  const ranked = [...models].sort((a, b) => b[1] - a[1]).map(([model]) => model);
  const picture = h("div");
  const show = (model) => {
    const alike = hosts.filter((host) => host.latest && host.latest.environment.model === model);
    const values = (metric) => alike.map((host) => [host, host.latest.value(metric)]).filter((pair) => pair[1] !== null);
    const rows = [["Cold", "cold", values("cold_time_to_first_token_s")], ["Warm", "warm", values("warm_time_to_first_token_s")]];
    picture.replaceChildren(distribution(rows.filter((row) => row[2].length)),
      h("dl", { class: "spread" }, rows.filter((row) => row[2].length).map(([title, , pairs]) => [h("dt", {}, title), h("dd", {}, spread(pairs))])));
  };
  const measured = hosts.filter((host) => host.latest && !host.latest.failed);
  const few = measured.length > 0 && measured.length <= 3;
  if (few) {
    picture.append(...measured.map((host) => h("div", { class: "single" }, h("h3", {}, hostLink(host)),
      h("dl", { class: "spread" }, ["cold", "warm"].map((kind) => [h("dt", {}, kind === "cold" ? "Cold" : "Warm"),
        h("dd", {}, units.interval(host.latest.figure(`${kind}_time_to_first_token_s`), units.seconds))])),
      phaseBars([{ title: "Cold", phases: host.latest.phasesOf("cold") }, { title: "Warm", phases: host.latest.phasesOf("warm") }]))));
  } else if (ranked.length) show(ranked[0]);
  else picture.append(h("p", { class: "nothing" }, hosts.some((host) => host.latest)
    ? "No latest run has a valid sample." : "Nothing has been measured yet. Next: ansible-playbook baseline.yml -l gpu-hosts"));
  return {
    title: "Overview",
    element: h("div", { class: "view" },
      h("h1", { tabindex: "-1" }, found.hosts === 1 ? "One host" : `${things(found.hosts, "host")} at a glance`),
      h("div", { class: "tiles" },
        tile(found.clean, "clean", only({ status: "=clean" }), "clean"),
        tile(found.drift, "drifted", only({ status: "=drifted" }), "drift"),
        tile(found.unreachable, "unreachable", only({ status: "=unreachable" }), "unreachable"),
        silent > found.unreachable && tile(found.error, found.error === 1 ? "error" : "errors", only({ status: "=error" }), "error"),
        found.unknown ? tile(found.unknown, "not compared", only({ status: "=not compared" }), "unknown") : null,
        tile(found.never, "never measured", only({ measured: "=never measured" }), "never"),
        tile(found.stale, `stale, over ${things(data.stale_after_s / 86400, "day")}`, only({ measured: "=stale" }), "stale"),
        found.failed ? tile(found.failed, "failed last", only({ measured: "=failed" }), "failed") : null),
      h("div", { class: "columns" },
        h("div", {},
          card("Time to first token", "Latest run of each host; process start to the first token's text.",
            ranked.length > 1 && !few && h("label", { class: "inline" }, "Model ", h("select", { onchange: (event) => show(ranked[event.target.selectedIndex]) },
              ranked.map((model) => h("option", {}, `${model ?? "unknown"} (${models.get(model)})`)))),
            picture),
          card("Settings", "What most hosts have in force, and who has something else.", consensusTable())),
        h("div", {},
          card("Outliers", null, outlierList(data.outliers.slice(0, 3)),
            data.outliers.length > 3 && h("p", {}, link("#/outliers", `All ${data.outliers.length} outliers`))),
          card("Changes", null, changeList(changedHosts().slice(0, 3)),
            changedHosts().length > 3 && h("p", {}, link("#/changes", `All ${changedHosts().length} changed hosts`))),
          leftOutCard()))),
  };
};

// A line may break after a comma, so that `pagesize=2M,mode=0770` is not cut inside a number.
const value = (text) => (text === null ? h("em", {}, "absent")
  : h("code", {}, text.split(/(?<=,)/).map((part, i) => [i ? h("wbr") : null, part])));
const hostNames = (indices, limit) => [
  indices.slice(0, limit).map((index, i) => [i ? ", " : "", hostLink(hosts[index])]),
  indices.length > limit ? ` and ${units.count(indices.length - limit)} more` : "",
];
const consensusTable = () => {
  if (!data.consensus.length) return h("p", { class: "nothing" }, "No setting has been compared yet.");
  return plainTable("Settings of the fleet", ["Setting", "In force", "Other values"], data.consensus.map((each) => {
    const [first, ...others] = each.values;
    return h("tr", {}, h("th", { scope: "row" }, h("code", {}, each.knob)),
      h("td", {}, value(first[0]), h("span", { class: "muted" }, each.majority ? ` on ${units.count(first[1])}` : ` on ${units.count(first[1])}, no majority`)),
      h("td", {}, others.length
        ? h("ul", { class: "bare" }, others.slice(0, 6).map(([text, number, indices]) =>
          h("li", {}, value(text), h("span", { class: "muted" }, ` on ${units.count(number)}: `), hostNames(indices, 3))),
          others.length > 6 && h("li", { class: "muted" }, `and ${things(others.length - 6, "other value")}`))
        : h("span", { class: "muted" }, "none")));
  }), "plain settings");
};

const factItem = ([fact, here, usual, count, all]) =>
  h("li", {}, factTitle(fact), " ", value(here), h("span", { class: "muted" }, `; ${units.count(count)} of ${units.count(all)} hosts have `), value(usual));
const isSlower = (metric, share) => share * METRICS[metric].slower > 0;
const oddWords = ([metric, here, middle, , share]) =>
  h("span", { class: `delta ${isSlower(metric, share) ? "worse" : "better"}` }, `${METRICS[metric].title} ${signedPercent(share)}`,
    h("span", { class: "muted" }, ` ${METRICS[metric].unit(here)} against ${METRICS[metric].unit(middle)}`));
const outlierItem = (outlier, whole) => {
  const [kind, label, here, middle] = outlier.phase ?? [];
  return h("li", { class: "finding" },
    h("div", { class: "finding-head" }, hostLink(hosts[outlier.host]),
      h("span", { class: `tag ${isSlower(outlier.odd[0][0], outlier.odd[0][4]) ? "worse" : "better"}` }, isSlower(outlier.odd[0][0], outlier.odd[0][4]) ? "slower" : "faster"),
      h("span", { class: "muted" }, ` among ${things(outlier.odd[0][3], "like host")}`)),
    h("div", { class: "deltas" }, (whole ? outlier.odd : outlier.odd.slice(0, 1)).map(oddWords)),
    outlier.phase && h("p", { class: "small" }, `Largest part: ${label}, ${kind}: ${units.seconds(here)}, median of like hosts ${units.seconds(middle)}.`),
    outlier.differs.length ? h("div", { class: "small" }, "What differs:", h("ul", { class: "bare" }, outlier.differs.slice(0, whole ? 20 : 2).map(factItem)))
      : whole && h("p", { class: "small muted" }, "No known fact or setting differs from most like hosts."));
};
const outlierList = (outliers, whole) => (outliers.length
  ? h("ul", { class: "findings" }, outliers.map((each) => outlierItem(each, whole)))
  : h("p", { class: "nothing" }, hosts.length < 5 ? "Outliers are looked for among five or more like hosts." : "No host is an outlier."));

const changedHosts = () => {
  const groups = new Map();
  for (const change of data.changes) groups.set(change.host, [...(groups.get(change.host) ?? []), change]);
  return [...groups.values()];
};
const changeItem = (group, whole) => {
  const [first] = group;
  const host = hosts[first.host];
  return h("li", { class: "finding" },
    h("div", { class: "finding-head" }, hostLink(host),
      h("span", { class: `tag ${first.ratio > 1 ? "worse" : "better"}` }, first.ratio > 1 ? "slower" : "faster"),
      h("span", { class: "muted" }, " since "), link(`${host.address}/${first.since}`, day(first.since_s))),
    h("div", { class: "deltas" }, (whole ? group : group.slice(0, 1)).map((each) =>
      h("span", { class: `delta ${each.ratio > 1 ? "worse" : "better"}` }, `${METRICS[each.metric].title} ${signedPercent(each.ratio - 1)}`,
        h("span", { class: "muted" }, ` [${signedPercent(each.low - 1)}, ${signedPercent(each.high - 1)}], ${each.before} runs before, ${each.after} after`)))),
    first.differs.length ? h("p", { class: "small" }, `Changed with it: ${first.differs.map(factTitle).join(", ")}.`)
      : whole && h("p", { class: "small muted" }, "No known fact changed with it."));
};
const changeList = (groups, whole) => (groups.length
  ? h("ul", { class: "findings" }, groups.map((each) => changeItem(each, whole)))
  : h("p", { class: "nothing" }, hosts.some((host) => host.runs.length >= 6)
    ? "No host has become slower or faster." : "A change needs six comparable runs of a host."));

const leftOutCard = () => (data.left_out.length
  ? card("Files left out", "These could not be read; everything else is here.",
    h("ul", { class: "bare" }, data.left_out.slice(0, 50).map(([file, why]) => h("li", {}, h("code", {}, file), h("span", { class: "muted" }, ` ${why}`))),
      data.left_out.length > 50 && h("li", {}, `and ${things(data.left_out.length - 50, "other file")}`)))
  : null);

const outliersView = () => ({
  title: "Outliers",
  element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Outliers"),
    h("p", { class: "note" }, "Hosts are alike where their latest runs share model, dtype, GPUs, disk model and cold scope. In a group of at least five, a host "
      + "is an outlier in a metric where it is at least 10 % off the group's median and more than 3.5 robust standard deviations (1.4826 MAD) off it."),
    outlierList(data.outliers, true)),
});
const changesView = () => ({
  title: "Changes",
  element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Changes"),
    h("p", { class: "note" }, "A host has changed where all its runs since some day are slower (or all faster) than all comparable runs before, with at least three runs on "
      + "each side, and the interval of the difference lies beyond 5 %. The interval allows for every host and every day that was compared: in a fleet "
      + "without changes, at most one page in twenty names a host."),
    changeList(changedHosts(), true)),
});

const settingRows = (rows) => rows.map((each) =>
  h("tr", { class: each.verdict === "clean" ? null : "drift" }, h("th", { scope: "row" }, h("code", {}, each.knob)), h("td", {}, value(each.desired)),
    h("td", {}, value(each.runtime)), h("td", {}, value(each.persisted)),
    h("td", {}, each.verdict === "clean" ? pill("clean", "clean") : pill("drift", "drift"), each.detail && h("div", { class: "small" }, each.detail))));
const settingsTable = (rows) =>
  plainTable("Settings of this host", ["Setting", "Wanted", "In force", "After a reboot", "Verdict"], settingRows(rows));
const facts = (environment) =>
  h("dl", { class: "facts" }, data.facts.filter((name) => environment[name] !== null).map((name) => [h("dt", {}, factTitle(name)), h("dd", {}, environment[name])]));
const figureRow = (metric, run) => h("tr", {}, h("th", { scope: "row" }, METRICS[metric].title),
  h("td", {}, metric.endsWith("_s") && metric !== "disk_bytes_per_s" ? units.interval(run.figure(metric), METRICS[metric].unit) : METRICS[metric].unit(run.value(metric))));

const hostView = (name, id) => {
  const host = byName.get(name);
  if (!host) return missing(`No host of the name ${name} is on this page.`);
  const run = id ? host.runs.find((each) => each.id === id) : host.latest;
  if (id && !run) return missing(`No run ${id} of ${name} is on this page.`);
  const index = host.runs.indexOf(run);
  const earlier = index > 0 ? host.runs[index - 1] : null;
  const rows = id ? run.settings : host.settings;
  return {
    title: host.name,
    element: h("div", { class: "view" },
      h("div", { class: "title-row" }, h("h1", { tabindex: "-1" }, host.name.trim() ? host.name : "(no name)"), statusPill(host), measuredPill(host)),
      h("p", { class: "note" },
        run ? [id ? `Run ${run.id} of ` : "Latest run ", stamp(run.at), id ? "" : `, ${ago(data.at_s - run.at)}`] : "Never measured. ",
        host.audit && ` · audited ${stamp(host.audit.at_s)}: ${STATUS_TITLES[host.audit.status]}`,
        host.groups.length ? ` · ${host.groups.join(", ")}` : "", host.in_inventory ? "" : " · not in this inventory"),
      host.audit?.problem && h("p", { class: "warning" }, host.audit.problem),
      run?.failed && h("p", { class: "warning" }, `No valid sample in this run${run.reason ? `: ${run.reason}` : "."}`),
      run && h("p", { class: "links" },
        host.report && h("a", { href: linkTo(".", `${host.folder}/README.md`) }, "Report of the latest run"),
        h("a", { href: run.link }, "Result document"),
        host.sweep && h("a", { href: linkTo(".", `${host.folder}/sweep.md`) }, "Sweep report"),
        earlier && link(compareAddress(earlier, run), "Compare with the run before"),
        link(compareAddress(run, null), "Compare with another host")),
      h("div", { class: "pair" },
        host.outlier && (!id || run === host.latest) && card("Outlier", null, outlierList([host.outlier], true)),
        host.changes.length > 0 && card("Change", null, changeList([host.changes], true))),
      host.audit?.competitors.length > 0 && card("Competing writers", "They want another value of a setting.", h("ul", {}, host.audit.competitors.map((text) => h("li", {}, text)))),
      run && h("div", { class: "columns" },
        h("div", {},
          card("Phases", "Medians up to the first token; they need not add up to the median of the whole.",
            phaseBars([{ title: "Cold", phases: run.phasesOf("cold") }, { title: "Warm", phases: run.phasesOf("warm") }])),
          card(id ? "Settings in this run" : "Settings", null, rows.length
            ? settingsTable(rows)
            : h("p", { class: "nothing" }, "Nothing was compared."))),
        h("div", {},
          card("Figures", "Median, 95 % interval, valid samples.",
            plainTable("Figures of this run", ["Figure", "Value"], Object.keys(METRICS).map((metric) => figureRow(metric, run)))),
          card("Measured on", null, facts(run.environment)))),
      !run && rows.length > 0 && card("Settings", null, settingsTable(rows)),
      host.runs.length > 1 && card("History", "A dot a run, with the 95 % interval of its median; the scale does not begin at zero. A dashed line is where a change begins; hollow dots are runs of another model or device.",
        h("div", { class: "histories" }, Object.keys(METRICS).map((metric) => history(host, metric, run)))),
      run && card("Runs", host.older ? `${things(host.older, "older run")} stored and not shown.` : null,
        plainTable("Runs of this host", ["Run", ...data.times.map((metric) => ({ title: METRICS[metric].title, number: true })), "Samples", "Links"],
          host.runs.toReversed().map((each) => h("tr", { "aria-current": each === run ? "true" : null },
            h("th", { scope: "row" }, link(each.address, stamp(each.at))),
            data.times.map((metric) => h("td", { class: "number" }, METRICS[metric].unit(each.value(metric)))),
            h("td", {}, validWords(each)),
            h("td", {}, h("a", { href: each.link, "aria-label": `Document of run ${each.id}` }, "document"), each !== run && [" · ",
              h("a", { href: compareAddress(each, run), "aria-label": `Compare run ${each.id} with the one shown` }, "compare")]))), "plain runs")),
      host.documents.length > 0 && card("Other documents", null, h("ul", { class: "bare" }, host.documents.toReversed().map(([kind, document, file, at, words]) =>
        h("li", {}, h("a", { href: linkTo(data.results, file) }, `${kind} ${document}`), h("span", { class: "muted" }, ` ${stamp(at)} ${words}`)))))),
  };
};
const validWords = (run) => {
  const [cold, warm, lukewarm, failed] = run.counts;
  return [`${cold} cold, ${warm} warm`, lukewarm ? `, ${lukewarm} lukewarm` : "", failed ? `, ${failed} failed` : ""].join("");
};
const missing = (words) => ({ title: "Not here", element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Not here"), h("p", {}, words), link("#/hosts", "All hosts")) });

const side = (run) => (run ? `${run.host.name}@${run.id}` : "");
const compareAddress = (a, b) => `#/compare?${new URLSearchParams({ a: side(a), b: side(b) })}`;
const sideOf = (text) => {
  const at = text?.lastIndexOf("@") ?? -1;
  const host = byName.get(at < 0 ? text : text.slice(0, at));
  return host?.runs.find((run) => run.id === text.slice(at + 1)) ?? host?.latest ?? null;
};
const compareView = (parameters) => {
  const sides = [sideOf(parameters.get("a")), sideOf(parameters.get("b"))];
  const go = () => { location.hash = compareAddress(...sides).slice(1); };
  const picker = (which, title) => {
    const run = sides[which];
    const complain = h("span", { class: "complaint", role: "alert" });
    return h("fieldset", { class: "picker" }, h("legend", {}, title),
      h("label", {}, "Host", h("input", { list: "all-hosts", value: run?.host.name ?? "", autocomplete: "off", spellcheck: "false", onchange: (event) => {
        const host = byName.get(event.target.value);
        if (host?.latest) { sides[which] = host.latest; go(); } else complain.textContent = host ? "This host has no run." : "No host of this name is on the page.";
      } })), complain,
      run && h("label", {}, "Run", h("select", { onchange: (event) => { sides[which] = run.host.runs[run.host.runs.length - 1 - event.target.selectedIndex]; go(); } },
        run.host.runs.toReversed().map((each) => h("option", { selected: each === run }, stamp(each.at))))));
  };
  const [a, b] = sides;
  const both = a && b;
  const differing = (rows) => rows.map(([title, one, other]) => {
    const same = one === other;
    return h("tr", { class: same ? "same" : "differs" }, h("th", { scope: "row" }, title), h("td", {}, value(one)), h("td", {}, value(other)),
      h("td", {}, same ? h("span", { class: "muted" }, "same") : h("span", { class: "mark" }, "≠ differs")));
  });
  const figureRows = () => Object.entries(METRICS).map(([metric, { title, unit }]) => {
    const [one, other] = [a.figure(metric), b.figure(metric)];
    const share = one && other && one.median ? other.median / one.median - 1 : null;
    const shown = (figure) => (metric === "disk_bytes_per_s" || metric === "memory_bytes" ? unit(figure?.median) : units.interval(figure, unit));
    const known = one?.low != null && other?.low != null;
    const apart = known && (one.low > other.high || other.low > one.high);
    return h("tr", {}, h("th", { scope: "row" }, title), h("td", {}, shown(one)), h("td", {}, shown(other)),
      h("td", {}, share === null ? "" : h("span", { class: `delta ${apart && Math.abs(share) > 0.005 ? (isSlower(metric, share) ? "worse" : "better") : ""}` }, signedPercent(share)),
        known && h("span", { class: "muted" }, apart ? " intervals apart" : " intervals overlap")));
  });
  const knobs = () => {
    const [one, other] = [a, b].map((run) => new Map(run.settings.map((each) => [each.knob, each.runtime])));
    return [...new Set([...one.keys(), ...other.keys()])].map((knob) => [h("code", {}, knob), one.get(knob) ?? null, other.get(knob) ?? null]);
  };
  const heads = (first) => [first, `${a.host.name}, ${stamp(a.at)}`, `${b.host.name}, ${stamp(b.at)}`, "Difference"];
  return {
    title: "Compare",
    element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Compare two runs"),
      h("datalist", { id: "all-hosts" }, hosts.filter((host) => host.latest).map((host) => h("option", { value: host.name }))),
      h("div", { class: "pickers" }, picker(0, "First"), h("button", { type: "button", class: "swap", "aria-label": "Exchange the two", onclick: () => { sides.reverse(); go(); } }, "⇄"), picker(1, "Second")),
      both ? [
        a.environment.model !== b.environment.model && h("p", { class: "warning" }, "The two runs loaded different models: their times cannot be compared."),
        card("Figures", "Where the intervals overlap, the difference may be chance.", plainTable("Figures compared", heads("Figure"), figureRows())),
        card("Phases", null, phaseBars(["cold", "warm"].flatMap((kind) => [a, b].map((run, i) => ({ title: `${kind === "cold" ? "Cold" : "Warm"} ${i + 1}`, phases: run.phasesOf(kind) }))))),
        card("Measured on", null, plainTable("Environments compared", heads("Fact"), differing(data.facts.map((name) => [factTitle(name), a.environment[name], b.environment[name]])))),
        card("Settings", null, plainTable("Settings compared", heads("Setting"), differing(knobs()))),
      ] : h("p", { class: "nothing" }, "Choose two hosts, or two runs of one.")),
  };
};
