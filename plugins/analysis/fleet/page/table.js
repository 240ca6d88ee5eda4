// The table of hosts: what it shows is in the address, and only the rows in sight are in the document.
const figureColumn = (id, metric, width) => ({
  id, title: METRICS[metric].title, kind: "number", width,
  value: (host) => host.latest?.value(metric) ?? null,
  text: (host) => (host.latest ? METRICS[metric].unit(host.latest.value(metric)) : ""),
  cell: (host) => (host.latest?.value(metric) == null ? h("span", { class: "nothing" }, "–") : METRICS[metric].unit(host.latest.value(metric))),
});
const factColumn = (fact, width) => ({
  id: fact, title: factTitle(fact), kind: "text", width,
  value: (host) => host.latest?.environment[fact] ?? null,
});
const COLUMNS = [
  { id: "host", title: "Host", kind: "text", width: 164, value: (host) => host.name, cell: hostLink },
  { id: "status", title: "Status", kind: "text", width: 158, value: (host) => STATUS_TITLES[host.status], cell: statusPill },
  { id: "measured", title: "Measured", kind: "text", width: 164, value: (host) => MEASURED_TITLES[host.measured],
    cell: (host) => measuredPill(host) ?? MEASURED_TITLES.measured },
  factColumn("model", 132),
  factColumn("gpu", 200),
  factColumn("disk", 148),
  factColumn("kernel", 150),
  figureColumn("cold_token", "cold_time_to_first_token_s", 112),
  figureColumn("warm_token", "warm_time_to_first_token_s", 112),
  figureColumn("cold_load", "cold_load_real_s", 105),
  figureColumn("warm_load", "warm_load_real_s", 105),
  figureColumn("disk_rate", "disk_bytes_per_s", 105),
  figureColumn("memory_held", "memory_bytes", 130),
  { id: "trend", title: "Cold history", kind: "number", width: 114,
    value: (host) => {
      const values = host.runs.map((run) => run.value("cold_time_to_first_token_s")).filter((value) => value !== null);
      return values.length > 1 ? values.at(-1) / median(values.slice(0, -1)) - 1 : null;
    },
    cell: (host) => spark(host.runs.map((run) => run.value("cold_time_to_first_token_s"))),
    text: (host) => {
      const value = COLUMN.trend.value(host);
      return value === null ? "" : `${signedPercent(value)} against the median of earlier runs`;
    } },
  { id: "last", title: "Latest run", kind: "number", width: 172, value: (host) => host.latest?.at ?? null,
    text: (host) => (host.latest ? stamp(host.latest.at) : ""), filter: (host) => (host.latest ? stamp(host.latest.at) : ""),
    cell: (host) => measuredPill(host) ?? h("span", { title: stamp(host.latest.at) }, ago(data.at_s - host.latest.at)) },
  { id: "runs", title: "Runs", kind: "number", width: 80, value: (host) => host.runs.length + host.older },
  { id: "drifted", title: "Drifted settings", kind: "number", width: 130, value: (host) => host.drifted.length },
  { id: "stands_out", title: "Findings", kind: "text", width: 160,
    value: (host) => [host.outlier ? "outlier" : null, host.changes.length ? "changed" : null].filter(Boolean).join(", ") || null },
  { id: "groups", title: "Groups", kind: "text", width: 150, value: (host) => host.groups.join(", ") || null },
  ...["dtype", "driver", "cuda", "read_ahead", "filesystem", "distribution", "cpu", "memory", "python", "torch", "transformers", "bytecode"]
    .map((fact) => factColumn(fact, 140)),
];
const COLUMN = Object.fromEntries(COLUMNS.map((column) => [column.id, column]));
const DEFAULT = ["host", "status", "model", "gpu", "disk", "cold_token", "warm_token", "trend", "last"];
const textOf = (column, host) => (column.text ? column.text(host) : String(column.value(host) ?? ""));

