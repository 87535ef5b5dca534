// What every page does: the top line, the keys, the clock.

import "./copy.js";
import { formatAge, formatTime, isUtc } from "./format.js";
import { register } from "./keys.js";
import { isLive, onLive, period, refresh, setPeriod, times, togglePaused, whyNot } from "./live.js";
import { data } from "./page.js";
import { current, setAbsolute, setPreset } from "./range.js";
import { startSearch } from "./search.js";
import { keepRange, onChange, set, urlWith, withRange } from "./state.js";
import { makeSortable } from "./tables.js";
import { showTimes } from "./times.js";

const find = (selector) => document.querySelector(selector);

function showRange() {
  const { preset, start, end } = current();
  for (const link of document.querySelectorAll("[data-preset]")) {
    if (link.dataset.preset === preset) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    link.href = urlWith({ range: link.dataset.preset, start: null, end: null });
  }
  const button = find("[data-absolute]");
  if (preset) button.removeAttribute("aria-current");
  else button.setAttribute("aria-current", "true");
  button.textContent = preset ? "Range…" : `${formatTime(start)} – ${formatTime(end)}`;
  keepRange(document);
}

function showLive() {
  const button = find("[data-pause]");
  const { dataTime } = times();
  const why = whyNot();
  const words = { paused: "Paused", off: "Not refreshing", absolute: "Fixed range", hidden: "Paused" };
  const old = dataTime ? ` · ${formatAge(Date.now() - dataTime)} old` : "";
  button.setAttribute("aria-pressed", String(!isLive()));
  button.dataset.age = data.anchor || !dataTime ? "ended" : Date.now() - dataTime > data.stale_after ? "late" : "fresh";
  find("[data-live-text]").textContent = data.anchor ? `Data until ${formatTime(data.anchor)}` : (why ? words[why] : dataTime ? "Live" : "No data yet") + old;
  find("[data-refresh]").value = period();
}

function showClock() {
  const clock = find("[data-clock]");
  clock.textContent = `${isUtc() ? "UTC" : "Local time"} · ${formatTime(Date.now(), { seconds: true, date: "always" })}`;
  find("[data-updated]").textContent = `Updated ${formatAge(Date.now() - times().updated)} ago`;
  showLive();
}

function showZone() {
  find("[data-zone]").textContent = isUtc() ? "UTC" : "Local";
  find("[data-zone-name]").textContent = isUtc() ? "UTC" : "local time";
  showTimes(document);
}

function toggleZone() {
  const zone = isUtc() ? "local" : "utc";
  try {
    localStorage.setItem("tz", zone);
  } catch {
    // It is in the URL too.
  }
  set({ tz: zone === "utc" ? null : zone }, { push: false });
  showZone();
  document.dispatchEvent(new CustomEvent("zonechange"));
}

function startRangeDialog() {
  const dialog = find("#range-dialog");
  const [start, end] = dialog.querySelectorAll("input");
  const error = dialog.querySelector(".error");
  const asText = (ms) => {
    const shifted = isUtc() ? ms : ms - new Date(ms).getTimezoneOffset() * 60000;
    return new Date(shifted).toISOString().slice(0, 19);
  };
  const asTime = (text) => Date.parse(isUtc() ? `${text}Z` : text);
  find("[data-absolute]").addEventListener("click", () => {
    const shown = current();
    start.value = asText(shown.start);
    end.value = asText(shown.end);
    error.hidden = true;
    dialog.showModal();
  });
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.querySelector("form").addEventListener("submit", (event) => {
    if (asTime(start.value) < asTime(end.value)) {
      setAbsolute(asTime(start.value), asTime(end.value));
      return;
    }
    event.preventDefault();
    error.textContent = "The end must be after the start.";
    error.hidden = false;
  });
}

for (const link of document.querySelectorAll("[data-preset]")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    setPreset(link.dataset.preset);
  });
}
const toggleTheme = () => document.dispatchEvent(new CustomEvent("toggletheme"));
const goUp = () => {
  const up = find("link[rel=up]");
  if (up) location.assign(withRange(up.href));
};
find("[data-pause]").addEventListener("click", togglePaused);
find("[data-refresh]").addEventListener("change", (event) => setPeriod(event.target.value));
find("[data-zone]").addEventListener("click", toggleZone);
find("[data-theme-toggle]").addEventListener("click", toggleTheme);
find("[data-help]").addEventListener("click", () => find("#help").showModal());
register("/", "search hosts, GPUs, pods, rules and XIDs", () => find("#search").focus());
register("?", "these keys", () => find("#help").showModal());
register("p", "pause or resume the refresh", togglePaused);
register("r", "refresh now", refresh);
register("t", "dark or light", toggleTheme);
register("u", "UTC or local time", toggleZone);
register("Escape", "go up: from a GPU to its host, from a host to the fleet, from an event to the list", goUp);

startSearch(find("[data-search]"));
startRangeDialog();
document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
onChange(() => {
  showRange();
  showLive();
  showZone();
});
onLive(showLive);
showRange();
showZone();
showClock();
setInterval(showClock, 1000);
