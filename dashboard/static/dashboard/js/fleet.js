// The fleet's page: tiles, heat map with its table, what needs attention, and trends.

import { learnInterval, timeChart, windows } from "./charts.js";
import { cividis, onTheme } from "./colors.js";
import { formatNumber, formatTime, formatValue, gpuLabel, SCALES, scaled, shortHost } from "./format.js";
import { HeatMap, MAINTENANCE, MISSING, REPORTING, STALE } from "./heatmap.js";
import { explain } from "./keys.js";
import { every, setDataTime } from "./live.js";
import { apiUrl, data, getJson, gpuUrl, hostUrl } from "./page.js";
import { current, iso } from "./range.js";
import { get, set } from "./state.js";

const UTILISATION = "DCGM_FI_DEV_GPU_UTIL";
const POWER = "DCGM_FI_DEV_POWER_USAGE";
const MEMORY_SHARE = "memory";
const HELD_MIB = 1024;
// From this size on a cell is a host, unless all GPUs are asked for.
const MOST_LINES = 2000;
const MOST_ROWS = 2000;
const HOT_ROWS = 5;
const STATE_WORDS = ["reporting", "stale", "missing", "in maintenance"];

const find = (selector) => document.querySelector(selector);

/** What a filter lets pass, by the URL's `show` or `state`. */
const SHOWS = {
  missing: (fleet, at) => fleet.gpus.state[at] === MISSING,
  stale: (fleet, at) => fleet.gpus.state[at] === STALE,
  maintenance: (fleet, at) => fleet.gpus.state[at] === MAINTENANCE,
  reporting: (fleet, at) => fleet.gpus.state[at] === REPORTING,
  idle: (fleet, at) => fleet.gpus.utilisation[at] === 0,
  held: (fleet, at) => fleet.gpus.utilisation[at] === 0 && fleet.gpus.memory_used[at] > HELD_MIB,
  full: (fleet, at) => fleet.gpus.utilisation[at] === 100,
};

const SORTS = {
  worst: (a, b) => b.trouble - a.trouble || b.hottest - a.hottest || compareNames(a, b),
  name: (a, b) => compareNames(a, b),
  high: (a, b) => order(b.mean, a.mean) || compareNames(a, b),
  low: (a, b) => order(a.mean, b.mean) || compareNames(a, b),
};
const compareNames = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });
const order = (a, b) => (a === null) - (b === null) || (a ?? 0) - (b ?? 0);

let fleet = data.fleet ?? null;
let drawn = null;
let cellIndex = [];

const map = new HeatMap(find("#heat"), {
  tell: (cell) => describe(cellIndex[cell]),
  open: (cell, event) => openSlot(cellIndex[cell], event),
  openLine: (line, event) => go(hostUrl(line.name), event),
});
explain("← ↑ ↓ →", "in the heat map: move from cell to cell");
explain("Enter", "in the heat map: open the GPU, or the host in front of it with h");

function go(url, event) {
  if (event?.ctrlKey || event?.metaKey) open(url);
  else location.assign(url);
}

/** A slot is a number; a host's own cell is {host}. */
function openSlot(slot, event) {
  if (slot === undefined) return;
  if (typeof slot === "object") {
    const opened = new Set((get("open") ?? "").split(",").filter(Boolean));
    const name = fleet.hosts[slot.host].name;
    if (!opened.delete(name)) opened.add(name);
    set({ open: [...opened].join(",") });
    return;
  }
  const id = fleet.gpus.id[slot];
  go(id ? gpuUrl(id) : hostUrl(fleet.hosts[fleet.gpus.host[slot]].name), event);
}

// --- the metric --------------------------------------------------------------------------------------------------------
const metricName = () => get("metric", UTILISATION);
const metricForApi = () => (metricName() === MEMORY_SHARE ? null : metricName() === UTILISATION ? null : metricName());

