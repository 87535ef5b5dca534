// The heat map: every slot of the fleet as a cell on one canvas. Cells are drawn colour by colour, from typed arrays.

import { cividis, onTheme, token } from "./colors.js";
import { shortHost } from "./format.js";

export const REPORTING = 0;
export const STALE = 1;
export const MISSING = 2;
export const MAINTENANCE = 3;

const SHADES = 64;
// Looks beside the ramp's: what is not a magnitude.
const LOOKS = { [STALE]: SHADES, [MISSING]: SHADES + 1, [MAINTENANCE]: SHADES + 2, none: SHADES + 3 };
const KINDS = SHADES + 4;
const CRITICAL = 1;
const WARNING = 2;
const INFO = 3;
const FADED = 0.15;

/**
 * How large things are, in CSS pixels. `line`: a host with its name and its GPUs; `dense`: its GPUs, small; `host`: the host is one cell.
 * Cells of lines grow up to `widest`, so that a small fleet fills its panel.
 */
const SIZES = {
  line: { cell: 15, widest: 34, height: 19, gap: 2, row: 25, value: 50, between: 18, top: 2, corner: 3 },
  dense: { cell: 8, widest: 8, height: 8, gap: 1, row: 11, value: 0, between: 9, top: 0, corner: 0 },
  host: { cell: 17, widest: 17, height: 17, gap: 2, row: 19, value: 0, between: 2, top: 0, corner: 0 },
};
const HOST_MARKS = { [CRITICAL]: ["⬣", "--crit"], [WARNING]: ["▲", "--warn"], [INFO]: ["●", "--info"] };
const MARK_WIDTH = 14;
const NARROWEST = 4;
const TITLE = 22;
const PADDING = 8;
const NARROW = 480;

/**
 * @typedef {object} Line A host of the map: `first` and `count` name its cells.
 * @property {string} name
 * @property {string} group
 * @property {"line"|"dense"|"host"} kind lines of one kind and group must follow each other
 * @property {number} first
 * @property {number} count
 * @property {string} text shown behind the cells
 * @property {number} [mark] of the host itself, as of cells
 *
 * @typedef {object} Cells One item a cell.
 * @property {Float32Array} values 0 to 1 on the ramp; NaN: no value
 * @property {Uint8Array} states
 * @property {Uint8Array} marks 0 none, 1 critical, 2 warning, 3 info
 * @property {Uint8Array} faded 1: outside of the filter
 */

export class HeatMap {
  /** `tell(cell)` gives the tooltip's text; `open(cell, event)` is called for a click or Enter, `openLine(line, event)` for a host's name. */
  constructor(canvas, { tell, open, openLine }) {
    this.canvas = canvas;
    this.tell = tell;
    this.open = open;
    this.openLine = openLine;
    /** @type {Line[]} */
    this.lines = [];
    /** @type {Cells} */
    this.cells = { values: new Float32Array(), states: new Uint8Array(), marks: new Uint8Array(), faded: new Uint8Array() };
    this.prefix = "";
    this.focused = -1;
    this.pointer = null;
    this.x = new Float32Array();
    this.y = new Float32Array();
    this.lineOf = new Int32Array();
    this.ring = make("div", "heat-ring");
    this.tooltip = make("div", "tooltip heat-tooltip");
    this.tooltip.setAttribute("aria-hidden", "true");
    this.spoken = make("p", "visually-hidden");
    this.spoken.setAttribute("aria-live", "polite");
    this.ring.hidden = this.tooltip.hidden = true;
    canvas.parentElement.append(this.ring, this.spoken);
    document.body.append(this.tooltip);
    this.#listen();
    onTheme(() => this.draw());
    new ResizeObserver(() => {
      if (this.#room() !== this.width) this.draw();
    }).observe(canvas.parentElement);
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => this.#hover(event));
    canvas.addEventListener("pointerleave", () => this.#leave());
    canvas.addEventListener("pointerdown", (event) => {
      // The focus that follows is on the cell that was pressed, not on the first.
      const { cell } = this.#at(event);
      if (cell >= 0) this.focused = cell;
    });
    canvas.addEventListener("click", (event) => this.#click(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => {
      if (canvas.matches(":focus-visible")) this.#focus(Math.max(0, this.focused));
    });
    canvas.addEventListener("blur", () => {
      this.ring.hidden = true;
      this.#leave();
    });
    addEventListener("scroll", () => this.#leave(), { passive: true });
  }

  /** Shows these. `focused` is the cell that has the focus from now on, -1: none. */
  show({ lines, cells, prefix, focused = -1 }) {
    Object.assign(this, { lines, cells, prefix, focused });
    this.draw();
    if (this.pointer) this.#hover(this.pointer);
    else if (this.#hasFocus() && focused >= 0) this.#say(focused, false);
    else this.tooltip.hidden = true;
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
    this.#ringAt(this.focused);
  }

  #room() {
    return Math.max(200, this.canvas.parentElement.clientWidth);
  }

  /** Where every cell is. Hosts follow each other row by row, so that the first are on top. */
  #arrange() {
    const total = this.cells.values.length;
    this.width = this.#room();
    if (this.x.length !== total) {
      this.x = new Float32Array(total);
      this.y = new Float32Array(total);
      this.lineOf = new Int32Array(total);
    }
    this.titles = [];
    const layouts = this.#layouts();
    let y = 0;
    let column = 0;
    let before = null;
    for (const [number, line] of this.lines.entries()) {
      const layout = layouts[line.kind];
      if (before && (before.kind !== line.kind || before.group !== line.group)) {
        if (column > 0) y += layouts[before.kind].row;
        y += PADDING;
        column = 0;
      }
      if (line.group && line.group !== before?.group) {
        this.titles.push({ text: line.group, y });
        y += TITLE;
      }
      this.#place(line, number, layout, column, y);
      before = line;
      column++;
      if (column === layout.columns) {
        column = 0;
        y += layout.row;
      }
    }
    this.height = Math.max(1, y + (column > 0 ? layouts[before.kind].row : 0));
  }

  #place(line, number, layout, column, y) {
    line.layout = layout;
    line.x = Math.round(column * layout.pitch);
    line.y = y;
    for (let place = 0; place < line.count; place++) {
      const cell = line.first + place;
      this.x[cell] = line.x + layout.label + place * (layout.cell + layout.gap);
      this.y[cell] = y + layout.top;
      this.lineOf[cell] = number;
    }
  }

