"""A PostgreSQL behind TLS, whose certificate is of a CA of one's own, as helm/gpu-telemetry/values-own-ca.yaml has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.serving import START_SECONDS, environment, manage
from tests.broker.certificates import Authority
from tests.helm.chart import CHART
from tests.postgres import USER, Postgres, folder_for_cluster, required_bin


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def encrypted(authority: Authority) -> Iterator[Postgres]:
    """A server of the test's own that takes connections over TLS."""
    with folder_for_cluster() as folder:
        server = Postgres(required_bin(), Path(folder))
        try:
            server.start()
            server.stop()
            data = server.folder / "data"
            for name, source in zip(("server.crt", "server.key"), authority.sign("postgres"), strict=True):
                shutil.copy(source, data / name)
                (data / name).chmod(0o600)
                if os.getuid() == 0:
                    shutil.chown(data / name, USER, USER)
            with (data / "postgresql.conf").open("a") as config:
                config.write("ssl = on\n")
            server.start()
            yield server
        finally:
            server.stop()


def checked(url: str, state_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        manage("migrate", "--check"),
        env=environment(state_dir, DATABASE_URL=url),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


@pytest.mark.acceptance
def test_the_path_of_the_ca_is_a_part_of_the_url(encrypted: Postgres, authority: Authority, tmp_path: Path) -> None:
    example = (CHART / "values-own-ca.yaml").read_text()
    query = re.search(r"postgres://\S+(\?sslmode=verify-full&sslrootcert=)/etc/company-ca/ca\.crt", example)
    assert query is not None
    url = encrypted.make_database("inventory").replace("127.0.0.1", "localhost") + query[1]
    # Status 1: it was asked, and has no migrations yet.
    trusted = checked(f"{url}{authority.ca}", tmp_path / "state")
    assert (trusted.returncode, trusted.stderr) == (1, "")
    other = Authority(tmp_path, "another")
    refused = checked(f"{url}{other.ca}", tmp_path / "state")
    assert "certificate verify failed" in refused.stderr
