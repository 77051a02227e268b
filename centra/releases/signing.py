"""Signatures of releases in the OpenSSF model-signing format, made and checked with offline keys.

What is signed is the list of a release folder's files with their digests, so that ``model_signing
verify key`` accepts a folder that was pulled. Centra knows every digest from the manifest: neither
signing nor verifying reads the weights, and whoever loads them afterwards hashes them anyway.

A signature says who vouches for a release, not which release a channel ought to serve.
"""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.errors import CentraError, NotFoundError, UsageError, VerificationError
from centra.formats.documents import sha256
from centra.formats.strict_json import parse_document
from centra.releases.folder import ACCESSORIES, SIGNATURES, ReleaseFolder, listing
from centra.system.panics import no_panic
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

    from centra.formats.manifest import ReleaseManifest
    from centra.store import BlobReader

__all__ = ["PublicKey", "Signature", "SignatureError", "check_subject", "sign", "verify_release"]

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""P-256, P-384 and P-521: those that the format knows."""
_LARGEST_KEY = 1 << 16
"""Bytes of a key file."""


class SignatureError(VerificationError):
    """A release is not signed as it must be; says why not."""

    code = "signature"


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
        _require_library()
        return cls(name=path.name, pem=_pem(_public_key(path)).decode())

    def checked(self) -> PublicKey:
        """The same key, written as every file's is.

        Raises:
            UsageError: it cannot be used.
            CentraError: the package model-signing is not installed.
        """
        _require_library()
        return PublicKey(name=self.name, pem=_pem(_public_key(self)).decode())

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A valid signature of a release."""

    data: bytes
    """A sigstore bundle: JSON."""
    key: str
    """The key's fingerprint: the SHA-256 digest of the public key as DER."""
    made: bool
    """False where the release had this signature already."""


@dataclass(frozen=True, kw_only=True)
class _Claims:
    """What a signature says; to be believed only once it has been authenticated."""

    hint: str
    """The SHA-256 digest of the public key as PEM."""
    files: dict[str, str]
    """Path to digest."""


def sign(
    manifest: ReleaseManifest, reader: BlobReader, key: Path, *, passphrase: str | None = None
) -> Signature:
    """Sign a release, unless it has a valid signature by this key already; nothing is written.

    Args:
        manifest: the release.
        reader: where its blobs and signatures are.
        key: a private key on curve P-256, P-384 or P-521, as PEM.
        passphrase: of an encrypted key.

    Raises:
        NotFoundError: there is no such file.
        UsageError: the key cannot be used, or the passphrase is wrong.
        BlobNotFoundError, CorruptBlobError, StoreError: a trunk's blob cannot be had.
        CentraError: the package model-signing is not installed.
    """
    _require_library()
    from model_signing import signing

    public = _private_key(key, passphrase).public_key()
    files = listing(manifest, reader)
    for data in reader.signatures(manifest.digest):
        try:
            _verify(data, {_hint(public): public}, files)
        except SignatureError:
            continue
        return Signature(data=data, key=_fingerprint(public), made=False)
    config = signing.Config().set_hashing_config(_hashed(files))
    # The library says text, and hands it to cryptography, which takes bytes alone.
    password: Any = passphrase.encode() if passphrase else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.sig"
        config.use_elliptic_key_signer(private_key=key, password=password)
        config.sign(manifest.digest, path)
        data = path.read_bytes()
    try:
        # The library reads the key's file itself, a moment after it was read here.
        _verify(data, {_hint(public): public}, files)
    except SignatureError as error:
        raise UsageError(f"{key}: was changed while it was being read; try again") from error
    return Signature(data=data, key=_fingerprint(public), made=True)


def verify_release(
    manifest: ReleaseManifest, reader: BlobReader, keys: Sequence[Path | PublicKey]
) -> str:
    """Require a valid signature over exactly this release by one of these keys.

    No blob is read: whoever fetches one checks that it has the digest that was signed.

    Args:
        manifest: the release.
        reader: the store or the folder that holds it and its signatures.
        keys: public keys, or the files that hold them as PEM.

    Returns:
        The fingerprint of the key that signed it.

    Raises:
        SignatureError: the release is unsigned, signed by other keys alone, or the signature is
            damaged or over other content.
        NotFoundError: there is no such key.
        UsageError: a key cannot be used.
        StoreError: the store cannot be reached.
        CentraError: the package model-signing is not installed.
    """
    _require_library()
    public = [_public_key(key) for key in keys]
    trusted = {_hint(key): key for key in public}
    faults = []
    for data in reader.signatures(manifest.digest):
        try:
            return _fingerprint(_verify(data, trusted, _files(manifest, reader)))
        except SignatureError as error:
            faults.append(str(error))
    wanted = " or ".join(
        f"{path} (sha256:{_fingerprint(key)[:12]})" for path, key in zip(keys, public, strict=True)
    )
    raise SignatureError(
        f"release sha256:{manifest.digest} has no valid signature by {wanted}: "
        + ("; ".join(dict.fromkeys(faults)) or "it is not signed")
    )


