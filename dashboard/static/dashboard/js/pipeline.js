// The pipeline: everything is made by the server; this keeps it fresh.

import { partAway } from "./banner.js";
import { formatTime } from "./format.js";
import { data } from "./page.js";
import { followFilters, refreshParts } from "./parts.js";

/** A broker that is away concerns everything on this page. */
function tellBroker({ broker }) {
  if (!broker) return;
  const good = broker.good ? ` Its figures are from ${formatTime(broker.good, { seconds: true })}.` : "";
  partAway("broker", broker.away ? `The broker does not answer.${good} The page tries again by itself.` : null);
}

tellBroker(data);
refreshParts(tellBroker);
followFilters();
