// Time charts. uPlot draws them; here are our manners: one crosshair for all charts, zoom by dragging, honest gaps, the same
// numbers as a table, and the keyboard.

import { onTheme, token } from "./colors.js";
import { formatNumber, formatTime, formatValue, isUtc, scaled, timeParts } from "./format.js";
import { bridged } from "./gaps.js";
import { explain } from "./keys.js";
import { data as pageData } from "./page.js";
import * as range from "./range.js";
import { get, onChange } from "./state.js";

export { sparkline } from "./sparkline.js";
export { strip } from "./strip.js";

/**
 * @typedef {object} Line One line. `min` and `max` (of the readings in each window) draw an envelope around it.
 * @property {string} label
 * @property {(number|null)[]} values
 * @property {(number|null)[]} [min]
 * @property {(number|null)[]} [max]
 * @property {string} [color] a token, as "--series-2"
 *
 * @typedef {object} Mark Something that happened: at `time`, or from `time` to `end` (ms), or at `time` with what followed `until` then.
 * @property {number} time
 * @property {number} [end]
 * @property {number} [until]
 * @property {"critical"|"warning"|"info"} kind
 * @property {string} text
 *
 * @typedef {object} Options
 * @property {string} title
 * @property {string} unit
 * @property {Line[]} series
 * @property {number[]} times beginnings of the windows, in ms
 * @property {{min?: (number|null)[], p5?: (number|null)[], p95?: (number|null)[], max?: (number|null)[], label?: string}} [band]
 * @property {Mark[]} [events]
 * @property {{value: number, label: string}[]} [limits] dashed lines across, as the temperature of slowdown
 * @property {{min?: number, max?: number}} [scale] what the vertical axis shows at least
 * @property {string} [sync] charts with the same key share their crosshair
 * @property {number} [height] of the plot, in px
 * @property {{start: number, end: number}} [range] of the horizontal axis; default: of the times
 * @property {number} [step] length of a window in ms
 * @property {number} [until] up to when there can be readings: a window that ends later is labelled as not over
 * @property {string} [note] how a window becomes a value, as "1 min mean"
 * @property {boolean} [fill] fill below the first line
 * @property {boolean} [stack] pile the lines up, the first at the bottom; tips and tables keep each line's own values
 * @property {boolean} [whole] values are counts: the axis has whole numbers alone
 * @property {number} [level] of the heading, 3 unless given
 */

const AXIS_WIDTH = 58;
const RIGHT = 14;
const HEIGHT = 130;
const PALETTE = 8;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400].map((s) => s * 1000);
const PIXELS_PER_WINDOW = 3;
const SHORTEST_STEP = 10_000;
const FEWEST_TO_LEARN = 4;
let shortest = SHORTEST_STEP;
const MOST_TABLE_ROWS = 500;
const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();
const BINARY = Array.from({ length: 31 }, (_, power) => 2 ** power);
// Room for the label of a limit above it.
const ABOVE_LIMIT = 1.2;
const GLYPHS = { critical: "⬣", warning: "▲", info: "●" };
const GLYPH_TOKENS = { critical: "--crit", warning: "--warn", info: "--info" };

/** @type {Set<Chart>} */
const charts = new Set();
/** The ranges that people dragged here: only those can Back undo. */
const zoomed = new Set();
/** @type {Map<string, Set<(ms: number|null) => void>>} */
const followers = new Map();

/** The windows that suit a width in pixels: {step (ms), every (for the API), start, end (ms, whole windows)}. */
export function windows(width, { start, end } = range.current()) {
  const wanted = ((end - start) / Math.max(60, width - AXIS_WIDTH - RIGHT)) * PIXELS_PER_WINDOW;
  const step = STEPS.find((each) => each >= Math.max(wanted, shortest)) ?? STEPS.at(-1);
  return { step, every: `${step / 1000}s`, start: Math.floor(start / step) * step, end };
}

/**
 * Learns from an answer how far readings are apart: in shorter windows a line would be dots with gaps between.
 * True: `windows` chooses longer ones from now on, so ask again.
 */
