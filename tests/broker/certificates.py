"""Certificates for tests, made by openssl: a CA, and what it signs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.broker.faults.tools import need


class Authority:
    """A CA of its own in a folder. ``ca`` is its certificate's path."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.ca, "-subj", f"/CN={name}", "-days", "2")

    def sign(self, name: str, hosts: str = "DNS:localhost,IP:127.0.0.1") -> tuple[str, str]:
        """A certificate and its key, good for the hosts and for clients."""
        key, cert, request = (self.folder / f"{name}.{end}" for end in ("key", "pem", "csr"))
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\n")
        signing = ["-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", extensions]
        _openssl("x509", "-req", "-in", request, "-out", cert, *signing)
        return str(cert), str(key)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: object) -> None:
    command = [need("openssl"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
