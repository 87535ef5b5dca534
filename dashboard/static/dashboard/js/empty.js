// The fleet's page while there is no GPU: it shows itself anew when there is one.

import { every } from "./live.js";
import { apiUrl, getJson } from "./page.js";

every(async ({ signal }) => {
  const fleet = await getJson(apiUrl("/api/v1/fleet"), { signal });
  if (fleet.counts.expected) location.reload();
});
