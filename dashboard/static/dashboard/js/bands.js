// A chart of a metric of the whole fleet: lowest to highest, p5 to p95, and the median.

import { learnInterval, timeChart, windows } from "./charts.js";
import { SCALES } from "./format.js";
import { every } from "./live.js";
import { apiUrl, getJson } from "./page.js";
import { current, queryParams } from "./range.js";
import { get } from "./state.js";

// Of a large fleet the bands of each minute are kept: for shorter windows the store would have to read every reading.
const KEPT_STEP_MS = 60_000;
export const FILTERS = ["model", "namespace", "hostname"];

/** The filters of the page's URL, for the API. */
export const filters = () => Object.fromEntries(FILTERS.map((name) => [name, get(name)]));

/** Says in an element why a question was not answered. An abort is no answer, and is passed on. */
export function sayWhyNot(element, error) {
  if (error.name === "AbortError") throw error;
  if (!("status" in error)) throw error;
  let note = element.querySelector(".chart-error");
  if (!note) {
    note = document.createElement("p");
    note.className = "hint chart-error";
    note.setAttribute("role", "status");
    element.append(note);
  }
  note.textContent = `Not updated: ${error.message}.`;
}

/** The question was answered. */
export const clearWhyNot = (element) => element.querySelector(".chart-error")?.remove();

/** Keeps a chart of a metric's band fresh. `options` are those of timeChart beside what the answer gives. */
export function bandChart(element, { metric, title, ...options }) {
  if (!element) return;
  let chart = null;
  const place = document.createElement("div");
  element.append(place);
  every(async function ask({ signal }) {
    const stepMs = Math.max(windows(element.clientWidth).step, "large" in element.dataset ? KEPT_STEP_MS : 0);
    let answer;
    try {
      answer = await getJson(apiUrl("/api/v1/fleet/bands", { metric, every: `${stepMs / 1000}s`, ...queryParams(), ...filters() }), { signal });
    } catch (error) {
      sayWhyNot(element, error);
      return;
    }
    clearWhyNot(element);
    const times = answer.time.map((time) => Date.parse(time));
    if (learnInterval(times, answer.median)) return ask({ signal });
    const { start, end } = current();
    const shown = {
      title,
      unit: answer.unit,
      times,
      series: [{ label: "median", values: answer.median }],
      band: { min: answer.min, p5: answer.p5, p95: answer.p95, max: answer.max },
      scale: SCALES[metric],
      range: { start, end },
      step: stepMs,
      until: end,
      ...options,
    };
    if (chart) chart.update(shown);
    else chart = timeChart(place, shown);
  });
}
