// The keyboard: every key is also in the help.

/** @type {Map<string, {label: string, fn: (event: KeyboardEvent) => void}>} */
const keys = new Map();
const NAMES = { Escape: "Esc" };

/** Binds a key. It does nothing while somebody types, except for Escape. */
export function register(key, label, fn) {
  keys.set(key, { label, fn });
  const list = document.querySelector("[data-keys]");
  if (!list) return;
  describe(list, NAMES[key] ?? key, label);
}

/** Adds a line to the help alone, as for the arrows in the heat map. */
export function describe(list, key, label) {
  const term = document.createElement("dt");
  const code = document.createElement("kbd");
  code.textContent = key;
  term.append(code);
  const text = document.createElement("dd");
  text.textContent = label;
  list.append(term, text);
}

/** Adds a line to the help for keys that a part of the page handles itself. */
export function explain(key, label) {
  const list = document.querySelector("[data-keys]");
  if (list) describe(list, key, label);
}

function isTyping(target) {
  return target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping(event.target) && event.key !== "Escape") return;
  if (document.querySelector("dialog[open]")) return;
  const bound = keys.get(event.key);
  if (!bound) return;
  event.preventDefault();
  bound.fn(event);
});
