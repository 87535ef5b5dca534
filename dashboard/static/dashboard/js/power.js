// Power over time, stacked by what the URL says.

import { clearWhyNot, filters, sayWhyNot } from "./bands.js";
import { stepText, timeChart, windows } from "./charts.js";
import { shortHost } from "./format.js";
import { every } from "./live.js";
import { apiUrl, data, getJson } from "./page.js";
import { followFilters, loadSlowParts, refreshParts } from "./parts.js";
import { current, queryParams } from "./range.js";
import { get } from "./state.js";

const METRIC = "DCGM_FI_DEV_POWER_USAGE";
// A sum over shorter windows would fall whenever a GPU has no reading in one.
const SHORTEST_STEP = 60_000;
const MOST_LINES = 7;
const GROUPS = ["model", "host", "namespace"];

const values = (series) => series.points.map(([, value]) => value);

const nameOf = (name, by) => (name ? (by === "host" ? shortHost(name, data.host_prefix) : name) : `no ${by}`);

/** What the others draw: the total without the groups that are shown. A gap in the total stays one. */
function others(total, groups) {
  return total.map((all, place) => {
    if (all === null) return null;
    const rest = groups.reduce((left, group) => left - (group.values[place] ?? 0), all);
    return rest > all * 1e-6 ? rest : 0;
  });
}

async function totalOf(times, signal) {
  if (data.gpus > data.most_gpus) {
    // Of so many GPUs the collectors keep the sum of each minute: the store would have to read every reading.
    const answer = await getJson(apiUrl("/api/v1/fleet/bands", { metric: METRIC, ...times, ...filters() }), { signal });
    return { times: answer.time.map((time) => Date.parse(time)), values: answer.sum };
  }
  const answer = await getJson(apiUrl("/api/v1/query", { metric: METRIC, agg: "sum", ...times, ...filters() }), { signal });
  const [series] = answer.data;
  return { times: (series?.points ?? []).map(([time]) => Date.parse(time)), values: series ? values(series) : [] };
}

async function linesOf(by, times, total, signal) {
  if (!GROUPS.includes(by) || (data.gpus > data.most_gpus && !get("by"))) return [{ label: "all", values: total }];
  const asked = { metric: METRIC, agg: "sum", by, top: MOST_LINES, ...times, ...filters() };
  const answer = await getJson(apiUrl("/api/v1/query", asked), { signal });
  const lines = answer.data.map((each) => ({ label: nameOf(each.group[by], by), values: values(each) }));
  const rest = others(total, lines);
  return rest.some((value) => value > 0) ? [...lines, { label: "others", values: rest }] : lines;
}

function startChart(element) {
  const place = document.createElement("div");
  element.append(place);
  let chart = null;
  every(async ({ signal }) => {
    const stepMs = Math.max(SHORTEST_STEP, windows(element.clientWidth).step);
    const times = { every: `${stepMs / 1000}s`, ...queryParams() };
    try {
      const by = get("by", "model");
      const total = await totalOf(times, signal);
      const lines = await linesOf(by, times, total.values, signal);
      clearWhyNot(element);
      const { start, end } = current();
      const shown = {
        title: lines.length > 1 ? `Power by ${by}` : "Power",
        unit: "W",
        times: total.times,
        series: lines,
        stack: true,
        note: `mean of ${stepText(stepMs)}`,
        height: 190,
        scale: { min: 0 },
        range: { start, end },
        step: stepMs,
        until: end,
      };
      if (chart) chart.update(shown);
      else chart = timeChart(place, shown);
    } catch (error) {
      sayWhyNot(element, error);
    }
  });
}

const element = document.querySelector('[data-chart="power"]');
if (element) startChart(element);
refreshParts();
loadSlowParts();
followFilters();
