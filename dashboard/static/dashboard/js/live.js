// Refreshes what is shown. It pauses while nobody can see the page and while the range is one that has ended.

import { data } from "./page.js";
import { current } from "./range.js";
import { get, onChange, set } from "./state.js";

const PERIODS = new Set(["5", "15", "60", "off"]);
const DEFAULT_PERIOD = "5";

let paused = false;
let dataTime = data.newest;
let updated = Date.now();
/** @type {Set<{run: (why: string) => void}>} */
const loops = new Set();
/** @type {Set<() => void>} */
const listeners = new Set();

/** The chosen period: "5", "15", "60" seconds, or "off". */
export function period() {
  const asked = get("refresh", DEFAULT_PERIOD);
  return PERIODS.has(asked) ? asked : DEFAULT_PERIOD;
}

/** Chooses the period. */
export function setPeriod(value) {
  set({ refresh: value === DEFAULT_PERIOD ? null : value }, { push: false });
}

/** Whether the page refreshes itself now. */
export function isLive() {
  return !paused && period() !== "off" && current().preset !== null && document.visibilityState === "visible";
}

/** Why it does not: "paused", "off", "absolute", "hidden"; or "". */
export function whyNot() {
  if (paused) return "paused";
  if (period() === "off") return "off";
  if (current().preset === null) return "absolute";
  return document.visibilityState === "visible" ? "" : "hidden";
}

/** Pauses or resumes. */
export function setPaused(value) {
  paused = value;
  if (!paused) refresh();
  notify();
}
export const togglePaused = () => setPaused(!paused);

/** The time of the newest reading that is shown, in ms. */
export function setDataTime(ms) {
  if (ms) dataTime = ms;
  updated = Date.now();
  notify();
}
export const times = () => ({ dataTime, updated });

/** Calls `fn` when the state changes. */
export function onLive(fn) {
  listeners.add(fn);
}

function notify() {
  for (const fn of listeners) fn();
}

/** Refreshes now, whatever the state. */
export function refresh() {
  for (const loop of loops) loop.run("asked");
}

/**
 * Calls `await fn({signal})` now, after each change of the URL, and every period while the page is live.
 * Two calls never overlap: a change aborts the call before it.
 */
export function every(fn) {
  let timer = 0;
  let controller = null;
  const schedule = () => {
    clearTimeout(timer);
    if (isLive()) timer = setTimeout(() => run("period"), Number(period()) * 1000);
  };
  const run = async () => {
    clearTimeout(timer);
    controller?.abort();
    const mine = (controller = new AbortController());
    try {
      await fn({ signal: mine.signal });
    } catch (error) {
      // The banner has said so already, and the next call comes.
      if (error.name !== "AbortError" && error.name !== "ApiError" && !("status" in error)) throw error;
    } finally {
      if (controller === mine) {
        controller = null;
        schedule();
      }
    }
  };
  const loop = { run };
  loops.add(loop);
  onChange(run);
  document.addEventListener("visibilitychange", () => {
    notify();
    if (document.visibilityState === "visible" && isLive()) run();
    else schedule();
  });
  onLive(() => {
    if (!controller && !isLive()) clearTimeout(timer);
  });
  run();
  return () => {
    clearTimeout(timer);
    controller?.abort();
    loops.delete(loop);
  };
}
