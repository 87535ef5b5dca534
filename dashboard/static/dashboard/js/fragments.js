// Keeps the parts of a page that the server writes up to date: the server stays the only place that writes them.

import { away, back } from "./banner.js";
import { showCritical } from "./critical.js";
import { every, setDataTime } from "./live.js";
import { asksForLogin } from "./page.js";
import { keepRange } from "./state.js";
import { showTimes } from "./times.js";

/** Gets this page anew and replaces the elements with `data-fragment`, by their ids. The focus stays where it was. */
export async function refreshFragments({ signal } = {}) {
  let response;
  try {
    response = await fetch(location.href, { headers: { Accept: "text/html" }, signal, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    away("The web service");
    return;
  }
  if (asksForLogin(response) || !response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (page.querySelector("#banner:not([hidden])")) {
    away(page.querySelector("#banner").textContent);
    return;
  }
  back();
  showCritical(page);
  for (const old of document.querySelectorAll("[data-fragment]")) replace(old, page.getElementById(old.id));
  const { newest } = JSON.parse(page.getElementById("page-data").textContent);
  if (newest) setDataTime(newest);
}

function replace(old, fresh) {
  if (!fresh) return;
  showTimes(fresh);
  // What scripts drew into cells stays until it is drawn again.
  for (const cell of fresh.querySelectorAll("[data-spark]")) {
    const same = [...old.querySelectorAll("[data-spark]")].find((each) => sparkKey(each) === sparkKey(cell));
    if (same) cell.append(...same.childNodes);
  }
  const focused = old.contains(document.activeElement) ? document.activeElement.href : undefined;
  old.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  keepRange(old);
  if (focused) [...old.querySelectorAll("a[href]")].find((link) => link.href === focused)?.focus();
}

const sparkKey = ({ dataset }) => `${dataset.spark} ${dataset.gpu ?? dataset.host}`;

/** Draws the page of a host or GPU with `load`, now and as `every` calls it. What was never drawn says why not. */
export function keepDrawn(load) {
  every(async (asked) => {
    try {
      await load(asked);
    } catch (error) {
      const place = document.querySelector("[data-strip]");
      if ("status" in error && !place.childElementCount) {
        place.textContent = `Not drawn: ${error.message}.`;
        document.querySelector("[data-charts]").style.minHeight = "0";
      }
      throw error;
    }
  });
}