  /** Of each kind of line: its columns, and the width of its cells. */
  #layouts() {
    const layouts = {};
    for (const kind of Object.keys(SIZES)) {
      const lines = this.lines.filter((line) => line.kind === kind);
      if (!lines.length) continue;
      const size = SIZES[kind];
      const longest = lines.reduce((most, line) => Math.max(most, line.count), 1);
      const label = kind === "line" ? this.#labelWidth(lines) : 0;
      const width = (cell) => label + longest * (cell + size.gap) - size.gap + size.value + size.between;
      const fitting = Math.floor((this.width + size.between) / width(size.cell));
      const columns = Math.max(1, Math.min(fitting, lines.length));
      const room = (this.width + size.between) / columns - size.between - label - size.value;
      const cell = Math.max(NARROWEST, Math.min(size.widest, Math.floor((room + size.gap) / longest) - size.gap));
      // What is left between columns of lines keeps them apart; small cells stand close.
      const pitch = kind === "line" ? Math.min((this.width + size.between) / columns, width(cell) + 40) : width(cell);
      layouts[kind] = { ...size, label, columns, cell, pitch };
    }
    return layouts;
  }

  #labelWidth(lines) {
    const context = this.canvas.getContext("2d");
    context.font = textFont();
    const most = lines.reduce((most, line) => Math.max(most, context.measureText(shortHost(line.name, this.prefix)).width + (line.mark ? MARK_WIDTH : 0)), 40);
    return Math.ceil(Math.min(most, this.width < NARROW ? 90 : 150)) + 10;
  }

  /** The cells in the order of their looks, so that the canvas changes its colour 64 times and not 10,000 times. */
  #sorted() {
    const { values, states } = this.cells;
    const total = values.length;
    const kinds = new Uint8Array(total);
    const starts = new Uint32Array(KINDS + 1);
    for (let cell = 0; cell < total; cell++) {
      const value = values[cell];
      let kind = LOOKS.none;
      if (states[cell] !== REPORTING) kind = LOOKS[states[cell]];
      else if (value === value) kind = Math.max(0, Math.min(SHADES - 1, Math.round(value * (SHADES - 1))));
      kinds[cell] = kind;
      starts[kind + 1]++;
    }
    for (let kind = 0; kind < KINDS; kind++) starts[kind + 1] += starts[kind];
    const order = new Uint32Array(total);
    const next = starts.slice();
    for (let cell = 0; cell < total; cell++) order[next[kinds[cell]]++] = cell;
    return { order, starts };
  }

  #drawCells(context) {
    const { order, starts } = this.#sorted();
    const { faded } = this.cells;
    const paint = painters(context);
    for (let kind = 0; kind < KINDS; kind++) {
      const [from, to] = [starts[kind], starts[kind + 1]];
      for (let dim = 0; dim <= 1 && from < to; dim++) {
        context.globalAlpha = dim ? FADED : 1;
        context.beginPath();
        if (kind < SHADES) context.fillStyle = cividis(kind / (SHADES - 1));
        for (let at = from; at < to; at++) {
          const cell = order[at];
          if (faded[cell] === dim) this.#addCell(context, cell, kind < SHADES);
        }
        if (kind < SHADES) context.fill();
        else paint[kind](context);
      }
    }
    context.globalAlpha = 1;
  }

  /** Square cells are painted at once, which is faster than a path of thousands. */
  #addCell(context, cell, filled) {
    const { corner, cell: width, height } = this.lines[this.lineOf[cell]].layout;
    const [x, y] = [this.x[cell], this.y[cell]];
    if (corner) context.roundRect(x, y, width, height, corner);
    else if (filled) context.fillRect(x, y, width, height);
    else context.rect(x + 0.5, y + 0.5, width - 1, height - 1);
  }

  #drawMarks(context) {
    const { marks, faded } = this.cells;
    const panel = token("--panel");
    const colours = [null, token("--crit"), token("--warn"), token("--info")];
    for (let cell = 0; cell < marks.length; cell++) {
      if (!marks[cell] || faded[cell]) continue;
      const { cell: width } = this.lines[this.lineOf[cell]].layout;
      const radius = (width < 10 ? 2 : 3.2) * (marks[cell] === INFO ? 0.7 : 1);
      const [x, y] = [this.x[cell] + width - radius - 0.5, this.y[cell] + radius + 0.5];
      context.beginPath();
      if (marks[cell] === CRITICAL) addHexagon(context, x, y, radius + 0.6);
      else if (marks[cell] === WARNING) {
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
      if (marks[cell] === CRITICAL) this.#drawRing(context, cell, colours[CRITICAL]);
    }
  }

  /** A critical event is also a ring: it stands out where the glyph is small, and without colour. */
  #drawRing(context, cell, colour) {
    const { corner, cell: width, height } = this.lines[this.lineOf[cell]].layout;
    context.beginPath();
    context.roundRect(this.x[cell] + 0.75, this.y[cell] + 0.75, width - 1.5, height - 1.5, corner);
    context.strokeStyle = colour;
    context.lineWidth = 1.5;
    context.stroke();
  }

  #drawTexts(context) {
    context.textBaseline = "middle";
    context.font = `650 11.5px ${family()}`;
    context.textAlign = "left";
    const [ink, soft] = [token("--ink"), token("--ink-2")];
    context.fillStyle = soft;
    for (const { text, y } of this.titles) context.fillText(text, 0, y + TITLE / 2);
    context.font = textFont();
    for (const line of this.lines) {
      if (line.kind !== "line") continue;
      const { layout } = line;
      const middle = line.y + layout.top + layout.height / 2;
      context.textAlign = "left";
      // What is wrong with the host itself stands before its name.
      const [glyph, colour] = HOST_MARKS[line.mark] ?? ["", "--ink"];
      context.fillStyle = token(colour);
      context.fillText(glyph, line.x, middle);
      context.fillStyle = ink;
      const indent = glyph ? MARK_WIDTH : 0;
      context.fillText(fitting(context, shortHost(line.name, this.prefix), layout.label - 8 - indent), line.x + indent, middle);
      context.fillStyle = soft;
      context.textAlign = "right";
      context.fillText(line.text, line.x + layout.label + line.count * (layout.cell + layout.gap) - layout.gap + layout.value, middle);
    }
  }

  /** The cell at a point of the screen, or -1; and the line whose name is there. */
  #at({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [clientX - box.left, clientY - box.top];
    const line = this.lines.find((each) => y >= each.y && y < each.y + each.layout.row && x >= each.x && x < each.x + each.layout.pitch);
    if (!line) return { cell: -1, line: null };
    const inside = x - line.x - line.layout.label;
    const place = Math.floor(inside / (line.layout.cell + line.layout.gap));
    if (inside < 0) return { cell: -1, line };
    return { cell: place < line.count ? line.first + place : -1, line: null };
  }

  #hover(event) {
    this.pointer = { clientX: event.clientX, clientY: event.clientY };
    const { cell, line } = this.#at(event);
    this.canvas.style.cursor = cell >= 0 || line ? "pointer" : "default";
    if (cell >= 0) this.#tellAt(this.tell(cell), event.clientX, event.clientY);
    else if (line) this.#tellAt(line.name, event.clientX, event.clientY);
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
    this.pointer = null;
    this.tooltip.hidden = true;
  }

  #click(event) {
    const { cell, line } = this.#at(event);
    if (cell >= 0) this.open(cell, event);
    else if (line) this.openLine(line, event);
  }

  #key(event) {
    if (!this.lines.length || event.altKey) return;
    const cell = Math.max(0, this.focused);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.open(cell, event);
      return;
    }
    if (event.key === "h" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.openLine(this.lines[this.lineOf[cell]], event);
      return;
    }
    const target = this.#moved(event, cell);
    if (target === null) return;
    event.preventDefault();
    this.#focus(target);
  }

  /** The cell that a key leads to, or null. */
  #moved({ key, ctrlKey, metaKey }, cell) {
    const { lines, lineOf } = this;
    const number = lineOf[cell];
    const place = cell - lines[number].first;
    const last = this.cells.values.length - 1;
    const end = (line) => line.first + line.count - 1;
    if (ctrlKey || metaKey) return key === "Home" ? 0 : key === "End" ? last : null;
    switch (key) {
      // The cells are numbered in reading order.
      case "ArrowRight": return Math.min(cell + 1, last);
      case "ArrowLeft": return Math.max(cell - 1, 0);
      case "ArrowDown": return this.#vertical(number, place, 1) ?? cell;
      case "ArrowUp": return this.#vertical(number, place, -1) ?? cell;
      case "Home": return lines[number].kind === "host" ? 0 : lines[number].first;
      case "End": return lines[number].kind === "host" ? last : end(lines[number]);
      default: return null;
    }
  }

  /** The cell above or below: on the nearest line there that covers this cell's middle, else on the line closest to it. */
  #vertical(number, place, direction) {
    const from = this.lines[number];
    const x = from.x + from.layout.label + place * (from.layout.cell + from.layout.gap) + from.layout.cell / 2;
    let best = null;
    let row = null;
    for (let at = number + direction; at >= 0 && at < this.lines.length; at += direction) {
      const line = this.lines[at];
      if (line.y === from.y || !line.count) continue;
      if (row !== null && line.y !== row) break;
      row = line.y;
      const { label, cell, gap } = line.layout;
      const near = Math.max(0, Math.min(line.count - 1, Math.floor((x - line.x - label) / (cell + gap))));
      const away = Math.abs(line.x + label + near * (cell + gap) + cell / 2 - x);
      if (best === null || away < best.away) best = { cell: line.first + near, away };
    }
    return best?.cell ?? null;
  }

  #focus(cell) {
    if (cell >= this.cells.values.length) return;
    this.focused = cell;
    this.#ringAt(cell);
    this.#say(cell, true);
  }

  /** The text of a cell, beside it and for screen readers. */
  #say(cell, scroll) {
    const text = this.tell(cell);
    if (this.spoken.textContent !== text) this.spoken.textContent = text;
    const top = this.canvas.getBoundingClientRect().top + this.y[cell];
    if (scroll && (top < 60 || top > innerHeight - 60)) scrollBy({ top: top - innerHeight / 2 });
    const box = this.canvas.getBoundingClientRect();
    this.pointer = null;
    // After the scroll's own event, which hides the tooltip.
    requestAnimationFrame(() => this.#tellAt(text, box.left + this.x[cell], box.top + this.y[cell] + 6));
  }

  #hasFocus() {
    return document.activeElement === this.canvas && this.canvas.matches(":focus-visible");
  }

  #ringAt(cell) {
    this.ring.hidden = cell < 0 || !this.#hasFocus();
    if (this.ring.hidden) return;
    const { cell: width, height } = this.lines[this.lineOf[cell]].layout;
    this.ring.style.width = `${width + 4}px`;
    this.ring.style.height = `${height + 4}px`;
    this.ring.style.transform = `translate(${this.x[cell] - 2}px, ${this.y[cell] - 2}px)`;
  }
}

