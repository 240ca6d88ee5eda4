// One host, or one run of it.
/** The phase that makes most of a difference: [label, seconds of it], or null. */
const largestPhase = (a, b, kind) => {
  const before = new Map(a.phasesOf(kind).map(([name, , seconds]) => [name, seconds]));
  const steps = b.phasesOf(kind).filter(([name]) => before.has(name)).map(([name, label, seconds]) => [label, seconds - before.get(name)]);
  return steps.sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]))[0] ?? null;
};
/** The same against the median of hosts like it. */
const largestPart = (host, kind) => {
  const peers = likes(host.latest, host);
  const steps = host.latest.phasesOf(kind).map(([name, label, seconds]) => {
    const usual = median(peers.map((run) => run.phasesOf(kind).find((each) => each[0] === name)?.[2]).filter((each) => each !== undefined));
    return [label, usual === null ? 0 : seconds - usual];
  });
  return steps.sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]))[0] ?? null;
};
const speedWords = (host) => {
  const cause = host.cause ? ` ${host.cause.fact === null ? "No known fact differs" : `${causeWords(host.cause)} differs${host.cause.usual === null ? "" : `; usual is ${host.cause.usual}`}`}.` : "";
  if (host.outlier) {
    const [metric, here, middle, number, share] = host.outlier.odd.find((each) => each[0] === data.times[0]) ?? host.outlier.odd[0];
    const phase = isTime(metric) ? largestPart(host, metric.startsWith("warm") ? "warm" : "cold") : null;
    const part = phase && Math.sign(phase[1]) === Math.sign(here - middle)
      ? ` ${phase[0]} makes ${units.seconds(Math.abs(phase[1]))} of the ${units.seconds(Math.abs(here - middle))}.` : "";
    return `${METRICS[metric].title} ${units.percent(Math.abs(share))} ${metric === "disk_bytes_per_s" ? (share < 0 ? "lower" : "higher") : share > 0 ? "slower" : "faster"} than ${things(number - 1, "host")} like it.${part}${cause}`;
  }
  const [change] = host.changes;
  if (change) return `${METRICS[change.metric].title} ${units.percent(Math.abs(change.ratio - 1))} ${change.ratio > 1 ? "slower" : "faster"} since ${day(change.since_s)}.${cause}`;
  return host.latest && !host.latest.failed ? (likes(host.latest, host).length >= 4 ? "As fast as hosts like it." : "") : "";
};
/** What there is to say of a host, in one go. */
const sentence = (host) => {
  const seen = host.settings_at_s === null ? "" : ` (seen ${ago(host.settings_at_s)})`;
  const state = host.rolled_back_at_s ? `Rolled back ${ago(host.rolled_back_at_s)}; nobody has looked since.`
    : host.silent ? `${host.status === "unreachable" ? "Unreachable" : "No usable answer"} at the last audit, ${ago(host.audit.at_s)}.`
      : host.status === "drift" ? `Drifted${seen}: ${host.drift || host.competitors.join("; ") || "see below"}.`
        : host.status === "clean" ? `Settings as wanted${seen}.` : "Settings not compared yet.";
  const tuned = host.tuned_at_s ? `Tuned ${ago(host.tuned_at_s)}, and not measured since.` : "";
  const token = host.firstToken;
  const gain = token && !token.problem
    ? (token.saving > 0 ? `First token could come ${units.seconds(token.saving)} sooner (${units.seconds(token.now)} → ${units.seconds(token.bound)})${host.recorded ? ", and its start is recorded already" : ""}.`
      : "First token comes about as soon as this host allows.") : "";
  const idle = host.latest?.idle ? `${units.size(host.latest.idle)} lies idle in pools.` : "";
  const noise = host.latest?.noisy ? `${units.count(host.latest.noisy)} of ${things(host.latest.valid, "sample")} noisy: trust the figures less.` : "";
  const measured = host.latest?.failed ? "Its latest run has no valid sample." : host.latest ? "" : "Never measured.";
  return [speedWords(host), state, tuned, measured, gain, idle, noise].filter(Boolean).join(" ");
};

const persistedCell = (row, init) => (init === "no systemd" && row.persisted !== null
  ? [value(row.persisted), h("div", { class: "small muted" }, "in place; without systemd nothing applies it")] : value(row.persisted));
