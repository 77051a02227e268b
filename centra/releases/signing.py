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

from centra.errors import UsageError, VerificationError
from centra.formats.strict_json import parse_document
from centra.releases.folder import ACCESSORIES, SIGNATURES, ReleaseFolder
from centra.releases.folder_writing import listing
from centra.releases.keys import (
    PublicKey,
    fingerprint,
    key_hint,
    load_public_key,
    pem_of,
    read_private_key,
    require_library,
)
from centra.system.panics import no_panic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from centra.formats.manifest import ReleaseManifest
    from centra.store import BlobReader

__all__ = ["Signature", "SignatureError", "check_subject", "sign", "verify_release"]


class SignatureError(VerificationError):
    """A release is not signed as it must be; says why not."""

    code = "signature"


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
    require_library()
    from model_signing import signing

    public = read_private_key(key, passphrase).public_key()
    files = listing(manifest, reader)
    for data in reader.signatures(manifest.digest):
        try:
            _verify(data, {key_hint(public): public}, files)
        except SignatureError:
            continue
        return Signature(data=data, key=fingerprint(public), made=False)
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
        _verify(data, {key_hint(public): public}, files)
    except SignatureError as error:
        raise UsageError(
            f"{key}: was changed while it was being read; try again",
            code="key-changed",
            key=str(key),
        ) from error
    return Signature(data=data, key=fingerprint(public), made=True)


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
    require_library()
    public = [load_public_key(key) for key in keys]
    trusted = {key_hint(key): key for key in public}
    faults = []
    for data in reader.signatures(manifest.digest):
        try:
            return fingerprint(_verify(data, trusted, _files(manifest, reader)))
        except SignatureError as error:
            faults.append(str(error))
    wanted = " or ".join(
        f"{path} (sha256:{fingerprint(key)[:12]})" for path, key in zip(keys, public, strict=True)
    )
    raise SignatureError(
        f"release sha256:{manifest.digest} has no valid signature by {wanted}: "
        + ("; ".join(dict.fromkeys(faults)) or "it is not signed"),
        code="signature-missing",
        release=manifest.digest,
        keys=[fingerprint(key) for key in public],
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
        public.write_bytes(pem_of(key))
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
