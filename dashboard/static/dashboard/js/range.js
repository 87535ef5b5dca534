// The range of time that is shown: a preset that ends now, or two times.

import { data } from "./page.js";
import { get, set } from "./state.js";

// Without a prototype: the name that is looked up comes from the URL.
export const PRESETS = { __proto__: null, "15m": 900e3, "1h": 3600e3, "6h": 6 * 3600e3, "24h": 86400e3, "7d": 7 * 86400e3, "30d": 30 * 86400e3 };
/** A page may have another: usage is asked for by the week. */
export const DEFAULT_PRESET = data.default_range ?? "1h";
const SHORTEST = 10e3;

/** The range, in ms. `preset` is null for an absolute one. For a capture that has ended, now is its end. */
export function current() {
  const start = Date.parse(get("start", ""));
  const end = Date.parse(get("end", ""));
  if (start < end) return { start, end, preset: null };
  const asked = get("range", DEFAULT_PRESET);
  const preset = asked in PRESETS ? asked : DEFAULT_PRESET;
  const now = data.anchor ?? Date.now();
  return { start: now - PRESETS[preset], end: now, preset };
}

/** Shows the last 15 m, 1 h, … */
export function setPreset(preset) {
  set({ range: preset === DEFAULT_PRESET ? null : preset, start: null, end: null });
}

/** Shows the range between two times in ms, at least ten seconds long. */
export function setAbsolute(start, end) {
  if (!(start < end)) return;
  const missing = Math.max(0, SHORTEST - (end - start));
  set({ range: null, start: iso(start - missing / 2), end: iso(end + missing / 2) });
}

/** A time as in a URL, to the second. */
export function iso(ms) {
  return new Date(Math.round(ms / 1000) * 1000).toISOString().replace(".000Z", "Z");
}

/** The parameters for the API. */
export function queryParams() {
  const { start, end } = current();
  return { start_time: iso(start), end_time: iso(end) };
}
