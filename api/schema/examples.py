"""An example of every answer, for the OpenAPI description. A test holds them to the shapes that answers have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from api.exports.readings import CSV_COLUMNS, csv_line

_BASE = "http://127.0.0.1:8080/api/v1"
GPU_ID = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
HOST_NAME = "mtv5-dgx1-hgpu-031"

_GPU: dict[str, Any] = {
    "id": GPU_ID,
    "uuid": GPU_ID,
    "mig_id": "",
    "mig_profile": "",
    "gpu_id": 0,
    "device": "nvidia0",
    "model_name": "NVIDIA H100 80GB HBM3",
    "hostname": HOST_NAME,
    "driver_version": "535.129.03",
    "namespace": "research",
    "pod": "train-7",
    "container": "main",
    "state": "reporting",
    "first_seen": "2025-07-18T20:42:34Z",
    "last_seen": "2025-07-18T20:42:36Z",
    "url": f"{_BASE}/gpus/{GPU_ID}",
}
_READING = {
    "timestamp": "2025-07-18T20:42:36Z",
    "metric_name": "DCGM_FI_DEV_GPU_UTIL",
    "gpu_id": 0,
    "device": "nvidia0",
    "uuid": GPU_ID,
    "model_name": "NVIDIA H100 80GB HBM3",
    "hostname": HOST_NAME,
    "container": "main",
    "pod": "train-7",
    "namespace": "research",
    "value": 98.0,
    "unit": "%",
}
_HOST: dict[str, Any] = {
    "name": HOST_NAME,
    "gpu_count": 8,
    "reporting": 8,
    "stale": 0,
    "mean_utilisation": 71.5,
    "power_watts": 4210.7,
    "memory_used_mib": 512300.0,
    "last_seen": "2025-07-18T20:42:36Z",
    "url": f"{_BASE}/hosts/{HOST_NAME}",
}
_CHECKS = {"database": "ok", "store": "ok"}

# By operation id.
ANSWERS: Mapping[str, Any] = {
    "health": {"status": "healthy"},
    "ready": {"status": "ready", "checks": _CHECKS},
    "index": {
        **{name: f"{_BASE}/{name}" for name in ("gpus", "hosts", "telemetry", "metrics", "stats")},
        "query": f"{_BASE}/query?metric=DCGM_FI_DEV_GPU_UTIL&by=host",
        "schema": "http://127.0.0.1:8080/api/schema",
        "swagger": "http://127.0.0.1:8080/swagger/index.html",
        "redoc": "http://127.0.0.1:8080/redoc",
    },
    "gpus": {
        "data": [GPU_ID],
        "count": 247,
        "gpus": [_GPU],
        "next": f"{_BASE}/gpus?page_size=1&page=2",
        "previous": None,
    },
    "gpu": {
        **_GPU,
        "latest": {
            "DCGM_FI_DEV_GPU_UTIL": {
                "value": 98.0,
                "unit": "%",
                "timestamp": "2025-07-18T20:42:36Z",
                "age_seconds": 4.2,
            }
        },
        "labels": {"DCGM_FI_DRIVER_VERSION": "535.129.03"},
        "telemetry_url": f"{_BASE}/gpus/{GPU_ID}/telemetry",
        "metrics_url": f"{_BASE}/gpus/{GPU_ID}/metrics",
        "host_url": f"{_BASE}/hosts/{HOST_NAME}",
    },
    "gpu_telemetry": {
        "data": [_READING],
        "count": 1,
        "next": f"{_BASE}/gpus/{GPU_ID}/telemetry?limit=1&offset=1",
        "previous": None,
    },
    "gpu_metrics": {"data": ["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_UTIL"], "count": 2},
    "telemetry": {
        "data": [_READING],
        "count": 1,
        "next": f"{_BASE}/telemetry?page_size=1&cursor=W3RydWUsMTc1Mjg3MTM1NiwiR1BVIiwiVVRJTCJd",
        "previous": None,
    },
    "query": {
        "metric": "DCGM_FI_DEV_GPU_UTIL",
        "unit": "%",
        "agg": "mean",
        "every": "5m",
        "start_time": "2025-07-18T20:30:00Z",
        "end_time": "2025-07-18T20:45:00Z",
        "data": [
            {
                "group": {"host": HOST_NAME},
                "points": [
                    ["2025-07-18T20:30:00Z", 71.25],
                    ["2025-07-18T20:35:00Z", None],
                    ["2025-07-18T20:40:00Z", 68.5],
                ],
            }
        ],
        "count": 1,
    },
    "hosts": {"data": [_HOST], "count": 1, "next": None, "previous": None},
    "host": {**_HOST, "gpus": [_GPU]},
    "metrics": {
        "data": [
            {
                "name": "DCGM_FI_DEV_GPU_UTIL",
                "aliases": [],
                "title": "GPU utilisation",
                "unit": "%",
                "type": "gauge",
                "range": [0.0, 100.0],
                "description": "Share of time in which a kernel ran.",
                "seen": True,
            }
        ],
        "count": 1,
    },
    "stats": {
        "broker": {
            "available": True,
            "error": None,
            "address": "localhost:9000",
            "total_messages": 25,
            "oldest_offset": 0,
            "latest_offset": 24,
            "subscriber_count": 1,
            "bytes": 61440,
            "segments": 1,
            "uptime": 3600.5,
        },
        "subscribers": [
            {"id": "collector-1", "current_offset": 25, "committed_offset": 24, "lag": 0, "connected": True}
        ],
        "collectors": [
            {
                "id": "collector-1",
                "started": "2025-07-18T20:40:00Z",
                "updated": "2025-07-18T20:42:40Z",
                "committed_offset": 24,
                "messages": 25,
                "readings_stored": 2470,
                "refused": {"blank": 3},
            }
        ],
        "readings": {"stored": 2470, "refused": {"blank": 3}},
        "store": {
            "type": "sqlite",
            "readings": 2470,
            "shares": 0,
            "series": 2470,
            "bytes": 278528,
            "oldest": "2025-07-18T20:42:34Z",
            "newest": "2025-07-18T20:42:36Z",
            "newest_age_seconds": 4.2,
        },
        "hosts": [{"name": HOST_NAME, "newest": "2025-07-18T20:42:36Z", "age_seconds": 4.2}],
    },
    "tokens": {
        "data": [
            {
                "id": 1,
                "name": "grafana",
                "scope": "read",
                "state": "active",
                "hint": "gputel_Zk3Q",
                "created": "2025-07-18T20:40:00Z",
                "expires": "2025-10-16T20:40:00Z",
                "revoked": None,
                "last_used": "2025-07-18T20:42:00Z",
            }
        ],
        "count": 1,
    },
}

NOT_READY = {
    "error": "unavailable",
    "message": "the store does not answer",
    "checks": {**_CHECKS, "store": "does not answer"},
}
# What an operation says of things that are not there.
NOT_FOUND: Mapping[str, str] = {"host": "there is no host 'nowhere'"}
NO_SUCH_GPU = "there is no GPU 'GPU-0'"

_WINDOW = {
    "timestamp": "2025-07-18T20:30:00Z",
    "host": HOST_NAME,
    "metric": "DCGM_FI_DEV_GPU_UTIL",
    "agg": "mean",
    "unit": "%",
    "value": 71.25,
}


def _files(row: Mapping[str, object], columns: Sequence[str]) -> dict[str, str]:
    return {
        "text/csv": csv_line(columns) + csv_line([row.get(column) for column in columns]),
        "application/x-ndjson": json.dumps(row, separators=(",", ":")) + "\n",
        "application/vnd.apache.parquet": "PAR1 (columns, their types and an index, in bytes) PAR1",
    }


# The files of the operations that have them, by media type.
FILES: Mapping[str, Mapping[str, str]] = {
    "telemetry": _files(_READING, CSV_COLUMNS),
    "gpu_telemetry": _files(_READING, CSV_COLUMNS),
    "query": _files(_WINDOW, tuple(_WINDOW)),
}