def check_subject(manifest: ReleaseManifest, data: bytes) -> None:
    """Check that a signature claims to be one of this release, whoever made it.

    Raises:
        SignatureError: it cannot be read, or is over other content.
    """
    _check_content(_claims(data), _named(manifest))


def _verify(
    data: bytes, trusted: Mapping[str, EllipticCurvePublicKey], files: Mapping[str, str]
) -> EllipticCurvePublicKey:
    """The key, by its hint, that made a signature over these files."""
    claims = _claims(data)
    if claims.hint not in trusted:
        raise SignatureError("it is signed by another key")
    key = trusted[claims.hint]
    _authenticate(data, claims, key)
    _check_content(claims, files)
    return key


def _claims(data: bytes) -> _Claims:
    try:
        bundle = parse_document(data)
        statement = parse_document(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        return _Claims(
            hint=str(bundle["verificationMaterial"]["publicKey"]["hint"]),
            files={
                str(file["name"]): str(file["digest"])
                for file in statement["predicate"]["resources"]
            },
        )
    except (ValueError, LookupError, TypeError) as error:
        raise SignatureError(f"a signature is damaged ({error})") from error


def _authenticate(data: bytes, claims: _Claims, key: EllipticCurvePublicKey) -> None:
    """Let the library check that the holder of the key signed these claims."""
    from model_signing import verifying

    config = verifying.Config()
    with tempfile.TemporaryDirectory() as folder:
        signature, public = Path(folder) / "model.sig", Path(folder) / "key.pem"
        signature.write_bytes(data)
        public.write_bytes(_pem(key))
        config.use_elliptic_key_verifier(public_key=public)
        try:
            with no_panic(lambda error: ValueError(str(error))):
                config.set_hashing_config(_hashed(claims.files)).verify(folder, signature)
        except Exception as error:  # Whatever a malformed bundle makes the library stumble over.
            detail = str(error) or "the key did not make it"
            raise SignatureError(f"a signature is damaged ({detail})") from error


def _check_content(claims: _Claims, files: Mapping[str, str]) -> None:
    accessories = {path for path in ACCESSORIES if path not in files}
    wrong = [
        path
        for path in sorted(claims.files.keys() | files.keys())
        if path not in accessories and claims.files.get(path) != files.get(path)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise SignatureError(
            f"a signature is over other content: {', '.join(wrong[:3])}{more} differ"
        )


def _files(manifest: ReleaseManifest, reader: BlobReader) -> dict[str, str]:
    """What must have been signed: a store has none of the files that folders have besides."""
    return reader.listing if isinstance(reader, ReleaseFolder) else _named(manifest)


def _named(manifest: ReleaseManifest) -> dict[str, str]:
    return {**manifest.files(), "release.json": manifest.digest}


def _hashed(files: Mapping[str, str]) -> Any:
    """A hashing configuration of the library that knows the digests, and so reads no file.

    The library promises to keep its configurations as they are, but not the manifests that they
    make, which is why pyproject.toml keeps its version below the next minor one.
    """
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    class Hashed(hashing.Config):
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> manifest.Manifest:  # noqa: ARG002 - as inherited
            kind = manifest.SerializationType.from_args(
                {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": SIGNATURES,
                }
            )
            digests = {path: Digest("sha256", bytes.fromhex(files[path])) for path in files}
            items = [kind.new_item(path, digest) for path, digest in digests.items()]
            return manifest.Manifest(str(model_path), items, kind)

    return Hashed()  # type: ignore[no-untyped-call]


def _private_key(path: Path, passphrase: str | None) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path)
    try:
        with no_panic(lambda error: ValueError(str(error))):
            key = load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except TypeError as error:
        raise UsageError(
            f"{path}: is not encrypted, and a passphrase is given"
            if passphrase
            else f"{path}: is encrypted; say which variable holds its passphrase: --passphrase-env"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path}: cannot be read as a private key in PEM format ({error})"
        ) from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _unusable(path)
    return key


def _public_key(source: Path | PublicKey) -> EllipticCurvePublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(source) if isinstance(source, Path) else source.pem.encode()
    try:
        with no_panic(lambda error: ValueError(str(error))):
            key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{source}: cannot be read as a public key in PEM format ({error})"
        ) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise _unusable(source)
    return key


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, _LARGEST_KEY)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such key file") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def _unusable(source: Path | PublicKey) -> UsageError:
    return UsageError(
        f"{source}: expected an elliptic-curve key on P-256, P-384 or P-521; make one: "
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"
    )


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _hint(key: EllipticCurvePublicKey) -> str:
    """How a signature names its key; the library's choice."""
    return sha256(_pem(key))


def _fingerprint(key: EllipticCurvePublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _require_library() -> None:
    try:
        import model_signing.signing
        import model_signing.verifying  # noqa: F401 - only whether they are there
    except ImportError as error:
        raise CentraError(
            f"signatures need an extra: pip install 'centra[sign]' ({error})"
        ) from error
