// The page of a host: its GPUs over time, and what ran on them.

import { follow, sparkline, stepText, strip, timeChart, windows } from "./charts.js";
import { setCurl } from "./curl.js";
import { SCALES, formatValue } from "./format.js";
import { keepDrawn, refreshFragments } from "./fragments.js";
import { REASONS, XID, happened, joined, notJudged, throttling, xids } from "./marks.js";
import { apiUrl, data, getJson, gpuUrl } from "./page.js";
import * as range from "./range.js";

const SYNC = "host";
const MOST_LINES = 10;
const MOST_MARKS = 100;
const METRICS = {
  utilisation: { metric: "DCGM_FI_DEV_GPU_UTIL", title: "Utilisation", unit: "%", scale: { min: 0, max: 100 } },
  temperature: { metric: "DCGM_FI_DEV_GPU_TEMP", title: "Temperature", unit: "°C", scale: SCALES.DCGM_FI_DEV_GPU_TEMP, limit: "temperature", limitName: "GPU slows down at" },
  power: { metric: "DCGM_FI_DEV_POWER_USAGE", title: "Power", unit: "W", scale: { min: 0 } },
  memory: { metric: "DCGM_FI_DEV_FB_USED", title: "Memory used", unit: "MiB", scale: { min: 0 } },
};
const labels = new Map(data.slots.map(({ id, slot }) => [id, slot < 0 ? id.slice(0, 12) : `gpu ${slot}`]));
const find = (selector) => document.querySelector(selector);
const charts = new Map();
let runs = null;
let isFirst = true;
follow(SYNC, (ms) => runs?.point(ms));

async function ask(metric, agg, step, times, signal) {
  const url = apiUrl("/api/v1/query", { metric, agg, by: "gpu", hostname: data.host, every: step.every, ...times });
  const body = await getJson(url, { signal });
  const starts = (body.data[0]?.points ?? []).map(([time]) => Date.parse(time));
  return { starts, lines: new Map(body.data.map(({ group, points }) => [group.gpu, points.map(([, value]) => value)])), url };
}

async function load({ signal }) {
  const view = range.current();
  const place = find("[data-charts]");
  const step = windows(innerWidth > 1000 ? place.clientWidth / 2 : place.clientWidth, view);
  const times = { start_time: range.iso(step.start), end_time: range.iso(view.end) };
  const names = Object.keys(METRICS);
  // Of a large fleet only the bands of whole minutes are kept.
  const hasBands = data.bands && (!data.large || step.step % 60_000 === 0);
  const bands = hasBands ? getJson(apiUrl("/api/v1/fleet/bands", { metric: METRICS.utilisation.metric, every: step.every, ...times }), { signal }).catch(noBand) : null;
  const [placements, events, masks, codes, band, , ...found] = await Promise.all([
    getJson(apiUrl("/api/v1/placements", { hostname: data.host, ...times }), { signal }),
    getJson(apiUrl("/api/v1/events", { hostname: data.host, page_size: MOST_MARKS, ...times }), { signal }),
    ask(REASONS, "last", step, times, signal),
    ask(XID, "last", step, times, signal),
    bands,
    isFirst ? null : refreshFragments({ signal }),
    ...names.map((name) => ask(METRICS[name].metric, null, step, times, signal)),
  ]);
  isFirst = false;
  const context = { view, step, events: marks(masks, codes, step.step) };
  const judged = happened(events.data, view.end, ({ slot }) => (slot === null ? "" : `gpu ${slot}: `));
  Object.assign(context.events, { judged, events: notJudged(context.events.events, judged, step.step) });
  names.forEach((name, at) => {
    drawSparks(name, found[at], view);
    drawChart(name, found[at], context, name === "utilisation" ? band : null);
  });
  drawStrip(placements.data, context.events.spans, view);
  setCurl("series", found[0].url);
}

/** The host's own lines need no fleet: an answer that is an error leaves the band out. */
function noBand(error) {
  if (error.name === "AbortError" || !("status" in error)) throw error;
  return null;
}

function marks(masks, codes, step) {
  const spans = [];
  const events = [];
  for (const [gpu, values] of masks.lines) spans.push(...throttling(masks.starts, values, step, data.reasons, `${labelOf(gpu)}: `).map((span) => ({ ...span, gpu, name: span.name })));
  for (const [gpu, values] of codes.lines) events.push(...xids(codes.starts, values, `${labelOf(gpu)}: `));
  return { spans, events };
}

const labelOf = (gpu) => labels.get(gpu) ?? gpu.slice(0, 12);

