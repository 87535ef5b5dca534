// Beside the heat map of the fleet: what needs attention, and who is hottest, held or busiest.

import { formatNumber, formatTime, shortHost } from "./format.js";
import { MISSING, STALE } from "./heatmap.js";
import { gpuUrl, hostUrl } from "./page.js";
import { isHeld, plural, slotLabel } from "./slots.js";

const MOST_EVENTS = 6;
const MOST_SLOTS = 8;
const ROWS = 5;
const GLYPHS = { critical: "⬣", warning: "▲", info: "●" };

/** An element with attributes and children; what is null is left out. */
export function node(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const numberCell = (text) => node("td", { class: text === "n/a" ? "num absent na" : "num" }, text);

/** A link to a GPU, or to its host where no GPU was ever seen. */
export function slotLink(fleet, slot, attributes = {}) {
  const host = fleet.hosts[fleet.gpus.host[slot]].name;
  const id = fleet.gpus.id[slot];
  return node("a", { href: id ? gpuUrl(id) : hostUrl(host), title: host, ...attributes }, slotLabel(fleet, slot, fleet.prefix));
}

const hostLink = (name, prefix) => node("a", { href: hostUrl(name), title: name }, shortHost(name, prefix));

/** Fills the panels from the fleet and its hosts (slots.js). */
export function showSide(fleet, hosts) {
  showAttention(fleet, hosts);
  showHottest(fleet);
  showHeld(fleet);
  showBusiest(fleet);
}

function fill(selector, items) {
  const element = document.querySelector(selector);
  // A link that has the focus keeps it through a refresh.
  const focused = element.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  element.replaceChildren(...items);
  if (focused) [...element.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
}

const noRows = (columns, text) => [node("tr", {}, node("td", { colspan: columns, class: "hint" }, text))];

/** An event: what, where, since when, and the next step. */
function eventItem({ kind, what, where, since, next }) {
  const icon = node("i", { class: `icon ${kind}`, role: "img", "aria-label": kind }, GLYPHS[kind]);
  return node("li", { class: "event" }, icon, node("span", {}, node("b", {}, what), ...where), node("span", { class: "since" }, since), node("small", {}, ...next));
}

const quiet = (glyph, ...text) => node("li", { class: "event" }, node("i", { class: "icon", "aria-hidden": "true" }, glyph), node("span", {}, ...text), node("span"));

function showAttention(fleet, hosts) {
  const { gpus, counts } = fleet;
  const missing = [];
  const silent = [];
  for (const of of hosts) {
    if (!of.trouble) continue;
    const slots = of.slots.filter((slot) => gpus.state[slot] === MISSING);
    if (slots.length) missing.push({ of, slots });
    else if (of.slots.some((slot) => gpus.state[slot] === STALE)) silent.push(of);
  }
  const events = [...missing.map((each) => () => missingEvent(fleet, each)), ...silent.map((of) => () => silentEvent(fleet, of))];
  const items = events.slice(0, MOST_EVENTS).map((make) => make());
  if (events.length > MOST_EVENTS) items.push(quiet("…", node("a", { href: "?show=attention" }, `${plural(events.length - MOST_EVENTS, "more host")}`)));
  if (!events.length) items.push(quiet("✓", counts.expected ? "Every expected GPU reports." : "No GPU matches the filters."));
  if (counts.idle_held) items.push(heldEvent(fleet));
  fill("#attention", items);
}

function missingEvent({ gpus, prefix }, { of, slots }) {
  const places = slots.slice(0, MOST_SLOTS).map((slot) => gpus.slot[slot]).join(", ") + (slots.length > MOST_SLOTS ? ", …" : "");
  const seen = slots.map((slot) => gpus.last_seen[slot]).filter(Boolean).sort();
  const reporting = of.slots.length - of.absent;
  return eventItem({
    kind: "critical",
    what: slots.length === 1 ? "GPU missing" : `${slots.length} GPUs missing`,
    where: [" · ", hostLink(of.name, prefix), ` · ${slots.length === 1 ? "slot" : "slots"} ${places}`],
    since: seen.length ? `since ${formatTime(Date.parse(seen[0]))}` : "never seen",
    next: [`${reporting} of ${of.slots.length} GPUs of this host report. Check the bus and the driver, then drain the node.`],
  });
}

function silentEvent({ prefix }, of) {
  return eventItem({
    kind: "warning",
    what: "Host silent",
    where: [" · ", hostLink(of.name, prefix)],
    since: of.host.last_seen ? `since ${formatTime(Date.parse(of.host.last_seen))}` : "",
    next: [`None of its ${plural(of.slots.length, "GPU")} reports. Check the host, its exporter and the streamer.`],
  });
}

function heldEvent({ gpus, counts }) {
  const on = new Set();
  for (let slot = 0; slot < gpus.host.length; slot++) if (isHeld(gpus, slot)) on.add(gpus.host[slot]);
  return eventItem({
    kind: "info",
    what: "Held but idle",
    where: [` · ${plural(counts.idle_held, "GPU")} on ${plural(on.size, "host")}`],
    since: "",
    next: ["0 % busy with more than 1 GiB in use. ", node("a", { href: "?show=held" }, "Show them"), "."],
  });
}

function showHottest(fleet) {
  const { temperature, power, utilisation } = fleet.gpus;
  const hottest = [];
  temperature.forEach((value, slot) => value !== null && hottest.push(slot));
  hottest.sort((a, b) => temperature[b] - temperature[a] || (power[b] ?? 0) - (power[a] ?? 0));
  const row = (slot) =>
    node("tr", {}, node("td", {}, slotLink(fleet, slot)), numberCell(formatNumber(temperature[slot], 0)), numberCell(formatNumber(power[slot], 0)), numberCell(formatNumber(utilisation[slot], 0)));
  fill("#hottest tbody", hottest.length ? hottest.slice(0, ROWS).map(row) : noRows(4, "No GPU reports its temperature."));
}

function showHeld({ gpus, hosts, prefix }) {
  const held = new Map();
  for (let slot = 0; slot < gpus.host.length; slot++) {
    if (!isHeld(gpus, slot)) continue;
    const of = held.get(gpus.host[slot]) ?? { count: 0, mib: 0, watts: 0 };
    of.count++;
    of.mib += gpus.memory_used[slot];
    of.watts += gpus.power[slot] ?? 0;
    held.set(gpus.host[slot], of);
  }
  const most = [...held].sort((a, b) => b[1].count - a[1].count || b[1].mib - a[1].mib).slice(0, ROWS);
  const row = ([host, of]) =>
    node("tr", {}, node("td", {}, hostLink(hosts[host].name, prefix)), numberCell(String(of.count)), numberCell(formatNumber(of.mib / 1024, 0)), numberCell(formatNumber(of.watts, 0)));
  fill("#held tbody", most.length ? most.map(row) : noRows(4, "No idle GPU holds more than 1 GiB."));
}

function showBusiest({ hosts, prefix }) {
  const known = hosts.filter((host) => host.utilisation_mean !== null);
  known.sort((a, b) => b.utilisation_mean - a.utilisation_mean || (b.power_watts ?? 0) - (a.power_watts ?? 0));
  const row = (host) =>
    node("tr", {}, node("td", {}, hostLink(host.name, prefix)), numberCell(formatNumber(host.utilisation_mean, 1)), numberCell(host.power_watts === null ? "n/a" : formatNumber(host.power_watts / 1000, 2)));
  fill("#busiest tbody", known.length ? known.slice(0, ROWS).map(row) : noRows(3, "No host reports its utilisation."));
}
