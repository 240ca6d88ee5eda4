// The columns of the table of hosts: what each shows, how it is filtered, and what of it is saved.
const factColumn = (fact, width) => ({ id: fact, title: factTitle(fact), kind: "text", width, group: "Measured on", value: (host) => host.latest?.environment[fact] ?? null });
const figureColumn = (id, metric, width) => ({
  id, title: METRICS[metric].title, kind: "number", width, metric, group: "Times",
  scales: isTime(metric) ? TIME_SCALES : metric === "disk_bytes_per_s" ? RATE_SCALES : SIZE_SCALES,
  value: (host) => host.latest?.value(metric) ?? null,
  text: (host) => (host.latest ? METRICS[metric].unit(host.latest.value(metric)) : ""),
});
const numberColumn = (id, title, width, group, scales, value, unit) => ({
  id, title, kind: "number", width, group, scales, value, text: (host) => { const found = value(host); return found === null ? "" : unit(found); },
});
// The first unit of each is meant where a filter names none.
const TIME_SCALES = { s: 1, ms: 0.001, min: 60 };
const RATE_SCALES = { "gb/s": 1e9, "mb/s": 1e6, gb: 1e9, mb: 1e6 };
const SIZE_SCALES = { gib: 2 ** 30, mib: 2 ** 20, tib: 2 ** 40, gb: 1e9 };
const SHARE_SCALES = { "%": 0.01 };
const AGE_SCALES = { d: 86400, h: 3600, min: 60, day: 86400, days: 86400 };
const COUNT_SCALES = { "": 1 };
const ageColumn = (id, title, width, group, at, cell) => ({
  id, title, kind: "number", width, group, scales: AGE_SCALES, date: true,
  value: at, sized: (host) => { const found = at(host); return found === null ? null : now() - found; },
  text: (host) => { const found = at(host); return found === null ? "" : stamp(found); }, cell,
});
const eventWords = (host) => (host.tuned_at_s ? "tuned" : host.rolled_back_at_s ? "rolled back" : "");
const audited = (host) => host.audit?.at_s ?? null;

