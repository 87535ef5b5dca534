// The page of a GPU: its charts, what ran on it, its readings.

import { follow, stepText, strip, timeChart, windows } from "./charts.js";
import { setCurl } from "./curl.js";
import { SCALES, formatNumber, formatTime, formatValue } from "./format.js";
import { keepDrawn, refreshFragments } from "./fragments.js";
import { REASONS, XID, happened, joined, notJudged, throttling, violations, xidCounts, xids } from "./marks.js";
import { apiUrl, data, getJson } from "./page.js";
import * as range from "./range.js";
import { get, onChange, set } from "./state.js";

const SYNC = "gpu";
const ROWS = 50;
// More would be a wall of lines.
const MOST_MARKS = 100;
const RATIO = { min: 0, max: 100 };

/** The charts, in order: each shows the metrics of `of` that the GPU has, or of the first list of `first` that has any. */
const CHARTS = [
  { title: "Utilisation", unit: "%", of: ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"], scale: RATIO, marks: true, fill: true },
  { title: "Memory used", unit: "MiB", of: ["DCGM_FI_DEV_FB_USED"], scale: { min: 0 }, limit: "memory", limitName: "total", fill: true },
  { title: "Temperature", unit: "°C", of: ["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_MEMORY_TEMP"], scale: SCALES.DCGM_FI_DEV_GPU_TEMP, limit: "temperature", limitName: "GPU slows down at" },
  { title: "Power", unit: "W", of: ["DCGM_FI_DEV_POWER_USAGE"], scale: { min: 0 }, limit: "power", limitName: "limit", fill: true },
  { title: "Clocks", unit: "MHz", of: ["DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_MEM_CLOCK"], scale: { min: 0 }, spans: true },
  { title: "PCIe", of: ["DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_FI_PROF_PCIE_RX_BYTES"], or: ["DCGM_FI_DEV_PCIE_TX_THROUGHPUT", "DCGM_FI_DEV_PCIE_RX_THROUGHPUT"], scale: { min: 0 } },
  { title: "NVLink", of: ["DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"], scale: { min: 0 } },
  { title: "New errors", unit: "", of: ["DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"], scale: { min: 0, max: 1 }, marks: true },
];
const VIOLATIONS = /_VIOLATION$/;
const XID_COUNT = /^DCGM_EXP_XID_ERRORS_(?:COUNT|TOTAL):xid:(\d+)/;

const known = new Map(data.has.map((each) => [each.name, each]));
const offered = (names) => names.filter((name) => known.has(name));
const described = (name) => known.get(name) ?? { name, title: name, unit: "", factor: 1, kind: "gauge" };
// Who follows the link opens the file in a spreadsheet.
const FILE = { format: "csv", csv_safe: "true" };
const find = (selector) => document.querySelector(selector);

/** @type {Map<string, ReturnType<typeof timeChart>>} */
const shown = new Map();
let runs = null;
follow(SYNC, (ms) => runs?.point(ms));

function chosenCharts() {
  const more = (get("more", "") || "").split(",").filter((name) => known.has(name));
  const main = CHARTS.map((chart) => ({ ...chart, metrics: offered(chart.of).length ? offered(chart.of) : offered(chart.or ?? []) }));
  const extra = more.map((name) => ({ key: `more ${name}`, title: described(name).title, metrics: [name], scale: SCALES[name] ?? {}, extra: true }));
  return [...main, ...extra];
}

/** The metrics of which the marks are made. */
const markMetrics = () => [REASONS, XID, ...known.keys()].filter((name, at, all) => all.indexOf(name) === at && known.has(name) && (name === REASONS || name === XID || VIOLATIONS.test(name) || XID_COUNT.test(name)));

function columnsOf(series) {
  const { factor } = described(series.metric);
  const column = (at) => series.points.map((point) => (point[at] === null || point[at] === undefined ? null : point[at] * factor));
  const hasEdges = series.agg === "mean" && series.points[0]?.length > 2;
  return { agg: series.agg, values: column(1), ...(hasEdges ? { min: column(2), max: column(3) } : {}) };
}

async function load({ signal }) {
  const width = find("[data-charts]").clientWidth;
  const view = range.current();
  const charts = chosenCharts();
  const step = windows(innerWidth > 1000 ? width / 2 : width, view);
  const metrics = [...new Set([...charts.flatMap((chart) => chart.metrics), ...markMetrics()])];
  const times = { start_time: range.iso(step.start), end_time: range.iso(view.end) };
  const path = `/api/v1/gpus/${encodeURIComponent(data.id).replaceAll("%3A", ":")}/series`;
  const questions = [getJson(apiUrl("/api/v1/placements", { uuid: data.id, start_time: times.start_time, end_time: times.end_time }), { signal })];
  questions.push(getJson(apiUrl("/api/v1/events", { uuid: [...new Set([data.id, data.uuid])], page_size: MOST_MARKS, ...times }), { signal }));
  if (metrics.length) questions.push(getJson(apiUrl(path, { metric: metrics, every: step.every, ...times }), { signal }));
  if (!firstLoad) questions.push(refreshFragments({ signal }));
  firstLoad = false;
  const [placements, events, series] = await Promise.all(questions);
  const byName = new Map((metrics.length ? series.data : []).map((each) => [each.metric, columnsOf(each)]));
  const starts = metrics.length ? series.data[0].points.map(([time]) => Date.parse(time)) : [];
  const found = marks(starts, byName, step.step);
  found.judged = happened(events.data, view.end);
  found.events = notJudged(found.events, found.judged, step.step);
  draw(charts, byName, starts, { step, view, found });
  drawStrip(placements.data, found.spans, view);
  setCurl("series", apiUrl(path, { metric: charts[0].metrics.length ? charts[0].metrics : metrics.slice(0, 3), every: step.every, ...times }));
}
let firstLoad = true;

function marks(times, byName, step) {
  const masks = byName.get(REASONS)?.values;
  const spans = masks ? throttling(times, masks, step, data.reasons) : [];
  const events = byName.has(XID) ? xids(times, byName.get(XID).values) : [];
  for (const [name, { values }] of byName) {
    if (!masks && VIOLATIONS.test(name)) spans.push(...violations(times, values, step, described(name).title));
    const counted = XID_COUNT.exec(name);
    if (counted && !byName.has(XID)) events.push(...xidCounts(times, values, counted[1]));
  }
  return { spans: joined(spans), events };
}

function draw(charts, byName, times, { step, view, found }) {
  const until = Math.min(view.end, Date.now());
  const wanted = new Set();
  const absent = [];
  for (const chart of charts) {
    const lines = chart.metrics.filter((name) => byName.has(name));
    if (!lines.length) {
      absent.push(chart.title);
      continue;
    }
    const key = chart.key ?? chart.title;
    wanted.add(key);
    const counts = byName.get(lines[0]).agg === "increase";
    // More than two envelopes hide each other: then only the first line has one.
    const edges = (at) => lines.length <= 2 || at === 0;
    const options = {
      title: chart.title,
      unit: chart.unit ?? described(lines[0]).unit,
      times,
      series: lines.map((name, at) => ({ label: lines.length > 1 ? described(name).title : chart.title, ...withoutEdges(byName.get(name), edges(at)) })),
      scale: chart.scale,
      limits: chart.limit && data.limits[chart.limit] ? [{ value: data.limits[chart.limit], label: `${chart.limitName} ${formatValue(data.limits[chart.limit], chart.unit)}` }] : [],
      events: [...found.judged, ...(chart.marks ? found.events : []), ...(chart.spans ? found.spans : [])],
      note: counts ? `growth in ${stepText(step.step)}` : byName.get(lines[0]).agg === "mean" ? `${stepText(step.step)} mean${byName.get(lines[0]).min ? ", lowest to highest" : ""}` : `${stepText(step.step)}, last`,
      range: { start: view.start, end: view.end },
      step: step.step,
      until,
      sync: SYNC,
      fill: chart.fill && lines.length === 1,
    };
    if (shown.has(key)) shown.get(key).update(options);
    else shown.set(key, timeChart(place(chart, key), options));
  }
  for (const [key, chart] of shown) {
    if (wanted.has(key)) continue;
    chart.destroy();
    shown.delete(key);
    document.querySelector(`[data-chart="${CSS.escape(key)}"]`)?.remove();
  }
  const note = find("[data-absent]");
  note.hidden = !absent.length;
  note.textContent = absent.length ? `Not sent by this GPU's exporter: ${absent.join(", ")}.` : "";
}

const withoutEdges = ({ values, min, max }, edges) => (edges && min ? { values, min, max } : { values });

function place(chart, key) {
  const panel = document.createElement("div");
  panel.className = "panel";
  panel.dataset.chart = key;
  if (chart.extra) {
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "chart-remove";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove the chart ${chart.title}`);
    remove.addEventListener("click", () => set({ more: (get("more", "") || "").split(",").filter((name) => name && name !== chart.metrics[0]).join(",") || null }));
    panel.append(remove);
  }
  const figure = document.createElement("div");
  panel.append(figure);
  find(chart.extra ? "[data-more-charts]" : "[data-charts]").append(panel);
  return figure;
}

function drawStrip(placements, spans, view) {
  const pods = new Map();
  for (const { gpu, namespace, pod, started, ended } of placements) {
    const label = gpu === data.id ? "pod" : `MIG ${gpu.slice(gpu.indexOf(":") + 1)}`;
    if (!pods.has(label)) pods.set(label, []);
    pods.get(label).push({ start: Date.parse(started), end: ended === null ? null : Date.parse(ended), text: [namespace, pod].filter(Boolean).join("/") });
  }
  if (!pods.size) pods.set("pod", []);
  const rows = [...pods].sort().map(([label, of]) => ({ label, spans: of.sort((a, b) => a.start - b.start) }));
  // A row for each reason: several may hold the clocks down at once.
  for (const name of new Set(spans.map((span) => span.name))) {
    const of = spans.filter((span) => span.name === name);
    rows.push({ label: "clocks", spans: of.map(({ time, end, kind }) => ({ start: time, end, text: name, kind })) });
  }
  runs = strip(find("[data-strip]"), { rows, range: { start: view.start, end: view.end }, empty: "No pod is known to have run on it in this range" });
}

function fillChoices() {
  const main = new Set(CHARTS.flatMap((chart) => [...chart.of, ...(chart.or ?? [])]));
  const option = ({ name, title }) => new Option(title, name);
  const more = data.has.filter(({ name }) => !main.has(name)).map(option);
  find("[data-more]").append(...more);
  find("[data-more-section]").hidden = !more.length;
  find("[data-more]").addEventListener("change", (event) => {
    const name = event.target.value;
    event.target.value = "";
    if (!name) return;
    set({ more: [...new Set([...(get("more", "") || "").split(","), name])].filter(Boolean).join(",") });
  });
  find("[data-raw-metric]").append(...data.has.map(option));
}

const raw = { offset: 0, end: null };

function readingsUrl(more) {
  const { start, end } = range.current();
  return apiUrl(`/api/v1/gpus/${encodeURIComponent(data.id).replaceAll("%3A", ":")}/telemetry`, { start_time: range.iso(start), end_time: range.iso(raw.end ?? end), metric_name: find("[data-raw-metric]").value, ...more });
}

function cell(tag, text, className = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

async function showReadings(offset) {
  const status = find("[data-raw-status]");
  if (offset === 0) raw.end = range.current().end;
  raw.offset = offset;
  let page;
  try {
    page = await getJson(readingsUrl({ limit: ROWS, offset }));
  } catch (error) {
    status.textContent = error.message;
    return;
  }
  const rows = page.data.map((row) => {
    const line = document.createElement("tr");
    const { title } = described(row.metric_name);
    const name = cell("td", title);
    name.title = row.metric_name;
    line.append(cell("th", formatTime(Date.parse(row.timestamp), { seconds: true, date: "always" })), name, cell("td", `${formatNumber(row.value)} ${row.unit}`, "num"), cell("td", [row.namespace, row.pod].filter(Boolean).join("/")), cell("td", row.hostname));
    return line;
  });
  find("[data-raw-rows]").replaceChildren(...rows);
  find("[data-raw-newer]").disabled = offset === 0;
  find("[data-raw-older]").disabled = page.next === null;
  status.textContent = rows.length ? `Readings ${offset + 1} to ${offset + rows.length}` : "No readings in this range";
}

function startReadings() {
  const details = find("[data-raw]");
  const again = () => {
    find("[data-raw-csv]").href = readingsUrl(FILE);
    if (details.open) showReadings(0);
  };
  details.addEventListener("toggle", again);
  find("[data-raw-metric]").addEventListener("change", again);
  find("[data-raw-newer]").addEventListener("click", () => showReadings(Math.max(0, raw.offset - ROWS)));
  find("[data-raw-older]").addEventListener("click", () => showReadings(raw.offset + ROWS));
  onChange(again);
  find("[data-raw-csv]").href = readingsUrl(FILE);
}

fillChoices();
startReadings();
keepDrawn(load);
