"""TLS for the broker and its clients, from PEM files."""

from __future__ import annotations

import ssl
from functools import cache

from broker.errors import TlsUnusable

# In place of a certificate file: the CAs that the system trusts.
SYSTEM = "system"


def server_context(cert: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """Returns the broker's TLS context. With ``client_ca``, it accepts only clients with a certificate of that CA.

    Raises TlsUnusable, which names the wrong setting.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_own(context, cert, key)
    if client_ca:
        _load_ca(context, client_ca, ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@cache
def client_context(ca: str, cert: str = "", key: str = "") -> ssl.SSLContext | None:
    """Returns a client's TLS context: the broker's certificate must be issued by ``ca`` and name the host.

    Returns None without a ``ca``: no TLS. ``cert`` and ``key`` are the client's own, for a broker that requires them.
    Raises TlsUnusable.
    """
    if not ca:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_ca(context, ca, ssl.Purpose.SERVER_AUTH)
    if cert or key:
        _load_own(context, cert, key)
    return context


def _load_own(context: ssl.SSLContext, cert: str, key: str) -> None:
    for name, value in (("BROKER_TLS_CERT", cert), ("BROKER_TLS_KEY", key)):
        if not value:
            raise TlsUnusable(f"{name} is not set: TLS needs a certificate and its key")
    _check_readable("BROKER_TLS_CERT", cert)
    _check_readable("BROKER_TLS_KEY", key)
    try:
        # An encrypted key is an error, because nobody is there to enter its password.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise TlsUnusable(f"BROKER_TLS_CERT {cert} and BROKER_TLS_KEY {key} do not work: {_reason(error)}") from None


def _load_ca(context: ssl.SSLContext, ca: str, purpose: ssl.Purpose) -> None:
    if ca == SYSTEM:
        context.load_default_certs(purpose)
        return
    _check_readable("BROKER_TLS_CA", ca)
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise TlsUnusable(f"BROKER_TLS_CA {ca} does not work: {_reason(error)}") from None


def _check_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise TlsUnusable(f"{name}: cannot read {path}: {error.strerror or error}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
