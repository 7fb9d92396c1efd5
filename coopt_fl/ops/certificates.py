"""The platform's TLS certificate and the private CA that signs it, without openssl.

Keys are made once and never overwritten. The server's certificate expires: each call issues a new
one, by the same CA for the same key.
"""

import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coopt_fl.core.errors import ConfigError
from coopt_fl.core.files import atomic, make_folder
from coopt_fl.ops.keys import Key, make_server_key, read_server_key, unusable

CA_DAYS = 3650
SERVER_DAYS = 397
"""Days that the two certificates are valid; many clients refuse a server's beyond 398."""

LOOPBACK = ("localhost", "127.0.0.1")
"""In every server certificate: on the platform's host the SuperLink is reached by these."""

SKEW = timedelta(hours=1)
"""A certificate is valid from before now, for clocks that are slow."""

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"(?!.{{254}}){LABEL}(\.{LABEL})*", re.IGNORECASE)


def make_certificate(hosts: list[str], folder: Path) -> dict[str, Any]:
    """Issue a server certificate for ``hosts`` and the loopback interface.

    Args:
        hosts: DNS names and IP addresses by which participants reach the platform.
        folder: gets ``server.pem``; and where they are missing, ``server.key``, ``ca.crt`` and
            ``ca.key``, by which the next certificate will be signed.

    Returns:
        The folder, the names, the days on which both certificates expire, and whether the CA is
        new, that is, unknown to all participants.

    Raises:
        ConfigError: a host is not a name, or the CA in ``folder`` cannot issue any more.
        OutputError: ``folder`` cannot be written.
    """
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *LOOPBACK])]
    make_folder(folder)
    new = not any((folder / file).exists() for file in ("ca.crt", "ca.key"))
    ca, ca_key = _make_authority(folder) if new else _read_authority(folder)
    path = folder / "server.key"
    key = read_server_key(path) if path.exists() else make_server_key(path)
    expires = min(_in_days(SERVER_DAYS), ca.not_valid_after_utc)
    builder = _certificate("coopt-fl", ca.subject, key, ca_key, expires)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    server_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(server_only, critical=False)
    server = _sign(builder, ca_key, folder / "server.pem")
    return {
        "folder": str(folder),
        "names": [str(name.value) for name in names],
        "ca_is_new": new,
        "ca_expires": f"{ca.not_valid_after_utc:%Y-%m-%d}",
        "server_expires": f"{server.not_valid_after_utc:%Y-%m-%d}",
    }


def _make_authority(folder: Path) -> tuple[x509.Certificate, Key]:
    """Make a CA that can sign servers and no further CA."""
    key = make_server_key(folder / "ca.key")
    subject = _name("coopt-fl CA")
    builder = _certificate("coopt-fl CA", subject, key, key, _in_days(CA_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
    builder = builder.add_extension(_signs_certificates(), critical=True)
    return _sign(builder, key, folder / "ca.crt"), key


def _read_authority(folder: Path) -> tuple[x509.Certificate, Key]:
    """Read the CA in ``folder``."""
    path = folder / "ca.crt"
    key = read_server_key(folder / "ca.key")
    try:
        ca = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise unusable(path) from None
    if ca.public_key() != key.public_key():
        raise unusable(path)
    if ca.not_valid_after_utc < datetime.now(UTC):
        raise ConfigError(
            f"the CA in {folder} has expired: make another one with another --out, and give its "
            "ca.crt to every participant"
        )
    return ca, key


def _certificate(
    subject: str, issuer: x509.Name, key: Key, issuer_key: Key, expires: datetime
) -> x509.CertificateBuilder:
    """Describe a certificate for ``key``, as far as a CA's and a server's are alike."""
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - SKEW)
        .not_valid_after(expires)
        .add_extension(own, critical=False)
        .add_extension(by, critical=False)
    )


def _sign(builder: x509.CertificateBuilder, key: Key, path: Path) -> x509.Certificate:
    certificate = builder.sign(key, hashes.SHA256())
    with atomic(path) as file:
        file.write(certificate.public_bytes(Encoding.PEM))
    return certificate


def _general_name(host: str) -> x509.GeneralName:
    """Return ``host`` as it stands in a certificate."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        if not HOST.fullmatch(host):
            raise ConfigError(
                f"{host!r} is neither a host name nor an IP address; give it without port and "
                "https://, such as platform.example.org"
            ) from None
        return x509.DNSName(host.lower())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _in_days(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def _signs_certificates() -> x509.KeyUsage:
    unused = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **dict.fromkeys(unused, False))
