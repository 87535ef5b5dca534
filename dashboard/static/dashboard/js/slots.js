// The fleet's snapshot as the page shows it: the metric, filters, order and groups that the URL asks for, and slots in words.

import { formatAge, formatValue, gpuLabel, SCALES } from "./format.js";
import { MAINTENANCE, MISSING, REPORTING, STALE } from "./heatmap.js";

export const UTILISATION = "DCGM_FI_DEV_GPU_UTIL";
export const POWER = "DCGM_FI_DEV_POWER_USAGE";
export const TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP";
const MEMORY = /^DCGM_FI_DEV_FB_(USED|FREE|TOTAL|RESERVED)$/;
/** The share of its memory that a GPU uses: made here, not a metric of the API. */
export const MEMORY_SHARE = "memory";
const HELD_MIB = 1024;
// What an event adds to the trouble of its host, by its mark: events of severity info add none.
const TROUBLE = [0, 500, 10, 0];
const STATE_WORDS = ["reporting", "stale", "missing", "in maintenance"];
/** The class of a state's look. */
export const STATE_CLASSES = ["", "stale", "missing", "maintenance"];

export const stateWords = (state) => STATE_WORDS[state];
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`;

/** The severities by the number of their mark; 0 is none. */
export const SEVERITIES = ["", "critical", "warning", "info"];
export const GLYPHS = { critical: "⬣", warning: "▲", info: "●" };
const INFO = 3;
const worse = (one, other) => (one && other ? Math.min(one, other) : one || other);
/** The mark of a slot: of its worst open event, and critical where the GPU is missing. */
export const markOf = ({ state, mark }, at) => worse(mark[at], state[at] === MISSING ? 1 : 0);
/** Whether a GPU is missing or stale, or has an event above info. */
export const needsAttention = ({ state, mark }, at) => state[at] === MISSING || state[at] === STALE || (mark[at] > 0 && mark[at] < INFO);

/** What the URL's `show` lets pass, and how that is said. */
const SHOWS = {
  attention: { words: "missing, stale or with an event above info", passes: (gpus, at) => needsAttention(gpus, at) },
  missing: { words: "missing", passes: ({ state }, at) => state[at] === MISSING },
  stale: { words: "stale", passes: ({ state }, at) => state[at] === STALE },
  maintenance: { words: "in maintenance", passes: ({ state }, at) => state[at] === MAINTENANCE },
  reporting: { words: "reporting", passes: ({ state }, at) => state[at] === REPORTING },
  idle: { words: "idle", passes: ({ utilisation }, at) => utilisation[at] === 0 },
  held: { words: "held but idle", passes: (gpus, at) => isHeld(gpus, at) },
  full: { words: "at 100 %", passes: ({ utilisation }, at) => utilisation[at] === 100 },
};

/** Whether a GPU does nothing and yet has memory in use. */
export const isHeld = ({ utilisation, memory_used: used }, at) => utilisation[at] === 0 && used[at] > HELD_MIB;

/** The filter of this name, or null. */
export const showOf = (name) => (Object.hasOwn(SHOWS, name ?? "") ? SHOWS[name] : null);

const byName = new Intl.Collator("en", { numeric: true });
const compareNames = (a, b) => byName.compare(a.name, b.name);
/** Ascending, or descending with a sign of -1. What has no value comes last in either. */
const compareValues = (a, b, sign) => (a === null || b === null ? (a === null) - (b === null) : sign * (a - b));

// Without a prototype: the name that is looked up comes from the URL.
const SORTS = {
  __proto__: null,
  worst: (a, b) => b.trouble - a.trouble || b.hottest - a.hottest || compareNames(a, b),
  name: compareNames,
  high: (a, b) => compareValues(a.mean, b.mean, -1) || compareNames(a, b),
  low: (a, b) => compareValues(a.mean, b.mean, 1) || compareNames(a, b),
};

/**
 * The fleet as the URL asks for it.
 * @param {object} fleet the API's answer
 * @param {{metric: string, show: string|null, q: string, sort: string, group: string}} asked
 */
export function viewOf(fleet, asked) {
  const shown = shownMetric(fleet, asked.metric);
  const filter = showOf(asked.show);
  const hosts = summariesOf(fleet, shown);
  const text = asked.q.trim().toLowerCase();
  const passes = (at) => filter === null || filter.passes(fleet.gpus, at);
  const chosen = hosts.filter((host) => (!text || host.name.toLowerCase().includes(text)) && host.slots.some(passes));
  for (const host of chosen) host.group = groupOf(fleet, host, asked.group);
  const sort = SORTS[asked.sort] ?? SORTS.worst;
  chosen.sort((a, b) => byName.compare(a.group, b.group) || sort(a, b));
  return { fleet, shown, hosts, chosen, passes, filter };
}

/** The value of each slot, its unit and title, and the scale of its colours. */
function shownMetric({ gpus, metric }, name) {
  if (name === MEMORY_SHARE) {
    const { memory_used: used, memory_total: total } = gpus;
    return { name, values: used.map((mib, at) => (mib === null || !total[at] ? null : (100 * mib) / total[at])), unit: "%", scale: { min: 0, max: 100 }, title: "Memory used, %" };
  }
  return { name: metric.name, values: gpus.value, unit: metric.unit, scale: scaleOf(metric, gpus), title: metric.title };
}

function scaleOf({ name }, { value, memory_total: total }) {
  if (SCALES[name]) return SCALES[name];
  if (MEMORY.test(name)) return { min: 0, max: largest(total) || 1 };
  return { min: 0 - roundUp(-smallest(value)), max: roundUp(largest(value)) || 1 };
}

const largest = (values) => values.reduce((most, value) => (value > most ? value : most), 0);
const smallest = (values) => values.reduce((least, value) => (value < least ? value : least), 0);

/** 1, 2 or 5 times a power of ten: a scale that does not move with every reading. */
function roundUp(value) {
  if (value <= 0) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5].find((step) => step * power >= value) ?? 10) * power;
}

/** The hosts with their slots, and what they are sorted by. */
function summariesOf({ hosts, gpus }, { values }) {
  const found = hosts.map((host, at) => ({ host, at, name: host.name, group: "", slots: [], sum: 0, known: 0, mean: null, max: null, absent: 0, trouble: TROUBLE[host.mark], hottest: -1, mark: host.mark }));
  for (let slot = 0; slot < gpus.host.length; slot++) {
    const of = found[gpus.host[slot]];
    const state = gpus.state[slot];
    of.slots.push(slot);
    of.mark = worse(of.mark, state === STALE ? worse(markOf(gpus, slot), 2) : markOf(gpus, slot));
    of.trouble += TROUBLE[markOf(gpus, slot)] + (state === MISSING ? 1000 : state === STALE ? 100 : 0);
    if (state !== REPORTING) of.absent++;
    if (gpus.temperature[slot] > of.hottest) of.hottest = gpus.temperature[slot];
    const value = values[slot];
    if (value === null) continue;
    of.sum += value;
    of.known++;
    if (of.max === null || value > of.max) of.max = value;
  }
  for (const of of found) if (of.known) of.mean = of.sum / of.known;
  return found;
}

function groupOf({ gpus, models, namespaces }, { host, slots }, by) {
  if (by === "model") return mostOf(slots, gpus.model, models) ?? "unknown model";
  if (by === "namespace") return mostOf(slots, gpus.namespace, namespaces) ?? "no namespace";
  if (by === "owner") return host.owner || "no owner";
  return "";
}

/** The name that most of the slots have, or null. */
function mostOf(slots, places, names) {
  const counts = new Map();
  for (const slot of slots) if (places[slot] >= 0) counts.set(places[slot], (counts.get(places[slot]) ?? 0) + 1);
  const [most] = [...counts].sort((a, b) => b[1] - a[1]);
  return most ? names[most[0]] : null;
}

export const valueText = (value, unit) => formatValue(value, unit === "0-1" || unit === "ratio" ? "" : unit);

/** `host · gpu 3 · 39bd9cd5`. */
export function slotLabel({ hosts, gpus }, slot, prefix) {
  return gpuLabel(hosts[gpus.host[slot]].name, gpus.slot[slot], gpus.id[slot], prefix);
}

/** A slot in a line: its label, what it has of the shown metric, or why it has nothing. */
export function describeSlot({ fleet, shown }, slot) {
  const { gpus, pods } = fleet;
  const label = slotLabel(fleet, slot, "");
  const word = SEVERITIES[gpus.mark[slot]];
  const event = word ? ` · ${GLYPHS[word]} ${word} event open` : "";
  if (gpus.state[slot] !== REPORTING) return `${label}: ${stateWords(gpus.state[slot])}, ${sinceText(gpus.last_seen[slot])}${event}`;
  const others = [
    [UTILISATION, `${valueText(gpus.utilisation[slot], "%")} busy`, gpus.utilisation[slot]],
    [TEMPERATURE, valueText(gpus.temperature[slot], "°C"), gpus.temperature[slot]],
    [POWER, valueText(gpus.power[slot], "W"), gpus.power[slot]],
  ];
  const extra = others.filter(([name, , value]) => name !== shown.name && value !== null).map(([, text]) => text);
  const pod = gpus.pod[slot] >= 0 ? ` · ${pods[gpus.pod[slot]]}` : "";
  return `${label}: ${valueText(shown.values[slot], shown.unit)}${extra.length ? ` (${extra.join(", ")})` : ""}${pod}${event}`;
}

function sinceText(lastSeen) {
  return lastSeen ? `last seen ${formatAge(Date.now() - Date.parse(lastSeen))} ago` : "never seen";
}

/** A host in a line. */
export function describeHost({ shown }, of, isOpen) {
  const absent = of.absent ? `, ${of.absent} of ${plural(of.slots.length, "GPU")} not reporting` : "";
  const word = SEVERITIES[of.mark];
  const event = word ? `, ${GLYPHS[word]} worst event ${word}` : "";
  return `${of.name}: mean ${valueText(of.mean, shown.unit)}, highest ${valueText(of.max, shown.unit)}${absent}${event}. Press to ${isOpen ? "close" : "open"} it`;
}
