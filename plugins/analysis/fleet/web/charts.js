// Pictures as plain SVG. Each has a label that says what it shows; every figure in it also stands in a table.
const PHASE_COLOURS = {
  interpreter: "p0", import_torch: "p1", import_transformers: "p2", device_ready: "p3", tokenizer: "p4",
  weights: "p5", first_token: "p6",
};

/** Round steps for an axis from low to high, about `count` of them. */
const ticks = (low, high, count) => {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return found;
};

/** From which share of the whole width on a part holds its number. */
const labelShare = () => (innerWidth < 640 ? 0.19 : 0.085);
const phaseBars = (bars) => {
  const longest = Math.max(...bars.map((bar) => bar.phases.reduce((sum, each) => sum + each[2], 0)), 1e-9);
  const names = new Map(bars.flatMap((bar) => bar.phases.map(([name, label]) => [name, label])));
  return h("div", { class: "phases" },
    bars.map((bar) => {
      const total = bar.phases.reduce((sum, each) => sum + each[2], 0);
      const words = bar.phases.map(([, label, seconds]) => `${label} ${units.seconds(seconds)}`).join(", ");
      return h("div", { class: "bar-row" },
        h("div", { class: "bar-title" }, bar.title),
        h("div", { class: "bar", role: "img", "aria-label": `${bar.title}: ${words || "not measured"}` },
          bar.phases.map(([name, label, seconds]) =>
            h("span", {
              class: `segment ${PHASE_COLOURS[name] ?? "p7"}`,
              style: { width: `${(100 * seconds) / longest}%` },
              title: `${label}: ${units.seconds(seconds)}`,
            }, seconds / longest > labelShare() ? units.seconds(seconds) : null)),
          total ? null : h("span", { class: "nothing" }, "no valid sample")));
    }),
    h("ul", { class: "legend", "aria-hidden": "true" }, [...names].map(([name, label]) =>
      h("li", {}, h("span", { class: `swatch ${PHASE_COLOURS[name] ?? "p7"}` }), label))));
};

/** The history of one metric: a dot a run with its interval, in order of time; failed runs as crosses. */
const history = (host, metric, shown) => {
  const selected = shown?.id;
  const { title, unit } = METRICS[metric];
  const [width, height, left, right, top, bottom] = [420, 170, 76, 14, 12, 26];
  const points = host.runs.map((run) => ({ run, figure: run.figure(metric) }));
  const present = points.filter((each) => each.figure);
  const latest = present.at(-1);
  if (!latest) return null;
  const ends = present.flatMap(({ figure }) => [figure.low ?? figure.median, figure.high ?? figure.median]);
  let [low, high] = [Math.min(...ends), Math.max(...ends)];
  const room = Math.max((high - low) * 0.15, high * 0.04);
  [low, high] = [Math.max(0, low - room), high + room];
  const times = points.map((each) => each.run.at);
  // Round steps in binary units are none in decimal ones.
  const step = metric === "memory_bytes" ? 2 ** (10 * Math.floor(Math.log2(high) / 10)) : 1;
  const span = times.at(-1) - times[0];
  const x = (at) => (span ? left + 8 + ((at - times[0]) / span) * (width - left - right - 16) : (width + left - right) / 2);
  const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom);
  const change = host.changes.find((each) => each.metric === metric);
  const label = `${title} over ${things(present.length, "run")}: latest ${unit(latest.figure.median)}, `
    + `from ${unit(Math.min(...present.map((e) => e.figure.median)))} to ${unit(Math.max(...present.map((e) => e.figure.median)))}`;
  return h("figure", { class: "history" },
    h("figcaption", {}, h("span", {}, title), h("strong", {}, unit(latest.figure.median))),
    s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      ticks(low / step, high / step, 4).map((each) => each * step).map((at) => [
        s("line", { class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }),
        s("text", { class: "axis", x: left - 8, y: y(at) + 4, "text-anchor": "end" }, unit(at)),
      ]),
      change && s("line", { class: "since", x1: x(change.since_s), x2: x(change.since_s), y1: top, y2: height - bottom }),
      s("polyline", { class: "trace", points: present.filter((e) => e.run.task === shown?.task).map((e) => `${x(e.run.at)},${y(e.figure.median)}`).join(" ") }),
      points.map(({ run, figure }) => figure
        ? s("g", { class: `point${run.id === selected ? " selected" : ""}${run.task === shown?.task ? "" : " other"}` },
          s("title", {}, `${stamp(run.at)}, ${run.environment.model}: ${metric.endsWith("_s") && figure.n ? units.interval(figure, unit) : unit(figure.median)}`),
          figure.low !== null && s("line", { class: "whisker", x1: x(run.at), x2: x(run.at), y1: y(figure.low), y2: y(figure.high) }),
          s("circle", { cx: x(run.at), cy: y(figure.median), r: run.id === selected ? 5 : 3.5 }))
        // A run that is older than the figure has not failed.
        : !run.failed && data.tokens.includes(metric) ? null : s("text", { class: "cross", x: x(run.at), y: height - bottom - 2, "text-anchor": "middle" },
          s("title", {}, `${stamp(run.at)}: ${MISSING}`), "×")),
      s("text", { class: "axis", x: span ? left + 8 : (width + left - right) / 2, y: height - 8, "text-anchor": span ? "start" : "middle" }, day(times[0])),
      span ? s("text", { class: "axis", x: width - right, y: height - 8, "text-anchor": "end" }, day(times.at(-1))) : null));
};

