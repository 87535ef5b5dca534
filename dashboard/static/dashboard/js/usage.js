// Usage day by day, and the parts of the page once a minute.

import { sayWhyNot, clearWhyNot, filters } from "./bands.js";
import { timeChart } from "./charts.js";
import { every } from "./live.js";
import { apiUrl, getJson } from "./page.js";
import { followFilters, refreshParts } from "./parts.js";
import { queryParams } from "./range.js";

// What is counted changes slowly, and takes a while to add up.
const PERIOD = 60_000;
const DAY = 86_400_000;
const KINDS = [
  ["effective", (day) => Math.min(day.effective_hours, day.active_hours), "--series-1"],
  ["active, beyond that", (day) => day.active_hours - Math.min(day.effective_hours, day.active_hours), "--series-6"],
  ["short pauses", (day) => day.held_hours - day.active_hours - day.idle_held_hours, "--series-8"],
  ["held but idle", (day) => day.idle_held_hours, "--series-2"],
  ["free", (day) => day.free_hours, "--series-4"],
  ["unknown", (day) => day.unknown_hours, "--series-3"],
];
const SUMMED = ["effective_hours", "active_hours", "held_hours", "idle_held_hours", "free_hours", "unknown_hours"];

/** The sums of all groups, by day (ms). */
function byDay(rows) {
  const days = new Map();
  for (const row of rows) {
    const time = Date.parse(row.day);
    const day = days.get(time) ?? Object.fromEntries(SUMMED.map((name) => [name, 0]));
    for (const name of SUMMED) day[name] += row[name];
    days.set(time, day);
  }
  return days;
}

function startChart(element) {
  const place = document.createElement("div");
  element.append(place);
  let chart = null;
  let asked = "";
  let at = 0;
  every(async ({ signal }) => {
    const url = apiUrl("/api/v1/usage", { by: "model", per: "day", ...queryParams(), ...filters() });
    const question = location.search;
    if (question === asked && Date.now() - at < PERIOD) return;
    try {
      const answer = await getJson(url, { signal });
      [asked, at] = [question, Date.now()];
      clearWhyNot(element);
      const days = byDay(answer.data);
      const first = Math.floor(Date.parse(answer.start_time) / DAY) * DAY;
      const end = Date.parse(answer.end_time);
      const times = [];
      for (let time = first; time < end; time += DAY) times.push(time);
      // One day is no line.
      element.closest("section").hidden = days.size < 2;
      const shown = {
        title: "Day by day (UTC)",
        unit: "h",
        times,
        series: KINDS.map(([label, of, color]) => ({
          label,
          color,
          values: times.map((time) => (days.has(time) ? Math.max(0, of(days.get(time))) : null)),
        })),
        stack: true,
        note: "GPU-hours of each day",
        height: 190,
        scale: { min: 0 },
        range: { start: first, end: Math.max(end, first + DAY) },
        step: DAY,
        until: end,
      };
      if (chart) chart.update(shown);
      else chart = timeChart(place, shown);
    } catch (error) {
      sayWhyNot(element, error);
    }
  });
}

const element = document.querySelector('[data-chart="usage"]');
if (element) startChart(element);
refreshParts({ period: PERIOD });
followFilters();
