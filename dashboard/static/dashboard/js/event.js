// The page of an event: the metrics behind it, with its mark.

import { stepText, timeChart, windows } from "./charts.js";
import { SCALES, formatValue } from "./format.js";
import { refreshFragments } from "./fragments.js";
import { every } from "./live.js";
import { apiUrl, data, getJson } from "./page.js";
import * as range from "./range.js";
import { get } from "./state.js";

const MOST_LINES = 16;
const find = (selector) => document.querySelector(selector);
const { event } = data;
const charts = new Map();
let isFirst = true;

/** What is dragged across a chart, else the time of the event. */
const view = () => (get("start") && get("end") ? range.current() : { start: event.start, end: event.end });

async function linesOf(metric, times, step, signal) {
  const at = { every: step.every, ...times };
  if (event.gpu) {
    const path = `/api/v1/gpus/${encodeURIComponent(event.gpu).replaceAll("%3A", ":")}/series`;
    const answer = await getJson(apiUrl(path, { metric: metric.name, ...at }), { signal });
    return answer.data.map(({ points }) => ({ label: metric.title, points }));
  }
  const answer = await getJson(apiUrl("/api/v1/query", { metric: metric.name, by: "gpu", top: MOST_LINES, hostname: event.host, ...at }), { signal });
  return answer.data.map(({ group, points }) => ({ label: group.gpu.slice(0, 12), points }));
}

async function load({ signal }) {
  if (!isFirst) await refreshFragments({ signal });
  isFirst = false;
  if (!event.gpu && !event.host) return;
  const shown = view();
  const place = find("[data-event-charts]");
  const step = windows(innerWidth > 1000 ? place.clientWidth / 2 : place.clientWidth, shown);
  const times = { start_time: range.iso(step.start), end_time: range.iso(shown.end) };
  const found = await Promise.all(event.metrics.map((metric) => tried(() => linesOf(metric, times, step, signal))));
  const note = find("[data-chart-note]");
  note.textContent = found.some((lines) => lines === null) ? "Some charts cannot be drawn: the store does not answer." : "";
  event.metrics.forEach((metric, at) => found[at] && draw(metric, found[at], step, shown));
}

/** Null where the API has no answer: the rest of the page needs none. */
async function tried(ask) {
  try {
    return await ask();
  } catch (error) {
    if (error.name === "AbortError" || !("status" in error)) throw error;
    return null;
  }
}

function draw(metric, lines, step, shown) {
  const scaled = (value) => (value === null || value === undefined ? null : value * metric.factor);
  const isFirstMetric = metric === event.metrics[0];
  const options = {
    title: metric.title,
    unit: metric.unit,
    times: (lines[0]?.points ?? []).map(([time]) => Date.parse(time)),
    series: lines.length ? lines.map(({ label, points }) => ({ label, values: points.map(([, value]) => scaled(value)) })) : [{ label: metric.title, values: [] }],
    scale: SCALES[metric.name] ?? {},
    limits: isFirstMetric && event.limit !== null ? [{ value: event.limit * metric.factor, label: `limit ${formatValue(event.limit * metric.factor, metric.unit)}` }] : [],
    events: [{ ...event.mark, until: event.mark.until ?? shown.end }],
    note: stepText(step.step),
    range: shown,
    step: step.step,
    until: Math.min(shown.end, Date.now()),
    sync: "event",
  };
  if (charts.has(metric.name)) return charts.get(metric.name).update(options);
  const panel = document.createElement("div");
  panel.className = "panel";
  const figure = document.createElement("div");
  panel.append(figure);
  find("[data-event-charts]").append(panel);
  charts.set(metric.name, timeChart(figure, options));
}

every(load);
