// What ran when: rows of spans under the time axis of charts.

import { formatTime } from "./format.js";

/**
 * Draws rows of spans into an element. A span's `end` of null is open; what lies outside the range is cut.
 * @param {HTMLElement} element
 * @param {{rows: {label: string, href?: string, spans: {start: number, end: number|null, text: string, kind?: string}[]}[],
 *   range: {start: number, end: number}, empty?: string}} options
 * @returns {{point: (ms: number|null) => void}} `point` shows the charts' crosshair
 */
export function strip(element, { rows, range, empty = "Nothing is known to have run in this range" }) {
  element.classList.add("runs");
  const colors = new Map();
  element.replaceChildren(...rows.map((row) => rowOf(row, range, colors, empty)));
  const lines = [...element.querySelectorAll(".runs-cursor")];
  return {
    point: (ms) => {
      for (const line of lines) {
        line.hidden = ms === null || ms < range.start || ms > range.end;
        line.style.left = `${place(ms ?? 0, range)}%`;
      }
    },
  };
}

const place = (ms, { start, end }) => ((Math.max(start, Math.min(end, ms)) - start) / (end - start)) * 100;

function rowOf({ label, href, spans }, range, colors, empty) {
  const row = make("div", "runs-row");
  const name = make(href ? "a" : "span", "runs-label", label);
  if (href) name.href = href;
  const track = make("ol", "runs-track");
  const shown = spans.filter(({ start, end }) => start < range.end && (end ?? Infinity) >= range.start);
  track.append(...shown.map((span) => spanOf(span, range, colors)));
  if (!shown.length) track.append(make("li", "runs-none", empty));
  const cursor = make("div", "runs-cursor");
  cursor.hidden = true;
  const holder = make("div", "runs-holder");
  holder.append(track, cursor);
  row.append(name, holder);
  return row;
}

function spanOf({ start, end, text, kind }, range, colors) {
  const item = make("li", kind ? `runs-span ${kind}` : "runs-span");
  if (!kind) {
    if (!colors.has(text)) colors.set(text, (colors.size % 8) + 1);
    item.style.borderLeftColor = `var(--series-${colors.get(text)})`;
    item.style.backgroundColor = `color-mix(in srgb, var(--series-${colors.get(text)}) 22%, var(--panel))`;
  }
  const [left, right] = [place(start, range), place(end ?? range.end, range)];
  item.style.left = `${left}%`;
  item.style.width = `${Math.max(0.4, right - left)}%`;
  const times = `${formatTime(start, { seconds: true })} to ${end === null ? "now" : formatTime(end, { seconds: true })}`;
  item.title = `${text}, ${times}`;
  item.append(make("span", "runs-text", text), make("span", "visually-hidden", `, ${times}`));
  return item;
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  if (text) element.textContent = text;
  return element;
}
