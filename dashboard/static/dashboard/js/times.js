// The times that the server writes, in the zone that is chosen.

import { formatTime, isUtc } from "./format.js";

/** Writes the times in an element anew; those with data-short without seconds, and today without the date. */
export function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const ms = Date.parse(time.dateTime);
    if (time.dataset.short === undefined) time.textContent = formatTime(ms, { seconds: true, date: "always" });
    else {
      time.textContent = formatTime(ms);
      time.title = `${formatTime(ms, { seconds: true, date: "always" })} ${isUtc() ? "UTC" : "local time"}`;
    }
  }
}
