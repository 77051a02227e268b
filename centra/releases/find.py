"""Where a reference leads: a release in a folder, or in a store by channel or digest."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import BlobNotFoundError, CentraError, NotFoundError, UsageError
from centra.formats.identities import is_digest
from centra.formats.manifest import DEFAULT_CHANNELS, ChannelPointer, ReleaseManifest
from centra.releases.artifact_reading import OciLayout, OciReader, is_layout
from centra.releases.folder import ReleaseFolder, is_begun
from centra.store import BlobReader, BlobStore, LocalStore, open_store
from centra.store.oci.address import is_oci
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ChannelSource", "ReleaseLocation", "find_release", "open_source", "read_manifest"]

_log = logging.getLogger(__name__)

_SHOWN = 10
"""So many channels are named at most."""


@dataclass(frozen=True, kw_only=True)
class ReleaseLocation:
    """Where a reference leads."""

    manifest: ReleaseManifest
    reader: BlobReader
    """Has the release's blobs."""
    channel: str | None = None
    """Whose pointer named the release; None for a folder or a digest, which never move."""
    revision: int | None = None
    """Of that pointer: it grows by one with every move of the channel, a rollback too."""
    release: int | None = None
    """The release's number, which the pointer says and the manifest does not."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The numbers of its tasks' versions, ``2.1``, by name: empty where no pointer says them."""

    @property
    def digest(self) -> str:
        """The release's identity: the digest of its manifest."""
        return self.manifest.digest


@dataclass(frozen=True, kw_only=True)
class ChannelSource:
    """The channel that a source names: whoever follows it reads its pointer from time to time."""

    store: BlobStore
    names: tuple[str, ...]
    """The channel; of several, the first that there is."""
    address: str
    """Of the store, for people."""

    def read(self) -> ChannelPointer:
        """The pointer as it is now; one small file is read.

        Raises:
            NotFoundError: there is no such channel.
            FormatError: the pointer is damaged, another channel's, or of another major version.
            StoreError: the store cannot be reached.
        """
        for name in self.names:
            data = self.store.read_pointer(name)
            if data is not None:
                return ChannelPointer.of_channel(data, name, f"{self.address} channel {name}")
        if isinstance(self.store, LocalStore) and not self.store.root.is_dir():
            raise NotFoundError(
                f"{self.address}: there is no such folder", code="no-store", address=self.address
            )
        named = " or ".join(repr(name) for name in self.names)
        raise NotFoundError(
            f"{self.address}: there is no release here and no channel {named}; {self._others()}",
            code="no-channel",
            address=self.address,
            channels=list(self.names),
        )

    def _others(self) -> str:
        """The channels that there are, in words."""
        try:
            found = self.store.pointers()
        except CentraError:  # Who may read a pointer need not be allowed to list them.
            return "which channels there are cannot be seen"
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return f"there are {', '.join(found[:_SHOWN])}{more}" if found else "there are no channels"

    def locate(self, pointer: ChannelPointer) -> ReleaseLocation:
        """The release that a pointer of this channel names; where there was a choice, it is logged.

        Raises:
            NotFoundError: the store does not have its manifest.
            FormatError, CorruptBlobError: the manifest is damaged or of another major version.
            StoreError: the store cannot be reached.
        """
        if len(self.names) > 1:
            level = logging.INFO if pointer.name == self.names[0] else logging.WARNING
            text = "%s: no release is named; taking release %d, which %s serves"
            _log.log(level, text, self.address, pointer.release, pointer.name)
        return ReleaseLocation(
            manifest=read_manifest(pointer.manifest, self.store),
            reader=self.store,
            channel=pointer.name,
            revision=pointer.revision,
            release=pointer.release,
            versions={task: str(version) for task, version in pointer.versions.items()},
        )


def find_release(source: str | os.PathLike[str]) -> ReleaseLocation:
    """Where a reference leads now. No blob is read but the manifest.

    Args:
        source: as for :func:`centra.load_release`.

    Raises:
        UsageError: it can be read in two ways.
        NotFoundError: no release there, or no such channel.
        FormatError, CorruptBlobError: a file is damaged or of another major version.
        StoreError: the store cannot be reached.
    """
    found = open_source(source)
    return found.locate(found.read()) if isinstance(found, ChannelSource) else found


def open_source(source: str | os.PathLike[str]) -> ReleaseLocation | ChannelSource:
    """What a reference names: a release that stays, or a channel that moves.

    Args:
        source: as for :func:`centra.load_release`.

    Raises:
        CentraError: as for :func:`find_release`, but a channel is not looked for yet.
    """
    address, selected = _split(os.fspath(source))
    if is_oci(address) or ("://" not in address and is_layout(Path(address))):
        return _artifact(address, selected)
    if not selected and is_begun(Path(address)):
        folder = ReleaseFolder.open(Path(address))
        return ReleaseLocation(manifest=folder.manifest, reader=folder)
    printable = redacted(address, address)
    store = _open_store(address, printable)
    if is_digest(selected):
        return ReleaseLocation(manifest=read_manifest(selected, store), reader=store)
    names = (selected,) if selected else DEFAULT_CHANNELS
    return ChannelSource(store=store, names=names, address=printable)


def read_manifest(digest: str, reader: BlobReader) -> ReleaseManifest:
    """A published release's manifest, from a store.

    Raises:
        NotFoundError: the store has none of this digest.
        FormatError, CorruptBlobError: it is damaged or of another major version.
        StoreError: the store cannot be reached.
    """
    try:
        data = reader.fetch(digest).read_bytes()
    except BlobNotFoundError as error:
        raise NotFoundError(
            f"the manifest of release sha256:{digest} is missing",
            code="manifest-missing",
            digest=digest,
        ) from error
    return ReleaseManifest.from_bytes(data, f"release sha256:{digest}")


def _artifact(address: str, selected: str) -> ReleaseLocation:
    """A release that is an OCI artifact: in a registry, or in a folder in OCI's layout."""
    reader: OciReader | OciLayout
    if is_oci(address):
        if selected:
            raise UsageError(
                f"{address}#{selected}: an artifact of an OCI registry is named by its tag or digest, "
                f"and has no channels: {address.partition('?')[0]}:{selected}?",
                code="oci-address",
                address=address,
            )
        reader = OciReader(address)
    else:
        reader = OciLayout(Path(address), selected)
    artifact = reader.artifact
    return ReleaseLocation(
        manifest=reader.manifest,
        reader=reader,
        release=artifact.release,
        versions=artifact.versions,
    )


def _open_store(address: str, printable: str) -> BlobStore:
    if "://" in address:
        return open_store(address)
    if Path(address).is_dir():
        return LocalStore(Path(address))
    raise NotFoundError(
        f"{printable}: no such folder; expected a release folder or a store, optionally with "
        "#CHANNEL",
        code="no-release-folder",
        address=printable,
    )


def _split(source: str) -> tuple[str, str]:
    """The address, and the channel or digest behind its last ``#``, or nothing.

    Raises:
        UsageError: there is a folder with that ``#`` in its name, and a store without.
    """
    address, _, selected = source.rpartition("#")
    if not address:
        return source, ""
    if "://" in source:
        return (source, "") if "/" in selected else (address, selected)
    if not Path(source).is_dir():
        below = "/" in selected and not Path(address).is_dir()
        return (source, "") if below else (address, selected)
    if "/" not in selected and (Path(address) / "channels").is_dir():
        raise UsageError(
            f"{source} is a folder, and {address} is a store: write {source}/ for the first, or "
            f"{address}/.#{selected} for a channel of the second",
            code="ambiguous-address",
            address=source,
        )
    return source, ""
