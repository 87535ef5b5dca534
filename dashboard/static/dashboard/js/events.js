// The list of events: how many were open when. Everything else is made by the server; this keeps it fresh.

import { stepText, timeChart, windows } from "./charts.js";
import { every } from "./live.js";
import { apiUrl, getJson } from "./page.js";
import { followFilters, refreshParts } from "./parts.js";
import { current, iso } from "./range.js";
import { get } from "./state.js";

const HEIGHT = 150;
// As many as pixels allow would be more than anybody can tell apart.
const SHORTEST_STEP = 60_000;
// Info at the bottom would lift what matters: the worst is there.
const SEVERITIES = [["critical", "--crit"], ["warning", "--warn"], ["info", "--info"]];

function startChart(element) {
  const place = document.createElement("div");
  element.append(place);
  let chart = null;
  every(async ({ signal }) => {
    const view = current();
    const step = Math.max(SHORTEST_STEP, windows(element.clientWidth, view).step);
    const asked = { every: `${step / 1000}s`, start_time: iso(Math.floor(view.start / step) * step), end_time: iso(view.end) };
    for (const name of ["severity", "rule", "hostname", "uuid", "tag"]) asked[name] = get(name);
    const answer = await getJson(apiUrl("/api/v1/events/summary", asked), { signal });
    const shown = {
      title: "Open events",
      unit: "",
      times: answer.over_time.map(([time]) => Date.parse(time)),
      series: SEVERITIES.map(([name, color]) => ({ label: name, color, values: answer.over_time.map(([, counts]) => counts[name]) })),
      stack: true,
      whole: true,
      note: `open at some time in ${stepText(step)}`,
      height: HEIGHT,
      level: 2,
      scale: { min: 0, max: 1 },
      range: { start: view.start, end: view.end },
      step,
      until: view.end,
    };
    if (chart) chart.update(shown);
    else chart = timeChart(place, shown);
  });
}

const element = document.querySelector('[data-chart="events"]');
if (element) startChart(element);
refreshParts();
followFilters();
