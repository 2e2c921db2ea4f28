// The convergence chart: best-so-far as a step line over faint trial dots, failures as crosses on the upper edge,
// the untuned build and ONNX Runtime as dashed lines with their names on them.
import uPlot from "./vendor/uPlot.esm.js";
import { count, latency, latencyUnit } from "./figures.js";

const PADDING = [14, 20, 0, 0];
// From here on dots and crosses would run together at their usual size.
const MANY = 1000;
// How long the pointer has to rest on a trial before its knobs are asked for.
const REST_MS = 60;
const LABEL_FONT = "11px system-ui, sans-serif";

export class Chart {
  // `box` holds the chart, `key` the legend whose drawn samples carry the colours of the theme. `describe` makes the
  // lines about a trial, `complete` fetches what a trial lacks for them (a promise).
  constructor(box, key, describe, complete) {
    this.box = box;
    this.key = key;
    this.describe = describe;
    this.complete = complete;
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
    // Typed arrays sort by value and many times faster.
    this.measured = Float64Array.from([...view.best, ...view.dots].filter((us) => us != null)).sort();
    const { measured } = this;
    const middle = measured[Math.ceil(measured.length / 2) - 1] ?? view.lines[0]?.us ?? 1;
    const [scale, unit] = latencyUnit(middle);
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

  // Of the best so far only its steps and its end: the line through them is the same.
  data() {
    const { x, best, dots } = this.view;
    const scaled = (us) => (us == null ? null : us / this.scale);
    const steps = best.map((us, index) => (us === best[index - 1] && index < best.length - 1 ? null : scaled(us)));
    return [x, dots.map(scaled), steps];
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
    const { line, base, grid } = this.colors;
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
        { paths: () => null, points: { show: false } },
        { stroke: line, width: 1.5, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false }, spanGaps: true },
      ],
      hooks: { drawSeries: [(u, index) => (index === 1 ? this.drawDots(u) : this.drawCrosses(u))], drawAxes: [(u) => this.drawLines(u)], draw: [(u) => this.drawLabels(u)], setCursor: [(u) => this.hover(u)] },
    };
  }

  range() {
    const { measured } = this;
    const lines = this.view.lines.map((each) => each.us);
    // A linear scale that reaches the slowest trial hides the fast ones: it ends at the slowest of the best 90 %, or of
    // the best so far.
    const worst = this.log ? measured.at(-1) : Math.max(measured[Math.ceil(0.9 * measured.length) - 1], this.view.best.find((us) => us != null) ?? 0);
    const shown = measured.length ? [measured[0], worst] : [];
    if (this.log || !shown.length) shown.push(...lines);
    if (!shown.length) shown.push(1, 10);
    const low = Math.min(...shown) / this.scale;
    const high = Math.max(...shown) / this.scale;
    // Room above for the crosses, a share of the drawn height.
    return this.log ? [low / 1.15, Math.max(high * (high / low) ** 0.18, low * 1.5)] : [0, high * 1.12];
  }

  // A dot each: round ones, and small squares where there are many, which are drawn many times faster.
  drawDots(u) {
    const { ctx, bbox } = u;
    const { x } = this.view;
    const [, dots] = u.data;
    const many = x.length > MANY;
    const size = (many ? 2 : 4) * devicePixelRatio;
    ctx.save();
    ctx.fillStyle = this.colors.dot;
    for (let index = 0; index < x.length; index++) {
      if (dots[index] == null) continue;
      const [left, top] = [u.valToPos(x[index], "x", true), u.valToPos(dots[index], "y", true)];
      if (top < bbox.top) continue;
      if (many) {
        ctx.fillRect(left - size / 2, top - size / 2, size, size);
      } else {
        ctx.beginPath();
        ctx.arc(left, top, size / 2, 0, 2 * Math.PI);
        ctx.fill();
      }
    }
    ctx.restore();
  }

  // Failures, on the upper edge.
  drawCrosses(u) {
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
    const trial = this.view.points[index];
    this.tell(u, trial, top);
    clearTimeout(this.resting);
    if (trial.knobs === undefined)
      this.resting = setTimeout(async () => {
        await this.complete(trial).catch(() => {}); // the result is told already
        if (!this.tip.hidden && this.told === trial) this.tell(u, trial, top);
      }, REST_MS);
  }

  tell(u, trial, top) {
    this.told = trial;
    this.tip.replaceChildren(...this.describe(trial));
    this.tip.hidden = false;
    const x = u.valToPos(trial.number, "x");
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
