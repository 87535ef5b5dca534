// The fleet's page: tiles, the heat map with its table, what is beside it, and trends.

import { node, numberCell, refreshAttention, showSide, slotLink } from "./attention.js";
import { cividis, onTheme } from "./colors.js";
import { formatNumber, formatValue, scaled } from "./format.js";
import { HeatMap, REPORTING } from "./heatmap.js";
import { explain } from "./keys.js";
import { every, setDataTime } from "./live.js";
import { apiUrl, data, getJson, gpuUrl, hostUrl } from "./page.js";
import { describeHost, describeSlot, GLYPHS, markOf, MEMORY_SHARE, needsAttention, plural, POWER, SEVERITIES, showOf, STATE_CLASSES, stateWords, TEMPERATURE, UTILISATION, valueText, viewOf } from "./slots.js";
import { get, set } from "./state.js";
import { sortTable } from "./tables.js";
import { showTrends } from "./trends.js";

// From this size on a cell is a host, unless all GPUs are asked for.
const MOST_LINES = 2000;
const MOST_ROWS = 2000;
// Of the table while only screen readers see it.
const MOST_HIDDEN_ROWS = 256;
const HOST_FILTER_WAIT_MS = 150;

const find = (selector) => document.querySelector(selector);

let fleet = data.fleet ?? null;
let drawn = null;
let view = null;
/** What each cell is: a slot's number, or a host's summary. */
let cellItems = [];

const isHost = (item) => typeof item === "object";
const show = () => (showOf(get("show")) ? get("show") : null);
const openedHosts = () => new Set((get("open") ?? "").split(",").filter(Boolean));

const map = new HeatMap(find("#heat"), {
  tell: (cell) => describe(cellItems[cell]),
  open: (cell, event) => openItem(cellItems[cell], event),
  openLine: (line, event) => go(hostUrl(line.name), event),
});
explain("← ↑ ↓ →", "in the heat map: move from cell to cell");
explain("Enter", "in the heat map: open the GPU; h opens its host");

function describe(item) {
  if (item === undefined) return "";
  return isHost(item) ? describeHost(view, item, openedHosts().has(item.name)) : describeSlot(view, item);
}

function go(url, event) {
  if (event?.ctrlKey || event?.metaKey) open(url);
  else location.assign(url);
}

/** A host's cell shows its GPUs or hides them. A slot leads to its GPU's page, or to the host where there never was one. */
function openItem(item, event) {
  if (item === undefined) return;
  if (isHost(item)) {
    const opened = openedHosts();
    if (!opened.delete(item.name)) opened.add(item.name);
    set({ open: [...opened].join(",") });
    return;
  }
  const id = fleet.gpus.id[item];
  go(id ? gpuUrl(id) : hostUrl(fleet.hosts[fleet.gpus.host[item]].name), event);
}

// --- the heat map --------------------------------------------------------------------------------------------------------
/** Of a large fleet a cell is a host; the hosts that are opened come first, with their GPUs. */
function linesOf() {
  const { chosen, shown } = view;
  const items = [];
  const lines = [];
  const add = (of, kind, members) => {
    lines.push({ name: of.name, group: of.group, kind, mark: of.host.mark, first: items.length, count: members.length, text: of.mean === null ? "n/a" : shortValue(of.mean, shown.unit) });
    for (const member of members) items.push(member);
  };
  const slots = chosen.reduce((sum, of) => sum + of.slots.length, 0);
  if (slots <= MOST_LINES) for (const of of chosen) add(of, "line", of.slots);
  else if (get("cells") === "gpus") for (const of of chosen) add(of, "dense", of.slots);
  else {
    const opened = openedHosts();
    for (const of of chosen) if (opened.has(of.name)) add({ ...of, group: "" }, "line", of.slots);
    for (const of of chosen) add(of, "host", [of]);
  }
  return { lines, items };
}

function cellsOf(items) {
  const { shown, filter, passes } = view;
  const { state } = fleet.gpus;
  const { min, max } = shown.scale;
  const of = get("cells") === "max" ? "max" : "mean";
  const cells = { values: new Float32Array(items.length), states: new Uint8Array(items.length), marks: new Uint8Array(items.length), faded: new Uint8Array(items.length) };
  items.forEach((item, cell) => {
    const value = isHost(item) ? item[of] : shown.values[item];
    cells.values[cell] = value === null ? NaN : (value - min) / (max - min);
    cells.states[cell] = isHost(item) ? hostState(item) : state[item];
    cells.marks[cell] = isHost(item) ? item.mark : markOf(fleet.gpus, item);
    cells.faded[cell] = filter && !isHost(item) && !passes(item) ? 1 : 0;
  });
  return cells;
}

