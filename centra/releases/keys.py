"""Keys that sign releases: elliptic-curve keys as PEM files, private and public."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import CentraError, NotFoundError, UsageError
from centra.formats.documents import sha256
from centra.system.panics import no_panic
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

__all__ = [
    "PublicKey",
    "fingerprint",
    "key_hint",
    "load_public_key",
    "pem_of",
    "read_private_key",
    "require_library",
]

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""P-256, P-384 and P-521: those that the format knows."""
_LARGEST_KEY = 1 << 16
"""Bytes of a key file."""


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A public key on curve P-256, P-384 or P-521, as text."""

    name: str
    """What to call it."""
    pem: str

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """The key in a file.

        Raises:
            NotFoundError: there is no such file.
            UsageError: it cannot be used.
            CentraError: the package model-signing is not installed.
        """
        require_library()
        return cls(name=path.name, pem=pem_of(load_public_key(path)).decode())

    def checked(self) -> PublicKey:
        """The same key, written as every file's is.

        Raises:
            UsageError: it cannot be used.
            CentraError: the package model-signing is not installed.
        """
        require_library()
        return PublicKey(name=self.name, pem=pem_of(load_public_key(self)).decode())

    def __str__(self) -> str:
        return self.name


def read_private_key(path: Path, passphrase: str | None) -> EllipticCurvePrivateKey:
    """A private key.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it cannot be used, or the passphrase is wrong.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read_file(path)
    try:
        with no_panic(lambda error: ValueError(str(error))):
            key = load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except TypeError as error:
        if passphrase:
            raise UsageError(
                f"{path}: is not encrypted, and a passphrase is given",
                code="key-not-encrypted",
                key=str(path),
            ) from error
        raise UsageError(
            f"{path}: is encrypted, and no passphrase is given",
            code="key-encrypted",
            key=str(path),
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path}: cannot be read as a private key in PEM format ({error})",
            code="key-unreadable",
            key=str(path),
        ) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _unusable(path)
    return key


def load_public_key(source: Path | PublicKey) -> EllipticCurvePublicKey:
    """A public key, of a file or as text.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it cannot be used.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read_file(source) if isinstance(source, Path) else source.pem.encode()
    try:
        with no_panic(lambda error: ValueError(str(error))):
            key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{source}: cannot be read as a public key in PEM format ({error})",
            code="key-unreadable",
            key=str(source),
        ) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise _unusable(source)
    return key


def _read_file(path: Path) -> bytes:
    try:
        return read_regular(path, _LARGEST_KEY)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path}: no such key file", code="key-missing", key=str(path)
        ) from error
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror})", code="key-unreadable", key=str(path)
        ) from error


def _unusable(source: Path | PublicKey) -> UsageError:
    return UsageError(
        f"{source}: expected an elliptic-curve key on P-256, P-384 or P-521; make one: "
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
        code="key-unusable",
        key=str(source),
    )


def pem_of(key: EllipticCurvePublicKey) -> bytes:
    """A public key as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_hint(key: EllipticCurvePublicKey) -> str:
    """How a signature names its key; the library's choice."""
    return sha256(pem_of(key))


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """What identifies a public key: the SHA-256 digest of it as DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def require_library() -> None:
    """Refuse to sign or verify without the library for it.

    Raises:
        CentraError: the package model-signing is not installed.
    """
    try:
        import model_signing.signing
        import model_signing.verifying  # noqa: F401 - only whether they are there
    except ImportError as error:
        raise CentraError(
            f"signatures need an extra: pip install 'centra[sign]' ({error})",
            code="extra-missing",
            extra="sign",
        ) from error
