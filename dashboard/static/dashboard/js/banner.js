// One line above the page while something does not answer, with the time of the last good answer.

import { formatTime } from "./format.js";

const banner = document.getElementById("banner");
// A page that was sent without its numbers has shown nothing good yet.
let lastGood = banner?.hidden === false ? 0 : Date.now();
let parts = new Set();

/** Says that something is away: a name ("The web service"), or a sentence of the API. */
export function away(what) {
  if (!banner) return;
  const sentence = /answer/.test(what) || what.length > 40 ? `${what[0].toUpperCase()}${what.slice(1)}` : `${what} does not answer`;
  const since = lastGood ? ` The numbers are from ${formatTime(lastGood, { seconds: true })}.` : "";
  const text = `${sentence.replace(/\.$/, "")}.${since} The page tries again by itself.`;
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = false;
}

/** Says that an answer came. */
export function back() {
  lastGood = Date.now();
  if (banner && !parts.size) banner.hidden = true;
}

/** A part of the service, as the broker, is away (`text` says so) or back (null), while the page itself is answered. */
export function partAway(name, text) {
  if (!banner) return;
  if (text === null) {
    if (parts.delete(name) && !parts.size) banner.hidden = true;
    return;
  }
  parts.add(name);
  banner.textContent = text;
  banner.hidden = false;
}