/** A line without axes for a table's cell. */
const spark = (values) => {
  const present = values.filter((value) => value !== null);
  if (present.length < 2) return null;
  const [low, high] = [Math.min(...present), Math.max(...present)];
  // A wobble of a few per cent is drawn as one: the line fills the cell only from 15 % on.
  const span = Math.max(high - low, 0.15 * high) || 1;
  const middle = (high + low) / 2;
  const x = (i) => 3 + (i / (values.length - 1)) * 84;
  const y = (value) => 10 - ((value - middle) / span) * 15;
  const points = values.map((value, i) => (value === null ? null : [x(i), y(value)])).filter(Boolean);
  const [cx, cy] = points.at(-1);
  return s("svg", { class: "spark", viewBox: "0 0 90 20", "aria-hidden": "true" },
    s("polyline", { points: points.map((point) => point.join(",")).join(" ") }), s("circle", { cx, cy, r: 2.2 }));
};

/** How hosts spread: dots while they can be told apart, else columns. `rows` is [[title, class, column, [[host, seconds]]]]. */
const distribution = (rows, model) => {
  const values = rows.flatMap((row) => row[3].map((each) => each[1]));
  if (!values.length) return h("p", { class: "nothing" }, "Nothing has been measured yet.");
  // Drawn to a narrow screen's width, so that its text is not scaled down to nothing.
  const width = innerWidth < 640 ? 400 : Math.max(760, Math.min(1380, innerWidth - 100));
  const [left, right] = [60, 20];
  const few = Math.max(...rows.map((row) => row[3].length)) <= 120;
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max((high - low) * 0.06, high * 0.05);
  [low, high] = [Math.max(0, low - room), high + room];
  const lane = 108;
  const height = rows.length * lane + 30;
  const x = (value) => left + ((value - low) / (high - low)) * (width - left - right);
  const bins = width < 760 ? 38 : few ? 60 : Math.round(width / 10);
  const anchors = [];
  const picture = s("svg", { class: "distribution", viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `${rows.map(([title, , , each]) => `${title}: ${spread(each)}`).join(". ")}. Arrow keys go from column to column.` },
    ticks(low, high, width < 760 ? 4 : 10).map((at) => [
      s("line", { class: "grid", x1: x(at), x2: x(at), y1: 4, y2: height - 24 }),
      s("text", { class: "axis", x: x(at), y: height - 8, "text-anchor": "middle" }, units.seconds(at)),
    ]),
    rows.map(([title, style, column, each], row) => {
      const base = (row + 1) * lane - 14;
      const counts = new Map();
      for (const [host, value] of each) {
        const bin = Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins));
        counts.set(bin, [...(counts.get(bin) ?? []), [host, value]]);
      }
      const most = Math.max(...[...counts.values()].map((found) => found.length), 1);
      const step = Math.min(few ? 11 : 9, 62 / most);
      const wide = (width - left - right) / bins;
      // A single odd host among a thousand still has to be seen.
      const tall = (share) => Math.max(3, share * 62);
      const middle = median(each.map((pair) => pair[1]));
      const anchor = (address, words, shape) => {
        const made = s("a", { href: address, tabindex: anchors.length ? "-1" : "0", "aria-label": words }, s("title", {}, words), shape);
        anchors.push(made);
        return made;
      };
      return s("g", { class: style },
        s("text", { class: "lane", x: 0, y: base - 4 }, title),
        s("line", { class: "base", x1: left, x2: width - right, y1: base, y2: base }),
        [...counts].sort((a, b) => a[0] - b[0]).map(([bin, found]) => {
          if (few) {
            return found.map(([host, value], i) => anchor(host.address, `${host.name}: ${units.seconds(value)}`,
              s("circle", { class: "dot", cx: x(value), cy: base - 6 - i * step, r: Math.min(5, step / 1.8 + 1) })));
          }
          const seconds = found.map((pair) => pair[1]);
          const ends = [Math.min(...seconds), Math.max(...seconds)];
          const filters = { [column]: `${ends[0]}..${ends[1]}`, ...(model ? { model: `=${model}` } : {}) };
          return anchor(addressOf({ query: "", sort: column, down: true, columns: COLUMN_SETS.times, filters }),
            `${title}: ${things(found.length, "host")} from ${units.seconds(ends[0])} to ${units.seconds(ends[1])}`, [
              s("rect", { class: "reach", x: left + bin * wide, width: wide, y: base - 66, height: 66 }),
              s("rect", { class: "column", x: left + bin * wide + 0.75, width: Math.max(1, wide - 1.5), y: base - tall(found.length / most),
                height: tall(found.length / most), rx: 1.5 })]);
        }),
        middle === null ? null : [
          s("line", { class: "middle", x1: x(middle), x2: x(middle), y1: base - 74, y2: base + 5 }),
          s("text", { class: "middle-label", x: x(middle), y: base - 79, "text-anchor": x(middle) > width - 120 ? "end" : "middle" },
            each.length > 1 ? `median ${units.seconds(middle)}` : units.seconds(middle)),
        ]);
    }));
  picture.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = anchors.indexOf(document.activeElement);
    const next = anchors[at + (move ?? 0)];
    if (!move || at < 0 || !next) return;
    event.preventDefault();
    anchors[at].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  return picture;
};

