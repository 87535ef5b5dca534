// Colours: the tokens of the theme, and the one ramp for magnitudes.

// Cividis (Nuñez, Anderton, Renslow 2018), at even distances: it reads the same with colour-blind eyes.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
// On a dark ground the dark end is lifted, so that a 0 is still a cell.
const LIFTED = ["#2d4f8a", "#41598a", "#566487", "#6a7183", "#7d7e7f", "#938e7c", "#aba276", "#c7b86a", "#e3ce56", "#fee838"];

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const STOPS = { light: CIVIDIS.map(rgb), dark: LIFTED.map(rgb) };

/** The theme that is shown: "light" or "dark". */
export const theme = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");

/** The ramp's colour at `t` (0 to 1; what lies outside is cut to it), as [r, g, b]. */
export function ramp(t, name = theme()) {
  const stops = STOPS[name];
  const at = Math.max(0, Math.min(1, t)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  return stops[low].map((value, place) => Math.round(value + (stops[low + 1][place] - value) * (at - low)));
}

/** The ramp's colour as CSS. */
export const cividis = (t, name = theme()) => `rgb(${ramp(t, name).join(" ")})`;

/** A colour token of the theme, as `token("--accent")`. */
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Calls `fn` after the theme has changed. */
export function onTheme(fn) {
  document.addEventListener("themechange", fn);
}
