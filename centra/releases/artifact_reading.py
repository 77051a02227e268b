"""Releases that are OCI artifacts: in a registry, or in a folder in OCI's own layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    FormatError,
    NotFoundError,
    first_line,
)
from centra.formats.identities import is_digest
from centra.formats.manifest import ReleaseManifest
from centra.formats.strict_json import LARGEST, parse_foreign
from centra.releases.artifact import IMAGE_MANIFEST, INDEX, LAYOUT, NAME, Artifact
from centra.store.address import cache_folder
from centra.store.caching import fetch_through
from centra.store.local import LocalStore
from centra.store.oci import OciAddress, OciRepository
from centra.system.files import file_digest
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from centra.store import BlobReader

__all__ = ["OciLayout", "OciReader", "is_layout"]


class OciReader:
    """A release in a registry: hands out its files by digest, verified, from a cache where they are there."""

    def __init__(self, url: str, *, cache: LocalStore | None = None) -> None:
        """Read what the address names now.

        Args:
            url: see :meth:`OciAddress.parse`.
            cache: of the copies; None for :func:`centra.store.cache_folder`.

        Raises:
            UsageError: the address is malformed.
            NotFoundError: there is no such artifact.
            FormatError, CorruptBlobError: it is no release.
            NotAllowedError, StoreError: it cannot be had.
        """
        address = OciAddress.parse(url)
        self._where = str(address)
        self._repository = OciRepository(address)
        self._cache = cache
        data = self._repository.read_manifest(address.reference, IMAGE_MANIFEST)
        self.artifact = Artifact.parse(data, self._where)
        self._layers = {layer.digest: layer for layer in self.artifact.layers}
        self.manifest = _release_of(self.artifact, self, self._where)

    def fetch(self, digest: str) -> Path:
        layer = self._layers.get(digest)
        if layer is None:
            raise BlobNotFoundError(digest, self._where)
        cache = self._cache or LocalStore(cache_folder())
        return fetch_through(
            cache,
            digest,
            self._where,
            lambda file: self._repository.download(digest, layer.size, file),
        )

    def signatures(self, manifest: str) -> list[bytes]:
        return _signatures(self.artifact, self, manifest, self.manifest)


class OciLayout:
    """A release in a folder in OCI's layout: hands out its files by digest, verified."""

    def __init__(self, root: Path, reference: str = "") -> None:
        """Read it.

        Args:
            root: the folder.
            reference: which of its artifacts, by name; empty where there is one.

        Raises:
            NotFoundError: there is no such artifact.
            FormatError, CorruptBlobError: it is damaged, or no release.
        """
        self._root = root
        digest = _named(root, reference)
        data = _read_small(self.fetch(digest))
        self.artifact = Artifact.parse(data, str(root))
        self.manifest = _release_of(self.artifact, self, str(root))

    def fetch(self, digest: str) -> Path:
        path = self._root / "blobs" / "sha256" / digest
        try:
            actual = file_digest(path)
        except FileNotFoundError as error:
            raise BlobNotFoundError(digest, str(self._root)) from error
        except OSError as error:
            raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
        if actual != digest:
            raise CorruptBlobError(digest, actual, str(path), "export the release again")
        return path

    def signatures(self, manifest: str) -> list[bytes]:
        return _signatures(self.artifact, self, manifest, self.manifest)


def is_layout(root: Path) -> bool:
    """Whether a folder is one in OCI's layout."""
    return (root / LAYOUT).is_file() and (root / INDEX).is_file()


def _release_of(artifact: Artifact, reader: BlobReader, where: str) -> ReleaseManifest:
    layer = artifact.release_layer(where)
    manifest = ReleaseManifest.from_bytes(
        _read_small(reader.fetch(layer.digest)), f"{where}: {layer.path}"
    )
    artifact.check(manifest, where)
    return manifest


def _signatures(
    artifact: Artifact, reader: BlobReader, manifest: str, held: ReleaseManifest
) -> list[bytes]:
    if manifest != held.digest:
        return []
    return [_read_small(reader.fetch(layer.digest)) for layer in artifact.signatures]


def _named(root: Path, reference: str) -> str:
    """The digest of the artifact that a folder's index names."""
    where = f"{root / INDEX}"
    try:
        index: Any = parse_foreign(read_regular(root / INDEX, LARGEST).decode())
        entries = {
            entry["digest"].removeprefix("sha256:"): entry.get("annotations", {}).get(NAME, "")
            for entry in index["manifests"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{where}: is no index in OCI's layout ({first_line(error)})") from error
    found = [digest for digest, name in entries.items() if reference in ("", name)]
    if len(found) != 1 or not is_digest(found[0]):
        names = ", ".join(sorted(filter(None, entries.values()))) or "none with a name"
        raise NotFoundError(
            f"{root}: has {len(found)} artifacts"
            + (f" called {reference!r:.80}" if reference else "")
            + f", expected one; there are: {names}",
            code="no-artifact",
            address=str(root),
        )
    return found[0]


def _read_small(path: Path) -> bytes:
    try:
        return read_regular(path, LARGEST)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