/** A host of which nothing reports looks as its first slot does. */
const hostState = (of) => (of.absent < of.slots.length ? REPORTING : fleet.gpus.state[of.slots[0]]);

const keyOf = (item) => (item === undefined ? null : isHost(item) ? item.name : `${fleet.hosts[fleet.gpus.host[item]].name} ${fleet.gpus.slot[item]} ${fleet.gpus.id[item]}`);

function showMap(focusedKey) {
  const { lines, items } = linesOf();
  cellItems = items;
  const focused = focusedKey === null ? -1 : items.findIndex((item) => keyOf(item) === focusedKey);
  map.show({ lines, cells: cellsOf(items), prefix: fleet.prefix, focused });
  const { shown } = view;
  find("#heat").setAttribute("aria-label", `${shown.title} by host and slot, ${plural(items.length, "cell")}. Arrow keys move, Enter opens. The table after it has the same values.`);
  find("#heat").parentElement.hidden = !items.length;
  fill("[data-no-match]", items.length ? "" : "No GPU matches these filters.");
}

/** Which marks the map has. */
function marksThere() {
  const found = new Set(view.hosts.flatMap((of) => [of.mark, ...of.slots.map((slot) => markOf(fleet.gpus, slot))]));
  return { critical: found.has(1), warning: found.has(2), info: found.has(3) };
}

function shortValue(value, unit) {
  const { value: amount, unit: larger } = scaled(value, unit);
  const digits = Math.abs(amount) >= 10 || Number.isInteger(amount) ? 0 : 1;
  return `${formatNumber(amount, Math.abs(amount) < 1 && amount ? 2 : digits)} ${larger === "0-1" || larger === "ratio" ? "" : larger}`.trim();
}

function showLegend() {
  const { shown } = view;
  const { counts } = fleet;
  fill("[data-legend=min]", valueText(shown.scale.min, shown.unit));
  fill("[data-legend=max]", valueText(shown.scale.max, shown.unit));
  const stops = Array.from({ length: 9 }, (_, at) => cividis(at / 8));
  find("[data-legend=ramp]").style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
  // Only what is on the map is explained.
  const unknown = shown.values.some((value, slot) => value === null && fleet.gpus.state[slot] === REPORTING);
  for (const [name, count] of Object.entries({ missing: counts.missing, stale: counts.stale, maintenance: counts.maintenance, unknown, ...marksThere() })) {
    find(`[data-swatch=${name}]`).hidden = !count;
  }
}

// --- tiles ---------------------------------------------------------------------------------------------------------------
function fill(selector, text) {
  const element = find(selector);
  if (element.textContent !== text) element.textContent = text;
}

function showTiles() {
  const { counts, totals } = fleet;
  const put = (name, text) => fill(`[data-tile="${name}"]`, text);
  const { events } = fleet;
  const attention = fleet.gpus.host.filter((_, slot) => needsAttention(fleet.gpus, slot)).length;
  put("reporting", formatNumber(counts.reporting, 0));
  put("expected", `of ${formatNumber(counts.expected, 0)}`);
  put("missing", `${formatNumber(counts.missing, 0)} missing`);
  put("stale", `${formatNumber(counts.stale, 0)} stale`);
  put("maintenance", counts.maintenance ? ` · ${formatNumber(counts.maintenance, 0)} in maintenance` : "");
  find('[data-tile="missing"]').classList.toggle("critical-text", counts.missing > 0);
  find('[data-tile="stale"]').classList.toggle("warning-text", counts.stale > 0);
  put("attention", formatNumber(attention, 0));
  put("attention-unit", attention === 1 ? "GPU" : "GPUs");
  put("attention-note", events.critical || events.warning ? `${formatNumber(events.critical, 0)} critical · ${formatNumber(events.warning, 0)} warning` : "no event above info");
  put("utilisation", formatNumber(totals.utilisation_mean, 1));
  put("utilisation-note", `p95 ${valueText(totals.utilisation_p95, "%")} · ${formatNumber(counts.at_full, 0)} at 100 %`);
  put("held", formatNumber(counts.idle_held, 0));
  put("held-unit", counts.idle_held === 1 ? "GPU" : "GPUs");
  put("idle", formatNumber(share(counts.idle, counts.reporting), 0));
  put("idle-note", `${plural(counts.idle, "GPU")} · ${plural(counts.idle_hosts, "host")}`);
  put("memory", formatNumber(share(totals.memory_used_mib, totals.memory_total_mib), 1));
  put("memory-note", memoryNote(totals));
  const power = totals.power_watts === null ? null : scaled(totals.power_watts, "W");
  put("power", power ? formatNumber(power.value) : "n/a");
  put("power-unit", power ? power.unit : "");
  put("power-note", totals.idle_power_watts === null ? "" : `${formatValue(totals.idle_power_watts, "W")} on idle GPUs`);
}

