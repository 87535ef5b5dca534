// Any metric over time: asks what the URL says, draws it, and keeps the links to the same answer as files.

import { learnInterval, stepText, timeChart, windows } from "./charts.js";
import { ABSENT, formatValue, gpuLabel, SCALES, shortHost } from "./format.js";
import { every } from "./live.js";
import { apiUrl, data, getJson, gpuUrl, hostUrl } from "./page.js";
import { dataOf, getPage } from "./parts.js";
import { current, iso } from "./range.js";
import { get, onChange, set } from "./state.js";
import { makeSortable, sortTable } from "./tables.js";

const FIELDS = ["metric", "agg", "every", "by", "top"];
const SEVERAL = ["hostname", "model", "namespace", "pod", "uuid"];
// More lines than this are not told apart: the table has the others.
const MOST_LINES = 16;
const SHORT_ID = "GPU-39bd9cd5".length;

const form = document.querySelector("[data-explore]");
const table = document.querySelector("[data-table]");
const find = (selector) => document.querySelector(selector);

function asked() {
  const query = new URLSearchParams(location.search);
  const several = SEVERAL.map((name) => [name, query.getAll(name).filter(Boolean)]);
  return { ...Object.fromEntries(FIELDS.map((name) => [name, query.get(name) || null])), metric: query.get("metric") || data.asked[0][1], ...Object.fromEntries(several) };
}

/** A preset stays relative, in links that somebody keeps and for roll-ups, which end with what is complete; a capture's does not move. */
function linkTimes() {
  const { start, end, preset } = current();
  return preset && data.anchor === null ? { start_time: `-${preset}` } : { start_time: iso(start), end_time: iso(end) };
}

function showLinks() {
  const params = { ...asked(), ...linkTimes() };
  for (const link of document.querySelectorAll("[data-file]")) {
    const format = link.dataset.file || null;
    link.href = apiUrl("/api/v1/query", { ...params, format, csv_safe: format === "csv" ? "true" : null });
  }
  const line = `curl '${new URL(apiUrl("/api/v1/query", params), location.href)}'`;
  find(".curl code").textContent = line;
  find(".curl [data-copy]").dataset.copy = line;
}

function showMetric() {
  const name = form.elements.metric.value;
  const metric = data.metrics[name];
  find("[data-metric-name]").textContent = name;
  find("[data-metric-about]").textContent = metric?.description ?? "Not in the catalogue.";
  const agg = form.elements.agg;
  const chosen = agg.value;
  const [first, ...others] = metric?.aggregates ?? [];
  const option = (value, text) => new Option(text ?? value, value, false, value === chosen);
  agg.replaceChildren(option("", `${first ?? "mean"} (default)`), ...others.map((each) => option(each)));
  if (!others.includes(chosen)) agg.value = "";
}

function sayErrors(errors) {
  for (const place of document.querySelectorAll("[data-error]")) {
    const text = errors[place.dataset.error] ?? "";
    place.textContent = text;
    place.hidden = !text;
    const field = form.elements[place.dataset.error];
    for (const each of field instanceof RadioNodeList ? field : field ? [field] : []) {
      if (text) each.setAttribute("aria-invalid", "true");
      else each.removeAttribute("aria-invalid");
    }
  }
}

/** An error of the API begins with the name of the parameter that is wrong. */
function sayWrong({ message }) {
  const name = [...FIELDS, ...SEVERAL].find((each) => message.startsWith(`${each} `)) ?? "";
  sayErrors({ [name]: name ? message : `${message[0].toUpperCase()}${message.slice(1)}.` });
  find("[data-result]").hidden = !chart;
}

/** What the server says of the fields that the URL holds now; it knows of the page that it sent. */
let checked = { search: location.search, errors: data.errors };
async function wrongFields(signal) {
  if (checked.search !== location.search) {
    const { search } = location;
    const page = await getPage(location.href, signal);
    checked = { search, errors: dataOf(page).errors ?? {} };
  }
  return checked.errors;
}

function nameOf(group, by) {
  if (by === null) return "all";
  if (by === "pod") return [group.namespace, group.pod].filter(Boolean).join("/") || "no pod";
  if (!group[by]) return `no ${by}`;
  if (by === "host") return shortHost(group[by], data.host_prefix);
  const board = group[by].split(":")[0];
  const place = by === "gpu" ? (places.get(board) ?? places.get(board.slice(0, SHORT_ID))) : null;
  return place ? gpuLabel(place.host, place.slot, group[by], data.host_prefix) : group[by];
}

/** Where each GPU is, by the id that the fleet's answer gives it: the whole, or its first characters where these are enough. */
const places = new Map();
async function findPlaces(signal) {
  if (places.size) return;
  const fleet = await getJson(apiUrl("/api/v1/fleet"), { signal });
  fleet.gpus.id.forEach((id, row) => places.set(id, { host: fleet.hosts[fleet.gpus.host[row]].name, slot: fleet.gpus.slot[row] }));
}