function addHexagon(context, x, y, radius) {
  for (let corner = 0; corner < 6; corner++) {
    const angle = (corner * Math.PI) / 3;
    context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
}

/** How the looks that are not of the ramp paint the context's path. */
function painters(context) {
  const [stale, hatch, edge] = [token("--stale"), token("--hatch"), token("--field-line")];
  const outlined = (colour, width) => (on) => {
    on.strokeStyle = colour;
    on.lineWidth = width;
    on.stroke();
  };
  return {
    [LOOKS[STALE]]: (on) => {
      on.fillStyle = stale;
      on.fill();
    },
    [LOOKS[MISSING]]: (on) => {
      on.fillStyle = context.createPattern(hatched(hatch), "repeat");
      on.fill();
      on.setLineDash([2, 2]);
      outlined(hatch, 1)(on);
      on.setLineDash([]);
    },
    [LOOKS[MAINTENANCE]]: outlined(stale, 2),
    [LOOKS.none]: outlined(edge, 1),
  };
}

const family = () => token("--num") || "system-ui, sans-serif";
const textFont = () => `12px ${family()}`;

function make(name, classes) {
  const element = document.createElement(name);
  element.className = classes;
  return element;
}

/** A text cut at its beginning to the width: host names differ at their end. */
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

function hatched(colour) {
  const size = 5;
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const context = tile.getContext("2d");
  context.strokeStyle = colour;
  context.lineWidth = 1.3;
  context.beginPath();
  for (const shift of [-size, 0, size]) {
    context.moveTo(shift - 1, size + 1);
    context.lineTo(shift + size + 1, -1);
  }
  context.stroke();
  return tile;
}
