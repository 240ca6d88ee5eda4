// Numbers as the reports print them: plugins/analysis/render/units.py, line for line. tests/browser compares the two.
const MISSING = "not measured";

const fixed = (value, decimals) => {
  // toFixed rounds exact ties up, Python to even. Ties are finite in binary, so the exact digits show them.
  const text = value.toFixed(decimals);
  const exact = value.toFixed(Math.min(100, decimals + 40));
  const tail = exact.slice(exact.indexOf(".") + 1 + decimals);
  if (!/^50*$/.test(tail) || /[02468]$/.test(text)) return text;
  const unit = 10 ** -decimals;
  return (Number(text) - Math.sign(value) * unit).toFixed(decimals);
};
const whole = (value) => fixed(value, 0);

const three = (value) => {
  if (value >= 99.95) return whole(value);
  let decimals = value > 0 ? Math.max(0, 2 - Math.floor(Math.log10(value))) : 0;
  if (decimals && Number(fixed(value, decimals)) >= 10 ** (3 - decimals)) decimals -= 1;
  return fixed(value, Math.min(decimals, 6));
};

const scaled = (value, factors, smallest) => {
  for (const [factor, unit] of factors) if (value >= factor * 0.9995) return `${three(value / factor)} ${unit}`;
  return `${whole(value)} ${smallest}`;
};

const units = {
  seconds(value) {
    if (value === null || value === undefined) return MISSING;
    if (value < 0) return `-${units.seconds(-value)}`;
    if (value >= 599.5) {
      const all = Number(whole(value));
      return `${Math.floor(all / 60)} min ${all % 60} s`;
    }
    if (value === 0) return "0 s";
    return value >= 0.9995 ? `${three(value)} s` : `${three(value * 1000)} ms`;
  },
  size(value) {
    if (value === null || value === undefined) return MISSING;
    return scaled(value, [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]], "B");
  },
  rate(value) {
    if (value === null || value === undefined) return MISSING;
    return scaled(value, [[1e12, "TB/s"], [1e9, "GB/s"], [1e6, "MB/s"], [1e3, "kB/s"]], "B/s");
  },
  percent(share) {
    if (share === null || share === undefined) return MISSING;
    const value = share * 100;
    if (value > 0 && value < 0.1) return "under 0.1 %";
    if (value < 9.95 && value !== Number(whole(value))) return `${fixed(value, 1)} %`;
    if (value >= 99.5 && value < 100) return value >= 99.95 ? "over 99.9 %" : `${fixed(value, 1)} %`;
    return `${whole(value)} %`;
  },
  count(value) {
    return value === null || value === undefined ? MISSING : whole(value).replace(/\B(?=(\d{3})+$)/g, ",");
  },
  ratio(value) {
    if (value === null || value === undefined) return MISSING;
    if (value < 1.995) return `${fixed(value, 2)}x`;
    return `${value >= 99.5 ? three(value) : fixed(value, 1)}x`;
  },
  interval(figure, unit) {
    if (!figure) return MISSING;
    const middle = unit(figure.median);
    if (figure.n === null) return middle;
    if (figure.low === null) return `${middle}, n = ${figure.n} (too few for an interval)`;
    const suffix = (text) => text.slice((text.indexOf(" ") + 1) || text.length);
    let [low, high] = [unit(figure.low), unit(figure.high)];
    if (middle.includes(" ") && suffix(low) === suffix(middle) && suffix(high) === suffix(middle)) {
      [low, high] = [low.split(" ")[0], high.split(" ")[0]];
    }
    return `${middle} [${low}, ${high}], n = ${figure.n}`;
  },
};

const things = (number, noun) => `${units.count(number)} ${noun}${number === 1 ? "" : "s"}`;
const signedPercent = (share) => (Math.abs(share) < 0.001 ? "±0 %" : `${share < 0 ? "−" : "+"}${units.percent(Math.abs(share))}`);
const stamp = (seconds) => `${new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;
const day = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
const lasted = (seconds) => {
  for (const [length, noun] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    if (seconds >= length) return things(Math.floor(seconds / length), noun);
  }
  return "a moment";
};
/** Ages count from the reader's clock, not from when the page was made. */
const now = () => Date.now() / 1000;
const ago = (at) => {
  const seconds = now() - at;
  if (seconds < -90) return `${lasted(-seconds)} ahead of this clock`;
  return seconds < 90 ? "just now" : `${lasted(seconds)} ago`;
};
/** What an interval of n values can cover of a true median: three cover it 75 times in 100, six pass 95. */
const coverage = (n) => Math.min(0.95, 1 - 2 ** (1 - n));
const coverageWords = (n) => (n < 3 || !Number.isFinite(n) ? "too few samples for an interval"
  : n < 6 ? `with ${n} samples the interval is the range seen, and covers a true median at most ${units.percent(coverage(n))} of the time`
    : "95 % interval");
