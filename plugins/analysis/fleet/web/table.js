// The table of hosts: what it shows is in the address, and only the rows in sight are in the document.
/** Up to two hosts chosen for a comparison; they stay while the page is open. */
const picked = new Set();

/** The view; it keeps itself in step with the address without making a step in the browser's history per letter. */
const tableView = (parameters) => {
  const state = readState(parameters);
  let rows = [];
  let rowHeight = 40;
  let active = 0;
  const count = h("p", { class: "count" });
  const head = h("tr", { "aria-rowindex": 1 });
  const inputs = h("div", { class: "filters", id: "filters", hidden: true });
  const chips = h("ul", { class: "chips", "aria-label": "Filters set" });
  const body = h("tbody");
  const widths = h("colgroup");
  const table = h("table", { class: "hosts", "aria-label": "Hosts" }, widths, h("thead", {}, head), body);
  const scroller = h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Table of hosts, scrolls" }, table);
  const columns = () => state.columns.map((id) => COLUMN[id]);
  const narrow = innerWidth < 640;
  const isNumber = (column) => column.kind === "number" && column.id !== "trend" && !column.date;

  const spacer = () => h("tr", { class: "spacer", "aria-hidden": "true" }, h("td", {}));
  const [above, below] = [spacer(), spacer()];
  const stretch = (row, height) => {
    row.hidden = !height;
    row.firstChild.style.setProperty("height", `${height}px`);
    row.firstChild.setAttribute("colspan", state.columns.length + 1);
  };
  let made = new Map();
  const pickBox = (host) => h("input", { type: "checkbox", tabindex: "-1", checked: picked.has(host), "aria-label": `Choose ${host.name} to compare`,
    onchange: (event) => { pick(host, event.target.checked); } });
  const rowOf = (host, index) => {
    if (!made.has(host)) {
      made.set(host, h("tr", {}, h("td", { class: "pick" }, host.latest && pickBox(host)), columns().map((column) => {
        const cell = (column.cell ? column.cell(host) : textOf(column, host)) || h("span", { class: "nothing" }, "–");
        const title = typeof cell === "string" ? cell : column.id === "trend" ? textOf(column, host) : null;
        return column.id === "host"
          ? h("th", { scope: "row" }, cell)
          : h("td", { class: isNumber(column) ? "number" : null, title }, cell, column.id === "trend" && h("span", { class: "unseen" }, title));
      })));
    }
    const row = made.get(host);
    row.setAttribute("aria-rowindex", index + 2);
    return row;
  };
  /** Rows that stay are not touched, so that the one with the focus keeps it. */
  const settleRows = (wanted, top) => {
    const keep = new Set(wanted);
    const focused = document.activeElement;
    for (const row of [...body.children]) if (!keep.has(row)) row.remove();
    wanted.forEach((row, i) => { if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null); });
    // Between the two the table was shorter, and may have been scrolled back for it.
    if (scroller.scrollTop !== top) scroller.scrollTop = top;
    if (focused && focused !== document.activeElement && table.isConnected && document.activeElement === document.body) {
      (focused.isConnected ? focused : scroller).focus({ preventScroll: true });
    }
  };
  const empty = h("tr", {}, h("td", { class: "nothing" }, "No host matches. Take a filter away, or clear the search."));
  let drawn = "";
  const draw = (all) => {
    const top = scroller.scrollTop;
    const first = all ? 0 : Math.max(0, Math.floor(top / rowHeight) - 10);
    const last = all ? rows.length : Math.min(rows.length, Math.ceil((top + (scroller.clientHeight || 900)) / rowHeight) + 10);
    const key = `${first} ${last}`;
    if (key === drawn) return;
    drawn = key;
    stretch(above, first * rowHeight);
    stretch(below, (rows.length - last) * rowHeight);
    empty.firstChild.setAttribute("colspan", state.columns.length + 1);
    settleRows(rows.length ? [above, ...rows.slice(first, last).map((host, i) => rowOf(host, first + i)), below].filter((row) => !row.hidden) : [empty], top);
  };
  const drawHead = () => {
    const shown = columns();
    made = new Map();
    // A narrow screen has no boxes to choose by, and room for what drifted.
    const sizes = [...(narrow ? [] : [34]), ...shown.map((column) => Math.round(column.width * (narrow ? 0.72 : 1)))];
    widths.replaceChildren(...sizes.map((size) => h("col", { style: { width: `${size}px` } })));
    table.style.setProperty("min-width", `${sizes.reduce((sum, size) => sum + size, 0)}px`);
    head.replaceChildren(h("th", { scope: "col", class: "pick" }, h("span", { class: "unseen" }, "Compare")), ...shown.map((column) => {
      const sorted = column.id === state.sort;
      return h("th", { scope: "col", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : null, class: isNumber(column) ? "number" : null },
        h("button", { type: "button", "data-column": column.id, onclick: () => {
          state.down = sorted ? !state.down : false;
          state.sort = column.id;
          update(true);
          head.querySelector(`[data-column="${column.id}"]`).focus();
        } }, column.title, h("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (state.down ? "↓" : "↑") : "")),
        // Chromium leaves buttons of a repeated head blank from the second sheet on.
        h("span", { class: "printed", "aria-hidden": "true" }, column.title));
    }));
  };
  const chip = (id, text) => {
    const column = columnOf(id);
    const problem = column ? matcher(column, text).problem : `there is no column “${id}”`;
    const title = column?.title ?? id;
    return h("li", { class: problem ? "chip wrong" : "chip" },
      h("span", {}, `${title}: ${text.replace(/^=/, "")}`, problem && h("span", { class: "why" }, ` not used: ${problem}`)),
      h("button", { type: "button", "aria-label": `Take away the filter ${title}`, onclick: () => {
        delete state.filters[id];
        if (!inputs.hidden) drawFilters();
        update(false);
        search.focus();
      } }, "×"));
  };
  const update = (heads) => {
    rows = choose(state);
    drawn = "";
    active = 0;
    if (heads) drawHead();
    table.setAttribute("aria-rowcount", rows.length + 1);
    const set = Object.entries(state.filters).filter(([, text]) => text.trim());
    chips.replaceChildren(...set.map(([id, text]) => chip(id, text)));
    chips.hidden = !set.length;
    const words = rows.length === hosts.length ? things(hosts.length, "host") : `${units.count(rows.length)} of ${things(hosts.length, "host")}`;
    count.textContent = words;
    const wrong = chips.querySelectorAll(".wrong .why");
    say([words, ...[...wrong].map((each) => each.textContent)].join(". "));
    scroller.scrollTop = 0;
    draw();
    clear.hidden = !set.length && !state.query;
    filterButton.replaceChildren("Filters", set.length ? h("span", { class: "badge" }, String(set.length)) : "");
    setSelect.value = Object.keys(COLUMN_SETS).find((name) => COLUMN_SETS[name].join() === state.columns.join()) ?? "custom";
    drawPicked();
    globalThis.history.replaceState(globalThis.history.state, "", addressOf(state));
  };

  const bar = h("p", { class: "picked", role: "status" });
  const drawPicked = () => {
    const chosen = [...picked];
    bar.replaceChildren(...(chosen.length ? [h("span", {}, chosen.map((host) => host.name).join(" and "), chosen.length === 1 ? ": choose one more to compare" : ""),
      chosen.length === 2 ? link(compareAddress(chosen[0].latest, chosen[1].latest), "Compare these two") : null,
      h("button", { type: "button", class: "quiet", onclick: () => { picked.clear(); refreshBoxes(); search.focus(); } }, "Choose none")].filter(Boolean) : []));
    bar.hidden = !chosen.length;
  };
  const refreshBoxes = () => {
    for (const [host, row] of made) { const box = row.querySelector(".pick input"); if (box) box.checked = picked.has(host); }
    drawPicked();
  };
  const pick = (host, on) => {
    if (!on) picked.delete(host);
    else {
      // A third one takes the place of the older of the two.
      if (picked.size === 2) picked.delete([...picked][0]);
      picked.add(host);
    }
    refreshBoxes();
  };

  const filterOf = (column) => {
    const id = `filter-${column.id}`;
    const values = column.id === "groups" ? [...new Set(hosts.flatMap((host) => host.groups))]
      : column.kind === "text" ? [...new Set(hosts.map((host) => textOf(column, host)).filter(Boolean))] : [];
    values.sort(collator.compare);
    const change = (event) => { state.filters[column.id] = event.target.value; update(false); };
    const current = state.filters[column.id] ?? "";
    const control = values.length && values.length <= 40 && column.id !== "drift" && (!current || (current.startsWith("=") && values.includes(current.slice(1))))
      ? h("select", { id, onchange: change }, h("option", { value: "" }, "any"),
        values.map((value) => h("option", { value: `=${value}`, selected: current === `=${value}` }, value.length > 60 ? `${value.slice(0, 57)}...` : value)))
      : h("input", { id, value: current, oninput: change, autocomplete: "off", spellcheck: "false",
        placeholder: column.kind === "number" ? `> 8, 2..4 ${unitWords(column.scales)[0] ?? ""}` : "contains" });
    return h("div", { class: "field" }, h("label", { for: id }, column.title), control);
  };
  const drawFilters = () => {
    const groups = Map.groupBy ? Map.groupBy(COLUMNS.filter((column) => column.id !== "host"), (column) => column.group)
      : COLUMNS.filter((column) => column.id !== "host").reduce((all, column) => all.set(column.group, [...(all.get(column.group) ?? []), column]), new Map());
    inputs.replaceChildren(...[...groups].map(([group, members]) =>
      h("details", { open: !narrow || members.some((column) => state.filters[column.id]) }, h("summary", {}, group), h("div", { class: "fields" }, members.map(filterOf)))));
  };
  const open = (button, panel, fillPanel) => {
    panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) fillPanel();
  };
  const filterButton = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "filters",
    onclick: () => open(filterButton, inputs, drawFilters) }, "Filters");
  const chooser = h("div", { class: "chooser", id: "chooser", hidden: true });
  const drawChooser = () => chooser.replaceChildren(...COLUMNS.map((column) =>
    h("label", {}, h("input", { type: "checkbox", checked: state.columns.includes(column.id), disabled: column.id === "host",
      onchange: (event) => {
        const wanted = new Set(state.columns);
        if (event.target.checked) wanted.add(column.id); else wanted.delete(column.id);
        state.columns = COLUMNS.map((each) => each.id).filter((id) => wanted.has(id));
        update(true);
      } }), column.title)));
  const columnButton = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "chooser", onclick: () => open(columnButton, chooser, drawChooser) }, "Columns");
  const setSelect = h("select", { "aria-label": "Set of columns", onchange: () => {
    if (setSelect.value === "custom") { if (chooser.hidden) columnButton.click(); return; }
    state.columns = COLUMN_SETS[setSelect.value];
    if (!chooser.hidden) drawChooser();
    update(true);
  } }, Object.keys(COLUMN_SETS).map((name) => h("option", { value: name }, SET_TITLES[name])), h("option", { value: "custom" }, "My own"));
  const search = h("input", { type: "search", id: "search", value: state.query, placeholder: "Search hosts, drift, models, kernels", autocomplete: "off",
    spellcheck: "false", "aria-label": "Search hosts", oninput: () => { state.query = search.value; update(false); },
    onkeydown: (event) => {
      if (event.key === "Enter" && rows.length === 1) location.hash = rows[0].address;
      else if ((event.key === "Enter" || event.key === "ArrowDown") && rows.length) { event.preventDefault(); move(0); }
    } });
  const clear = h("button", { type: "button", class: "quiet", onclick: () => {
    state.filters = {};
    state.query = search.value = "";
    drawFilters();
    update(false);
    search.focus();
  } }, "Clear");

  /** Put a row under the keys: in sight, with the focus on its link. */
  const move = (to) => {
    if (!rows.length) return;
    active = Math.max(0, Math.min(rows.length - 1, to));
    const top = active * rowHeight;
    const room = scroller.clientHeight - head.offsetHeight;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + rowHeight > scroller.scrollTop + room) scroller.scrollTop = top + rowHeight - room;
    draw();
    made.get(rows[active])?.querySelector("a.host")?.focus({ preventScroll: true });
  };
  const page = () => Math.max(1, Math.floor((scroller.clientHeight - head.offsetHeight) / rowHeight) - 1);
  const MOVES = { j: () => 1, ArrowDown: () => 1, k: () => -1, ArrowUp: () => -1, PageDown: page, PageUp: () => -page(), Home: () => -Infinity, End: () => Infinity };
  /** Keys of the table; true where one was taken. */
  const keys = (event) => {
    const inside = table.contains(document.activeElement);
    const letter = event.key === "j" || event.key === "k";
    if (Object.hasOwn(MOVES, event.key) && (inside || letter || document.activeElement === scroller)) {
      const first = !body.contains(document.activeElement);
      move(first && event.key !== "End" && event.key !== "Home" ? active : active + MOVES[event.key]());
      return true;
    }
    if (event.key === "x" && body.contains(document.activeElement) && rows[active]?.latest) {
      pick(rows[active], !picked.has(rows[active]));
      return true;
    }
    return false;
  };
  body.addEventListener("focusin", (event) => {
    const row = event.target.closest("tr");
    const index = Number(row?.getAttribute("aria-rowindex")) - 2;
    if (index >= 0) active = index;
  });

  scroller.addEventListener("scroll", () => draw(), { passive: true });
  const settle = () => {
    const row = body.querySelector("tr:not(.spacer)");
    if (row && row.offsetHeight) rowHeight = row.getBoundingClientRect().height;
    drawn = "";
    draw();
  };
  const element = h("div", { class: "view table-view wide" },
    h("div", { class: "title-row" }, h("h1", { tabindex: "-1" }, "Hosts"), count),
    h("p", { class: "note keys" }, "Each row shows a host's latest run, and its settings as last seen. Keys: ", h("kbd", {}, "/"), " search, ", h("kbd", {}, "j"), " ", h("kbd", {}, "k"),
      " next and previous, ", h("kbd", {}, "Enter"), " opens, ", h("kbd", {}, "x"), " chooses for a comparison."),
    h("div", { class: "toolbar" }, search, filterButton, setSelect, columnButton, clear,
      h("span", { class: "saves" },
        h("button", { type: "button", onclick: () => save("fleet.csv", "text/csv;charset=utf-8", csv(columns(), rows)) }, "Save CSV"),
        h("button", { type: "button", onclick: () => save("fleet.json", "application/json", json(columns(), rows)) }, "Save JSON"))),
    inputs, chooser, chips, bar, scroller);
  update(true);
  return { title: "Hosts", element, shown: settle, resized: settle, beforeprint: () => draw(true), afterprint: settle, keys,
    search: () => search.focus(),
    place: () => ({ top: scroller.scrollTop, host: rows[active]?.name ?? null, focused: body.contains(document.activeElement) }),
    restore: (place) => {
      const index = rows.findIndex((host) => host.name === place.host);
      scroller.scrollTop = place.top;
      draw();
      if (index >= 0 && place.focused) move(index);
    } };
};