const COLUMNS = [
  { id: "host", title: "Host", kind: "text", width: 140, group: "State", value: (host) => host.name, cell: hostLink },
  { id: "status", title: "Status", kind: "text", width: 146, group: "State", value: (host) => (host.rolled_back_at_s ? "rolled back" : STATUS_TITLES[host.status]), cell: statusPill },
  { id: "drift", title: "Drift", kind: "text", width: 232, group: "State", value: (host) => host.drift || null,
    cell: (host) => (host.drift ? h("span", { class: "drift-words", title: host.drift }, host.drift) : null) },
  { id: "measured", title: "Measured", kind: "text", width: 130, group: "State", value: (host) => MEASURED_TITLES[host.measured], cell: (host) => measuredPill(host) ?? MEASURED_TITLES.measured },
  factColumn("model", 116),
  factColumn("gpu", 190),
  figureColumn("cold_token", "cold_time_to_first_token_s", 92),
  figureColumn("warm_token", "warm_time_to_first_token_s", 100),
  figureColumn("cold_load", "cold_load_real_s", 105),
  figureColumn("warm_load", "warm_load_real_s", 105),
  figureColumn("cold_steady", "cold_steady_token_s", 116),
  figureColumn("warm_steady", "warm_steady_token_s", 124),
  numberColumn("saving", "Could save", 84, "First token", TIME_SCALES, (host) => host.firstToken?.saving ?? null, units.seconds),
  numberColumn("bound", "Lower bound", 104, "First token", TIME_SCALES, (host) => host.firstToken?.bound ?? null, units.seconds),
  ...data.remedies.map((name) => numberColumn(`save_${name}`, `Saved by ${titleIn(REMEDY_TITLES, name)}`, 118, "First token", TIME_SCALES,
    (host) => host.firstToken?.saves?.[name] ?? null, units.seconds)),
  { id: "limit", title: "Limited by", kind: "text", width: 130, group: "First token", value: (host) => host.firstToken?.limit ?? null },
  numberColumn("idle_pools", "Idle pools", 90, "State", SIZE_SCALES, (host) => host.latest?.idle ?? null, units.size),
  { id: "trend", title: "Cold history", kind: "number", width: 106, scales: SHARE_SCALES, group: "Times",
    value: (host) => {
      const values = host.runs.map((run) => run.value("cold_time_to_first_token_s")).filter((value) => value !== null);
      return values.length > 1 ? values.at(-1) / median(values.slice(0, -1)) - 1 : null;
    },
    cell: (host) => spark(host.runs.map((run) => run.value("cold_time_to_first_token_s"))),
    text: (host) => {
      const value = COLUMN.trend.value(host);
      return value === null ? "" : `${signedPercent(value)} against the median of earlier runs`;
    } },
  { id: "stands_out", title: "Findings", kind: "text", width: 150, group: "State",
    value: (host) => [host.outlier ? "outlier" : null, host.changes.length ? "changed" : null].filter(Boolean).join(", ") || null },
  { id: "cause", title: "Likely cause", kind: "text", width: 170, group: "State", value: (host) => (host.cause ? causeWords(host.cause) : null) },
  figureColumn("disk_rate", "disk_bytes_per_s", 104),
  figureColumn("memory_held", "memory_bytes", 130),
  numberColumn("noise", "Noisy samples", 110, "Times", SHARE_SCALES, (host) => (host.latest?.valid && host.latest.noisy !== null ? host.latest.noisy / host.latest.valid : null), units.percent),
  ageColumn("last", "Latest run", 152, "State", (host) => host.latest?.at ?? null, (host) => (host.latest ? measuredPill(host) ?? when(host.latest.at) : pill("never", MEASURED_TITLES.never))),
  ageColumn("event", "Tuned or rolled back", 168, "State", (host) => host.tuned_at_s ?? host.rolled_back_at_s,
    (host) => (eventWords(host) ? [eventWords(host), " ", when(host.tuned_at_s ?? host.rolled_back_at_s)] : null)),
  ageColumn("audited", "Audited", 130, "State", audited, (host) => (audited(host) === null ? null : when(audited(host)))),
  numberColumn("runs", "Runs", 80, "State", COUNT_SCALES, (host) => host.runs.length + host.older, units.count),
  numberColumn("drifted", "Drifted settings", 130, "State", COUNT_SCALES, (host) => host.drifted.length, units.count),
  { id: "groups", title: "Groups", kind: "text", width: 150, group: "State", value: (host) => host.groups.join(", ") || null },
  factColumn("disk", 148),
  factColumn("kernel", 150),
  ...["dtype", "driver", "cuda", "read_ahead", "filesystem", "distribution", "cpu", "memory", "python", "torch", "transformers", "bytecode", "init"]
    .map((fact) => factColumn(fact, 140)),
];
const COLUMN = Object.fromEntries(COLUMNS.map((column) => [column.id, column]));
const columnOf = (id) => (Object.hasOwn(COLUMN, id) ? COLUMN[id] : null);
const COLUMN_SETS = {
  overview: ["host", "status", "drift", "model", "cold_token", "warm_token", "saving", "idle_pools", "trend", "last"],
  state: ["host", "status", "drift", "drifted", "idle_pools", "audited", "event", "last", "groups"],
  times: ["host", "model", "gpu", "cold_token", "warm_token", "cold_load", "warm_load", "warm_steady", "noise", "trend", "stands_out", "cause"],
  first_token: ["host", "model", "cold_token", "bound", "saving", ...data.remedies.map((name) => `save_${name}`), "limit", "bytecode"],
  hardware: ["host", "gpu", "cpu", "memory", "disk", "disk_rate", "read_ahead", "filesystem", "driver"],
  software: ["host", "distribution", "kernel", "python", "torch", "transformers", "cuda", "bytecode", "init"],
  short: ["host", "drift", "status", "cold_token"],
};
const SET_TITLES = { overview: "Overview", state: "State", times: "Times", first_token: "First token", hardware: "Hardware", software: "Software", short: "Short" };
const DEFAULT = COLUMN_SETS[innerWidth < 640 ? "short" : "overview"];
const textOf = (column, host) => (column.text ? column.text(host) : String(column.value(host) ?? ""));