/** The shown value of a slot, and its unit and scale. */
function shownMetric() {
  const { gpus, metric } = fleet;
  if (metricName() === MEMORY_SHARE) {
    const share = gpus.memory_used.map((used, at) => (used === null || !gpus.memory_total[at] ? null : (100 * used) / gpus.memory_total[at]));
    return { values: share, unit: "%", scale: { min: 0, max: 100 }, title: "Memory used" };
  }
  const values = gpus.value;
  let scale = SCALES[metric.name];
  if (!scale) {
    const known = values.filter((value) => value !== null);
    const most = known.reduce((a, b) => Math.max(a, b), 0);
    const least = known.reduce((a, b) => Math.min(a, b), 0);
    scale = { min: least, max: most > least ? most : least + 1 };
  }
  return { values, unit: metric.unit, scale, title: metric.title };
}

function valueText(value, unit) {
  return value === null ? "n/a" : formatValue(value, unit === "0-1" || unit === "ratio" ? "" : unit);
}

/** A slot in a sentence. */
function describe(slot) {
  if (slot === undefined) return "";
  const { gpus, hosts } = fleet;
  const shown = shownMetric();
  if (typeof slot === "object") {
    const host = hosts[slot.host];
    const line = hostSummary(slot.host);
    const absent = line.absent ? `, ${line.absent} of ${host.expected} not reporting` : "";
    return `${host.name}: mean ${valueText(line.mean, shown.unit)}${absent}`;
  }
  const host = hosts[gpus.host[slot]].name;
  const label = gpuLabel(host, gpus.slot[slot], gpus.id[slot], "");
  if (gpus.state[slot] !== REPORTING) return `${label}: ${STATE_WORDS[gpus.state[slot]]}`;
  const extra = [];
  if (metricName() !== UTILISATION) extra.push(`${valueText(gpus.utilisation[slot], "%")} busy`);
  if (gpus.temperature[slot] !== null && fleet.metric.name !== "DCGM_FI_DEV_GPU_TEMP") extra.push(valueText(gpus.temperature[slot], "°C"));
  if (gpus.power[slot] !== null && fleet.metric.name !== POWER) extra.push(valueText(gpus.power[slot], "W"));
  const pod = gpus.pod[slot] >= 0 ? ` · ${fleet.pods[gpus.pod[slot]]}` : "";
  return `${label}: ${valueText(shown.values[slot], shown.unit)}${extra.length ? ` (${extra.join(", ")})` : ""}${pod}`;
}

// --- hosts and their order -----------------------------------------------------------------------------------------------
let summaries = new Map();

function hostSummary(host) {
  return summaries.get(host);
}

function summarise(shown) {
  summaries = new Map(fleet.hosts.map((host, at) => [at, { host: at, name: host.name, slots: [], sum: 0, known: 0, absent: 0, trouble: 0, hottest: -1, mean: null }]));
  const { gpus } = fleet;
  for (let slot = 0; slot < gpus.host.length; slot++) {
    const of = summaries.get(gpus.host[slot]);
    of.slots.push(slot);
    const state = gpus.state[slot];
    if (state === MISSING) of.trouble += 1000;
    else if (state === STALE) of.trouble += 100;
    if (state !== REPORTING) of.absent++;
    if (gpus.temperature[slot] > of.hottest) of.hottest = gpus.temperature[slot];
    const value = shown.values[slot];
    if (value !== null) {
      of.sum += value;
      of.known++;
    }
  }
  for (const of of summaries.values()) of.mean = of.known ? of.sum / of.known : null;
}

function groupOf(of) {
  const by = get("group");
  const first = of.slots[0];
  if (by === "model") return fleet.models[fleet.gpus.model[first]] ?? "unknown model";
  if (by === "namespace") {
    const used = of.slots.map((slot) => fleet.gpus.namespace[slot]).filter((place) => place >= 0);
    return used.length ? fleet.namespaces[mostOf(used)] : "no namespace";
  }
  if (by === "owner") return fleet.hosts[of.host].owner || "no owner";
  return "";
}

