// The search box: a combobox over hosts, GPUs and pods.

import { apiUrl, data, getJson } from "./page.js";
import { withRange } from "./state.js";

const WAIT_MS = 120;

/** Makes the box work. */
export function startSearch(root) {
  const input = root.querySelector("input");
  const list = root.querySelector("ul");
  let found = [];
  let selected = -1;
  let timer = 0;
  let controller = null;

  function close() {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    selected = -1;
  }

  function select(place) {
    const items = list.querySelectorAll("[role=option]");
    selected = items.length ? (place + items.length) % items.length : -1;
    items.forEach((item, at) => item.setAttribute("aria-selected", String(at === selected)));
    if (selected < 0) return;
    input.setAttribute("aria-activedescendant", items[selected].id);
    items[selected].scrollIntoView({ block: "nearest" });
  }

  function go(place) {
    const target = found[place];
    if (target) location.assign(withRange(data.prefix + target.url));
  }

  function show(answer) {
    found = answer.data;
    list.replaceChildren(
      ...found.map((each, place) => {
        const item = document.createElement("li");
        item.id = `search-result-${place}`;
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", "false");
        const name = document.createElement("span");
        name.textContent = each.name;
        const detail = document.createElement("small");
        detail.textContent = each.detail ? `${each.kind} · ${each.detail}` : each.kind;
        item.append(name, detail);
        item.addEventListener("mousedown", (event) => {
          event.preventDefault();
          go(place);
        });
        return item;
      }),
    );
    if (!found.length) {
      const none = document.createElement("li");
      none.setAttribute("role", "option");
      none.setAttribute("aria-disabled", "true");
      none.setAttribute("aria-selected", "false");
      none.textContent = "Nothing has this name";
      list.append(none);
    }
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    if (found.length) select(0);
  }

  async function ask() {
    controller?.abort();
    const text = input.value.trim();
    if (!text) return close();
    controller = new AbortController();
    try {
      show(await getJson(apiUrl("/api/v1/search", { q: text, limit: 12 }), { signal: controller.signal }));
    } catch (error) {
      if (error.name !== "AbortError") close();
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, WAIT_MS);
  });
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) await ask();
      else select(selected + (event.key === "ArrowDown" ? 1 : -1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      clearTimeout(timer);
      if (list.hidden || !found.length) await ask();
      go(Math.max(0, selected));
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      if (list.hidden) input.blur();
      close();
    }
  });
  input.addEventListener("blur", close);
}
