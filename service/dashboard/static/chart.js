// The convergence chart: best-so-far as a step line over faint trial dots, failures as crosses on the upper edge,
// the untuned build and ONNX Runtime as dashed lines with their names on them.
import uPlot from "./vendor/uPlot.esm.js";
import { count, latency, latencyUnit } from "./figures.js";

const PADDING = [14, 12, 0, 0];
// From here on dots and crosses would run together at their usual size.
const MANY = 1000;
const LABEL_FONT = "11px system-ui, sans-serif";

export class Chart {
  // `box` holds the chart, `key` the legend whose drawn samples carry the colours of the theme.
  constructor(box, key, describe) {
    this.box = box;
    this.key = key;
    this.describe = describe;
    this.view = { x: [], best: [], dots: [], points: [], lines: [] };
    this.log = true;
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    new ResizeObserver(() => this.resize()).observe(box);
    addEventListener("themechange", () => this.rebuild());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  // view: {x, best, dots, points, lines: [{name, us}]}, all arrays aligned by trial; points are the trials themselves.
  show(view) {
    this.view = view;
    const values = [...view.best, ...view.dots].filter((us) => us != null);
    const known = [...values, ...view.lines.map((line) => line.us)];
    const [scale, unit] = latencyUnit(known.length ? quantiles(known, 0.5).at(-1) : 1);
    if (!this.plot || scale !== this.scale) {
      [this.scale, this.unit] = [scale, unit];
      this.rebuild();
    } else {
      this.plot.setData(this.data());
    }
  }

  setLog(log) {
    this.log = log;
    this.rebuild();
  }

  data() {
    const { x, best, dots } = this.view;
    const scaled = (values) => values.map((us) => (us == null ? null : us / this.scale));
    return [x, scaled(dots), scaled(best)];
  }

  size() {
    return { width: Math.max(this.box.clientWidth - 16, 200), height: this.box.clientHeight - 8 };
  }

  resize() {
    this.plot?.setSize(this.size());
  }

  rebuild() {
    if (this.scale === undefined) return;
    this.plot?.destroy();
    this.colors = this.readColors();
    this.plot = new uPlot(this.options(), this.data(), this.box);
    this.plot.over.append(this.tip);
    this.plot.over.addEventListener("mouseleave", () => (this.tip.hidden = true));
  }

  // Custom properties made with light-dark() do not resolve when read; the legend's drawn samples do.
  readColors() {
    const css = (selector, property) => getComputedStyle(this.key.querySelector(selector))[property];
    const frame = getComputedStyle(this.box.closest(".panel"));
    return {
      line: css(".k-line", "stroke"),
      dot: faint(css(".k-dot", "fill")),
      cross: css(".k-cross", "stroke"),
      base: css(".k-base", "stroke"),
      grid: frame.borderTopColor,
      paper: frame.backgroundColor,
    };
  }

  options() {
    const { line, dot, base, grid } = this.colors;
    const many = this.view.x.length > MANY;
    const axis = { stroke: base, font: LABEL_FONT, labelFont: LABEL_FONT, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 } };
    return {
      ...this.size(),
      padding: PADDING,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: {
        x: { time: false, range: (_, min, max) => [Math.max((min ?? 1) - 0.5, 0), Math.max((max ?? 1) + 0.5, 8)] },
        y: { distr: this.log ? 3 : 1, range: () => this.range() },
      },
      axes: [
        { ...axis, label: "Trial", labelSize: 18, size: 26, gap: 4, values: (_, ticks) => ticks.map(count), incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000] },
        {
          ...axis, label: `Latency (${this.unit})`, labelSize: 18, size: 52, gap: 4,
          splits: (_, __, min, max) => (this.log ? logTicks(min, max) : linearTicks(min, max)),
          values: (_, ticks) => ticks.map((tick) => count(Number(tick.toPrecision(3)))),
          filter: (_, ticks) => ticks,
        },
      ],
      series: [
        {},
        { paths: () => null, points: { show: true, size: many ? 2.5 : 4, width: 0, fill: dot, stroke: dot } },
        { stroke: line, width: 1.5, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false }, spanGaps: true },
      ],
      hooks: { drawSeries: [(u, index) => index === 2 && this.drawOver(u)], drawAxes: [(u) => this.drawLines(u)], draw: [(u) => this.drawLabels(u)], setCursor: [(u) => this.hover(u)] },
    };
  }

  range() {
    const { best, dots, lines } = this.view;
    const measured = [...best, ...dots].filter((us) => us != null);
    // A linear scale that reaches the slowest trial hides the fast ones: it ends at the slowest of the best 90 %.
    const shown = this.log ? [...measured, ...lines.map((each) => each.us)] : [...quantiles(measured, 0.9), ...best.filter((us) => us != null)];
    if (!shown.length) shown.push(...(lines.length ? lines.map((each) => each.us) : [1, 10]));
    const low = Math.min(...shown) / this.scale;
    const high = Math.max(...shown) / this.scale;
    // Room above for the crosses, a share of the drawn height.
    return this.log ? [low / 1.15, Math.max(high * (high / low) ** 0.18, low * 1.5)] : [0, high * 1.12];
  }

  drawOver(u) {
    const { ctx, bbox } = u;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = this.colors.cross;
    ctx.lineWidth = ratio;
    ctx.beginPath();
    const arm = (this.view.x.length > MANY ? 1.5 : 2.5) * ratio;
    const y = bbox.top + 6 * ratio;
    this.view.points.forEach((point, index) => {
      if (!point.failure) return;
      const x = u.valToPos(this.view.x[index], "x", true);
      ctx.moveTo(x - arm, y - arm);
      ctx.lineTo(x + arm, y + arm);
      ctx.moveTo(x - arm, y + arm);
      ctx.lineTo(x + arm, y - arm);
    });
    ctx.stroke();
    ctx.restore();
  }

  drawLines(u) {
    const { ctx, bbox } = u;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.lineWidth = ratio;
    ctx.strokeStyle = this.colors.base;
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    ctx.beginPath();
    for (const { us } of this.view.lines) {
      const y = u.valToPos(us / this.scale, "y", true);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
    }
    ctx.stroke();
    ctx.restore();
  }

  // The names of the lines, over everything else and at the left end, where few trials are that low yet; a line
  // outside the drawn range keeps its name, with an arrow.
  drawLabels(u) {
    const { ctx, bbox } = u;
    const ratio = devicePixelRatio;
    const gap = 4 * ratio;
    const height = 12 * ratio;
    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    const taken = [];
    for (const { name, us } of this.view.lines) {
      const y = u.valToPos(us / this.scale, "y", true);
      const above = y < bbox.top;
      const inside = !above && y <= bbox.top + bbox.height;
      let label = inside ? y - gap : above ? bbox.top + 26 * ratio : bbox.top + bbox.height - gap;
      if (taken.some((other) => Math.abs(other - label) < height)) label = inside ? y + height : label + height;
      taken.push(label);
      const text = `${name} ${latency(us)}${inside ? "" : above ? " ↑" : " ↓"}`;
      // A line behind a label is only just seen: between letters it would read as struck out.
      ctx.globalAlpha = 0.85;
      ctx.fillStyle = this.colors.paper;
      ctx.fillRect(bbox.left + gap / 2, label - 10 * ratio, ctx.measureText(text).width + gap, 13 * ratio);
      ctx.globalAlpha = 1;
      ctx.fillStyle = this.colors.base;
      ctx.fillText(text, bbox.left + gap, label);
    }
    ctx.restore();
  }

  hover(u) {
    const { left, top, idx } = u.cursor;
    if (left < 0 || idx == null) {
      this.tip.hidden = true;
      return;
    }
    const index = this.nearest(u, left, top);
    if (index < 0) {
      this.tip.hidden = true;
      return;
    }
    this.tip.replaceChildren(...this.describe(this.view.points[index], index));
    this.tip.hidden = false;
    const x = u.valToPos(this.view.x[index], "x");
    const width = this.tip.offsetWidth;
    const beside = x + 12 + width > u.over.clientWidth ? x - 12 - width : x + 12;
    this.tip.style.left = `${Math.max(Math.min(beside, u.over.clientWidth - width), 0)}px`;
    this.tip.style.top = `${Math.max(Math.min(top - 12, u.over.clientHeight - this.tip.offsetHeight - 4), 0)}px`;
  }

  // The trial nearest to the pointer within 24 pixels; failures lie on the upper edge. -1 when there is none.
  nearest(u, left, top) {
    const [x, dots] = u.data;
    const reach = 24;
    let found = -1;
    let shortest = reach * reach;
    const from = u.valToIdx(u.posToVal(left - reach, "x"));
    const to = u.valToIdx(u.posToVal(left + reach, "x"));
    for (let index = Math.max(from, 0); index <= to && index < x.length; index++) {
      const y = this.view.points[index].failure ? 6 : dots[index] == null ? null : u.valToPos(dots[index], "y");
      if (y === null) continue;
      const distance = (u.valToPos(x[index], "x") - left) ** 2 + (y - top) ** 2;
      if (distance < shortest) [found, shortest] = [index, distance];
    }
    return found;
  }
}

// The same colour, see-through: many dots on one place then look denser than one.
function faint(color) {
  return color.replace(/^rgb\((.*)\)$/, "rgba($1, 0.6)");
}

// The values up to a quantile, sorted.
function quantiles(values, upTo) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.slice(0, Math.max(Math.ceil(sorted.length * upTo), 1));
}

function logTicks(min, max) {
  for (const digits of [[1], [1, 3], [1, 2, 5], [1, 2, 3, 5, 7]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(min)); power <= Math.log10(max); power++)
      for (const digit of digits) {
        const tick = digit * 10 ** power;
        if (tick >= min && tick <= max) ticks.push(tick);
      }
    if (ticks.length >= 4) return ticks;
  }
  return linearTicks(min, max);
}

function linearTicks(min, max) {
  const rough = (max - min) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((each) => each >= rough);
  const ticks = [];
  for (let tick = Math.ceil(min / step) * step; tick <= max; tick += step) ticks.push(tick);
  return ticks;
}
