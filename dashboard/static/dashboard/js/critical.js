// How many critical events are open, beside the menu's entry.

/** Shows what a fresh answer of the server says. */
export function showCritical(page) {
  const [shown, fresh] = [document, page].map((each) => each.querySelector("[data-critical]"));
  if (!shown || !fresh || shown.innerHTML === fresh.innerHTML) return;
  shown.replaceChildren(...[...fresh.childNodes].map((child) => document.importNode(child, true)));
  shown.hidden = fresh.hidden;
}