const settingsTable = (rows, init, old) =>
  plainTable("Settings of this host", ["Setting", "Wanted", "In force", "After a reboot", "Verdict"], rows.map((each) =>
    h("tr", { class: each.verdict === "clean" ? null : "drift" }, h("th", { scope: "row" }, h("code", {}, each.knob)), h("td", {}, value(each.desired)),
      h("td", {}, value(each.runtime)), h("td", {}, persistedCell(each, init)),
      h("td", {}, old ? pill("unknown", each.verdict === "clean" ? "was clean" : "was drifted") : each.verdict === "clean" ? pill("clean", "clean") : pill("drift", "drift"),
        each.detail && h("div", { class: "small" }, each.detail)))));
const facts = (environment) =>
  h("dl", { class: "facts" }, data.facts.filter((name) => environment[name] !== null).map((name) => h("div", {}, h("dt", {}, factTitle(name)), h("dd", {}, environment[name]))));
const figureRow = (metric, run) => h("tr", {}, h("th", { scope: "row" }, METRICS[metric].title),
  h("td", {}, isTime(metric) ? units.interval(run.figure(metric), METRICS[metric].unit) : METRICS[metric].unit(run.value(metric))));
const fewest = (run) => Math.min(...run.times.filter(Array.isArray).map((row) => row[1]), Infinity);
const intervalNote = (run) => (fewest(run) >= 6 ? "Median, 95 % interval, valid samples." : `Median, interval, valid samples: ${coverageWords(fewest(run))}.`);
const firstTokenCard = (run) => {
  const found = run.firstToken;
  if (!found) return null;
  if (found.problem) return card("First token", null, h("p", { class: "nothing" }, `How soon it could come cannot be said: ${found.problem}.`));
  return card("First token", found.saving > 0 ? `Could come ${units.seconds(found.saving)} sooner, limited by ${found.limit ?? "what is not known"}.` : "About as soon as this host allows.",
    h("div", { class: "phases" }, remedyBar(found, found.now)), remedyLegend([found]),
    plainTable("First token", ["Part", { title: "Seconds", number: true }], [["Now, cold", found.now], ["Lower bound", found.bound],
      ...data.remedies.map((name) => [`${titleIn(REMEDY_TITLES, name)} would save`, found.saves[name]])].map(([words, seconds]) =>
      h("tr", {}, h("th", { scope: "row" }, words), h("td", { class: "number" }, seconds === null || seconds === undefined ? "unknown" : units.seconds(seconds))))),
    found.saving > 0 && limitLine("first_token.yml", [run.host]));
};

