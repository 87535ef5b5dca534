// Heat: the band of the fleet's temperature.

import { bandChart } from "./bands.js";
import { followFilters, loadSlowParts, refreshParts } from "./parts.js";

bandChart(document.querySelector('[data-chart="band"]'), { metric: "DCGM_FI_DEV_GPU_TEMP", title: "Temperature of the fleet", limits: [{ value: 85, label: "85 °C" }] });
refreshParts();
loadSlowParts();
followFilters();
