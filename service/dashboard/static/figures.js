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

export function knobLines(knobs) {
  const lines = Object.entries(knobs?.tiles ?? {})
    .filter(([, factors]) => Array.isArray(factors) && factors.some((factor) => factor > 1))
    .map(([axis, factors]) => `${axis} ${factors.join("·")}`);
  const rest = Object.entries(knobs ?? {})
    .filter(([name, value]) => name !== "tiles" && value !== null && typeof value !== "object")
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  return [lines.join("   "), rest.join(", ")].filter(Boolean);
}