function cell(text, value) {
  const made = document.createElement("td");
  made.className = "num";
  made.dataset.value = value ?? "";
  made.textContent = text;
  return made;
}

function rowOf(line, unit, by, count) {
  const known = line.values.filter((value) => value !== null);
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  const url = by === "host" ? hostUrl : by === "gpu" ? gpuUrl : null;
  if (url && line.key) {
    const link = document.createElement("a");
    link.href = url(line.key);
    link.textContent = line.label;
    head.append(link);
  } else head.textContent = line.label;
  const sum = known.reduce((all, value) => all + value, 0);
  const figures = known.length ? [known.at(-1), Math.min(...known), sum / known.length, Math.max(...known)] : [null, null, null, null];
  row.append(head, ...figures.map((value) => cell(value === null ? ABSENT : formatValue(value, unit), value)), cell(`${known.length} of ${count}`, known.length));
  return row;
}

function showTable(lines, answer, by, step) {
  table.hidden = !lines.length;
  find("[data-table-note]").textContent = `${lines.length} ${lines.length === 1 ? "line" : "lines"}, ${answer.agg} of windows of ${stepText(step)}`;
  const real = table.querySelector("table");
  real.tBodies[0].replaceChildren(...lines.map((line) => rowOf(line, answer.unit, by, line.values.length)));
  sortTable(real);
}

let chart = null;
async function ask({ signal }) {
  const element = find('[data-chart="explore"]');
  showLinks();
  const errors = await wrongFields(signal);
  const result = find("[data-result]");
  sayErrors(errors);
  result.hidden = Object.keys(errors).length > 0;
  if (result.hidden) {
    table.hidden = true;
    return;
  }
  const params = asked();
  const { start, end } = current();
  const auto = windows(element.clientWidth);
  let answer;
  try {
    if (params.by === "gpu") await findPlaces(signal);
    answer = await getJson(apiUrl("/api/v1/query", { ...params, every: params.every ?? auto.every, ...linkTimes() }), { signal });
  } catch (error) {
    if (error.name !== "AbortError" && "status" in error) sayWrong(error);
    else throw error;
    return;
  }
  if (document.querySelector("[data-empty]") && answer.data.length) {
    location.reload();
    return;
  }
  const lines = answer.data.map((each) => ({ label: nameOf(each.group, params.by), key: each.group[params.by], values: each.points.map(([, value]) => value) }));
  const times = (answer.data[0]?.points ?? []).map(([time]) => Date.parse(time));
  if (!params.every && learnInterval(times, ...lines.map((line) => line.values))) return ask({ signal });
  const step = times.length > 1 ? times[1] - times[0] : auto.step;
  const metric = data.metrics[answer.metric];
  const shown = {
    title: metric?.title ?? answer.metric,
    unit: answer.unit,
    note: `${answer.agg} of ${stepText(step)}${answer.tier === "raw" ? "" : ` · from roll-ups of ${answer.tier}`}${lines.length > MOST_LINES ? ` · first ${MOST_LINES} of ${lines.length} lines` : ""}`,
    times,
    series: lines.slice(0, MOST_LINES),
    scale: ["mean", "max", "min", "last", "p50", "p95", "p99"].includes(answer.agg) ? SCALES[answer.metric] : { min: 0 },
    height: 240,
    range: { start, end },
    step,
    until: end,
    level: 2,
  };
  if (chart) chart.update(shown);
  else chart = timeChart(element, shown);
  showTable(lines, answer, params.by, step);
}

function apply() {
  const changes = Object.fromEntries([...FIELDS, ...SEVERAL].map((name) => [name, null]));
  for (const name of FIELDS) changes[name] = form.elements[name].value.trim() || null;
  for (const name of SEVERAL) {
    const fields = form.elements[name];
    changes[name] = [...(fields instanceof RadioNodeList ? fields : [fields])].map((each) => each.value.trim()).filter(Boolean);
  }
  if (changes.every === "auto") changes.every = null;
  set(changes);
}

function showForm() {
  const query = new URLSearchParams(location.search);
  for (const name of FIELDS) form.elements[name].value = query.get(name) ?? (name === "metric" ? data.asked[0][1] : "");
  for (const name of SEVERAL) {
    const fields = form.elements[name];
    [...(fields instanceof RadioNodeList ? fields : [fields])].forEach((each, place) => (each.value = query.getAll(name)[place] ?? ""));
  }
  showMetric();
  form.elements.agg.value = get("agg", "");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  apply();
});
form.addEventListener("change", (event) => {
  if (event.target === form.elements.metric) showMetric();
  apply();
});
addEventListener("popstate", showForm);
onChange(showLinks);
makeSortable(table.querySelector("table"));
every(ask);