for (const host of hosts) {
  host.haystack = [...COLUMNS.filter((column) => column.kind === "text").map((column) => textOf(column, host)),
    ...host.drifted.map((row) => `${row.knob} ${row.detail ?? ""}`), ...host.competitors, ...host.possible].join("\n").toLowerCase();
}

const NUMBER = String.raw`(-?\d+(?:\.\d+)?)\s*([a-z%/]*)`;
const BOUND = new RegExp(`^(<=|>=|<|>|=)?\\s*${NUMBER}$`);
const RANGE = new RegExp(`^${NUMBER}\\s*\\.\\.\\s*${NUMBER}$`);
const unitWords = (scales) => Object.keys(scales).filter(Boolean);
/** What a filter asks of a cell: {test}, or {problem} where it is not understood. Words are looked for, `=word` is the whole
 * cell, `>8`, `<= 3 s`, `2..4` compare numbers, `none` and `any` ask whether there is a value. */
const matcher = (column, wanted) => {
  const text = wanted.trim();
  const lower = text.toLowerCase();
  if (lower === "none" || lower === "any") return { test: (host) => (column.value(host) === null) === (lower === "none") };
  if (column.kind === "number") {
    const scale = (unit) => (unit === "" ? Object.values(column.scales)[0] : Object.hasOwn(column.scales, unit) ? column.scales[unit] : undefined);
    const read = column.sized ?? column.value;
    const range = RANGE.exec(lower);
    const bound = BOUND.exec(lower);
    // A date is looked for as text.
    if (column.date && /^=?\d{4}-/.test(text)) return { test: (host) => textOf(column, host).startsWith(text.replace(/^=/, "")) };
    const known = unitWords(column.scales);
    const told = known.length ? `; units: ${known.join(", ")}` : "";
    if (!range && !bound) return { problem: `“${text}” is no number or range: write > 8, <= 3, 2..4, none or any${column.date ? ", or a date like 2026-03" : ""}${told}` };
    const named = range ? [range[2], range[4]] : [bound[3]];
    const wrong = named.find((unit) => scale(unit) === undefined);
    if (wrong !== undefined) return { problem: known.length ? `“${wrong}” is no unit of this column${told}` : `“${wrong}” is not wanted: this column has no unit` };
    const compare = range
      ? ((low, high) => (value) => value >= low && value <= high)(range[1] * scale(range[2] || range[4]), range[3] * scale(range[4]))
      : ((end) => ({ "<": (v) => v < end, "<=": (v) => v <= end, ">": (v) => v > end, ">=": (v) => v >= end })[bound[1]]
        ?? ((v) => Math.abs(v - end) < 0.005 * Math.abs(v) + 1e-9))(bound[2] * scale(bound[3]));
    return { test: (host) => { const value = read(host); return value !== null && compare(value); } };
  }
  if (column.id === "groups" && text.startsWith("=")) return { test: (host) => host.groups.includes(text.slice(1)) };
  if (text.startsWith("=")) return { test: (host) => textOf(column, host) === text.slice(1) };
  return { test: (host) => textOf(column, host).toLowerCase().includes(lower) };
};

const choose = (state) => {
  const tests = Object.entries(state.filters).filter(([id, text]) => columnOf(id) && text.trim())
    .map(([id, text]) => matcher(COLUMN[id], text).test).filter(Boolean);
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = hosts.filter((host) => words.every((word) => host.haystack.includes(word)) && tests.every((test) => test(host)));
  const column = columnOf(state.sort) ?? COLUMN.host;
  const direction = state.down ? -1 : 1;
  const keyed = found.map((host) => [column.value(host), host]);
  keyed.sort(([a, one], [b, other]) => {
    if (a === null || b === null) return (a === null) - (b === null) || one.index - other.index;
    const order = column.kind === "number" ? a - b : column.id === "host" ? one.index - other.index : collator.compare(a, b);
    return direction * order || one.index - other.index;
  });
  return keyed.map((pair) => pair[1]);
};

