// Two runs side by side, with a verdict, and the median of hosts like them.
const side = (run) => (run ? `${run.host.name}@${run.id}` : "");
const compareAddress = (a, b, all) => `#/compare?${new URLSearchParams({ a: side(a), b: side(b), ...(all ? { all: "1" } : {}) })}`;
/** {run} of a text `HOST` or `HOST@RUN`, or {problem} where it is not on this page; {} where none is asked for. */
const sideOf = (text) => {
  if (!text) return {};
  const whole = byName.get(text);
  if (whole) return whole.latest ? { run: whole.latest } : { problem: `${text} has no run.` };
  const at = text.lastIndexOf("@");
  const [name, id] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
  const host = byName.get(name);
  if (!host) return { problem: `No host of the name ${name} is on this page.` };
  const run = host.runs.find((each) => each.id === id);
  return run ? { run } : { problem: `Run ${id} of ${name} is not on this page: it was removed, or is older than what the page shows.`, host };
};
const percentWords = (share) => `${units.percent(Math.abs(share))} ${share > 0 ? "slower" : "faster"}`;
const listed = (names) => (names.length > 4 ? `${names.slice(0, 4).join(", ")} and ${names.length - 4} more` : names.join(", "));
/** What the comparison comes to: [state, words]. */
const verdict = (a, b) => {
  const other = unlike(a, b);
  if (other.length) {
    return ["unlike", `Not comparable: ${other.map((fact) => `${factTitle(fact)} differs (${a.environment[fact] ?? "unknown"}, ${b.environment[fact] ?? "unknown"})`).join("; ")}. The figures stand side by side, and no difference is called a result.`];
  }
  const metric = data.times.find((each) => a.value(each) && b.value(each));
  if (!metric) return ["none", "No time was measured in both."];
  const found = difference(a, b, metric);
  const { title, unit } = METRICS[metric];
  const values = `${title.toLowerCase()} ${unit(a.value(metric))} → ${unit(b.value(metric))}`;
  const known = data.facts.filter((fact) => a.environment[fact] !== b.environment[fact]).map(factTitle);
  const knobs = knobRows(a, b).filter(([, one, two]) => one !== two).map(([knob]) => knob);
  const differs = [...known, ...knobs];
  const differ = differs.length ? ` ${listed(differs)} ${differs.length === 1 ? "differs" : "differ"}.` : " No known fact or setting differs.";
  if (found.beyond === null) return ["none", `Whether it is more than noise cannot be said: ${values} (${signedPercent(found.share)}); that takes three runs of a host.${differ}`];
  if (!found.beyond) return ["none", `No difference beyond noise: ${values} (${signedPercent(found.share)}); unchanged, two such runs lie up to ${units.percent(found.reach)} apart.${differ}`];
  const kind = metric.startsWith("warm") ? "warm" : "cold";
  const phase = largestPhase(a, b, kind);
  const whole = b.value(metric) - a.value(metric);
  const part = phase && Math.sign(phase[1]) === Math.sign(whole) ? ` ${phase[0]} makes ${units.seconds(Math.abs(phase[1]))} of the ${units.seconds(Math.abs(whole))}.` : "";
  return [found.share > 0 ? "worse" : "better", `The second is ${percentWords(found.share)}: ${values}.${part}${differ}`];
};
const knobRows = (a, b) => {
  const [one, other] = [a, b].map((run) => new Map(run.settingsNow.map((each) => [each.knob, each.runtime])));
  return [...new Set([...one.keys(), ...other.keys()])].map((knob) => [knob, one.get(knob) ?? null, other.get(knob) ?? null]);
};
const commonest = (runs, read) => {
  const counts = new Map();
  for (const run of runs) counts.set(read(run), (counts.get(read(run)) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? null;
};

const compareView = (parameters) => {
  const asked = [sideOf(parameters.get("a")), sideOf(parameters.get("b"))];
  const sides = asked.map((each) => each.run ?? null);
  const all = parameters.get("all") === "1";
  const go = (whole) => { location.hash = compareAddress(...sides, whole ?? all).slice(1); };
  const picker = (which, title) => {
    const run = sides[which];
    const complain = h("span", { class: "complaint", role: "alert" }, asked[which].problem ?? "");
    return h("fieldset", { class: "picker" }, h("legend", {}, title),
      h("label", {}, "Host", h("input", { id: `host-${which}`, list: "all-hosts", value: run?.host.name ?? asked[which].host?.name ?? "", autocomplete: "off", spellcheck: "false", onchange: (event) => {
        const host = byName.get(event.target.value);
        if (host?.latest) { sides[which] = host.latest; go(); } else complain.textContent = host ? "This host has no run." : "No host of this name is on the page.";
      } })), complain,
      run && h("label", {}, "Run", h("select", { id: `run-${which}`, onchange: (event) => { sides[which] = run.host.runs[run.host.runs.length - 1 - event.target.selectedIndex]; go(); } },
        run.host.runs.toReversed().map((each) => h("option", { selected: each === run }, stamp(each.at))))));
  };
  const [a, b] = sides;
  const both = a && b;
  const peers = both ? likes(b, a.host, b.host) : [];
  const alike = peers.length ? `Median of ${things(peers.length, "like host")}` : null;
  const columns = (first) => [first, h("span", { class: "clamp" }, `${a.host.name}, ${stamp(a.at)}`), h("span", { class: "clamp" }, `${b.host.name}, ${stamp(b.at)}`), "Difference", ...(alike ? [alike] : [])];
  const differing = (rows) => rows.filter(([, one, other]) => all || one !== other).map(([title, one, other, usual]) => {
    const same = one === other;
    return h("tr", { class: same ? "same" : "differs" }, h("th", { scope: "row" }, title), h("td", {}, value(one)), h("td", {}, value(other)),
      h("td", {}, same ? h("span", { class: "muted" }, "same") : h("span", { class: "mark" }, "≠ differs")), alike && h("td", {}, value(usual)));
  });
  const nothing = (rows, words) => (rows.length ? rows : [h("tr", {}, h("td", { colspan: alike ? 5 : 4, class: "nothing" }, words))]);
  const other = both ? unlike(a, b) : [];
  const figureRows = () => metricsOf(a, b).map((metric) => {
    const { title, unit } = METRICS[metric];
    const [one, two] = [a.figure(metric), b.figure(metric)];
    const found = difference(a, b, metric);
    const shown = (figure) => (isTime(metric) ? units.interval(figure, unit) : unit(figure?.median));
    const tone = found?.beyond && !other.length ? (isSlower(metric, found.share) ? "worse" : "better") : "";
    const words = !found || !isTime(metric) ? "" : other.length ? " unlike" : found.beyond === null ? " noise unknown" : found.beyond ? " beyond noise" : " within noise";
    return h("tr", {}, h("th", { scope: "row" }, title), h("td", {}, shown(one)), h("td", {}, shown(two)),
      h("td", {}, found && h("span", { class: `delta ${tone}` }, signedPercent(found.share)), h("span", { class: "muted" }, words)),
      alike && h("td", {}, unit(median(peers.map((run) => run.value(metric)).filter((each) => each !== null)))));
  });
  const phaseRows = () => ["cold", "warm"].flatMap((kind) => {
    const [one, two] = [a, b].map((run) => new Map(run.phasesOf(kind).map(([name, label, seconds]) => [name, [label, seconds]])));
    const steps = [...new Set([...one.keys(), ...two.keys()])].map((name) => ({ name, label: (one.get(name) ?? two.get(name))[0], from: one.get(name)?.[1] ?? null, to: two.get(name)?.[1] ?? null }));
    const sizes = steps.map(({ from, to }) => (from === null || to === null ? 0 : Math.abs(to - from)));
    const largest = sizes.indexOf(Math.max(...sizes, 0));
    return steps.map(({ name, label, from, to }, i) => {
      const step = from !== null && to !== null ? to - from : null;
      return h("tr", { class: i === largest && sizes[i] > 0 ? "largest" : null }, h("th", { scope: "row" }, `${kind === "cold" ? "Cold" : "Warm"}: ${label}`), h("td", {}, units.seconds(from)), h("td", {}, units.seconds(to)),
        h("td", {}, step === null ? "" : `${step < 0 ? "−" : "+"}${units.seconds(Math.abs(step))}`),
        alike && h("td", {}, units.seconds(median(peers.map((run) => run.phasesOf(kind).find((each) => each[0] === name)?.[2]).filter((each) => each !== undefined)))));
    });
  });
  const settingRows = () => knobRows(a, b).map(([knob, one, two]) => [h("code", {}, knob), one, two, commonest(peers, (run) => run.settingsNow.find((each) => each.knob === knob)?.runtime ?? null)]);
  const factRows = () => data.facts.map((name) => [factTitle(name), a.environment[name], b.environment[name], commonest(peers, (run) => run.environment[name])]);
  const seen = (run) => (run === run.host.latest && run.host.settings_at_s !== null ? `${run.host.name}: ${stamp(run.host.settings_at_s)}${run.host.settings_at_s === run.host.tuned_at_s ? " (tuning)" : run.host.settings_at_s === run.host.audit?.at_s ? " (audit)" : ""}` : `${run.host.name}: in the run of ${stamp(run.at)}`);
  const [state, words] = both ? verdict(a, b) : [];
  return {
    title: "Compare", kind: "compare",
    element: h("div", { class: "view compare" }, h("h1", { tabindex: "-1" }, "Compare two runs"),
      h("datalist", { id: "all-hosts" }, hosts.filter((host) => host.latest).map((host) => h("option", { value: host.name }))),
      h("div", { class: "pickers" }, picker(0, "First"), h("button", { type: "button", id: "swap", class: "swap", "aria-label": "Exchange the two", onclick: () => { sides.reverse(); go(); } }, "⇄"), picker(1, "Second")),
      both ? [
        h("p", { class: `verdict ${state}` }, words),
        h("label", { class: "toggle" }, h("input", { type: "checkbox", id: "only-differences", checked: !all, onchange: (event) => go(!event.target.checked) }), " Only what differs"),
        card("Figures", `${coverageWords(Math.min(fewest(a), fewest(b))).replace(/^./, (letter) => letter.toUpperCase())}. A difference is beyond noise where it is more than these hosts' runs spread unchanged, and more than 5 %.`,
          plainTable("Figures compared", columns("Figure"), figureRows(), "plain compared")),
        card("Phases", "Medians; the largest difference of each kind is marked.", phaseBars(["cold", "warm"].flatMap((kind) => [a, b].map((run, i) => ({ title: `${kind === "cold" ? "Cold" : "Warm"} ${i + 1}`, phases: run.phasesOf(kind) })))),
          plainTable("Phases compared", columns("Phase"), phaseRows(), "plain compared")),
        card("Measured on", null, plainTable("Environments compared", columns("Fact"), nothing(differing(factRows()), "No known fact differs."), "plain compared")),
        card("Settings", `As last seen. ${seen(a)}; ${seen(b)}.`, plainTable("Settings compared", columns("Setting"), nothing(differing(settingRows()), "No setting differs."), "plain compared")),
      ] : h("p", { class: "nothing" }, "Choose two hosts, or two runs of one.")),
  };
};
