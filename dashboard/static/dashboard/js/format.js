// Values, times and names as people read them.

import { get } from "./state.js";

export const ABSENT = "n/a";
const LARGER = { W: [1000, "kW"], kW: [1000, "MW"], MiB: [1024, "GiB"], GiB: [1024, "TiB"], MHz: [1000, "GHz"], "B/s": [1e3, "kB/s"], "kB/s": [1e3, "MB/s"], "MB/s": [1e3, "GB/s"], J: [1000, "kJ"], kJ: [1000, "MJ"] };

// Nobody says 1,024 of these.
const AT_ONCE = new Set(["GiB"]);

/** One scale per metric, so that two screens can be compared. A metric without one scales to its values. */
export const SCALES = {
  __proto__: null, // a metric may have any name
  DCGM_FI_DEV_GPU_UTIL: { min: 0, max: 100 },
  DCGM_FI_DEV_MEM_COPY_UTIL: { min: 0, max: 100 },
  DCGM_FI_DEV_ENC_UTIL: { min: 0, max: 100 },
  DCGM_FI_DEV_DEC_UTIL: { min: 0, max: 100 },
  DCGM_FI_DEV_GPU_TEMP: { min: 20, max: 90 },
  DCGM_FI_DEV_MEMORY_TEMP: { min: 20, max: 100 },
  DCGM_FI_DEV_POWER_USAGE: { min: 0, max: 700 },
  DCGM_FI_DEV_FB_USED_PERCENT: { min: 0, max: 1 },
  DCGM_FI_DEV_FAN_SPEED: { min: 0, max: 100 },
  DCGM_FI_PROF_GR_ENGINE_ACTIVE: { min: 0, max: 1 },
  DCGM_FI_PROF_SM_ACTIVE: { min: 0, max: 1 },
  DCGM_FI_PROF_SM_OCCUPANCY: { min: 0, max: 1 },
  DCGM_FI_PROF_PIPE_TENSOR_ACTIVE: { min: 0, max: 1 },
  DCGM_FI_PROF_DRAM_ACTIVE: { min: 0, max: 1 },
};

const isKnown = (value) => value !== null && value !== undefined && !Number.isNaN(value);
const cached = new Map();

function formatter(digits) {
  let found = cached.get(digits);
  if (!found) cached.set(digits, (found = new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })));
  return found;
}

/** How many digits after the point: enough for three that count. */
export function digitsOf(value) {
  if (Number.isInteger(value)) return 0;
  const size = Math.abs(value);
  return size >= 1000 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 4;
}

/** `64,997.7`; n/a where unknown. */
export function formatNumber(value, digits) {
  return isKnown(value) ? formatter(digits ?? digitsOf(value)).format(value) : ABSENT;
}

/** The value in the unit that suits it: a larger one from `least` of that on (from 1 TiB on in TiB). */
export function scaled(value, unit, least = 10) {
  while (unit in LARGER && Math.abs(value) >= LARGER[unit][0] * (AT_ONCE.has(unit) ? 1 : least)) {
    value /= LARGER[unit][0];
    unit = LARGER[unit][1];
  }
  return { value, unit };
}

/** `65.0 kW`; n/a where unknown. */
export function formatValue(value, unit = "", digits) {
  if (!isKnown(value)) return ABSENT;
  const shown = scaled(value, unit);
  return `${formatNumber(shown.value, digits)} ${shown.unit}`.trim();
}

/** `12 s`, `4 m`, `3 h`, `2 d`: a duration in ms. */
export function formatAge(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} m`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** Whether times are shown in UTC (else local): the URL's `tz`, else what was chosen last. */
export function isUtc() {
  const asked = get("tz");
  if (asked) return asked !== "local";
  try {
    return localStorage.getItem("tz") !== "local";
  } catch {
    return true;
  }
}

const two = (number) => String(number).padStart(2, "0");

/** The parts of a time in the zone shown. */
export function timeParts(ms) {
  const date = new Date(ms);
  const part = (name) => (isUtc() ? date[`getUTC${name}`]() : date[`get${name}`]());
  return { date: `${part("FullYear")}-${two(part("Month") + 1)}-${two(part("Date"))}`, time: `${two(part("Hours"))}:${two(part("Minutes"))}`, seconds: two(part("Seconds")) };
}

/** `2025-07-18 20:42:37`; today's date is left out. */
export function formatTime(ms, { seconds = false, date = "auto" } = {}) {
  const parts = timeParts(ms);
  const clock = seconds ? `${parts.time}:${parts.seconds}` : parts.time;
  const withDate = date === "always" || (date === "auto" && parts.date !== timeParts(Date.now()).date);
  return withDate ? `${parts.date} ${clock}` : clock;
}

/** `39bd9cd5` of `GPU-39bd9cd5-…`; a MIG instance keeps its number. */
export function shortId(id) {
  const match = /^(?:GPU|MIG)-([0-9a-f]{1,8})[0-9a-f-]*(:.+)?$/i.exec(id);
  return match ? match[1] + (match[2] ?? "") : id;
}

/** A host's name without the prefix that all names share. */
export function shortHost(name, prefix) {
  return prefix && name.startsWith(prefix) && name.length > prefix.length ? name.slice(prefix.length) : name;
}

/** `host · gpu n · short uuid`. */
export function gpuLabel(host, slot, id, prefix = "") {
  const where = [shortHost(host, prefix), slot >= 0 ? `gpu ${slot}` : "gpu ?"];
  if (id) where.push(shortId(id));
  return where.join(" · ");
}
