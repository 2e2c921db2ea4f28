// Figures as the server writes them (figures.py): three significant digits and a unit that fits.

export function significant(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const decimals = digits - 1 - Math.floor(Math.log10(Math.abs(value)));
  const scale = 10 ** decimals;
  const rounded = Math.round(value * scale) / scale;
  return rounded.toFixed(Math.max(digits - 1 - Math.floor(Math.log10(Math.abs(rounded))), 0));
}

// A number with thin spaces between groups of three digits.
export function count(value) {
  const [whole, fraction] = String(value).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return fraction ? `${grouped}.${fraction}` : grouped;
}

export function latencyUnit(us) {
  return us >= 1e6 ? [1e6, "s"] : us >= 1e4 ? [1e3, "ms"] : [1, "µs"];
}

export function latency(us) {
  if (us == null) return "–";
  const [scale, unit] = latencyUnit(us);
  return `${significant(us / scale)} ${unit}`;
}

const BINARY = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];

export function size(bytes) {
  const [scale, unit] = BINARY.find(([each]) => bytes >= each) ?? [1, "B"];
  return `${scale === 1 ? Math.trunc(bytes) : significant(bytes / scale)} ${unit}`;
}

// The same rounded up, for what must not be less.
export function sizeAtLeast(bytes) {
  const [scale] = BINARY.find(([each]) => bytes >= each) ?? [1];
  const digit = 10 ** (Math.floor(Math.log10(bytes / scale)) - 2);
  return size(Math.ceil(bytes / scale / digit) * digit * scale);
}

// In one piece: its spaces break no line.
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${seconds > 0 && seconds < 1 ? significant(seconds, 2) : whole}\u00a0s`;
  const [scale, unit, smaller, part] = [[86400, "d", "h", 3600], [3600, "h", "min", 60], [60, "min", "s", 1]].find(([each]) => whole >= each);
  const rest = Math.floor((whole % scale) / part);
  return [Math.floor(whole / scale), unit, ...(rest ? [rest, smaller] : [])].join("\u00a0");
}

export function knobLines(knobs) {
  const lines = Object.entries(knobs?.tiles ?? {})
    .filter(([, factors]) => Array.isArray(factors) && factors.some((factor) => factor > 1))
    .map(([axis, factors]) => `${axis} ${factors.join("·")}`);
  const rest = Object.entries(knobs ?? {})
    .filter(([name, value]) => name !== "tiles" && value !== null && typeof value !== "object")
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  return [lines.join("   "), rest.join(", ")].filter(Boolean);
}