/** `6.2 of 19.1 TiB`: both in the unit that fits the larger. */
function memoryNote({ memory_used_mib: used, memory_total_mib: total }) {
  if (used === null || !total) return "not reported";
  const { value, unit } = scaled(total, "MiB");
  return `${formatNumber((used / total) * value, 1)} of ${formatNumber(value, 1)} ${unit}`;
}

const share = (part, whole) => (part === null || !whole ? null : (100 * part) / whole);

// --- the table -----------------------------------------------------------------------------------------------------------
/** A filter lists what it found, unless the table was closed by hand. */
const isTableOpen = () => (get("table") ?? (show() ? "1" : "0")) === "1";

function showTable() {
  const { shown, chosen, passes, filter } = view;
  const open = isTableOpen();
  find("#twin").classList.toggle("visually-hidden", !open);
  find("#twin").tabIndex = open ? 0 : -1;
  // What cannot be seen takes no focus.
  for (const button of document.querySelectorAll("#twin th button")) button.tabIndex = open ? 0 : -1;
  find("[data-as-table]").setAttribute("aria-pressed", String(open));
  fill("#twin caption", `${shown.title} and the newest values of each GPU${filter ? `: ${filter.words} only` : ""}`);
  // What has a column of its own needs no second one.
  const extra = ![UTILISATION, TEMPERATURE, POWER].includes(shown.name);
  const head = find("#twin [data-metric-head]");
  head.hidden = !extra;
  (head.querySelector("button") ?? head).textContent = shown.title;
  const slots = chosen.flatMap((of) => of.slots).filter(passes);
  const most = open ? MOST_ROWS : MOST_HIDDEN_ROWS;
  find("#twin tbody").replaceChildren(...slots.slice(0, most).map((slot) => rowOf(slot, extra, open)));
  sortTable(find("#twin table"));
  fill("[data-rows-left]", slots.length > most ? `${plural(slots.length - most, "more GPU")}: choose a filter to see them here.` : "");
}

function rowOf(slot, extra, open) {
  const { gpus, pods, models } = fleet;
  const { shown } = view;
  const state = gpus.state[slot];
  const cell = (value, unit) => {
    const made = numberCell(valueText(value, unit));
    made.dataset.value = value ?? "";
    return made;
  };
  return node(
    "tr",
    {},
    // Nobody who sees the page should tab through links that are not to be seen.
    node("th", { scope: "row" }, slotLink(fleet, slot, open ? {} : { tabindex: "-1" })),
    node("td", {}, state === REPORTING ? stateWords(state) : node("span", { class: `absent ${STATE_CLASSES[state]}` }, stateWords(state)), markNode(gpus.mark[slot])),
    extra ? cell(shown.values[slot], shown.unit) : node("td", { hidden: "" }),
    cell(gpus.utilisation[slot], "%"),
    cell(gpus.temperature[slot], "°C"),
    cell(gpus.power[slot], "W"),
    cell(gpus.memory_used[slot], "MiB"),
    node("td", {}, gpus.pod[slot] >= 0 ? pods[gpus.pod[slot]] : ""),
    node("td", {}, models[gpus.model[slot]] ?? ""),
  );
}

/** The worst event of a GPU as its shape and a word. */
function markNode(mark) {
  if (!mark) return null;
  const word = SEVERITIES[mark];
  return node("span", { class: `event-mark icon ${word}` }, ` ${GLYPHS[word]} ${word}`);
}

