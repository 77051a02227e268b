"""Writing releases as OCI artifacts: to a registry, or into a folder in OCI's own layout."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.formats.backbone import BackboneSpec
from centra.formats.documents import canonical_json, sha256
from centra.progress import Progress, silent
from centra.releases.artifact import (
    ARTIFACT,
    IMAGE_MANIFEST,
    INDEX,
    LAYOUT,
    NAME,
    Artifact,
    Layer,
)
from centra.releases.folder_writing import folder_contents, signature_names
from centra.store.oci import OciAddress, OciRepository

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.store import BlobReader

__all__ = ["Pushed", "push", "write_layout"]

_log = logging.getLogger(__name__)

_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What was pushed."""

    address: str
    """With the artifact's digest, under which it never changes."""
    digest: str
    """Of the artifact's manifest."""
    sent: dict[str, int]
    """Bytes of each file that was not there yet, by its path."""
    files: dict[str, int]
    """Bytes of each file."""


def push(
    manifest: ReleaseManifest,
    reader: BlobReader,
    url: str,
    *,
    release: int | None = None,
    versions: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Pushed:
    """Push a release to a registry; files that are there already are not sent again.

    The manifest comes last: before, nobody sees anything of it, and a rerun goes on where it stopped.

    Args:
        manifest: the release.
        reader: where its blobs are.
        url: see :meth:`OciAddress.parse`; with a tag, which moves to this release.
        release: its number, where it is known.
        versions: per task the number of its version, where it is known.
        progress: told of each file.

    Raises:
        UsageError: the address is malformed, or names a digest.
        NotAllowedError: the login may not write there.
        BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had, or the registry cannot be
            reached.
    """
    start = time.perf_counter()
    address = OciAddress.parse(url)
    if address.digest:
        raise UsageError(
            f"{address}: a release is pushed to a tag; its digest follows from what it holds",
            code="oci-address",
            address=str(address),
        )
    artifact, sources = _build(manifest, reader, release, versions or {})
    repository = OciRepository(address)
    sent = {}
    for done, layer in enumerate(artifact.layers, 1):
        # Two files may be alike.
        if not repository.has(layer.digest):
            repository.upload(layer.digest, sources[layer.digest])
            sent[layer.path] = layer.size
        progress("push files", done, len(artifact.layers))
    config, data = artifact.config_bytes, artifact.to_bytes()
    if not repository.has(sha256(config)):
        repository.upload(sha256(config), config)
    repository.write_manifest(address.reference, IMAGE_MANIFEST, data)
    digest = sha256(data)
    # Some registries write manifests anew, and then nothing that names the digest would find it.
    repository.read_manifest(f"sha256:{digest}", IMAGE_MANIFEST)
    _log.info(
        "pushed release sha256:%s to %s as sha256:%s: %d of %d files, %d bytes in %.2f s",
        manifest.digest,
        address,
        digest,
        len(sent),
        len(artifact.layers),
        sum(sent.values()),
        time.perf_counter() - start,
    )
    return Pushed(
        address=f"{str(address).rpartition(f':{address.tag}')[0]}@sha256:{digest}",
        digest=digest,
        sent=sent,
        files={layer.path: layer.size for layer in artifact.layers},
    )


def write_layout(
    manifest: ReleaseManifest,
    reader: BlobReader,
    root: Path,
    *,
    release: int | None = None,
    versions: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> str:
    """Write a release into an empty folder in OCI's layout, which tools copy to a registry.

    Args:
        manifest, reader, release, versions, progress: see :func:`push`.
        root: the folder.

    Returns:
        The digest of the artifact's manifest.

    Raises:
        BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had.
        OSError: the folder cannot be written.
    """
    artifact, sources = _build(manifest, reader, release, versions or {})
    config, data = artifact.config_bytes, artifact.to_bytes()
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    sources |= {sha256(config): config, sha256(data): data}
    for done, (digest, source) in enumerate(sources.items(), 1):
        if isinstance(source, bytes):
            (blobs / digest).write_bytes(source)
        else:
            shutil.copyfile(source, blobs / digest)
        progress("write files", done, len(sources))
    entry = {
        "mediaType": IMAGE_MANIFEST,
        "artifactType": ARTIFACT,
        "digest": f"sha256:{sha256(data)}",
        "size": len(data),
        "annotations": {NAME: "latest"},
    }
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [entry]}
    (root / INDEX).write_bytes(canonical_json(index))
    (root / LAYOUT).write_bytes(canonical_json({"imageLayoutVersion": "1.0.0"}))
    return sha256(data)


def _build(
    manifest: ReleaseManifest,
    reader: BlobReader,
    release: int | None,
    versions: Mapping[str, str],
) -> tuple[Artifact, dict[str, Path | bytes]]:
    """The artifact, and the files and bytes of its layers by digest."""
    sums, small = folder_contents(manifest, reader)
    blobs = manifest.files()
    signatures = dict(zip(signature_names(), reader.signatures(manifest.digest), strict=False))
    small = {**small, **signatures}
    sums = {**sums, **{path: sha256(data) for path, data in signatures.items()}}
    sources: dict[str, Path | bytes] = {}
    layers = []
    # The largest and most lasting first.
    for path in (*blobs, *sorted(sums.keys() - blobs.keys())):
        digest = sums[path]
        if digest not in sources:
            sources[digest] = small[path] if path in small else reader.fetch(blobs[path])
        source = sources[digest]
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        task = path.removeprefix("tasks/").removesuffix(".safetensors")
        version = versions.get(task) if path.startswith("tasks/") else None
        layers.append(Layer(path=path, digest=digest, size=size, version=version))
    families = {BackboneSpec.fetch(trunk.spec, reader).family for trunk in manifest.trunks}
    artifact = Artifact.build(
        manifest, tuple(layers), family=", ".join(sorted(families)), release=release
    )
    return artifact, sources
