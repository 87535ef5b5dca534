// Sortable tables: the order is in the URL, and the heads say it.

import { get, onChange, set } from "./state.js";

function valueOf(row, column) {
  const cell = row.cells[column];
  if (!cell) return "";
  const given = cell.dataset.value;
  if (given === undefined) return cell.textContent.trim();
  const number = Number(given);
  return given === "" ? "" : Number.isNaN(number) ? given : number;
}

/** What is unknown comes last, in either order. */
function compare(a, b, sign) {
  if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

/** Sorts a table by the URL's parameter (`sort`, or the table's data-sort-name): a column's name, with - in front descending. */
export function sortTable(table) {
  const name = table.dataset.sortName ?? "sort";
  const asked = get(name, table.dataset.sortDefault ?? "");
  const key = asked.replace(/^-/, "");
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex((head) => head.dataset.key === key);
  for (const [place, head] of heads.entries()) {
    if (!head.dataset.key) continue;
    if (place === column) head.setAttribute("aria-sort", asked.startsWith("-") ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  if (column < 0) return;
  const sign = asked.startsWith("-") ? -1 : 1;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
  rows.sort((a, b) => compare(a[0], b[0], sign));
  body.append(...rows.map(([, row]) => row));
}

/** Makes a table's heads buttons. A head takes part if it has data-key; data-first="desc" sorts it descending first. */
export function makeSortable(table) {
  const name = table.dataset.sortName ?? "sort";
  for (const head of table.tHead.rows[0].cells) {
    if (!head.dataset.key || head.querySelector("button")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const descending = now ? now === "ascending" : head.dataset.first === "desc";
      set({ [name]: (descending ? "-" : "") + head.dataset.key }, { push: false });
    });
  }
  sortTable(table);
}

// One listener for all tables: those that a refresh replaces leave nothing behind.
onChange(() => document.querySelectorAll("table[data-sortable]").forEach(sortTable));