export function learnInterval(times, ...lines) {
  const line = lines.find((values) => values.filter(isNumber).length >= FEWEST_TO_LEARN);
  if (!line) return false;
  const known = times.filter((_, at) => isNumber(line[at]));
  const gaps = known.slice(1).map((time, at) => time - known[at]).sort((a, b) => a - b);
  const usual = gaps[Math.floor(gaps.length / 2)];
  if (usual <= times[1] - times[0]) return false;
  // Half as long again, because readings are never quite on time.
  const longer = STEPS.find((each) => each >= usual * 1.5) ?? STEPS.at(-1);
  if (longer <= shortest) return false;
  shortest = longer;
  return true;
}

/** `1 min`, `10 s`, `2 h`: the length of a window in words. */
export function stepText(step) {
  for (const [size, unit] of [[86_400_000, "d"], [3_600_000, "h"], [60_000, "min"]]) {
    if (step >= size && step % size === 0) return `${step / size} ${unit}`;
  }
  return `${step / 1000} s`;
}

/** Calls `fn` with the time under the crosshair of the charts with this key; null: there is none. */
export function follow(key, fn) {
  if (!followers.has(key)) followers.set(key, new Set());
  followers.get(key).add(fn);
}

/**
 * Draws a chart into an element, which becomes its figure.
 * @param {HTMLElement} element
 * @param {Options} options
 */
export function timeChart(element, options) {
  const chart = new Chart(element, options);
  charts.add(chart);
  return {
    /** Shows new numbers; options that are left out stay. */
    update: (changes) => chart.update(changes),
    destroy: () => {
      charts.delete(chart);
      chart.destroy();
    },
  };
}

class Chart {
  constructor(element, options) {
    this.element = element;
    this.options = options;
    this.hidden = new Set();
    this.plot = null;
    this.pointed = false;
    this.drawn = "";
    this.#build();
    this.update({});
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(this.place);
  }

  #build() {
    const { element, options } = this;
    element.classList.add("chart");
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", options.title);
    this.title = make(`h${options.level ?? 3}`, "chart-title");
    this.note = make("span", "chart-note");
    this.legend = make("ul", "chart-legend");
    this.button = make("button", "chart-table-button", "Table");
    this.button.type = "button";
    this.button.title = "Show as table";
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => this.#toggleTable());
    const head = make("div", "chart-head");
    this.head = head;
    head.append(this.title, this.note, make("span", "grow"), this.legend, this.button);
    this.place = make("div", "chart-plot");
    this.place.tabIndex = 0;
    this.place.setAttribute("role", "application");
    this.place.setAttribute("aria-roledescription", "chart");
    this.tip = make("div", "chart-tip");
    this.tip.hidden = true;
    this.tip.setAttribute("aria-hidden", "true");
    this.empty = make("p", "chart-empty");
    this.spoken = make("p", "visually-hidden");
    this.spoken.setAttribute("aria-live", "polite");
    this.table = make("div", "chart-table scroll-x");
    this.table.hidden = true;
    this.table.tabIndex = 0;
    this.table.setAttribute("role", "region");
    element.replaceChildren(head, this.place, this.spoken, this.table);
    this.place.addEventListener("keydown", (event) => this.#key(event));
    this.place.addEventListener("pointerenter", () => (this.pointed = true));
    this.place.addEventListener("pointerleave", () => {
      this.pointed = false;
      this.#readout();
    });
    this.place.addEventListener("blur", () => this.#point(null));
  }

  update(changes) {
    Object.assign(this.options, changes);
    const { options } = this;
    this.title.textContent = options.title;
    const words = [options.note, isUtc() ? "UTC" : "local time"].filter(Boolean);
    this.note.textContent = words.join(" · ");
    this.hasReadings = options.series.some((line) => line.values.some(isNumber)) || hasBand(options.band);
    this.empty.textContent = this.hasReadings ? "" : (options.emptyText ?? "No readings in this range");
    this.#draw();
    this.#legend();
    this.#summary();
    this.#readout();
    if (!this.table.hidden) this.#fillTable();
  }

  destroy() {
    this.observer.disconnect();
    this.plot?.destroy();
    this.element.replaceChildren();
  }

  /** Everything that needs another uPlot object. New numbers alone do not. */
  #shape() {
    const { series, band, sync, height, stack } = this.options;
    const lines = series.map((line) => [line.label, Boolean(line.min), line.color]);
    return JSON.stringify([lines, Object.keys(band ?? {}), sync, height, stack && [...this.hidden]]);
  }