function mostOf(places) {
  const counts = new Map();
  for (const place of places) counts.set(place, (counts.get(place) ?? 0) + 1);
  return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

const show = () => (get("show") in SHOWS ? get("show") : null);

function chosenHosts() {
  const text = (get("q") ?? "").trim().toLowerCase();
  const passes = show() ? SHOWS[show()] : null;
  let chosen = [...summaries.values()];
  if (text) chosen = chosen.filter((of) => of.name.toLowerCase().includes(text));
  if (passes) chosen = chosen.filter((of) => of.slots.some((slot) => passes(fleet, slot)));
  for (const of of chosen) of.group = groupOf(of);
  const sort = SORTS[get("sort", "worst")] ?? SORTS.worst;
  return chosen.sort((a, b) => a.group.localeCompare(b.group) || sort(a, b));
}

function modeOf() {
  if (fleet.gpus.host.length <= MOST_LINES) return "lines";
  return get("cells") === "gpus" ? "dense" : "hosts";
}

/** The map's lines and cells. Where a cell is a host, opened hosts come first, with their GPUs. */
function arrange(shown) {
  const mode = modeOf();
  const hosts = chosenHosts();
  const opened = new Set((get("open") ?? "").split(",").filter(Boolean));
  cellIndex = [];
  const lines = [];
  for (const of of hosts) {
    const asHost = mode === "hosts" && !opened.has(of.name);
    const first = cellIndex.length;
    if (asHost) cellIndex.push({ host: of.host });
    else cellIndex.push(...of.slots);
    lines.push({ name: of.name, group: of.group, first, count: cellIndex.length - first, text: of.mean === null ? "n/a" : shortValue(of.mean, shown.unit) });
  }
  const passes = show() ? SHOWS[show()] : null;
  const total = cellIndex.length;
  const cells = { values: new Float32Array(total), states: new Uint8Array(total), marks: new Uint8Array(total), faded: new Uint8Array(total) };
  const { min, max } = shown.scale;
  for (let cell = 0; cell < total; cell++) {
    const slot = cellIndex[cell];
    const isHost = typeof slot === "object";
    const of = isHost ? summaries.get(slot.host) : null;
    const value = isHost ? of.mean : shown.values[slot];
    cells.values[cell] = value === null ? NaN : (value - min) / (max - min);
    cells.states[cell] = isHost ? (of.known || !of.absent ? REPORTING : fleet.gpus.state[of.slots[0]]) : fleet.gpus.state[slot];
    cells.marks[cell] = isHost ? (of.trouble >= 1000 ? 1 : of.trouble ? 2 : 0) : fleet.gpus.state[slot] === MISSING ? 1 : 0;
    cells.faded[cell] = passes && !isHost && !passes(fleet, slot) ? 1 : 0;
  }
  return { lines, cells, mode, prefix: fleet.prefix };
}

function shortValue(value, unit) {
  const shownAs = scaled(value, unit);
  const digits = Math.abs(shownAs.value) >= 10 || Number.isInteger(shownAs.value) ? 0 : 1;
  return `${formatNumber(shownAs.value, digits)} ${shownAs.unit}`;
}

// --- the parts of the page ---------------------------------------------------------------------------------------------
function node(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function fill(selector, text) {
  const element = find(selector);
  if (element && element.textContent !== text) element.textContent = text;
}

function showTiles() {
  const { counts, totals } = fleet;
  const share = (part, whole) => (whole ? `${formatNumber((100 * part) / whole, 0)}` : "n/a");
  const put = (name, text) => fill(`[data-tile="${name}"]`, text);
  put("reporting", formatNumber(counts.reporting, 0));
  put("expected", `of ${formatNumber(counts.expected, 0)}`);
  put("missing", `${counts.missing} missing`);
  put("stale", `${counts.stale} stale`);
  put("maintenance", counts.maintenance ? ` · ${counts.maintenance} in maintenance` : "");
  find('[data-tile="missing"]').classList.toggle("critical-text", counts.missing > 0);
  find('[data-tile="stale"]').classList.toggle("warning-text", counts.stale > 0);
  const attention = counts.missing + counts.stale;
  put("attention", formatNumber(attention, 0));
  put("attention-note", attention ? `${counts.missing} critical · ${counts.stale} warning` : "nothing is missing or stale");
  put("utilisation", formatNumber(totals.utilisation_mean, 1));
  put("utilisation-note", `p95 ${valueText(totals.utilisation_p95, "%")} · ${counts.at_full} at 100 %`);
  put("held", formatNumber(counts.idle_held, 0));
  put("idle", share(counts.idle, counts.reporting));
  put("idle-note", `${counts.idle} GPUs · ${counts.idle_hosts} hosts`);
  const used = totals.memory_used_mib;
  put("memory", used === null || !totals.memory_total_mib ? "n/a" : formatNumber((100 * used) / totals.memory_total_mib, 1));
  put("memory-note", used === null ? "" : `${tib(used)} of ${tib(totals.memory_total_mib)} TiB`);
  const power = totals.power_watts === null ? null : scaled(totals.power_watts, "W");
  put("power", power ? formatNumber(power.value, power.unit === "W" ? 0 : 1) : "n/a");
  put("power-unit", power ? power.unit : "");
  put("power-note", totals.idle_power_watts === null ? "" : `${formatValue(totals.idle_power_watts, "W")} on idle GPUs`);
}

const tib = (mib) => formatNumber(mib / 1024 / 1024, 1);

function showLegend(shown) {
  const text = (value) => valueText(value, shown.unit);
  fill("[data-legend=min]", text(shown.scale.min));
  fill("[data-legend=max]", text(shown.scale.max));
  const ramp = find("[data-legend=ramp]");
  const stops = Array.from({ length: 9 }, (_, at) => cividis(at / 8));
  ramp.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
}

function gpuLink(slot) {
  const { gpus, hosts } = fleet;
  const host = hosts[gpus.host[slot]].name;
  const id = gpus.id[slot];
  return node("a", { href: id ? gpuUrl(id) : hostUrl(host), title: host }, gpuLabel(host, gpus.slot[slot], id, fleet.prefix));
}

function rows(body, items) {
  const element = find(body);
  if (element) element.replaceChildren(...items);
}

const numberCell = (text) => node("td", { class: text === "n/a" ? "num absent na" : "num" }, text);

function showHottest() {
  const { gpus } = fleet;
  const known = [];
  for (let slot = 0; slot < gpus.temperature.length; slot++) if (gpus.temperature[slot] !== null) known.push(slot);
  known.sort((a, b) => gpus.temperature[b] - gpus.temperature[a] || (gpus.power[b] ?? 0) - (gpus.power[a] ?? 0));
  rows(
    "#hottest tbody",
    known.slice(0, HOT_ROWS).map((slot) =>
      node("tr", {}, node("td", {}, gpuLink(slot)), numberCell(formatNumber(gpus.temperature[slot], 0)), numberCell(formatNumber(gpus.power[slot], 0)), numberCell(formatNumber(gpus.utilisation[slot], 0))),
    ),
  );
}

function showHeld() {
  const { gpus, hosts } = fleet;
  const held = new Map();
  for (let slot = 0; slot < gpus.host.length; slot++) {
    if (!SHOWS.held(fleet, slot)) continue;
    const of = held.get(gpus.host[slot]) ?? { count: 0, mib: 0, watts: 0 };
    of.count++;
    of.mib += gpus.memory_used[slot];
    of.watts += gpus.power[slot] ?? 0;
    held.set(gpus.host[slot], of);
  }
  const most = [...held].sort((a, b) => b[1].count - a[1].count || b[1].mib - a[1].mib).slice(0, HOT_ROWS);
  rows(
    "#held tbody",
    most.length
      ? most.map(([host, of]) =>
          node("tr", {}, node("td", {}, node("a", { href: hostUrl(hosts[host].name) }, shortHost(hosts[host].name, fleet.prefix))), numberCell(String(of.count)), numberCell(formatNumber(of.mib / 1024, 0)), numberCell(formatNumber(of.watts, 0))),
        )
      : [node("tr", {}, node("td", { colspan: "4", class: "hint" }, "No idle GPU holds more than 1 GiB."))],
  );
}

function showBusiest() {
  const known = fleet.hosts.filter((host) => host.utilisation_mean !== null);
  known.sort((a, b) => b.utilisation_mean - a.utilisation_mean || (b.power_watts ?? 0) - (a.power_watts ?? 0));
  rows(
    "#busiest tbody",
    known.slice(0, HOT_ROWS).map((host) =>
      node("tr", {}, node("td", {}, node("a", { href: hostUrl(host.name), title: host.name }, shortHost(host.name, fleet.prefix))), numberCell(formatNumber(host.utilisation_mean, 1)), numberCell(host.power_watts === null ? "n/a" : formatNumber(host.power_watts / 1000, 2))),
    ),
  );
}

const MOST_EVENTS = 6;

/** What is missing or stale, in sentences: what, where, since when, and the next step. Stale hosts are one line each. */
function showAttention() {
  const { gpus, hosts } = fleet;
  const items = [];
  for (const of of summaries.values()) {
    const missing = of.slots.filter((slot) => gpus.state[slot] === MISSING);
    const stale = of.slots.filter((slot) => gpus.state[slot] === STALE);
    const reporting = of.slots.length - of.absent;
    if (missing.length) items.push({ rank: 0, kind: "critical", glyph: "⬣", what: missing.length === 1 ? "GPU missing" : `${missing.length} GPUs missing`, slots: missing, host: hosts[of.host], text: `${reporting} of ${of.slots.length} GPUs of this host report. Check the bus and the driver, then drain the node.` });
    if (stale.length) items.push({ rank: 1, kind: "warning", glyph: "▲", what: "Host is silent", slots: [], host: hosts[of.host], text: `None of its ${stale.length} GPUs reports. Check the host, its exporter and the streamer.` });
  }
  const held = fleet.counts.idle_held;
  items.sort((a, b) => a.rank - b.rank || a.host.name.localeCompare(b.host.name, "en", { numeric: true }));
  const shown = items.slice(0, MOST_EVENTS).map((item) => {
    const slot = item.slots.length === 1 ? ` · slot ${gpus.slot[item.slots[0]]}` : item.slots.length ? ` · slots ${item.slots.map((each) => gpus.slot[each]).join(", ")}` : "";
    const since = item.rank === 1 && item.host.last_seen ? node("span", { class: "since" }, `since ${formatTime(Date.parse(item.host.last_seen))}`) : node("span", { class: "since" }, "now");
    return node("li", { class: "event" }, node("i", { class: `icon ${item.kind}`, title: item.kind, "aria-hidden": "true" }, item.glyph), node("span", {}, node("b", {}, item.what), " · ", node("a", { href: hostUrl(item.host.name), title: item.host.name }, shortHost(item.host.name, fleet.prefix)), slot), since, node("small", {}, item.text));
  });
  if (items.length > MOST_EVENTS) shown.push(node("li", { class: "event" }, node("i", { class: "icon", "aria-hidden": "true" }, "…"), node("a", { href: "?show=missing" }, `${items.length - MOST_EVENTS} more hosts`), node("span")));
  if (held) {
    const on = new Set();
    for (let slot = 0; slot < gpus.host.length; slot++) if (SHOWS.held(fleet, slot)) on.add(gpus.host[slot]);
    shown.push(node("li", { class: "event" }, node("i", { class: "icon info", title: "info", "aria-hidden": "true" }, "●"), node("span", {}, node("b", {}, "Held but idle"), ` · ${held} GPUs on ${on.size} host${on.size === 1 ? "" : "s"}`), node("span"), node("small", {}, "0 % busy with more than 1 GiB in use. ", node("a", { href: "?show=held" }, "Show them"), ".")));
  }
  if (!shown.length) shown.push(node("li", { class: "event" }, node("i", { class: "icon", "aria-hidden": "true" }, "✓"), node("span", {}, "Every expected GPU reports."), node("span")));
  rows("#attention", shown);
}

// --- the table twin ----------------------------------------------------------------------------------------------------
function showTable(shown) {
  const open = get("table") === "1" || show() !== null;
  const wrap = find("#twin");
  wrap.classList.toggle("visually-hidden", !open);
  find("[data-as-table]").setAttribute("aria-pressed", String(open));
  find("#twin caption").textContent = `${shown.title} and the newest values of each GPU${show() ? `: ${show()} only` : ""}`;
  fill("#twin [data-metric-head]", shown.title);
  const { gpus } = fleet;
  const passes = show() ? SHOWS[show()] : null;
  const slots = chosenHosts().flatMap((of) => of.slots).filter((slot) => !passes || passes(fleet, slot));
  const cut = slots.slice(0, open ? MOST_ROWS : 256);
  rows(
    "#twin tbody",
    cut.map((slot) => {
      const state = gpus.state[slot];
      const value = state === REPORTING ? numberCell(valueText(shown.values[slot], shown.unit)) : node("td", { class: "num" }, node("span", { class: `absent ${STATE_WORDS[state]}` }, STATE_WORDS[state]));
      return node(
        "tr",
        {},
        node("th", { scope: "row" }, gpuLink(slot)),
        node("td", {}, STATE_WORDS[state]),
        value,
        numberCell(valueText(gpus.utilisation[slot], "%")),
        numberCell(valueText(gpus.temperature[slot], "°C")),
        numberCell(valueText(gpus.power[slot], "W")),
        numberCell(valueText(gpus.memory_used[slot], "MiB")),
        node("td", {}, gpus.pod[slot] >= 0 ? fleet.pods[gpus.pod[slot]] : ""),
        node("td", {}, fleet.models[gpus.model[slot]] ?? ""),
      );
    }),
  );
  // While the table is only for screen readers, nobody sees where the focus is.
  for (const link of wrap.querySelectorAll("a")) link.tabIndex = open ? 0 : -1;
  wrap.tabIndex = open ? 0 : -1;
  fill("[data-rows-left]", slots.length > cut.length ? `${slots.length - cut.length} more GPUs: choose a filter, or use the API's list.` : "");
}

// --- trends ------------------------------------------------------------------------------------------------------------
const charts = new Map();

async function showTrends(signal) {
  const shown = current();
  const element = find("#trend-utilisation");
  if (!element) return;
  const { step, every: length, start, end } = windows(element.clientWidth || 400, shown);
  const asked = { every: length, start_time: iso(start), end_time: iso(end), model: get("model") };
  const bandUrl = apiUrl("/api/v1/fleet/bands", { metric: UTILISATION, ...asked });
  const powerUrl = apiUrl("/api/v1/fleet/bands", { metric: POWER, ...asked });
  const [band, power] = await Promise.all([getJson(bandUrl, { signal }), getJson(powerUrl, { signal })]);
  const times = band.time.map((time) => Date.parse(time));
  if (learnInterval(times, band.median)) return showTrends(signal);
  draw("trend-utilisation", {
    title: "Utilisation of the fleet",
    unit: "%",
    times,
    series: [{ label: "median", values: band.median }],
    band: { min: band.min, p5: band.p5, p95: band.p95, max: band.max },
    scale: { min: 0, max: 100 },
    range: shown,
    step,
    until: Date.parse(fleet.newest),
    note: "min–max · p5–p95 · median",
    sync: "fleet",
    level: 2,
  });
  draw("trend-power", {
    title: "Power",
    unit: "W",
    times: power.time.map((time) => Date.parse(time)),
    series: [{ label: "sum over GPUs", values: power.sum }],
    fill: true,
    scale: { min: 0 },
    range: shown,
    step,
    until: Date.parse(fleet.newest),
    note: "sum over GPUs",
    sync: "fleet",
    level: 2,
  });
}

function draw(id, options) {
  const chart = charts.get(id);
  if (chart) chart.update(options);
  else charts.set(id, timeChart(find(`#${id}`), options));
}

// --- all of it -----------------------------------------------------------------------------------------------------------
function render(force = false) {
  const state = location.search;
  if (!fleet || (!force && drawn?.fleet === fleet && drawn.state === state)) return;
  drawn = { fleet, state };
  const empty = fleet.counts.expected === 0;
  find("#empty")?.toggleAttribute("hidden", !empty || Boolean(get("model") || get("namespace") || get("pod")));
  const shown = shownMetric();
  summarise(shown);
  showTiles();
  showLegend(shown);
  const arranged = arrange(shown);
  map.show(arranged);
  find("#heat").setAttribute("aria-label", `${shown.title} by host and slot: ${arranged.cells.values.length} cells. Arrows move, Enter opens. The table below has the same values.`);
  fill("[data-no-match]", arranged.lines.length ? "" : "No GPU matches these filters.");
  showTable(shown);
  showAttention();
  showHottest();
  showHeld();
  showBusiest();
  showPicks();
  setDataTime(fleet.newest ? Date.parse(fleet.newest) : null);
}

function showPicks() {
  for (const pick of document.querySelectorAll("[data-pick]")) {
    const value = get(pick.dataset.pick) ?? pick.dataset.default ?? "";
    if (pick.type === "search") {
      if (document.activeElement !== pick) pick.value = value;
    } else if ([...pick.options].some((option) => option.value === value)) pick.value = value;
  }
  for (const tile of document.querySelectorAll("[data-show]")) {
    if (tile.dataset.show === show()) tile.setAttribute("aria-current", "true");
    else tile.removeAttribute("aria-current");
  }
  const chosen = ["model", "namespace", "pod", "show", "q", "open"].filter((name) => get(name));
  find("[data-clear]").hidden = !chosen.length;
  fill("[data-chosen]", chosen.map((name) => (name === "q" ? `host ~ ${get(name)}` : name === "open" ? "opened hosts" : `${name}: ${get(name)}`)).join(" · "));
  find("[data-cells]").hidden = fleet.gpus.host.length <= MOST_LINES;
}

for (const pick of document.querySelectorAll("[data-pick]")) {
  const kind = pick.type === "search" ? "input" : "change";
  let timer = 0;
  pick.addEventListener(kind, () => {
    const choose = () => set({ [pick.dataset.pick]: pick.value === (pick.dataset.default ?? "") ? null : pick.value }, { push: kind === "change" });
    clearTimeout(timer);
    if (kind === "input") timer = setTimeout(choose, 150);
    else choose();
  });
}
for (const tile of document.querySelectorAll("[data-show]")) {
  tile.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    set({ show: show() === tile.dataset.show ? null : tile.dataset.show });
  });
}
find("[data-as-table]").addEventListener("click", () => {
  if (show()) set({ show: null, table: null });
  else set({ table: get("table") === "1" ? null : "1" });
});
find("[data-clear]").addEventListener("click", () => set({ model: null, namespace: null, pod: null, show: null, q: null, open: null }));
onTheme(() => fleet && showLegend(shownMetric()));

if (fleet) render();
every(async ({ signal }) => {
  const url = apiUrl("/api/v1/fleet", { metric: metricForApi(), model: get("model"), namespace: get("namespace"), pod: get("pod") });
  // What the URL asks for of the fleet that is known shows at once.
  if (fleet && drawn && drawn.state !== location.search) render();
  const next = await getJson(url, { signal });
  fleet = next;
  render();
  await showTrends(signal);
});
