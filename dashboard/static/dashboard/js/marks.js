// What readings say about throttling and errors, as marks on the time axis.

import { stepText } from "./charts.js";
import { formatValue } from "./format.js";
import { bridged } from "./gaps.js";

export const REASONS = "DCGM_FI_DEV_CLOCKS_EVENT_REASONS";
export const XID = "DCGM_FI_DEV_XID_ERRORS";
const KINDS = { fault: "warning", limit: "info", normal: null };

/**
 * The spans in which a clock event reason was set. A reason that is normal, as idling, makes none.
 * @param {number[]} times @param {(number|null)[]} masks bitmasks @param {number} step in ms
 * @param {{bit: number, name: string, meaning: string, text: string}[]} reasons
 * @returns {{time: number, end: number, kind: string, name: string, text: string}[]}
 */
export function throttling(times, masks, step, reasons, where = "") {
  const spans = [];
  const known = bridged(masks);
  for (const { bit, name, meaning } of reasons) {
    const kind = KINDS[meaning];
    if (!kind) continue;
    let from = null;
    for (let at = 0; at <= times.length; at++) {
      // A window between two readings changes nothing.
      if (at < times.length && known[at] === undefined) continue;
      const held = at < times.length && known[at] !== null && (known[at] & bit) !== 0;
      if (held && from === null) from = times[at];
      if (!held && from !== null) {
        spans.push({ time: from, end: times[at - 1] + step, kind, name, text: `${where}Clock event: ${name}` });
        from = null;
      }
    }
  }
  return spans;
}

/** The times at which the last XID changed. The first one of a range was there before. */
export function xids(times, codes, where = "") {
  const found = [];
  let last = null;
  for (const [at, code] of codes.entries()) {
    if (code === null) continue;
    if (last !== null && code !== last && code > 0) found.push({ time: times[at], kind: "critical", code, text: `${where}XID ${code}` });
    last = code;
  }
  return found;
}

/** The windows in which a counter of XIDs grew, as the exporter counts them one by one. */
export function xidCounts(times, grown, code) {
  return grown.flatMap((count, at) => (count > 0 ? [{ time: times[at], kind: "critical", code, text: `XID ${code}, ${count} times` }] : []));
}

/** The windows in which a counter of nanoseconds under a limit grew by more than a tenth of the window. */
export function violations(times, grown, step, title) {
  return grown.flatMap((seconds, at) =>
    seconds > (step / 1000) * 0.1 ? [{ time: times[at], end: times[at] + step, kind: "info", name: title, text: `${title}: ${formatValue(seconds, "s")} of ${stepText(step)}` }] : [],
  );
}

/** What the rules of health found, as marks that last until it was over. `where` says where for each of them. */
export function happened(events, until, where = () => "") {
  return events.map((event) => ({
    time: Date.parse(event.opened),
    until: event.closed === null ? until : Date.parse(event.closed),
    kind: event.severity,
    text: `${where(event)}${event.title}: ${event.summary}${event.state === "unknown" ? " (unknown now)" : ""}`,
    xid: event.rule.startsWith("xid") ? event.subject : "",
  }));
}

/** The marks of readings that no event is about: an XID that a rule has judged is not marked twice. */
export function notJudged(marks, events, step) {
  return marks.filter(({ time, code }) => !events.some((event) => event.xid && event.xid === String(code) && Math.abs(event.time - time) <= 2 * step));
}

/** Spans of the same kind that touch become one. */
export function joined(spans) {
  const found = [];
  for (const span of [...spans].sort((a, b) => a.name.localeCompare(b.name) || a.time - b.time)) {
    const last = found.at(-1);
    if (last && last.name === span.name && span.time <= last.end) last.end = Math.max(last.end, span.end);
    else found.push({ ...span });
  }
  return found;
}
