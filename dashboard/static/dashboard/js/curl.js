// Keeps a box with a curl line at what the page shows.

/** Sets the line of the box `[data-curl=name]` to a URL of this service. */
export function setCurl(name, path) {
  const box = document.querySelector(`[data-curl="${name}"]`);
  if (!box) return;
  const line = `curl '${new URL(path, location.href).href.replaceAll("'", "%27")}'`;
  box.querySelector("code").textContent = line;
  box.querySelector("[data-copy]").dataset.copy = line;
}
