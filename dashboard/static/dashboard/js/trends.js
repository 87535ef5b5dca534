// The fleet over time: how utilisation is spread over its GPUs, and the power of each model. Never a line for each GPU.

import { learnInterval, stepText, timeChart, windows } from "./charts.js";
import { apiUrl, getJson } from "./page.js";
import { current, iso } from "./range.js";
import { POWER, UTILISATION } from "./slots.js";
import { get } from "./state.js";

// A sum over shorter windows would fall whenever a GPU has no reading in one.
const SUM_STEP_MS = 60_000;
const KEPT_STEP_MS = 60_000;
const MOST_MODELS = 7;
// Of more GPUs the bands of each minute are kept; for anything else the store would have to read every reading.
const MOST_GPUS = 1000;
// Beside the map of a few hosts there is room.
const HEIGHT = document.querySelector("[data-trend].tall") && matchMedia("(min-width: 1001px)").matches ? 280 : 180;

/** @type {Map<string, {update: (options: object) => void}>} */
const charts = new Map();

/** Draws both charts. What cannot be had is said in its place. Throws AbortError. */
export async function showTrends(fleet, signal) {
  await Promise.all([tried("utilisation", () => showUtilisation(fleet, signal)), tried("power", () => showPower(fleet, signal))]);
}

const placeOf = (name) => document.querySelector(`[data-trend="${name}"]`);

async function tried(name, draw) {
  const note = document.querySelector(`[data-trend-note="${name}"]`);
  try {
    const options = await draw();
    if (charts.has(name)) charts.get(name).update(options);
    else charts.set(name, timeChart(placeOf(name), options));
    note.textContent = "";
  } catch (error) {
    if (error.name === "AbortError" || !("status" in error)) throw error;
    note.textContent = `Not updated: ${error.message}.`;
  }
}

const filters = () => ({ model: get("model"), namespace: get("namespace") });

/** The windows: their length in ms, and the parameters for the API. */
function asked(name, shortest = 0) {
  const shown = current();
  const suited = windows(placeOf(name).clientWidth || 400, shown);
  const step = Math.max(suited.step, shortest);
  return { step, shown, params: { every: `${step / 1000}s`, start_time: iso(Math.floor(shown.start / step) * step), end_time: iso(suited.end) } };
}

const common = ({ step, shown }, fleet) => ({ range: { start: shown.start, end: shown.end }, step, until: fleet.newest ? Date.parse(fleet.newest) : shown.end, sync: "fleet", level: 2, height: HEIGHT });

async function showUtilisation(fleet, signal) {
  const question = asked("utilisation", fleet.counts.gpus > MOST_GPUS ? KEPT_STEP_MS : 0);
  const answer = await getJson(apiUrl("/api/v1/fleet/bands", { metric: UTILISATION, ...question.params, ...filters() }), { signal });
  const times = answer.time.map((time) => Date.parse(time));
  if (learnInterval(times, answer.median)) return showUtilisation(fleet, signal);
  return {
    title: "Utilisation",
    unit: answer.unit,
    times,
    series: [{ label: "median", values: answer.median }],
    band: { min: answer.min, p5: answer.p5, p95: answer.p95, max: answer.max },
    scale: { min: 0, max: 100 },
    note: stepText(question.step),
    ...common(question, fleet),
  };
}

async function showPower(fleet, signal) {
  const question = asked("power", SUM_STEP_MS);
  const byModel = fleet.models.length > 1 && fleet.counts.gpus <= MOST_GPUS;
  const { times, series } = byModel ? await powerByModel(question, signal) : await powerOfAll(question, signal);
  return {
    title: byModel ? "Power by model" : "Power",
    unit: "W",
    times,
    series,
    stack: true,
    fill: true,
    scale: { min: 0 },
    note: stepText(question.step),
    ...common(question, fleet),
  };
}

async function powerOfAll({ params }, signal) {
  const answer = await getJson(apiUrl("/api/v1/fleet/bands", { metric: POWER, ...params, ...filters() }), { signal });
  return { times: answer.time.map((time) => Date.parse(time)), series: [{ label: "Power", values: answer.sum }] };
}

async function powerByModel({ params }, signal) {
  const answer = await getJson(apiUrl("/api/v1/query", { metric: POWER, agg: "sum", by: "model", top: MOST_MODELS, ...params, ...filters() }), { signal });
  const [first] = answer.data;
  return {
    times: (first?.points ?? []).map(([time]) => Date.parse(time)),
    series: answer.data.map(({ group, points }) => ({ label: group.model || "unknown model", values: points.map(([, value]) => value) })),
  };
}
