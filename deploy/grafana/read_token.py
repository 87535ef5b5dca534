"""Makes the InfluxDB token with which Grafana reads: read_token.py FILE. A token that is there already stays.

The services' own token may also write and delete, and whoever may see a board could use it through Grafana.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stores.influxdb.client import InfluxConfig, InfluxConnection


def main(path: Path) -> None:
    """Write a token that may read the bucket and nothing else. Raises StoreError when InfluxDB is away or refuses."""
    if path.exists():
        return
    config = InfluxConfig(
        url=os.environ["INFLUXDB_URL"],
        token=os.environ["INFLUXDB_TOKEN"],
        org=os.environ["INFLUXDB_ORG"],
        bucket=os.environ["INFLUXDB_BUCKET"],
        tls_ca=os.environ.get("INFLUXDB_TLS_CA", ""),
    )
    connection = InfluxConnection(config)
    found = connection.request_json("GET", "/api/v2/buckets", query={"org": config.org, "name": config.bucket})
    (bucket,) = found["buckets"]
    resource = {"type": "buckets", "id": bucket["id"], "orgID": bucket["orgID"]}
    body = {
        "orgID": bucket["orgID"],
        "description": f"Grafana reads {config.bucket}",
        "permissions": [{"action": "read", "resource": resource}],
    }
    made = connection.request_json("POST", "/api/v2/authorizations", body=body)
    new = path.with_suffix(".new")
    new.write_text(made["token"])
    new.chmod(0o444)  # Grafana is another user
    new.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
