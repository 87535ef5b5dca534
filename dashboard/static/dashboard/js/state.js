// What a page shows is in its URL: links lead to the same view, and Back undoes.

/** @type {Set<() => void>} */
const listeners = new Set();

/** A parameter of the URL, or the fallback. */
export function get(name, fallback = null) {
  return new URLSearchParams(location.search).get(name) ?? fallback;
}

/** The page's URL with some parameters changed; null removes one, a list repeats its name. */
export function urlWith(changes) {
  const params = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    params.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") params.append(name, String(each));
    }
  }
  // Colons and commas are allowed in a query, and are easier to read.
  const query = params.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  return location.pathname + (query ? `?${query}` : "") + location.hash;
}

/** Changes parameters of the URL. Without `push`, Back does not come back to the state before. */
export function set(changes, { push = true } = {}) {
  const url = urlWith(changes);
  if (url === location.pathname + location.search + location.hash) return;
  history[push ? "pushState" : "replaceState"](null, "", url);
  changed();
}

/** The URL of another page, with the range, the zone and the refresh of this one. */
export function withRange(href) {
  const here = new URLSearchParams(location.search);
  const url = new URL(href, location.href);
  for (const name of ["range", "start", "end", "tz", "refresh"]) {
    if (here.has(name)) url.searchParams.set(name, here.get(name));
    else url.searchParams.delete(name);
  }
  return url.pathname + url.search.replaceAll("%3A", ":") + url.hash;
}

/** Lets the links with `data-keep-range` in an element keep the range of this page. */
export function keepRange(root) {
  for (const link of root.querySelectorAll("[data-keep-range]")) link.href = withRange(link.href);
}

/** Calls `fn` after each change, also by Back and Forward. Returns a function that ends that. */
export function onChange(fn) {
  listeners.add(fn);
  return () => listeners.delete(fn);
}

function changed() {
  for (const fn of listeners) fn();
}

addEventListener("popstate", changed);