function drawSparks(name, { starts, lines }, view) {
  const { unit, scale, title } = METRICS[name];
  for (const cell of document.querySelectorAll(`[data-spark="${name}"]`)) {
    const values = lines.get(cell.dataset.gpu) ?? [];
    sparkline(cell, { times: starts, values, unit, scale, range: view, label: title });
  }
}

function drawChart(name, { starts, lines }, { view, step, events }, band) {
  const { title, unit, scale, limit, limitName } = METRICS[name];
  const many = lines.size > MOST_LINES;
  const total = name === "power" || name === "memory";
  const columns = [...lines].sort(([a], [b]) => order(a) - order(b));
  const series = total ? [{ label: "Sum", values: summed(columns, starts.length) }] : many ? [{ label: "Median", values: quantile(columns, starts.length, 0.5) }] : columns.map(([gpu, values]) => ({ label: labelOf(gpu), values }));
  const spread = many && !total ? { min: quantile(columns, starts.length, 0), max: quantile(columns, starts.length, 1) } : undefined;
  const options = {
    title: total ? `${title} of the host` : title,
    unit,
    times: starts,
    series,
    band: spread ?? fleetBand(band, starts),
    scale,
    limits: limit && data.limits[limit] ? [{ value: data.limits[limit], label: `${limitName} ${formatValue(data.limits[limit], unit)}` }] : [],
    events: [...events.judged, ...(name === "utilisation" ? events.events : name === "temperature" ? joinedFaults(events.spans) : [])],
    note: `${stepText(step.step)} mean`,
    range: { start: view.start, end: view.end },
    step: step.step,
    until: Math.min(view.end, Date.now()),
    sync: SYNC,
    fill: total,
  };
  if (charts.has(name)) charts.get(name).update(options);
  else charts.set(name, timeChart(place(), options));
}

const slots = new Map(data.slots.map(({ id, slot }) => [id, slot]));
const order = (gpu) => slots.get(gpu) ?? Infinity;

/** Only faults: under full load a power cap is usual. */
const joinedFaults = (spans) => joined(spans.filter(({ kind }) => kind === "warning").map((span) => ({ ...span, name: span.text })));

/** The fleet behind the host's lines: from the 5th to the 95th percentile. */
function fleetBand(band, starts) {
  if (!band || !starts.length) return undefined;
  const at = new Map(band.time.map((time, place) => [Date.parse(time), place]));
  const column = (values) => starts.map((ms) => values[at.get(ms)] ?? null);
  return { p5: column(band.p5), p95: column(band.p95), label: "shaded: fleet, p5–p95" };
}

function summed(columns, count) {
  return Array.from({ length: count }, (_, at) => {
    const values = columns.map(([, of]) => of[at]).filter((value) => value !== null);
    return values.length ? values.reduce((sum, value) => sum + value, 0) : null;
  });
}

function quantile(columns, count, share) {
  return Array.from({ length: count }, (_, at) => {
    const values = columns.map(([, of]) => of[at]).filter((value) => value !== null).sort((a, b) => a - b);
    return values.length ? values[Math.round(share * (values.length - 1))] : null;
  });
}

function place() {
  const panel = document.createElement("div");
  panel.className = "panel";
  const figure = document.createElement("div");
  panel.append(figure);
  find("[data-charts]").append(panel);
  return figure;
}

function drawStrip(placements, spans, view) {
  const rows = data.slots.map(({ id }) => ({ label: labelOf(id), href: gpuUrl(id), spans: [] }));
  const byGpu = new Map(data.slots.map(({ id }, at) => [id, rows[at]]));
  for (const { gpu, uuid, namespace, pod, started, ended } of placements) {
    const text = [namespace, pod].filter(Boolean).join("/") + (gpu === uuid ? "" : ` (MIG ${gpu.slice(uuid.length + 1)})`);
    byGpu.get(uuid)?.spans.push({ start: Date.parse(started), end: ended === null ? null : Date.parse(ended), text });
  }
  for (const row of rows) row.spans.sort((a, b) => a.start - b.start);
  const faults = new Map();
  for (const { gpu, time, end, kind, name } of spans) {
    if (kind !== "warning") continue;
    if (!faults.has(gpu)) faults.set(gpu, []);
    faults.get(gpu).push({ start: time, end, text: name, kind });
  }
  for (const [gpu, of] of faults) {
    for (const name of new Set(of.map((span) => span.text))) rows.push({ label: `${labelOf(gpu)} ▲`, spans: of.filter((span) => span.text === name) });
  }
  // Where nothing is known of any GPU, one line says it for all.
  const shown = rows.some((row) => row.spans.length) ? rows : [{ label: "all GPUs", spans: [] }];
  runs = strip(find("[data-strip]"), { rows: shown, range: { start: view.start, end: view.end }, empty: "No pod is known to have run on it in this range" });
}

keepDrawn(load);
