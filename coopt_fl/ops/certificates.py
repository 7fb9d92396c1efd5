"""Make a deployment's private keys and TLS certificates, without openssl and ssh-keygen.

Keys are made once and never overwritten. The server's certificate expires: each call issues a new
one for the same key, signed by the same CA.
"""

import os
import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import atomic, make_folder

Key = ec.EllipticCurvePrivateKey

CA_DAYS = 3650
SERVER_DAYS = 397
"""Days of validity of the CA and of the server; many clients refuse a server's above 398."""

LOOPBACK = ("localhost", "127.0.0.1")
"""Names in every server certificate, by which the platform's own host reaches the SuperLink."""

SKEW = timedelta(hours=1)
"""How long before now a certificate becomes valid, because clocks may be slow."""

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"(?!.{{254}}){LABEL}(\.{LABEL})*", re.IGNORECASE)


def make_certificate(hosts: list[str], folder: Path) -> dict[str, Any]:
    """Issue a server certificate for ``hosts`` and the loopback interface.

    Args:
        hosts: DNS names and IP addresses by which participants reach the platform.
        folder: gets ``server.pem``, and ``server.key``, ``ca.crt`` and ``ca.key`` if they are
            missing; ``ca.key`` will sign the next certificates, too.

    Returns:
        The folder, the names, the dates on which both certificates expire, and whether the CA is
        new, so that no participant has it yet.

    Raises:
        ConfigError: a host is not a name, or the CA in ``folder`` is unusable or has expired.
        OutputError: ``folder`` cannot be written.
    """
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *LOOPBACK])]
    make_folder(folder)
    new = not any((folder / file).exists() for file in ("ca.crt", "ca.key"))
    ca, ca_key = _make_authority(folder) if new else _read_authority(folder)
    path = folder / "server.key"
    key = _read_key(path) if path.exists() else _make_key(path)
    server = _issue(
        folder / "server.pem",
        _name("coopt-fl"),
        key,
        ca.subject,
        ca_key,
        min(datetime.now(UTC) + timedelta(SERVER_DAYS), ca.not_valid_after_utc),
        x509.BasicConstraints(False, None),
        x509.SubjectAlternativeName(names),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    )
    return {
        "folder": str(folder),
        "names": [str(name.value) for name in names],
        "ca_is_new": new,
        "ca_expires": f"{ca.not_valid_after_utc:%Y-%m-%d}",
        "server_expires": f"{server.not_valid_after_utc:%Y-%m-%d}",
    }


def make_key_pair(path: Path) -> dict[str, Any]:
    """Make the P-384 key pair that identifies a SuperNode to a SuperLink, in OpenSSH's format.

    Args:
        path: the private key's file; the public key gets the same name with ``.pub`` appended.

    Raises:
        ConfigError: one of the two files exists.
        OutputError: they cannot be written.
    """
    public = path.with_name(f"{path.name}.pub")
    make_folder(path.parent)
    if public.exists():
        raise _taken(public)
    key = ec.generate_private_key(ec.SECP384R1())
    _write_secret(path, key, PrivateFormat.OpenSSH)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    with atomic(public) as file:
        file.write(line + b"\n")
    return {"private": str(path), "public": str(public)}


def _make_authority(folder: Path) -> tuple[x509.Certificate, Key]:
    """Make a CA that can sign server certificates but no other CA."""
    key = _make_key(folder / "ca.key")
    name = _name("coopt-fl CA")
    signs_only = [False] * 5 + [True, True] + [False] * 2  # certificates and revocation lists
    ca = _issue(
        folder / "ca.crt",
        name,
        key,
        name,
        key,
        datetime.now(UTC) + timedelta(CA_DAYS),
        x509.BasicConstraints(True, 0),
        x509.KeyUsage(*signs_only),
    )
    return ca, key


def _read_authority(folder: Path) -> tuple[x509.Certificate, Key]:
    """Read the CA in ``folder``."""
    path = folder / "ca.crt"
    key = _read_key(folder / "ca.key")
    try:
        ca = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise _unusable(path) from None
    if ca.public_key() != key.public_key():
        raise _unusable(path)
    if ca.not_valid_after_utc < datetime.now(UTC):
        raise ConfigError(
            f"the CA in {folder} has expired: make another one with another --out, and give its "
            "ca.crt to every participant"
        )
    return ca, key


def _issue(
    path: Path,
    subject: x509.Name,
    key: Key,
    issuer: x509.Name,
    issuer_key: Key,
    expires: datetime,
    *own: x509.ExtensionType,
) -> x509.Certificate:
    """Write and return the certificate of ``key``, with the extensions ``own``."""
    builder = x509.CertificateBuilder(
        issuer,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        datetime.now(UTC) - SKEW,
        expires,
    )
    for extension in (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
        *own,
    ):
        critical = isinstance(extension, (x509.BasicConstraints, x509.KeyUsage))
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    with atomic(path) as file:
        file.write(certificate.public_bytes(Encoding.PEM))
    return certificate


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    """Return ``host`` as a name for a certificate."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        if not HOST.fullmatch(host):
            raise ConfigError(
                f"{host!r} is neither a host name nor an IP address; give it without port and "
                "https://, such as platform.example.org"
            ) from None
        return x509.DNSName(host.lower())


def _make_key(path: Path) -> Key:
    """Make the P-256 key of a server or of its CA, in PEM; raise ConfigError if ``path`` exists."""
    key = ec.generate_private_key(ec.SECP256R1())
    _write_secret(path, key, PrivateFormat.PKCS8)
    return key


def _read_key(path: Path) -> Key:
    """Read what :func:`_make_key` wrote; raise ConfigError if it is anything else."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, TypeError, ValueError):
        raise _unusable(path) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path)
    return key


def _write_secret(path: Path, key: Key, form: PrivateFormat) -> None:
    """Write a new file that only its owner can read; leave none behind on an error."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, form, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink()
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror}; give another place")


def _taken(path: Path) -> ConfigError:
    return ConfigError(f"{path} exists, and a key is never overwritten; give another name")


def _unusable(path: Path) -> ConfigError:
    """Return the error for a file that does not belong to the key beside it."""
    return ConfigError(
        f"{path} is missing, unreadable, or does not match the key beside it; restore it, or "
        "make everything anew with another --out"
    )