for (const host of hosts) {
  host.haystack = COLUMNS.filter((column) => column.kind === "text").map((column) => textOf(column, host)).join("\n").toLowerCase();
}

/** What a filter asks of a cell: words are looked for, `=word` is the whole cell, `>8`, `<=3` and `2..4` compare numbers. */
const matcher = (column, wanted) => {
  const text = wanted.trim();
  if (column.kind === "number" && !column.filter) {
    const factor = { "disk_rate": 1e9, "memory_held": 2 ** 30, "trend": 0.01 }[column.id] ?? 1;
    const range = /^(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)$/.exec(text);
    const bound = /^(<=|>=|<|>|=)?\s*(-?[\d.]+)$/.exec(text);
    if (!range && !bound) return () => false;
    const test = range
      ? (value) => value >= range[1] * factor && value <= range[2] * factor
      : { "<": (v) => v < bound[2] * factor, "<=": (v) => v <= bound[2] * factor, ">": (v) => v > bound[2] * factor,
        ">=": (v) => v >= bound[2] * factor }[bound[1]] ?? ((v) => Math.abs(v - bound[2] * factor) < 0.005 * Math.abs(v) + 1e-9);
    return (host) => { const value = column.value(host); return value !== null && test(value); };
  }
  const read = column.filter ?? ((host) => textOf(column, host));
  if (column.id === "groups" && text.startsWith("=")) return (host) => host.groups.includes(text.slice(1));
  if (text.startsWith("=")) return (host) => read(host) === text.slice(1);
  const lower = text.toLowerCase();
  return (host) => read(host).toLowerCase().includes(lower);
};

const FILTERABLE = COLUMNS.filter((column) => column.id !== "host");
const choose = (state) => {
  const tests = Object.entries(state.filters).filter(([id, text]) => COLUMN[id] && text.trim()).map(([id, text]) => matcher(COLUMN[id], text));
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = hosts.filter((host) => words.every((word) => host.haystack.includes(word)) && tests.every((test) => test(host)));
  const column = COLUMN[state.sort] ?? COLUMN.host;
  const direction = state.down ? -1 : 1;
  const keyed = found.map((host) => [column.value(host), host]);
  keyed.sort(([a, one], [b, other]) => {
    if (a === null || b === null) return (a === null) - (b === null) || one.index - other.index;
    const order = column.kind === "number" ? a - b : column.id === "host" ? one.index - other.index : collator.compare(a, b);
    return direction * order || one.index - other.index;
  });
  return keyed.map((pair) => pair[1]);
};

