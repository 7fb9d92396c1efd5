"""Private keys of a deployment, without openssl and ssh-keygen; none is ever overwritten."""

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from coopt_fl.core.errors import ConfigError, OutputError
from coopt_fl.core.files import atomic, make_folder

Key = ec.EllipticCurvePrivateKey


def make_key_pair(path: Path) -> dict[str, Any]:
    """Make the P-384 key pair that identifies a SuperNode to a SuperLink, in OpenSSH's format.

    Args:
        path: of the private key; the public key goes to the same name with ``.pub`` appended.

    Raises:
        ConfigError: one of the two exists.
        OutputError: they cannot be written.
    """
    public = path.with_name(f"{path.name}.pub")
    if public.exists():
        raise _taken(public)
    make_folder(path.parent)
    key = ec.generate_private_key(ec.SECP384R1())
    _write_secret(path, key, PrivateFormat.OpenSSH)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    with atomic(public) as file:
        file.write(line + b"\n")
    return {"private": str(path), "public": str(public)}


def make_server_key(path: Path) -> Key:
    """Make the P-256 key of a server or of its CA, in PEM; raise ConfigError if one is there."""
    key = ec.generate_private_key(ec.SECP256R1())
    _write_secret(path, key, PrivateFormat.PKCS8)
    return key


def read_server_key(path: Path) -> Key:
    """Read what :func:`make_server_key` wrote; raise ConfigError if it is anything else."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, TypeError, ValueError):
        raise unusable(path) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise unusable(path)
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


def unusable(path: Path) -> ConfigError:
    """Return the error for a file that does not belong to the key beside it."""
    return ConfigError(
        f"{path} is missing, unreadable, or not the partner of the key beside it; restore it, or "
        "make everything anew with another --out"
    )
