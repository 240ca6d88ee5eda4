// The JSON block as objects: hosts with runs, each run with its environment, settings and figures by name.
const data = JSON.parse(document.getElementById("fleet").textContent);

const METRICS = {
  cold_time_to_first_token_s: { title: "Cold first token", unit: units.seconds, slower: 1 },
  warm_time_to_first_token_s: { title: "Warm first token", unit: units.seconds, slower: 1 },
  cold_load_real_s: { title: "Cold load", unit: units.seconds, slower: 1 },
  warm_load_real_s: { title: "Warm load", unit: units.seconds, slower: 1 },
  cold_steady_token_s: { title: "Cold steady token", unit: units.seconds, slower: 1 },
  warm_steady_token_s: { title: "Warm steady token", unit: units.seconds, slower: 1 },
  disk_bytes_per_s: { title: "Disk rate", unit: units.rate, slower: -1 },
  memory_bytes: { title: "Memory held (RSS)", unit: units.size, slower: 0 },
};
const TIMES = [...data.times, ...data.tokens];
const isTime = (metric) => TIMES.includes(metric);
/** What is shown of these runs: older ones have no steady token. */
const metricsOf = (...runs) => Object.keys(METRICS).filter((metric) => !data.tokens.includes(metric) || runs.some((run) => run.figure(metric)));
const FACT_TITLES = {
  model: "Model", dtype: "Loaded as", gpu: "GPU", driver: "GPU driver", cuda: "CUDA", disk: "Disk",
  read_ahead: "Read-ahead", filesystem: "File system", kernel: "Kernel", distribution: "Distribution", cpu: "CPU",
  memory: "Memory", python: "Python", torch: "torch", transformers: "transformers", bytecode: "Bytecode", cold_scope: "Cold scope",
  init: "Init",
};
const TASK = ["model", "dtype", "gpu", "cold_scope"];
const STATUS_TITLES = {
  clean: "clean", drift: "drifted", unreachable: "unreachable", error: "error", unknown: "not compared",
};
const MEASURED_TITLES = { measured: "measured", stale: "stale", failed: "failed", never: "never measured" };
const REMEDY_TITLES = { bytecode: "bytecode", kernels: "kernels", replay: "replay" };
const titleIn = (titles, name) => (Object.hasOwn(titles, name) ? titles[name] : name);
const factTitle = (name) => titleIn(FACT_TITLES, name);

const environments = data.environments.map((row) => Object.fromEntries(data.facts.map((name, i) => [name, row[i]])));
const settings = data.settings.map((rows) =>
  rows.map(([knob, desired, runtime, persisted, verdict, detail]) => (
    { knob, desired, runtime, persisted, verdict, detail })));

const compactStamp = (at) => `${new Date(at * 1000).toISOString().slice(0, 19).replaceAll(/[-:]/g, "")}Z`;
/** Seconds now, lower bound and savings of a run, or `problem`; null where the run says nothing. */
const firstTokenOf = (row) => {
  if (!Array.isArray(row)) return row === null ? null : { problem: row };
  const [seconds, bound, ...rest] = row;
  const saves = Object.fromEntries(data.remedies.map((name, i) => [name, rest[i]]));
  const [limit, noise] = rest.slice(data.remedies.length);
  return { now: seconds, bound, saves, limit: limit === null ? null : data.limits[limit][1], saving: noise ? 0 : Math.max(0, seconds - bound) };
};

class Run {
  constructor(host, row) {
    const [id, at, environment, rows, times, memory, disk, counts, phases, firstToken, idle, noisy, reason = null, file = null] = row;
    Object.assign(this, { host, at, memory, disk, phases, noisy, reason, file, times });
    this.id = id === "" || id.startsWith("-") ? compactStamp(at) + id : id;
    this.environment = environments[environment];
    this.settings = settings[rows];
    this.counts = data.samples[counts];
    this.idle = idle === null ? null : data.sizes[idle];
    this.firstTokenRow = firstToken;
  }
  get address() { return `#/host/${encodeURIComponent(this.host.name)}/${this.id}`; }
  get link() { return linkTo(data.results, this.file ?? `${this.host.folder}/${this.id}.json`); }
  get firstToken() { return firstTokenOf(this.firstTokenRow); }
  /** {median, low, high, n} of a metric, or null. Disk and memory are single figures. */
  figure(metric) {
    if (metric === "disk_bytes_per_s" || metric === "memory_bytes") {
      const value = metric === "memory_bytes" ? this.memory : this.disk;
      return value === null ? null : { median: value, low: null, high: null, n: null };
    }
    const row = this.times[TIMES.indexOf(metric)];
    if (typeof row === "number") return { median: row, low: null, high: null, n: null };
    return row ? { median: row[0], n: row[1], low: row[2] ?? null, high: row[3] ?? null } : null;
  }
  value(metric) { return this.figure(metric)?.median ?? null; }
  /** What two runs have to share for their times to mean the same. */
  get task() { return JSON.stringify(TASK.map((fact) => this.environment[fact])); }
  get kind() { return JSON.stringify([...TASK, "disk"].map((fact) => this.environment[fact])); }
  get failed() { return this.times.every((each) => each === null); }
  get valid() { return this.counts[0] + this.counts[1]; }
  /** [[name, label, seconds]] of `cold` or `warm`. */
  phasesOf(kind) {
    const row = this.phases[kind === "cold" ? 0 : 1];
    return data.phases.map(([name, label], i) => [name, label, row[i] ?? null]).filter((each) => each[2] !== null);
  }
  /** Settings as they are now where this is the newest run and somebody has looked since; else as they were in it. */
  get settingsNow() { return this === this.host.latest ? this.host.settings : this.settings; }
}

