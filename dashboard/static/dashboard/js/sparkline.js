// Small lines without axes, for rows of tables. They are SVG, so they follow the theme by themselves.

import { formatValue } from "./format.js";
import { bridged } from "./gaps.js";

const NS = "http://www.w3.org/2000/svg";
const WIDTH = 100;
const HEIGHT = 24;
const MARGIN = 1.5;

/**
 * Draws a sparkline into an element. Gaps stay gaps; a value between two gaps is a dot.
 * @param {HTMLElement} element
 * @param {{times: number[], values: (number|null)[], unit: string, scale?: {min?: number, max?: number}, range?: {start: number, end: number}, label?: string}} options
 */
export function sparkline(element, { times, values, unit, scale = {}, range, label = "" }) {
  const known = values.filter((value) => typeof value === "number");
  element.classList.add("sparkline");
  if (!known.length) {
    // The figure beside it says that there is none.
    element.replaceChildren(words("visually-hidden", `${label}: no readings in this range`));
    return;
  }
  const [low, high] = bounds(known, scale);
  const [start, end] = range ? [range.start, range.end] : [times[0], times.at(-1)];
  const x = (ms) => (end > start ? ((ms - start) / (end - start)) * WIDTH : WIDTH / 2);
  const y = (value) => HEIGHT - MARGIN - ((value - low) / (high - low)) * (HEIGHT - 2 * MARGIN);
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const text = `${formatValue(Math.min(...known), unit)} to ${formatValue(Math.max(...known), unit)}, last ${formatValue(known.at(-1), unit)}`;
  svg.setAttribute("aria-label", label ? `${label}: ${text}` : text);
  const { line, area, dots } = paths(times, bridged(values), x, y);
  svg.append(path("sparkline-area", area), path("sparkline-line", line), path("sparkline-dots", dots));
  element.replaceChildren(svg);
  element.title = text;
}

function bounds(known, scale) {
  const low = Math.min(scale.min ?? Infinity, ...known);
  const high = Math.max(scale.max ?? -Infinity, ...known);
  return low < high ? [low, high] : [low - 1, high + 1];
}

function paths(times, values, x, y) {
  let line = "";
  let area = "";
  let dots = "";
  for (let at = 0; at < values.length; ) {
    if (typeof values[at] !== "number") {
      at += 1;
      continue;
    }
    const points = [];
    const from = at;
    let last = at;
    for (; at < values.length && values[at] !== null; at++) {
      if (values[at] === undefined) continue;
      points.push(`${x(times[at]).toFixed(2)},${y(values[at]).toFixed(2)}`);
      last = at;
    }
    // A line of no length is drawn as a dot: its ends are round.
    if (points.length === 1) dots += `M${points[0]}h0.01`;
    else line += `M${points.join("L")}`;
    if (points.length > 1) area += `M${x(times[from]).toFixed(2)},${HEIGHT}L${points.join("L")}L${x(times[last]).toFixed(2)},${HEIGHT}Z`;
  }
  return { line, area, dots };
}

function path(className, d) {
  const element = document.createElementNS(NS, "path");
  element.setAttribute("class", className);
  element.setAttribute("d", d);
  return element;
}

function words(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}