const readState = (parameters) => {
  const sort = parameters.get("sort") ?? "host";
  const columns = (parameters.get("columns") ?? "").split(",").filter((id) => Object.hasOwn(COLUMN, id));
  return {
    query: parameters.get("q") ?? "",
    sort: sort.replace(/^-/, ""),
    down: sort.startsWith("-"),
    columns: columns.length ? columns : DEFAULT,
    filters: Object.fromEntries([...parameters].filter(([id]) => Object.hasOwn(COLUMN, id))),
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

// A spreadsheet takes a text that begins like this for a formula; a quote in front keeps it text.
const cellOf = (value) => {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const UNIT_NAMES = { cold_token: "s", warm_token: "s", cold_load: "s", warm_load: "s", disk_rate: "bytes/s", memory_held: "bytes", last: "UTC", trend: "share" };
const exported = (column, host) => (column.id === "last" ? (host.latest ? new Date(host.latest.at * 1000).toISOString() : null) : column.value(host));
const csv = (columns, rows) =>
  [columns.map((column) => cellOf(UNIT_NAMES[column.id] ? `${column.title} (${UNIT_NAMES[column.id]})` : column.title)),
    ...rows.map((host) => columns.map((column) => cellOf(exported(column, host))))].map((row) => row.join(",")).join("\r\n") + "\r\n";
const json = (columns, rows) =>
  `${JSON.stringify(rows.map((host) => Object.fromEntries(columns.map((column) => [column.id, exported(column, host)]))), null, 1)}\n`;

/** The view; it keeps itself in step with the address without making a step in the browser's history per letter. */
const tableView = (parameters) => {
  const state = readState(parameters);
  let rows = [];
  let rowHeight = 40;
  const count = h("p", { class: "count" });
  const head = h("tr", { "aria-rowindex": 1 });
  const inputs = h("div", { class: "filters", id: "filters" });
  const body = h("tbody");
  const widths = h("colgroup");
  const table = h("table", { class: "hosts", "aria-label": "Hosts" }, widths, h("thead", {}, head), body);
  const scroller = h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Table of hosts, scrolls" }, table);
  const columns = () => state.columns.map((id) => COLUMN[id]);

  const spacer = (height) => h("tr", { class: "spacer", "aria-hidden": "true" }, h("td", { colspan: state.columns.length, style: { height: `${height}px` } }));
  let drawn = "";
  const draw = (all) => {
    const first = all ? 0 : Math.max(0, Math.floor(scroller.scrollTop / rowHeight) - 8);
    const last = all ? rows.length : Math.min(rows.length, Math.ceil((scroller.scrollTop + (scroller.clientHeight || 900)) / rowHeight) + 8);
    const key = `${first} ${last}`;
    if (key === drawn) return;
    drawn = key;
    const shown = columns();
    body.replaceChildren(
      ...(first ? [spacer(first * rowHeight)] : []),
      ...rows.slice(first, last).map((host, i) =>
        h("tr", { "aria-rowindex": first + i + 2 }, shown.map((column) => {
          const cell = column.cell ? column.cell(host) : textOf(column, host) || h("span", { class: "nothing" }, "–");
          const title = typeof cell === "string" ? cell : column.id === "trend" ? textOf(column, host) : null;
          return column.id === "host"
            ? h("th", { scope: "row" }, cell)
            : h("td", { class: column.kind === "number" && column.id !== "trend" && column.id !== "last" ? "number" : null, title }, cell,
              column.id === "trend" && h("span", { class: "unseen" }, title));
        }))),
      ...(last < rows.length ? [spacer((rows.length - last) * rowHeight)] : []));
    if (!rows.length) body.replaceChildren(h("tr", {}, h("td", { colspan: state.columns.length, class: "nothing" }, "No host matches.")));
  };
  const drawHead = () => {
    const shown = columns();
    widths.replaceChildren(...shown.map((column) => h("col", { style: { width: `${column.width}px` } })));
    table.style.setProperty("min-width", `${shown.reduce((sum, column) => sum + column.width, 0)}px`);
    head.replaceChildren(...shown.map((column) => {
      const sorted = column.id === state.sort;
      return h("th", { scope: "col", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : null,
        class: column.kind === "number" && column.id !== "trend" && column.id !== "last" ? "number" : null },
        h("button", { type: "button", onclick: () => {
          state.down = sorted ? !state.down : false;
          state.sort = column.id;
          update(true);
          head.querySelectorAll("button")[shown.indexOf(column)].focus();
        } }, column.title, h("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (state.down ? "↓" : "↑") : "")));
    }));
  };
  const update = (heads) => {
    rows = choose(state);
    drawn = "";
    if (heads) drawHead();
    table.setAttribute("aria-rowcount", rows.length + 1);
    const words = rows.length === hosts.length ? things(hosts.length, "host") : `${units.count(rows.length)} of ${things(hosts.length, "host")}`;
    count.textContent = words;
    say(words);
    scroller.scrollTop = 0;
    draw();
    const filtered = Object.values(state.filters).filter((text) => text.trim()).length;
    clear.hidden = !filtered && !state.query;
    filterButton.replaceChildren("Filters", filtered ? h("span", { class: "badge" }, String(filtered)) : "");
    globalThis.history.replaceState(null, "", addressOf(state));
  };

  const filterOf = (column) => {
    const id = `filter-${column.id}`;
    const values = column.id === "groups" ? [...new Set(hosts.flatMap((host) => host.groups))]
      : column.kind === "text" ? [...new Set(hosts.map((host) => textOf(column, host)).filter(Boolean))] : [];
    values.sort(collator.compare);
    const change = (event) => { state.filters[column.id] = event.target.value; update(false); };
    const current = state.filters[column.id] ?? "";
    const control = values.length && values.length <= 40 && (!current || (current.startsWith("=") && values.includes(current.slice(1))))
      ? h("select", { id, onchange: change }, h("option", { value: "" }, "any"),
        values.map((value) => h("option", { value: `=${value}`, selected: current === `=${value}` }, value.length > 60 ? `${value.slice(0, 57)}...` : value)))
      : h("input", { id, value: current, oninput: change, autocomplete: "off", spellcheck: "false",
        placeholder: column.kind === "number" && !column.filter ? `> 8, 2..4 ${{ disk_rate: "GB/s", memory_held: "GiB", trend: "%" }[column.id] ?? ""}` : "contains" });
    return h("div", { class: "field" }, h("label", { for: id }, column.title), control);
  };
  const drawFilters = () => inputs.replaceChildren(...FILTERABLE.map(filterOf));
  const open = (button, panel, fillPanel) => {
    panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) fillPanel();
  };
  inputs.hidden = true;
  const filterButton = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "filters",
    onclick: () => open(filterButton, inputs, drawFilters) }, "Filters");
  const chooser = h("div", { class: "chooser", id: "chooser", hidden: true });
  const columnButton = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "chooser",
    onclick: () => open(columnButton, chooser, () => chooser.replaceChildren(...COLUMNS.map((column) =>
      h("label", {}, h("input", { type: "checkbox", checked: state.columns.includes(column.id), disabled: column.id === "host",
        onchange: (event) => {
          const wanted = new Set(state.columns);
          if (event.target.checked) wanted.add(column.id); else wanted.delete(column.id);
          state.columns = COLUMNS.map((each) => each.id).filter((id) => wanted.has(id));
          update(true);
        } }), column.title)))) }, "Columns");
  const search = h("input", { type: "search", id: "search", value: state.query, placeholder: "Search hosts, models, GPUs, kernels", autocomplete: "off",
    spellcheck: "false", "aria-label": "Search hosts", oninput: () => { state.query = search.value; update(false); } });
  const clear = h("button", { type: "button", class: "quiet", onclick: () => {
    state.filters = {};
    state.query = search.value = "";
    drawFilters();
    update(false);
    search.focus();
  } }, "Clear");

  scroller.addEventListener("scroll", () => draw(), { passive: true });
  const settle = () => {
    const row = body.querySelector("tr:not(.spacer)");
    if (row && row.offsetHeight) rowHeight = row.getBoundingClientRect().height;
    drawn = "";
    draw();
  };
  const element = h("div", { class: "view table-view" },
    h("div", { class: "title-row" }, h("h1", { tabindex: "-1" }, "Hosts"), count),
    h("p", { class: "note" }, "Each row shows the latest run of a host."),
    h("div", { class: "toolbar" }, search, filterButton, columnButton, clear,
      h("span", { class: "saves" },
        h("button", { type: "button", onclick: () => save("fleet.csv", "text/csv;charset=utf-8", csv(columns(), rows)) }, "Save CSV"),
        h("button", { type: "button", onclick: () => save("fleet.json", "application/json", json(columns(), rows)) }, "Save JSON"))),
    inputs, chooser, scroller);
  update(true);
  return { title: "Hosts", element, shown: settle, resized: settle, beforeprint: () => draw(true), afterprint: settle,
    search: () => search.focus(), state, update, rows: () => rows };
};