const RESERVED = new Set(["q", "sort", "columns"]);
const readState = (parameters) => {
  const sort = parameters.get("sort") ?? "host";
  const columns = (parameters.get("columns") ?? "").split(",").filter(columnOf);
  return {
    query: parameters.get("q") ?? "",
    sort: sort.replace(/^-/, ""),
    down: sort.startsWith("-"),
    columns: columns.length ? [...new Set(["host", ...columns])] : DEFAULT,
    filters: Object.fromEntries([...parameters].filter(([id]) => !RESERVED.has(id))),
  };
};
const addressOf = (state) => {
  const parameters = new URLSearchParams();
  if (state.query) parameters.set("q", state.query);
  if (state.sort !== "host" || state.down) parameters.set("sort", (state.down ? "-" : "") + state.sort);
  if (state.columns.join() !== DEFAULT.join()) parameters.set("columns", state.columns.join());
  for (const [id, text] of Object.entries(state.filters)) if (text.trim()) parameters.set(id, text);
  const text = parameters.toString();
  return text ? `#/hosts?${text}` : "#/hosts";
};
const only = (filters, set = "overview", sort = "host", down = false) =>
  addressOf({ query: "", sort, down, columns: set === "overview" ? DEFAULT : COLUMN_SETS[set], filters });

// A spreadsheet takes a text that begins like this, after blanks or not, for a formula; a quote in front keeps it text.
const FORMULA = /^[\s\u00a0]*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]/;
const cellOf = (value) => {
  const text = typeof value === "string" && FORMULA.test(value) ? `'${value}` : String(value ?? "");
  // Semicolons and tabs separate cells where a spreadsheet's language says so.
  return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const UNIT_NAMES = { disk_rate: "bytes/s", memory_held: "bytes", idle_pools: "bytes", trend: "share", noise: "share" };
const instant = (seconds) => (seconds === null || seconds === undefined ? null : new Date(seconds * 1000).toISOString());
/** What is saved of a column: [[key, heading, value of a host]]; a time has its interval and n beside it. */
const savedOf = (column) => {
  if (column.date) return [[column.id, `${column.title} (UTC)`, (host) => instant(column.value(host))]];
  if (column.metric && isTime(column.metric)) {
    const figure = (host) => host.latest?.figure(column.metric);
    return [[column.id, `${column.title} (s)`, column.value],
      ...["low", "high"].map((end) => [`${column.id}_${end}`, `${column.title} ${end} (s)`, (host) => figure(host)?.[end] ?? null]),
      [`${column.id}_n`, `${column.title} n`, (host) => figure(host)?.n ?? null]];
  }
  const unit = UNIT_NAMES[column.id] ?? (column.scales === TIME_SCALES ? "s" : null);
  return [[column.id, unit ? `${column.title} (${unit})` : column.title, column.value]];
};
/** What is shown, and always the state, what drifted, and when anybody looked, tuned or rolled back. */
const savedColumns = (columns) =>
  [...new Set([...columns, COLUMN.status, COLUMN.drift, COLUMN.last, COLUMN.audited, COLUMN.event])].flatMap(savedOf);
const csv = (columns, rows) => {
  const saved = savedColumns(columns);
  return [saved.map(([, heading]) => cellOf(heading)), ...rows.map((host) => saved.map(([, , value]) => cellOf(value(host))))]
    .map((row) => row.join(",")).join("\r\n") + "\r\n";
};
const json = (columns, rows) => {
  const saved = savedColumns(columns);
  return `${JSON.stringify(rows.map((host) => Object.fromEntries(saved.map(([key, , value]) => [key, value(host)]))), null, 1)}\n`;
};