const linkTo = (folder, file) => [...folder.split("/"), ...file.split("/")].map(encodeURIComponent).join("/");

/** What drifted, in a few words: `thp.enabled always→madvise` is found→wanted. */
const driftWords = ({ knob, desired, runtime, persisted, detail }) => {
  if (runtime !== desired) return `${knob} ${runtime ?? "absent"}→${desired ?? "nothing"}`;
  if (persisted !== desired) return `${knob} after a reboot ${persisted ?? "nothing"}→${desired ?? "nothing"}`;
  return detail ?? knob;
};

const hosts = data.hosts.map((row, index) => {
  const host = { ...row, index };
  host.groups = row.groups.map((group) => data.groups[group]);
  host.settings = settings[row.settings];
  host.runs = row.runs.map((run) => new Run(host, run));
  host.latest = host.runs.at(-1) ?? null;
  host.firstToken = host.latest?.firstToken ?? null;
  host.address = `#/host/${encodeURIComponent(host.name)}`;
  // Counted from now, as every age: a page of last month knows no fresh run.
  if (row.measured === "measured" && now() - host.latest.at > data.stale_after_s) host.measured = "stale";
  host.drifted = host.settings.filter((each) => each.verdict !== "clean");
  host.silent = row.status === "unreachable" || row.status === "error";
  host.drift = host.drifted.map(driftWords).join(", ");
  host.competitors = row.audit?.competitors ?? [];
  host.possible = row.audit?.possible ?? [];
  // A recorded start that is in order: its saving has been taken.
  host.recorded = host.settings.some((each) => /^first_token\..+\.plan$/.test(each.knob) && each.verdict === "clean");
  host.outlier = null;
  host.changes = [];
  host.cause = null;
  return host;
});
const byName = new Map(hosts.map((host) => [host.name, host]));
for (const outlier of data.outliers) hosts[outlier.host].outlier = outlier;
for (const change of data.changes) hosts[change.host].changes.push(change);
const causeWords = (cause) => (cause.fact === null ? "no known fact differs" : `${factTitle(cause.fact)} ${cause.here ?? "absent"}`);
for (const cause of data.causes) for (const index of cause.hosts) hosts[index].cause = cause;

/** Newest runs by what they have to share to be alike. */
const kinds = new Map();
for (const host of hosts) if (host.latest && !host.latest.failed) kinds.set(host.latest.kind, [...(kinds.get(host.latest.kind) ?? []), host.latest]);
const likes = (run, ...without) => (kinds.get(run.kind) ?? []).filter((each) => !without.includes(each.host));

/** How a run's time stands to another's: the rule of plugins/analysis/fleet/spread.py. `beyond` is null where nobody can say. */
const difference = (a, b, metric) => {
  const [one, other] = [a.value(metric), b.value(metric)];
  if (!one || !other) return null;
  const share = other / one - 1;
  if (!isTime(metric)) return { share, beyond: null, reach: null };
  const place = data.times.indexOf(metric);
  // None is known of a steady token.
  const [first, second] = [a.host.reach[place] ?? null, b.host.reach[place] ?? null];
  if (first === null || second === null) return { share, beyond: null, reach: null };
  const reach = Math.max(Math.log(1.05), Math.hypot(first, second));
  return { share, beyond: Math.abs(Math.log(other / one)) > reach, reach: Math.exp(reach) - 1 };
};
const unlike = (a, b) => TASK.filter((fact) => a.environment[fact] !== b.environment[fact]);

const collator = new Intl.Collator("en", { numeric: true });