  #draw() {
    const { data, bands, lines } = this.#columns();
    const shape = this.#shape();
    if (this.plot && this.drawn === shape) {
      this.plot.setData(data);
      return;
    }
    this.plot?.destroy();
    this.drawn = shape;
    this.plot = new uPlot(this.#settings(lines, bands), data, this.place);
    this.place.append(this.tip, this.empty);
  }

  /** The data in uPlot's form: edges of bands first, so that lines are drawn above them. */
  #columns() {
    const { times, series, band } = this.options;
    const data = [times];
    const bands = [];
    const lines = [];
    const edge = (values) => {
      data.push(values ? bridged(values) : times.map(() => null));
      lines.push({ edge: true });
      return data.length - 1;
    };
    const between = (high, low, color, strength) => bands.push({ series: [edge(high), edge(low)], fill: () => mixed(color, strength) });
    if (band?.max) between(band.max, band.min, "--series-1", 0.12);
    if (band?.p95) between(band.p95, band.p5, "--series-1", 0.2);
    series.forEach((line, place) => {
      if (line.min && line.max) between(line.max, line.min, colorOf(line, place), 0.22);
    });
    this.heights = this.options.stack ? this.#piled() : series.map((line) => line.values);
    let below = 0;
    series.forEach((line, place) => {
      data.push(bridged(this.heights[place]));
      lines.push({ line, place });
      if (!this.options.stack || this.hidden.has(line.label)) return;
      if (below) bands.push({ series: [data.length - 1, below], fill: () => mixed(colorOf(line, place), 0.3) });
      below = data.length - 1;
    });
    return { data, bands, lines };
  }

  /** The height of each line on those below it. Where a line has no value it adds nothing; where none has one, there is a gap. */
  #piled() {
    const { times, series } = this.options;
    const shown = series.filter((line) => !this.hidden.has(line.label));
    const sums = times.map((_, at) => (shown.some((line) => isNumber(line.values[at])) ? 0 : null));
    return series.map((line) => {
      if (this.hidden.has(line.label)) return times.map(() => null);
      line.values.forEach((value, at) => isNumber(value) && (sums[at] += value));
      return [...sums];
    });
  }

  #settings(lines, bands) {
    const { options } = this;
    const chart = this;
    return {
      width: Math.max(60, this.place.clientWidth),
      height: options.height ?? HEIGHT,
      ms: 1,
      padding: [10, RIGHT, 0, 0],
      legend: { show: false },
      tzDate: (ms) => (isUtc() ? uPlot.tzDate(new Date(ms), "UTC") : new Date(ms)),
      series: [{}, ...lines.map((each) => this.#lineSettings(each))],
      bands,
      scales: { x: { time: true, range: () => chart.#xRange() }, y: { range: (_, low, high) => chart.#yRange(low, high) } },
      axes: [axis({ size: 24, space: 70, values: timeLabels }), axis({ size: AXIS_WIDTH, space: 28, values: (_, splits) => axisLabels(splits, options.unit), ...(options.unit === "MiB" ? { incrs: BINARY } : options.whole ? { incrs: WHOLE } : {}) })],
      cursor: {
        y: false,
        points: { size: 6 },
        drag: { x: true, y: false, setScale: false, dist: 4 },
        bind: { dblclick: () => () => back() },
        sync: options.sync ? { key: options.sync, setSeries: false, scales: ["x", null], filters: { pub: isMove, sub: isMove } } : undefined,
      },
      hooks: {
        drawAxes: [(u) => chart.#drawMarks(u)],
        draw: [(u) => chart.#drawLimits(u), (u) => chart.#drawOpenWindow(u)],
        setCursor: [() => chart.#readout()],
        setSelect: [(u) => zoom(u)],
      },
    };
  }

  #lineSettings({ edge, line, place }) {
    const show = !line || !this.hidden.has(line.label);
    if (edge) return { stroke: "transparent", width: 0, points: { show: false }, show };
    const stroke = () => token(colorOf(line, place));
    const { stack, series } = this.options;
    const lowest = stack ? series.findIndex((each) => !this.hidden.has(each.label)) : this.options.fill ? 0 : -1;
    const fill = place === lowest ? () => mixed(colorOf(line, place), stack ? 0.3 : 0.14) : undefined;
    return { label: line.label, stroke, width: 1.5, fill, show, points: { show: true, size: 4, stroke, fill: stroke, filter: (u, index) => lonely(u.data[index]) } };
  }

  #xRange() {
    const { times, range: asked, step = 0 } = this.options;
    if (asked) return [asked.start, asked.end];
    return times.length ? [times[0], times.at(-1) + step] : [0, 1];
  }

  #yRange(low, high) {
    const { scale = {}, limits = [] } = this.options;
    const values = [low, high, scale.min, scale.max, ...limits.map((limit) => limit.value * ABOVE_LIMIT)].filter(isNumber);
    if (!values.length) return [0, 1];
    const [least, most] = [Math.min(...values), Math.max(...values)];
    // A fixed scale ends where it says, unless a value is beyond it.
    const [down, up] = uPlot.rangeNum(least, most, 0.1, true);
    const ends = scale.max === most || (limits.length > 0 && most > (high ?? -Infinity));
    return [scale.min === least ? least : down, ends ? most : up];
  }

  #drawMarks(u) {
    const { ctx, bbox } = u;
    const [start, end] = this.#xRange();
    ctx.save();
    for (const mark of this.options.events ?? []) {
      if (mark.time > end || (mark.end ?? mark.until ?? mark.time) < start) continue;
      const color = token(GLYPH_TOKENS[mark.kind]);
      const left = Math.max(bbox.left, u.valToPos(mark.time, "x", true));
      if (mark.end !== undefined) {
        const width = Math.max(devicePixelRatio, Math.min(bbox.left + bbox.width, u.valToPos(mark.end, "x", true)) - left);
        ctx.fillStyle = color;
        ctx.globalAlpha = 0.1;
        ctx.fillRect(left, bbox.top, width, bbox.height);
        ctx.globalAlpha = 0.9;
        ctx.fillRect(left, bbox.top, width, 3 * devicePixelRatio);
      } else {
        if (mark.until !== undefined) {
          ctx.fillStyle = color;
          ctx.fillRect(left, bbox.top, Math.max(2 * devicePixelRatio, Math.min(bbox.left + bbox.width, u.valToPos(mark.until, "x", true)) - left), 2 * devicePixelRatio);
          // It began before what is shown: there is no line to draw.
          if (mark.time < start) continue;
        }
        drawLine(ctx, left, bbox.top, left, bbox.top + bbox.height, color, [3, 3]);
        ctx.fillStyle = color;
        ctx.font = `${11 * devicePixelRatio}px sans-serif`;
        ctx.textAlign = "center";
        ctx.textBaseline = "middle";
        ctx.fillText(GLYPHS[mark.kind], left, bbox.top + 2 * devicePixelRatio);
      }
      ctx.globalAlpha = 1;
    }
    ctx.restore();
  }

  #drawLimits(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.font = `${10.5 * devicePixelRatio}px ${token("--num") || "sans-serif"}`;
    ctx.textAlign = "right";
    ctx.textBaseline = "bottom";
    for (const { value, label } of this.options.limits ?? []) {
      const y = u.valToPos(value, "y", true);
      const color = token("--warn");
      drawLine(ctx, bbox.left, y, bbox.left + bbox.width, y, color, [6, 4]);
      ctx.fillStyle = color;
      const above = y - bbox.top > 14 * devicePixelRatio;
      if (!above) ctx.textBaseline = "top";
      ctx.fillText(label, bbox.left + bbox.width - 4 * devicePixelRatio, y + (above ? -2 : 3) * devicePixelRatio);
    }
    ctx.restore();
  }

  /** The last window may not be over: its point is a ring. */
  #drawOpenWindow(u) {
    if (!this.#isOpen(this.options.times.length - 1)) return;
    const { ctx } = u;
    const at = this.options.times.length - 1;
    this.options.series.forEach((line, place) => {
      if (!isNumber(line.values[at]) || this.hidden.has(line.label)) return;
      ctx.save();
      ctx.beginPath();
      ctx.arc(u.valToPos(this.options.times[at], "x", true), u.valToPos(this.heights[place][at], "y", true), 3 * devicePixelRatio, 0, 2 * Math.PI);
      ctx.fillStyle = token("--panel");
      ctx.fill();
      ctx.lineWidth = 1.5 * devicePixelRatio;
      ctx.strokeStyle = token(colorOf(line, place));
      ctx.stroke();
      ctx.restore();
    });
  }

  #isOpen(index) {
    const { times, step, until } = this.options;
    return index >= 0 && index === times.length - 1 && step !== undefined && until !== undefined && times[index] + step > until;
  }

  #legend() {
    const { series, band } = this.options;
    const names = JSON.stringify([series.map((line) => line.label), Object.keys(band ?? {})]);
    if (this.legendFor === names) return;
    this.legendFor = names;
    this.head.classList.toggle("many", series.length > 1);
    this.values = [];
    const items = series.map((line, place) => {
      const item = make("li");
      const swatch = make("i");
      swatch.style.backgroundColor = `var(${colorOf(line, place)})`;
      const value = make("b");
      this.values.push(value);
      if (series.length === 1) {
        item.append(line.label === this.options.title ? "" : swatch, line.label === this.options.title ? "" : line.label, value);
        return item;
      }
      const button = make("button");
      button.type = "button";
      button.title = `Show or hide ${line.label}`;
      button.setAttribute("aria-pressed", String(!this.hidden.has(line.label)));
      button.append(swatch, line.label);
      button.addEventListener("click", () => this.#toggleLine(line.label, button));
      item.append(button, value);
      return item;
    });
    if (hasBand(band)) items.push(make("li", "", bandWords(band)));
    this.legend.replaceChildren(...items);
  }

  #toggleLine(label, button) {
    const show = this.hidden.delete(label) || !this.hidden.add(label);
    button.setAttribute("aria-pressed", String(show));
    if (this.options.stack) return this.update({});
    const at = this.plot.series.findIndex((each) => each.label === label);
    this.plot.setSeries(at, { show });
  }

  #summary() {
    const { title, unit, series, events = [] } = this.options;
    const parts = series.slice(0, PALETTE).map((line) => {
      const known = line.values.filter(isNumber);
      if (!known.length) return `${line.label}: no readings`;
      const [least, most] = [Math.min(...known), Math.max(...known)];
      return `${line.label}: ${formatValue(least, unit)} to ${formatValue(most, unit)}, last ${formatValue(known.at(-1), unit)}`;
    });
    if (events.length) parts.push(`${events.length} marks`);
    this.place.setAttribute("aria-label", `${title}. ${parts.join("; ")}. Arrow keys move through time, Enter shows the table.`);
  }

  /** The window under the crosshair, or null. */
  #index() {
    const { idx, left } = this.plot?.cursor ?? {};
    return left >= 0 && isNumber(idx) ? idx : null;
  }

  /** The window of a line that the crosshair shows: the nearest, where windows are narrower than readings are apart. */
  #nearest(place, index) {
    const column = this.plot.series.length - this.options.series.length + place;
    return this.plot.cursor.idxs?.[column] ?? index;
  }

  /** The newest value of a line, unless it has ended: then it has none now. */
  #newest(values) {
    const { times, until, step = 0 } = this.options;
    const at = values.findLastIndex(isNumber);
    const isOver = at >= 0 && until !== undefined && until - times[at] > Math.max(pageData.stale_after ?? 0, 3 * step);
    return at < 0 || isOver ? null : values[at];
  }

  #readout() {
    const { series, unit, times, sync } = this.options;
    const index = this.#index();
    series.forEach((line, place) => {
      const shown = index === null ? this.#newest(line.values) : line.values[this.#nearest(place, index)];
      if (this.values[place]) this.values[place].textContent = formatValue(shown, unit);
    });
    const here = this.pointed || document.activeElement === this.place;
    if (here && sync) for (const fn of followers.get(sync) ?? []) fn(index === null ? null : times[index]);
    this.tip.hidden = index === null || !here;
    if (this.tip.hidden) return;
    this.tip.replaceChildren(...this.#tipLines(index).map((text, place) => make(place ? "p" : "b", "", text)));
    const left = this.plot.cursor.left + AXIS_WIDTH;
    const flip = left > this.place.clientWidth / 2;
    this.tip.style.left = flip ? "" : `${left + 10}px`;
    this.tip.style.right = flip ? `${this.place.clientWidth - left + 10}px` : "";
  }

  #tipLines(index) {
    const { times, step = 0, band, unit } = this.options;
    const from = formatTime(times[index], { seconds: step < 60_000 });
    const lines = [this.#isOpen(index) ? `${from} · window not over` : from];
    if (band?.max) lines.push(`${formatValue(band.min[index], unit)} to ${formatValue(band.max[index], unit)}`);
    this.options.series.forEach(({ label, min, max }, place) => {
      const at = this.#nearest(place, index);
      if (min && max && isNumber(min[at]) && min[at] !== max[at]) lines.push(`${label}: ${formatValue(min[at], unit)} to ${formatValue(max[at], unit)}`);
    });
    return [...lines, ...this.#marksAt(index)];
  }

  #marksAt(index) {
    const { times, events = [] } = this.options;
    const perPixel = this.plot.posToVal(1, "x") - this.plot.posToVal(0, "x");
    const near = perPixel * 6;
    return events
      .filter(({ time, end, until }) => Math.abs(time - times[index]) <= near || (time <= times[index] && times[index] < (end ?? until ?? time)))
      .slice(0, 4)
      .map(({ kind, text }) => `${GLYPHS[kind]} ${text}`);
  }

  #point(index) {
    if (!this.plot) return;
    const hidden = { left: -10, top: -10 };
    const at = () => ({ left: this.plot.valToPos(this.options.times[index], "x"), top: this.plot.over.clientHeight / 2 });
    // The last argument tells the other charts.
    this.plot.setCursor(index === null ? hidden : at(), true, true);
  }

  #key(event) {
    const { times, series, unit } = this.options;
    if (event.ctrlKey || event.metaKey || event.altKey || !times.length) return;
    const at = this.#index();
    const step = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: (at ?? times.length) - step, ArrowRight: (at ?? -1) + step, Home: 0, End: times.length - 1 };
    if (event.key in moves) {
      const index = Math.max(0, Math.min(times.length - 1, moves[event.key]));
      this.#point(index);
      const said = series.map((line) => `${line.label} ${formatValue(line.values[index], unit)}`);
      this.spoken.textContent = [formatTime(times[index], { seconds: true }), ...said, ...this.#marksAt(index)].join(", ");
    } else if (event.key === "Enter") this.#toggleTable();
    else if (event.key === "+" || event.key === "=") this.#zoomBy(0.5, at);
    else if (event.key === "-") this.#zoomBy(2, at);
    else if (event.key === "Escape" && at !== null) this.#point(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #zoomBy(factor, at) {
    const [start, end] = this.#xRange();
    const middle = at === null ? (start + end) / 2 : this.options.times[at];
    const half = ((end - start) / 2) * factor;
    setRange(middle - half, middle + half);
  }

  #resize() {
    const width = this.place.clientWidth;
    if (this.plot && width > 60 && width !== this.plot.width) this.plot.setSize({ width, height: this.options.height ?? HEIGHT });
  }

  /** Draws again in the colours or the time zone that are chosen now. */
  repaint() {
    this.update({});
    this.plot?.redraw(true, true);
  }

  #toggleTable() {
    this.table.hidden = !this.table.hidden;
    this.button.setAttribute("aria-expanded", String(!this.table.hidden));
    this.button.textContent = this.table.hidden ? "Table" : "Hide table";
    this.button.title = this.table.hidden ? "Show as table" : "Hide the table";
    if (!this.table.hidden) this.#fillTable();
  }

  #fillTable() {
    const { title, unit, times, series, band, events = [], step = 0 } = this.options;
    this.table.setAttribute("aria-label", `${title} as a table`);
    const table = make("table", "dense");
    table.append(make("caption", "visually-hidden", `${title}, newest first`));
    const columns = series.flatMap((line) => [[line.label, line.values], ...(line.min ? [[`${line.label}, lowest`, line.min], [`${line.label}, highest`, line.max]] : [])]);
    for (const name of ["min", "p5", "p95", "max"]) if (band?.[name]) columns.push([name, band[name]]);
    const head = table.createTHead().insertRow();
    for (const [place, name] of ["Time", ...columns.map(([label]) => label)].entries()) {
      const cell = make("th", place ? "num" : "", place ? `${name}` : `${name} (${isUtc() ? "UTC" : "local"})`);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    const kept = times.map((_, index) => index).filter((index) => columns.some(([, values]) => isNumber(values[index])));
    for (const index of kept.reverse().slice(0, MOST_TABLE_ROWS)) {
      const row = body.insertRow();
      const time = make("th", "", formatTime(times[index], { seconds: step < 60_000 }) + (this.#isOpen(index) ? " (not over)" : ""));
      time.scope = "row";
      row.append(time, ...columns.map(([, values]) => make("td", "num", formatValue(values[index], unit))));
    }
    const list = make("ul", "chart-marks");
    list.append(...events.map(({ time, end, until, kind, text }) => make("li", "", `${GLYPHS[kind]} ${kind}, ${formatTime(time, { seconds: true })}${(end ?? until) === undefined ? "" : ` to ${formatTime(end ?? until, { seconds: true })}`}: ${text}`)));
    const more = kept.length > MOST_TABLE_ROWS ? [make("p", "hint", `The newest ${MOST_TABLE_ROWS} of ${kept.length} windows. Zoom in for the others.`)] : [];
    this.table.replaceChildren(table, ...more, ...(events.length ? [list] : []));
  }
}

const isNumber = (value) => typeof value === "number" && !Number.isNaN(value);
const isMove = (type) => type === "mousemove" || type === "mouseleave";
const hasBand = (band) => Boolean(band && [band.max, band.p95].some((values) => values?.some(isNumber)));
const bandWords = (band) => band.label ?? [band.max && "min–max", band.p95 && "p5–p95"].filter(Boolean).join(" · ");
const colorOf = (line, place) => line.color ?? `--series-${(place % PALETTE) + 1}`;

/** The ticks of the vertical axis, all in the one unit that suits the largest. */
function axisLabels(splits, unit) {
  const most = Math.max(...splits.map(Math.abs));
  // An axis has room for three digits.
  const shown = most > 0 ? scaled(most, unit, 1) : { value: 0, unit };
  const factor = most > 0 ? shown.value / most : 1;
  const step = ((splits[1] ?? 1) - (splits[0] ?? 0)) * factor;
  let digits = 0;
  while (digits < 4 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits++;
  return splits.map((value) => `${formatNumber(value * factor, digits)} ${shown.unit}`.trim());
}

/** A token's colour, mostly transparent. */
function mixed(name, strength) {
  return `color-mix(in srgb, ${token(name)} ${Math.round(strength * 100)}%, transparent)`;
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** The values between two gaps: no line leads to them, so they need a dot. */
function lonely(values) {
  const ends = (at, step) => {
    while (values[at] === undefined && at >= 0 && at < values.length) at += step;
    return !isNumber(values[at]);
  };
  return values.flatMap((value, at) => (isNumber(value) && ends(at - 1, -1) && ends(at + 1, 1) ? [at] : []));
}

function axis(more) {
  return {
    stroke: () => token("--ink-2"),
    font: "11px Inter, 'Segoe UI', system-ui, sans-serif",
    grid: { stroke: () => token("--line"), width: 1 },
    ticks: { show: false },
    gap: 6,
    ...more,
  };
}

/** Clock times; the date where a day begins, and first. */
function timeLabels(_, splits, __, ___, increment) {
  let day = "";
  return splits.map((ms) => {
    const { date, time, seconds } = timeParts(ms);
    const isNew = date !== day;
    const isFirst = day === "";
    day = date;
    if (increment >= 86_400_000 || (isNew && !isFirst)) return date.slice(5);
    return increment < 60_000 ? `${time}:${seconds}` : time;
  });
}

function drawLine(ctx, x0, y0, x1, y1, color, dash) {
  ctx.beginPath();
  ctx.setLineDash(dash.map((each) => each * devicePixelRatio));
  ctx.lineWidth = devicePixelRatio;
  ctx.strokeStyle = color;
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
  ctx.setLineDash([]);
}

function zoom(u) {
  const { left, width } = u.select;
  if (width < 4) return;
  const [start, end] = [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
  u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  setRange(start, end);
}

function setRange(start, end) {
  range.setAbsolute(start, end);
  zoomed.add(`${get("start")} ${get("end")}`);
}

/** Undoes a zoom. A range that came with the link is left for the default. */
function back() {
  if (range.current().preset !== null) return;
  if (zoomed.has(`${get("start")} ${get("end")}`)) history.back();
  else range.setPreset(range.DEFAULT_PRESET);
}

const repaint = () => charts.forEach((chart) => chart.repaint());
onTheme(repaint);
let wasUtc = isUtc();
const zone = () => {
  if (wasUtc === isUtc()) return;
  wasUtc = isUtc();
  repaint();
};
onChange(zone);
document.addEventListener("zonechange", zone);
explain("← → in a chart", "Move through time; with Shift ten at once");
explain("+ − in a chart", "Zoom in or out; dragging zooms too, a double click undoes it");
explain("Enter in a chart", "Show its numbers as a table");
