// The fleet's page while there is no GPU, or while it was made without its numbers: it is made anew when they are there.

import { every } from "./live.js";
import { apiUrl, getJson } from "./page.js";

const isEmpty = document.querySelector(".empty") !== null;

every(async ({ signal }) => {
  const { counts } = await getJson(apiUrl("/api/v1/fleet"), { signal });
  if (counts.expected || !isEmpty) location.reload();
});
