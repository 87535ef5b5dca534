"use strict";
// Runs before the first paint, so that no page flashes in the other theme.
(() => {
  let stored = null;
  try {
    stored = localStorage.getItem("theme");
  } catch {
    // A browser may forbid storage: then the system's theme counts.
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = stored ?? (dark.matches ? "dark" : "light");
    document.dispatchEvent(new CustomEvent("themechange"));
  };
  apply();
  dark.addEventListener("change", apply);
  document.addEventListener("toggletheme", () => {
    stored = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", stored);
    } catch {
      // It holds until the page is left.
    }
    apply();
  });
})();
