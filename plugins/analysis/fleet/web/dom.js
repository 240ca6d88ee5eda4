// Elements from values. Text goes in as text: nothing here, and nothing elsewhere, parses markup.
const SVG = "http://www.w3.org/2000/svg";

const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const link = (address, ...children) => h("a", { href: address }, ...children);
const hostLink = (host) => h("a", { href: host.address, class: "host", title: host.name }, host.name.trim() ? host.name : "(no name)");

const ICONS = { clean: "✓", drift: "≠", unreachable: "⨯", error: "!", unknown: "–", stale: "◷", failed: "!", never: "–" };
const pill = (state, text, title) =>
  h("span", { class: `pill ${state}`, title }, h("span", { class: "icon", "aria-hidden": "true" }, ICONS[state] ?? ""), text);
const statusPill = (host) => {
  const why = host.audit?.problem ?? host.drifted.map((each) => each.detail || driftWords(each)).join("; ");
  const title = host.rolled_back_at_s ? `rolled back ${stamp(host.rolled_back_at_s)}, not looked at since` : host.tuned_at_s && !why ? `tuned ${stamp(host.tuned_at_s)}` : why;
  return pill(host.status, host.rolled_back_at_s ? "rolled back" : STATUS_TITLES[host.status], title || null);
};
const measuredPill = (host) =>
  host.measured === "measured" ? null : pill(host.measured, MEASURED_TITLES[host.measured],
      host.measured === "stale" ? `latest run ${stamp(host.latest.at)}` : host.latest?.reason);

const card = (title, note, ...children) =>
  h("section", { class: "card" }, title && h("h2", {}, title), note && h("p", { class: "note" }, note), ...children);
const plainTable = (label, header, rows, classes) =>
  h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", { class: classes ?? "plain" },
      h("thead", {}, h("tr", {}, header.map((text) =>
        h("th", { scope: "col", class: text.number ? "number" : null }, text.number ? text.title : text)))),
      h("tbody", {}, rows)));

const when = (at) => h("time", { datetime: new Date(at * 1000).toISOString(), title: stamp(at) }, ago(at));
/** A line to copy; a hosts' pattern is quoted for the shell. */
let commands = 0;
const commandLine = (text) => {
  commands += 1;
  const code = h("code", { tabindex: "0", role: "region", "aria-label": `Command ${commands}` }, text);
  const button = h("button", { type: "button", class: "copy", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    say(button.textContent);
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } }, "Copy");
  return h("div", { class: "command" }, code, button);
};
const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const PATTERN_LENGTH = 20;
/** How Ansible is told of these hosts: a pattern, or a file of names where there are many. */
const limitLine = (playbook, chosen) => {
  const names = chosen.map((host) => host.name).filter((name) => PLAIN_NAME.test(name));
  const odd = chosen.length - names.length;
  const many = names.length > PATTERN_LENGTH;
  return names.length ? h("div", { class: "limit" },
    commandLine(`ansible-playbook ${playbook} -l ${many ? "@hosts.txt" : names.join(",")}`),
    many && h("button", { type: "button", onclick: () => save("hosts.txt", "text/plain;charset=utf-8", `${names.join("\n")}\n`) }, `Save hosts.txt (${units.count(names.length)} names)`),
    odd > 0 && h("p", { class: "small muted" }, `${things(odd, "name")} cannot stand in a pattern and ${odd === 1 ? "is" : "are"} left out.`)) : null;
};

const save = (name, type, text) => {
  const address = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
};
const say = (text) => { document.getElementById("live").textContent = text; };
