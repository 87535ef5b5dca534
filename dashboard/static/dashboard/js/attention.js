// Beside the heat map of the fleet: what needs attention, and who is hottest, held or busiest.

import { showCritical } from "./critical.js";
import { formatNumber, shortHost } from "./format.js";
import { apiUrl, gpuUrl, hostUrl } from "./page.js";
import { fill, getPage } from "./parts.js";
import { isHeld, slotLabel } from "./slots.js";
import { get } from "./state.js";

const ROWS = 5;

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

/** Gets what needs attention anew: the server writes it. */
export async function refreshAttention(signal) {
  const asked = { model: get("model"), namespace: get("namespace"), pod: get("pod") };
  const page = await getPage(apiUrl("/events/attention", asked), signal);
  const fresh = page.querySelector("ul");
  if (!fresh) return;
  fill(document.getElementById("attention"), [...document.importNode(fresh, true).childNodes]);
  showCritical(page);
}

/** Fills the panels from the fleet. */
export function showSide(fleet) {
  showHottest(fleet);
  showHeld(fleet);
  showBusiest(fleet);
}

function put(selector, items) {
  const element = document.querySelector(selector);
  // A link that has the focus keeps it through a refresh.
  const focused = element.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  element.replaceChildren(...items);
  if (focused) [...element.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
}

const noRows = (columns, text) => [node("tr", {}, node("td", { colspan: columns, class: "hint" }, text))];

function showHottest(fleet) {
  const { temperature, power, utilisation } = fleet.gpus;
  const hottest = [];
  temperature.forEach((value, slot) => value !== null && hottest.push(slot));
  hottest.sort((a, b) => temperature[b] - temperature[a] || (power[b] ?? 0) - (power[a] ?? 0));
  const row = (slot) =>
    node("tr", {}, node("td", {}, slotLink(fleet, slot)), numberCell(formatNumber(temperature[slot], 0)), numberCell(formatNumber(power[slot], 0)), numberCell(formatNumber(utilisation[slot], 0)));
  put("#hottest tbody", hottest.length ? hottest.slice(0, ROWS).map(row) : noRows(4, "No GPU reports its temperature."));
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
  put("#held tbody", most.length ? most.map(row) : noRows(4, "No idle GPU holds more than 1 GiB."));
}

function showBusiest({ hosts, prefix }) {
  const known = hosts.filter((host) => host.utilisation_mean !== null);
  known.sort((a, b) => b.utilisation_mean - a.utilisation_mean || (b.power_watts ?? 0) - (a.power_watts ?? 0));
  const row = (host) =>
    node("tr", {}, node("td", {}, hostLink(host.name, prefix)), numberCell(formatNumber(host.utilisation_mean, 1)), numberCell(host.power_watts === null ? "n/a" : formatNumber(host.power_watts / 1000, 2)));
  put("#busiest tbody", known.length ? known.slice(0, ROWS).map(row) : noRows(3, "No host reports its utilisation."));
}
