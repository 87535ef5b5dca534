// The heat map: every slot of the fleet as a cell on one canvas. Cells are drawn colour by colour, from typed arrays.

import { cividis, onTheme, token } from "./colors.js";
import { shortHost } from "./format.js";

export const REPORTING = 0;
export const STALE = 1;
export const MISSING = 2;
export const MAINTENANCE = 3;

const SHADES = 64;
// Colours beside the ramp's: what is not a magnitude.
const PLAIN = { [STALE]: SHADES, [MISSING]: SHADES + 1, [MAINTENANCE]: SHADES + 2, none: SHADES + 3 };
const KINDS = SHADES + 4;
const MARK = { critical: 1, warning: 2, info: 3 };

/** How large things are, in CSS pixels. `lines`: a host a line; `dense`: all GPUs, small; `hosts`: a cell a host. */
const SIZES = {
  lines: { cell: 20, height: 19, gap: 2, row: 25, value: 48, between: 20 },
  dense: { cell: 8, height: 8, gap: 1, row: 11, value: 0, between: 9 },
  hosts: { cell: 17, height: 17, gap: 2, row: 19, value: 0, between: 2 },
};
const TITLE = 22;
const PADDING = 8;

/**
 * @typedef {object} Line A host of the map: `first` and `count` name its cells.
 * @property {string} name
 * @property {string} group
 * @property {number} first
 * @property {number} count
 * @property {string} text shown behind the cells
 *
 * @typedef {object} Cells One item a cell.
 * @property {Float32Array} values 0 to 1 on the ramp; NaN: no value
 * @property {Uint8Array} states
 * @property {Uint8Array} marks 0 none, 1 critical, 2 warning, 3 info
 * @property {Uint8Array} faded 1: outside of the filter
 */