// --- what is chosen ------------------------------------------------------------------------------------------------------
const FILTERS = ["model", "namespace", "pod", "show", "q", "open"];

function chosenWords(name) {
  if (name === "show") return `GPUs ${showOf(get("show"))?.words ?? "of any state"}`;
  if (name === "q") return `host names with “${get("q")}”`;
  if (name === "open") return `${plural(view.hosts.filter((of) => openedHosts().has(of.name)).length, "host")} opened`;
  return `${name} ${get(name)}`;
}

function showPicks() {
  for (const pick of document.querySelectorAll("[data-pick]")) {
    const value = get(pick.dataset.pick) ?? pick.dataset.default ?? "";
    if (pick.type !== "search") pick.value = [...pick.options].some((option) => option.value === value) ? value : (pick.dataset.default ?? "");
    else if (document.activeElement !== pick) pick.value = value;
  }
  for (const tile of document.querySelectorAll(".tile[data-show]")) {
    if (tile.dataset.show === show()) tile.setAttribute("aria-current", "true");
    else tile.removeAttribute("aria-current");
  }
  const chosen = FILTERS.filter((name) => get(name));
  find("[data-chosen-line]").hidden = !chosen.length;
  fill("[data-chosen]", chosen.map(chosenWords).join(" · "));
  find("[data-cells]").hidden = fleet.counts.expected <= MOST_LINES;
}

for (const pick of document.querySelectorAll("[data-pick]")) {
  const isText = pick.type === "search";
  const choose = () => set({ [pick.dataset.pick]: pick.value === (pick.dataset.default ?? "") ? null : pick.value }, { push: !isText });
  let timer = 0;
  pick.addEventListener(isText ? "input" : "change", () => {
    clearTimeout(timer);
    if (isText) timer = setTimeout(choose, HOST_FILTER_WAIT_MS);
    else choose();
  });
}
// A link to this page changes what it names and keeps the rest. A tile that is chosen already is let go.
find("#content").addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="?"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  const asked = Object.fromEntries(new URLSearchParams(link.getAttribute("href")));
  const isOn = link.matches(".tile[aria-current]");
  set({ ...(isOn ? { show: null } : asked), table: null });
});
find("[data-as-table]").addEventListener("click", () => {
  const wanted = isTableOpen() ? "0" : "1";
  set({ table: wanted === (show() ? "1" : "0") ? null : wanted });
});
find("[data-clear]").addEventListener("click", () => {
  set(Object.fromEntries([...FILTERS, "table"].map((name) => [name, null])));
  find("#pick-metric").focus();
});
onTheme(() => view && showLegend());

// --- all of it -----------------------------------------------------------------------------------------------------------
function render() {
  const state = location.search;
  if (!fleet || (drawn?.fleet === fleet && drawn.state === state)) return;
  const focusedKey = view ? keyOf(cellItems[map.focused]) : null;
  drawn = { fleet, state };
  view = viewOf(fleet, { metric: get("metric", UTILISATION), show: show(), q: get("q", ""), sort: get("sort", "worst"), group: get("group", "") });
  showTiles();
  showLegend();
  showPicks();
  showMap(focusedKey);
  showTable();
  showSide(fleet);
  setDataTime(fleet.newest ? Date.parse(fleet.newest) : null);
}

/** The metric to ask the API for; null where every answer has what is shown. */
function metricForApi() {
  const name = get("metric", UTILISATION);
  return name === MEMORY_SHARE || name === UTILISATION ? null : name;
}

/** The metric that the known answer has is not yet the one that the URL asks for. */
const isOther = () => (metricForApi() ?? UTILISATION) !== fleet.metric.name && get("metric") !== MEMORY_SHARE;

// The page came with what needs attention.
let isFirst = true;
if (fleet) render();
every(async ({ signal }) => {
  // What the URL asks for of the fleet that is known shows at once.
  if (fleet && !isOther()) render();
  const asked = { metric: metricForApi(), model: get("model"), namespace: get("namespace"), pod: get("pod") };
  const next = await getJson(apiUrl("/api/v1/fleet", asked), { signal });
  fleet = next;
  render();
  await Promise.all([showTrends(fleet, signal), isFirst ? null : refreshAttention(signal)]);
  isFirst = false;
});