/** One bar whose parts add up to `all`; each part leads to its hosts. `parts` is [[state, title, number, address]]. */
const shareBar = (title, parts, all) => {
  const present = parts.filter((part) => part[2] > 0);
  return h("div", { class: "share" },
    h("div", { class: "share-head" }, h("h2", {}, title), h("span", { class: "muted" }, things(all, "host"))),
    h("div", { class: "share-bar", "aria-hidden": "true" }, present.map(([state, , number]) =>
      h("span", { class: state, style: { "flex-grow": String(number) } }))),
    h("ul", { class: "share-legend" }, present.map(([state, words, number, address]) =>
      h("li", {}, link(address, h("span", { class: `dot-mark ${state}`, "aria-hidden": "true" }), h("strong", {}, units.count(number)), ` ${words}`)))));
};

/** A host's cold first token: the lower bound, and what each remedy takes off. */
const REMEDY_CLASSES = { bytecode: "r0", kernels: "r1", replay: "r2" };
const remedyParts = (found) => {
  const saves = data.remedies.map((name) => [REMEDY_CLASSES[name], titleIn(REMEDY_TITLES, name), found.saves[name] ?? 0]);
  const rest = found.now - found.bound - saves.reduce((sum, each) => sum + each[2], 0);
  return [["bound", "lower bound", found.bound], ...saves, ["rest", "not explained", rest]].filter((each) => each[2] > 0.005 * found.now);
};
const remedyBar = (found, longest) => {
  const parts = remedyParts(found);
  return h("div", { class: "bar", role: "img", "aria-label": parts.map(([, title, seconds]) => `${title} ${units.seconds(seconds)}`).join(", ") },
    parts.map(([style, title, seconds]) => h("span", { class: `segment ${style}`, style: { width: `${(100 * seconds) / longest}%` },
      title: `${title}: ${units.seconds(seconds)}` }, seconds / longest > labelShare() ? units.seconds(seconds) : null)));
};
const remedyLegend = (shown) => h("ul", { class: "legend flush", "aria-hidden": "true" },
  [...new Map(shown.flatMap(remedyParts).map(([style, title]) => [style, title]))]
    .map(([style, title]) => h("li", {}, h("span", { class: `swatch ${style}` }), title)));
const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  if (!sorted.length) return null;
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};
const spread = (pairs) => {
  const values = pairs.map((pair) => pair[1]);
  if (!values.length) return MISSING;
  return `${things(values.length, "host")}, median ${units.seconds(median(values))}, `
    + `from ${units.seconds(Math.min(...values))} to ${units.seconds(Math.max(...values))}`;
};