export class HeatMap {
  /** `tell(cell)` gives the tooltip's text, `open(cell)` is called for a click or Enter; a cell's line is `lineOf(cell)`. */
  constructor(canvas, { tell, open, openLine }) {
    this.canvas = canvas;
    this.tell = tell;
    this.open = open;
    this.openLine = openLine;
    this.lines = [];
    this.cells = { values: new Float32Array(), states: new Uint8Array(), marks: new Uint8Array(), faded: new Uint8Array() };
    this.mode = "lines";
    this.prefix = "";
    this.focused = -1;
    this.x = new Float32Array();
    this.y = new Float32Array();
    this.lineAt = new Int32Array();
    this.ring = make("div", "heat-ring");
    this.tooltip = make("div", "tooltip heat-tooltip");
    this.live = make("p", "visually-hidden");
    this.live.setAttribute("aria-live", "polite");
    this.ring.hidden = this.tooltip.hidden = true;
    canvas.parentElement.append(this.ring, this.live);
    document.body.append(this.tooltip);
    canvas.addEventListener("pointermove", (event) => this.#hover(event));
    canvas.addEventListener("pointerleave", () => this.#leave());
    canvas.addEventListener("click", (event) => this.#click(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.#focus(this.focused < 0 ? 0 : this.focused));
    canvas.addEventListener("blur", () => this.#leave());
    onTheme(() => this.draw());
    new ResizeObserver(() => {
      if (canvas.parentElement.clientWidth !== this.width) this.draw();
    }).observe(canvas.parentElement);
  }

  /** Shows these. Nothing is drawn if nothing changed. */
  show({ lines, cells, mode, prefix }) {
    Object.assign(this, { lines, cells, mode, prefix });
    if (this.focused >= cells.values.length) this.focused = -1;
    this.draw();
  }

  draw() {
    const began = performance.now();
    this.#arrange();
    const scale = devicePixelRatio || 1;
    const { canvas } = this;
    const [width, height] = [Math.round(this.width * scale), Math.round(this.height * scale)];
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${this.height}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.#drawCells(context);
    this.#drawMarks(context);
    this.#drawTexts(context);
    performance.measure("heatmap-draw", { start: began, end: performance.now() });
    if (!this.ring.hidden) this.#ringAt(this.focused);
  }

  /** Where every cell is. Hosts follow each other line by line, so that the first are on top. */
  #arrange() {
    const size = SIZES[this.mode];
    const total = this.cells.values.length;
    this.width = Math.max(200, this.canvas.parentElement.clientWidth);
    if (this.x.length !== total) {
      this.x = new Float32Array(total);
      this.y = new Float32Array(total);
      this.lineAt = new Int32Array(total);
    }
    const longest = this.lines.reduce((most, line) => Math.max(most, line.count), 1);
    const label = this.mode === "lines" ? this.#labelWidth() : 0;
    const unit = label + longest * (size.cell + size.gap) - size.gap + size.value;
    const columns = Math.max(1, Math.floor((this.width - 2 + size.between) / (unit + size.between)));
    // Lines are as wide as the panel allows: the eye follows a column down.
    const pitch = this.mode === "lines" ? (this.width + size.between) / columns : unit + size.between;
    this.label = label;
    this.pitch = pitch;
    this.columns = columns;
    this.titles = [];
    let y = 0;
    let column = 0;
    let group = null;
    for (const [number, line] of this.lines.entries()) {
      if (line.group !== group) {
        if (group !== null && column > 0) y += size.row;
        if (line.group) {
          y += number ? PADDING : 0;
          this.titles.push({ text: line.group, y });
          y += TITLE;
        }
        group = line.group;
        column = 0;
      }
      line.x = column * pitch;
      line.y = y;
      for (let place = 0; place < line.count; place++) {
        const cell = line.first + place;
        this.x[cell] = line.x + label + place * (size.cell + size.gap);
        this.y[cell] = y + (this.mode === "lines" ? 2 : 0);
        this.lineAt[cell] = number;
      }
      column++;
      if (column === columns) {
        column = 0;
        y += size.row;
      }
    }
    this.height = Math.max(1, y + (column > 0 ? size.row : 0) + 2);
  }

  #labelWidth() {
    const context = this.canvas.getContext("2d");
    context.font = FONT();
    const most = this.lines.reduce((most, line) => Math.max(most, context.measureText(shortHost(line.name, this.prefix)).width), 40);
    return Math.ceil(Math.min(most, this.width < 480 ? 90 : 150)) + 10;
  }

  /** One pass sorts the cells by colour, so that the canvas changes its colour 64 times and not 10,000 times. */
  #drawCells(context) {
    const { values, states, faded } = this.cells;
    const total = values.length;
    const size = SIZES[this.mode];
    const kinds = new Uint8Array(total);
    const counts = new Uint32Array(KINDS + 1);
    for (let cell = 0; cell < total; cell++) {
      const value = values[cell];
      const kind = states[cell] !== REPORTING ? PLAIN[states[cell]] : value !== value ? PLAIN.none : Math.max(0, Math.min(SHADES - 1, Math.round(value * (SHADES - 1))));
      kinds[cell] = kind;
      counts[kind + 1]++;
    }
    for (let kind = 0; kind < KINDS; kind++) counts[kind + 1] += counts[kind];
    const order = new Uint32Array(total);
    const next = counts.slice();
    for (let cell = 0; cell < total; cell++) order[next[kinds[cell]]++] = cell;
    const styles = this.#styles(context, size);
    for (let kind = 0; kind < KINDS; kind++) {
      const [from, to] = [counts[kind], counts[kind + 1]];
      if (from === to) continue;
      for (const dim of [0, 1]) {
        context.beginPath();
        let any = false;
        for (let at = from; at < to; at++) {
          const cell = order[at];
          if (faded[cell] !== dim) continue;
          any = true;
          if (this.mode === "lines") context.roundRect(this.x[cell], this.y[cell], size.cell, size.height, 3);
          else context.rect(this.x[cell], this.y[cell], size.cell, size.height);
        }
        if (!any) continue;
        context.globalAlpha = dim ? 0.15 : 1;
        styles[kind](context);
      }
    }
    context.globalAlpha = 1;
  }

  #styles(context, size) {
    const [stale, hatch, line] = [token("--stale"), token("--hatch"), token("--field-line")];
    const fill = (style) => (on) => {
      on.fillStyle = style;
      on.fill();
    };
    const styles = Array.from({ length: SHADES }, (_, shade) => fill(cividis(shade / (SHADES - 1))));
    styles[PLAIN[STALE]] = fill(stale);
    const pattern = context.createPattern(hatched(hatch, size.cell > 10 ? 5 : 3), "repeat");
    styles[PLAIN[MISSING]] = (on) => {
      on.fillStyle = pattern;
      on.fill();
      on.strokeStyle = hatch;
      on.lineWidth = 1;
      on.setLineDash([2, 2]);
      on.stroke();
      on.setLineDash([]);
    };
    styles[PLAIN[MAINTENANCE]] = (on) => {
      on.strokeStyle = stale;
      on.lineWidth = 2;
      on.stroke();
    };
    styles[PLAIN.none] = (on) => {
      on.strokeStyle = line;
      on.lineWidth = 1;
      on.stroke();
    };
    return styles;
  }

