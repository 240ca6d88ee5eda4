// The JSON block as objects: hosts with runs, each run with its environment, settings and figures by name.
const data = JSON.parse(document.getElementById("fleet").textContent);

const METRICS = {
  cold_time_to_first_token_s: { title: "Cold first token", unit: units.seconds, slower: 1 },
  warm_time_to_first_token_s: { title: "Warm first token", unit: units.seconds, slower: 1 },
  cold_load_real_s: { title: "Cold load", unit: units.seconds, slower: 1 },
  warm_load_real_s: { title: "Warm load", unit: units.seconds, slower: 1 },
  disk_bytes_per_s: { title: "Disk rate", unit: units.rate, slower: -1 },
  memory_bytes: { title: "Memory held (RSS)", unit: units.size, slower: 0 },
};
const FACT_TITLES = {
  model: "Model", dtype: "Loaded as", gpu: "GPU", driver: "GPU driver", cuda: "CUDA", disk: "Disk",
  read_ahead: "Read-ahead", filesystem: "File system", kernel: "Kernel", distribution: "Distribution", cpu: "CPU",
  memory: "Memory", python: "Python", torch: "torch", transformers: "transformers", bytecode: "Bytecode", cold_scope: "Cold scope",
};
const STATUS_TITLES = {
  clean: "clean", drift: "drifted", unreachable: "unreachable", error: "error", unknown: "not compared",
};
const MEASURED_TITLES = { measured: "measured", stale: "stale", failed: "failed", never: "never measured" };
const factTitle = (name) => (Object.hasOwn(FACT_TITLES, name) ? FACT_TITLES[name] : name);

const environments = data.environments.map((row) => Object.fromEntries(data.facts.map((name, i) => [name, row[i]])));
const settings = data.settings.map((rows) =>
  rows.map(([knob, desired, runtime, persisted, verdict, detail]) => (
    { knob, desired, runtime, persisted, verdict, detail })));

class Run {
  constructor(host, row) {
    const [id, at, environment, rows, times, memory, disk, counts, phases, reason = null, file = null] = row;
    Object.assign(this, { host, id, at, memory, disk, counts, phases, reason, file });
    this.environment = environments[environment];
    this.settings = settings[rows];
    this.times = times;
  }
  get address() { return `#/host/${encodeURIComponent(this.host.name)}/${this.id}`; }
  get link() { return linkTo(data.results, this.file ?? `${this.host.folder}/${this.id}.json`); }
  /** {median, low, high, n} of a metric, or null. Disk and memory are single figures. */
  figure(metric) {
    if (metric === "disk_bytes_per_s" || metric === "memory_bytes") {
      const value = metric === "memory_bytes" ? this.memory : this.disk;
      return value === null ? null : { median: value, low: null, high: null, n: null };
    }
    const row = this.times[data.times.indexOf(metric)];
    return row ? { median: row[0], n: row[1], low: row[2] ?? null, high: row[3] ?? null } : null;
  }
  value(metric) { return this.figure(metric)?.median ?? null; }
  /** What two runs have to share for their times to mean the same. */
  get task() { return JSON.stringify(["model", "dtype", "gpu", "cold_scope"].map((fact) => this.environment[fact])); }
  get failed() { return this.times.every((each) => each === null); }
  /** [[name, label, seconds]] of `cold` or `warm`. */
  phasesOf(kind) {
    const row = this.phases[kind === "cold" ? 0 : 1];
    return data.phases.map(([name, label], i) => [name, label, row[i] ?? null]).filter((each) => each[2] !== null);
  }
}

const linkTo = (folder, file) => [...folder.split("/"), ...file.split("/")].map(encodeURIComponent).join("/");

const hosts = data.hosts.map((row, index) => {
  const host = { ...row, index };
  host.groups = row.groups.map((group) => data.groups[group]);
  host.settings = settings[row.settings];
  host.runs = row.runs.map((run) => new Run(host, run));
  host.latest = host.runs.at(-1) ?? null;
  host.address = `#/host/${encodeURIComponent(host.name)}`;
  host.drifted = host.settings.filter((each) => each.verdict !== "clean");
  host.outlier = null;
  host.changes = [];
  return host;
});
const byName = new Map(hosts.map((host) => [host.name, host]));
for (const outlier of data.outliers) hosts[outlier.host].outlier = outlier;
for (const change of data.changes) hosts[change.host].changes.push(change);

const collator = new Intl.Collator("en", { numeric: true });
