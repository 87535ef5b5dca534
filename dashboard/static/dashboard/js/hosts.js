// The list of hosts: the lines of the hosts that are shown, from one question for each metric.

import { sparkline, windows } from "./charts.js";
import { SCALES } from "./format.js";
import { refreshFragments } from "./fragments.js";
import { every } from "./live.js";
import { apiUrl, data, getJson } from "./page.js";
import * as range from "./range.js";

const METRICS = {
  utilisation: { metric: "DCGM_FI_DEV_GPU_UTIL", agg: null, unit: "%", scale: SCALES.DCGM_FI_DEV_GPU_UTIL, label: "Utilisation" },
  power: { metric: "DCGM_FI_DEV_POWER_USAGE", agg: "sum", unit: "W", scale: { min: 0 }, label: "Power" },
};
const WIDTH = 260;
let isFirst = true;

async function load({ signal }) {
  if (!isFirst) await refreshFragments({ signal });
  isFirst = false;
  const names = [...new Set([...document.querySelectorAll("[data-host]")].map((cell) => cell.dataset.host))];
  if (!names.length) return;
  const view = range.current();
  const step = windows(WIDTH, view);
  const times = { start_time: range.iso(step.start), end_time: range.iso(view.end) };
  await Promise.all(
    Object.entries(METRICS).map(async ([name, { metric, agg, unit, scale, label }]) => {
      const url = apiUrl("/api/v1/query", { metric, agg, by: "host", hostname: names, every: step.every, ...times });
      const body = await getJson(url, { signal });
      const lines = new Map(body.data.map(({ group, points }) => [group.host, points]));
      for (const cell of document.querySelectorAll(`[data-spark="${name}"]`)) {
        const points = lines.get(cell.dataset.host) ?? [];
        sparkline(cell, { times: points.map(([time]) => Date.parse(time)), values: points.map(([, value]) => value), unit, scale, range: view, label });
      }
    }),
  );
}

if (data.hosts) every(load);