  #drawMarks(context) {
    const { marks, faded } = this.cells;
    const size = SIZES[this.mode];
    const radius = this.mode === "dense" ? 2 : 3.2;
    const [panel, colours] = [token("--panel"), [null, token("--crit"), token("--warn"), token("--info")]];
    for (let cell = 0; cell < marks.length; cell++) {
      if (!marks[cell] || faded[cell]) continue;
      const [x, y] = [this.x[cell] + size.cell - radius - 0.5, this.y[cell] + radius + 0.5];
      context.beginPath();
      if (marks[cell] === MARK.warning) {
        context.moveTo(x, y - radius);
        context.lineTo(x + radius, y + radius);
        context.lineTo(x - radius, y + radius);
        context.closePath();
      } else context.arc(x, y, radius, 0, 7);
      context.strokeStyle = panel;
      context.lineWidth = 2.5;
      context.stroke();
      context.fillStyle = colours[marks[cell]];
      context.fill();
    }
  }

  #drawTexts(context) {
    context.textBaseline = "middle";
    context.font = `650 11.5px ${FAMILY()}`;
    context.fillStyle = token("--ink-2");
    context.textAlign = "left";
    for (const { text, y } of this.titles) context.fillText(text, 0, y + TITLE / 2);
    if (this.mode !== "lines") return;
    const size = SIZES.lines;
    const [ink, soft] = [token("--ink"), token("--ink-2")];
    for (const line of this.lines) {
      const middle = line.y + 2 + size.height / 2;
      context.font = FONT();
      context.textAlign = "left";
      context.fillStyle = ink;
      context.fillText(fitting(context, shortHost(line.name, this.prefix), this.label - 8), line.x, middle);
      context.fillStyle = soft;
      context.textAlign = "right";
      context.fillText(line.text, line.x + this.label + line.count * (size.cell + size.gap) - size.gap + size.value, middle);
    }
  }

  /** The cell at a point of the canvas, or -1; and the line whose name is there. */
  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const size = SIZES[this.mode];
    const line = this.lines.find((each) => y >= each.y && y < each.y + size.row && x >= each.x && x < each.x + this.pitch);
    if (!line) return { cell: -1, line: null };
    const inside = x - line.x - this.label;
    const place = Math.floor(inside / (size.cell + size.gap));
    if (inside < 0) return { cell: -1, line };
    return place < line.count ? { cell: line.first + place, line } : { cell: -1, line: null };
  }

  #hover(event) {
    const { cell, line } = this.#at(event);
    this.canvas.style.cursor = cell >= 0 || line ? "pointer" : "default";
    if (cell >= 0) this.#tellAt(this.tell(cell), event.clientX, event.clientY);
    else if (line && this.mode === "lines") this.#tellAt(line.name, event.clientX, event.clientY);
    else this.tooltip.hidden = true;
  }

  #tellAt(text, x, y) {
    this.tooltip.textContent = text;
    this.tooltip.hidden = false;
    const { offsetWidth, offsetHeight } = this.tooltip;
    this.tooltip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - offsetWidth - 8))}px`;
    this.tooltip.style.top = `${y + 16 + offsetHeight > innerHeight ? y - offsetHeight - 10 : y + 16}px`;
  }

  #leave() {
    this.tooltip.hidden = true;
    if (document.activeElement !== this.canvas) this.ring.hidden = true;
  }

  #click(event) {
    const { cell, line } = this.#at(event);
    if (cell >= 0) this.open(cell, event);
    else if (line) this.openLine(line, event);
  }

  #key(event) {
    const { lines, lineAt } = this;
    if (!lines.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const cell = Math.max(0, this.focused);
    const number = lineAt[cell];
    const place = cell - lines[number].first;
    const to = (line, at) => lines[line].first + Math.min(at, lines[line].count - 1);
    const moves = {
      ArrowRight: () => (place + 1 < lines[number].count ? cell + 1 : number + 1 < lines.length ? to(number + 1, 0) : cell),
      ArrowLeft: () => (place > 0 ? cell - 1 : number > 0 ? to(number - 1, Infinity) : cell),
      ArrowDown: () => to(this.#vertical(number, 1), place),
      ArrowUp: () => to(this.#vertical(number, -1), place),
      Home: () => (event.shiftKey ? to(0, 0) : to(number, 0)),
      End: () => (event.shiftKey ? to(lines.length - 1, Infinity) : to(number, Infinity)),
      PageDown: () => to(lines.length - 1, place),
      PageUp: () => to(0, place),
    };
    if (event.key in moves) {
      event.preventDefault();
      this.#focus(moves[event.key]());
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.open(cell, event);
    } else if (event.key === "h") {
      event.preventDefault();
      this.openLine(lines[number], event);
    }
  }

  /** The nearest line above or below in the same column. */
  #vertical(number, direction) {
    const from = this.lines[number];
    for (let at = number + direction; at >= 0 && at < this.lines.length; at += direction) {
      const line = this.lines[at];
      if (line.y !== from.y && Math.abs(line.x - from.x) < this.pitch / 2) return at;
    }
    return number;
  }

  #focus(cell) {
    if (!this.cells.values.length) return;
    this.focused = cell;
    this.#ringAt(cell);
    const text = this.tell(cell);
    this.live.textContent = text;
    const box = this.canvas.getBoundingClientRect();
    const top = box.top + this.y[cell];
    if (top < 60 || top > innerHeight - 40) scrollBy({ top: top - innerHeight / 2 });
    const now = this.canvas.getBoundingClientRect();
    this.#tellAt(text, now.left + this.x[cell], now.top + this.y[cell] + 6);
  }

  #ringAt(cell) {
    const size = SIZES[this.mode];
    this.ring.hidden = document.activeElement !== this.canvas;
    this.ring.style.width = `${size.cell + 4}px`;
    this.ring.style.height = `${size.height + 4}px`;
    this.ring.style.transform = `translate(${this.x[cell] - 2}px, ${this.y[cell] - 2}px)`;
  }
}

const FAMILY = () => token("--num") || "system-ui, sans-serif";
const FONT = () => `12px ${FAMILY()}`;

function make(name, classes) {
  const element = document.createElement(name);
  element.className = classes;
  return element;
}

function fitting(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(`…${text.slice(text.length - middle)}`).width <= width) low = middle;
    else high = middle - 1;
  }
  return `…${text.slice(text.length - low)}`;
}

function hatched(colour, size) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const context = tile.getContext("2d");
  context.strokeStyle = colour;
  context.lineWidth = 1.3;
  context.beginPath();
  context.moveTo(-1, size + 1);
  context.lineTo(size + 1, -1);
  context.moveTo(-1, 1);
  context.lineTo(1, -1);
  context.moveTo(size - 1, size + 1);
  context.lineTo(size + 1, size - 1);
  context.stroke();
  return tile;
}
