// The pipeline: everything is made by the server; this keeps it fresh.

import { followFilters, refreshParts } from "./parts.js";

refreshParts();
followFilters();
