// Parts of a page that the server renders again: numbers and tables stay fresh, and there is one place that makes them.
//
// An element with data-part="NAME" (and an id) is replaced by that of a new answer to the page's own URL. With
// data-part-url="PATH" its contents come from there: a question that takes longer than the page itself.

import { away, back } from "./banner.js";
import { showCritical } from "./critical.js";
import { every, setDataTime } from "./live.js";
import { ApiError, asksForLogin } from "./page.js";
import { get, keepRange, set } from "./state.js";
import { makeSortable } from "./tables.js";
import { showTimes } from "./times.js";

const SLOW_PERIOD = 60_000;
const FOCUSABLE = "a[href], button, select, input, summary, [tabindex]";

/** @type {WeakMap<Element, string>} what the server sent last for each part */
const shown = new WeakMap();

/** What a page of an error says. */
const saidBy = (text) => new DOMParser().parseFromString(text, "text/html").querySelector("#banner, .hint")?.textContent.trim();

/** A page of this service, as a document. Throws ApiError; an abort passes through. */
export async function getPage(url, signal) {
  let response;
  try {
    response = await fetch(url, { headers: { Accept: "text/html" }, signal, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    away("The web service");
    throw new ApiError(0, "the web service does not answer");
  }
  if (asksForLogin(response)) throw new ApiError(401, "your login has ended");
  if (!response.ok) {
    if (response.status >= 500) away(saidBy(await response.text()) || "The web service");
    throw new ApiError(response.status, `status ${response.status}`);
  }
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

/** What is focused and how far parts are scrolled, so that a refresh does not take it from under the reader's hands. */
function remember(part) {
  const focusable = [...part.querySelectorAll(FOCUSABLE)];
  const at = focusable.indexOf(document.activeElement);
  const label = at < 0 ? "" : document.activeElement.textContent;
  const scrolled = [...part.querySelectorAll(".scroll-x, .scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
  const open = [...part.querySelectorAll("details")].map((each) => each.open);
  return () => {
    [...part.querySelectorAll(".scroll-x, .scroll")].forEach((box, place) => scrolled[place] && box.scrollTo(...scrolled[place]));
    [...part.querySelectorAll("details")].forEach((each, place) => (each.open = open[place] ?? each.open));
    if (at < 0) return;
    const now = [...part.querySelectorAll(FOCUSABLE)];
    (now.find((each) => label && each.textContent === label) ?? now[Math.min(at, now.length - 1)])?.focus({ preventScroll: true });
  };
}

/** Puts fresh contents into a part; the focus, what is open and how far it is scrolled stay. */
export function fill(part, nodes) {
  const restore = remember(part);
  part.replaceChildren(...nodes);
  for (const table of part.querySelectorAll("table[data-sortable]")) makeSortable(table);
  showTimes(part);
  keepRange(part);
  restore();
}

/** What the server gave the script of a page. */
export const dataOf = (page) => JSON.parse(page.getElementById("page-data").textContent);

const isEmpty = (page) => page.querySelector("[data-empty]") !== null;

/** Keeps every `data-part` of the page fresh, no more often than each `period` (ms) unless the URL changes. */
export function refreshParts({ period = 0 } = {}) {
  let first = true;
  let asked = location.search;
  let at = Date.now();
  every(async ({ signal }) => {
    if (first) {
      first = false;
      return;
    }
    if (location.search === asked && Date.now() - at < period) return;
    const page = await getPage(location.href, signal);
    const told = page.getElementById("banner");
    if (told && !told.hidden && told.textContent) {
      // What is shown stays: old numbers that say how old they are help more than none.
      away(told.textContent.split(". ")[0]);
      return;
    }
    if (isEmpty(page) !== isEmpty(document)) {
      // The first GPU was seen: there is another page to show.
      location.reload();
      return;
    }
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = page.querySelector(`[data-part="${part.dataset.part}"]`);
      if (fresh && fresh.innerHTML !== shown.get(part)) {
        shown.set(part, fresh.innerHTML);
        fill(part, [...document.importNode(fresh, true).childNodes]);
      }
    }
    [asked, at] = [location.search, Date.now()];
    back();
    showCritical(page);
    setDataTime(dataOf(page).newest);
  });
}

/** Fills each `data-part-url` when the range or a filter changes, and no more often than once a minute. */
export function loadSlowParts() {
  for (const part of document.querySelectorAll("[data-part-url]")) {
    let answered = "";
    let at = 0;
    every(async ({ signal }) => {
      const asked = part.dataset.partUrl + location.search;
      if (asked === answered && Date.now() - at < SLOW_PERIOD) return;
      part.setAttribute("aria-busy", "true");
      try {
        const page = await getPage(asked, signal);
        fill(part, [...document.importNode(page.body, true).childNodes]);
        answered = asked;
        at = Date.now();
      } catch (error) {
        const hint = part.querySelector(".hint");
        if (error.name !== "AbortError" && !answered && hint) hint.textContent = "No answer yet. The page tries again by itself.";
        throw error;
      } finally {
        part.removeAttribute("aria-busy");
      }
    });
  }
}

/** Forms with data-filters: a choice changes the URL, and the page follows. Without scripts their button sends them. */
export function followFilters() {
  for (const form of document.querySelectorAll("form[data-filters]")) {
    for (const button of form.querySelectorAll("[data-no-script]")) button.hidden = true;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      apply(form);
    });
    form.addEventListener("change", () => apply(form));
  }
  addEventListener("popstate", () => {
    for (const field of document.querySelectorAll("form[data-filters] [name]")) {
      if (field.type === "checkbox") field.checked = get(field.name) === field.value;
      else field.value = get(field.name, "");
    }
  });
}

function apply(form) {
  const changes = { page: null };
  for (const field of form.elements) {
    // Hidden ones are for those without scripts: what they say is in the URL.
    if (field.name && field.type !== "hidden") changes[field.name] = field.type === "checkbox" && !field.checked ? null : field.value || null;
  }
  set(changes);
}