const hostView = (name, id) => {
  const host = byName.get(name);
  if (!host) return missing(`No host of the name ${name} is on this page.`);
  const run = id ? host.runs.find((each) => each.id === id) : host.latest;
  if (id && !run) {
    return missing(`Run ${id} of ${name} is not on this page: ${host.older ? "only the newest runs of a host are, and older ones may have been removed" : "it was removed, or never stored"}.`, link(host.address, `The latest run of ${name}`));
  }
  const index = host.runs.indexOf(run);
  const earlier = index > 0 ? host.runs[index - 1] : null;
  const rows = id && run !== host.latest ? run.settings : host.settings;
  const [before, after] = [hosts[host.index - 1], hosts[host.index + 1]];
  const shown = id && run !== host.latest ? run.at : host.settings_at_s;
  const settingsWords = shown === null ? null : `${host.silent && shown === host.settings_at_s ? "Last seen" : "Seen"} ${stamp(shown)}${shown === host.tuned_at_s ? ", when it was tuned" : shown === host.audit?.at_s ? ", by the audit" : ", by a run"}.`
    + `${host.silent ? " The host did not answer since, so this may no longer be so." : ""}`;
  return {
    title: host.name, kind: "host",
    keys: (event) => {
      const to = { j: after, k: before }[event.key];
      if (to) location.hash = to.address;
      return Boolean(to);
    },
    element: h("div", { class: "view" },
      h("div", { class: "title-row" }, h("h1", { tabindex: "-1" }, host.name.trim() ? host.name : "(no name)"), statusPill(host), measuredPill(host),
        h("nav", { class: "neighbours", "aria-label": "Neighbours" }, before && h("a", { href: before.address, rel: "prev", title: before.name }, "← ", h("span", { class: "clip" }, before.name)),
          after && h("a", { href: after.address, rel: "next", title: after.name }, h("span", { class: "clip" }, after.name), " →"))),
      h("p", { class: "lede" }, sentence(host)),
      h("p", { class: "note" },
        run ? [id ? `Run ${run.id} of ` : "Latest run ", stamp(run.at), ", ", when(run.at)] : "Never measured. ",
        host.audit && [` · audited ${stamp(host.audit.at_s)}, `, when(host.audit.at_s), `: ${STATUS_TITLES[host.audit.status]}`],
        host.groups.length ? ` · ${host.groups.join(", ")}` : "", host.in_inventory ? "" : " · not in this inventory"),
      host.audit?.problem && h("p", { class: "warning" }, host.audit.problem),
      run?.failed && h("p", { class: "warning" }, `No valid sample in this run${run.reason ? `: ${run.reason}` : "."}`),
      run && h("p", { class: "links" },
        host.report && h("a", { href: linkTo(".", `${host.folder}/README.html`) }, "Report of the latest run"),
        h("a", { href: run.link }, "Result document"),
        host.sweep && h("a", { href: linkTo(".", `${host.folder}/sweep.html`) }, "Sweep report"),
        earlier && link(compareAddress(earlier, run), "Compare with the run before"),
        link(compareAddress(run, null), "Compare with another host")),
      host.competitors.length > 0 && card("Competing writers", "They want another value of a setting.", h("ul", {}, host.competitors.map((text) => h("li", {}, text)))),
      host.possible.length > 0 && card("Possible writers", "They may want another value of a setting; the audit could not tell.", h("ul", {}, host.possible.map((text) => h("li", {}, text)))),
      host.drifted.length > 0 && !host.silent && !id && card("Drift", null, h("ul", { class: "bare" }, host.drifted.map((row) => h("li", {}, h("code", { class: "differ" }, driftWords(row)), row.detail ? h("span", { class: "muted" }, ` ${row.detail}`) : ""))),
        limitLine("baseline.yml --tags tune", [host])),
      run && h("div", { class: "columns" },
        h("div", {},
          card("Phases", "Medians up to the first token; they need not add up to the median of the whole.",
            phaseBars([{ title: "Cold", phases: run.phasesOf("cold") }, { title: "Warm", phases: run.phasesOf("warm") }])),
          card(id ? "Settings in this run" : "Settings", settingsWords, rows.length
            ? settingsTable(rows, run.environment.init, host.silent && !(id && run !== host.latest))
            : h("p", { class: "nothing" }, host.rolled_back_at_s ? "Rolled back; nobody has looked since." : "Nothing was compared.")),
          card("Measured on", null, facts(run.environment))),
        h("div", {},
          firstTokenCard(run),
          card("Figures", intervalNote(run),
            plainTable("Figures of this run", ["Figure", "Value"], [...metricsOf(run).map((metric) => figureRow(metric, run)),
              h("tr", {}, h("th", { scope: "row" }, "Idle in pools"), h("td", {}, units.size(run.idle))),
              h("tr", {}, h("th", { scope: "row" }, "Noisy samples"), h("td", {}, run.noisy === null ? MISSING : `${run.noisy} of ${run.valid}`))])))),
      !run && rows.length > 0 && card("Settings", settingsWords, settingsTable(rows, null, host.silent)),
      h("div", { class: "pair" },
        host.outlier && (!id || run === host.latest) && card("Outlier", null, h("ul", { class: "findings" }, outlierItem(host.outlier))),
        host.changes.length > 0 && card("Change", null, h("ul", { class: "findings" }, changeItem(host.changes)))),
      host.runs.length > 1 && card("History", "A dot a run, with the interval of its median within that run; the scale does not begin at zero. From run to run a host spreads more than within one, so intervals that lie "
        + "apart are no change yet: a dashed line is where one begins. Hollow dots are runs of another model or device.",
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
  return [`${cold} cold, ${warm} warm`, lukewarm ? `, ${lukewarm} lukewarm` : "", failed ? `, ${failed} failed` : "", run.noisy ? `, ${run.noisy} noisy` : ""].join("");
};
const missing = (words, ...more) => ({ title: "Not here", element: h("div", { class: "view" }, h("h1", { tabindex: "-1" }, "Not here"), h("p", {}, words), h("p", { class: "links" }, more, link("#/hosts", "All hosts"))) });
