"""Find a release, in a folder or in a store, and load it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import BlobNotFoundError, NotFoundError, UsageError
from centra.formats.manifest import DEFAULT_CHANNELS, ChannelPointer, ReleaseManifest
from centra.releases.folder import ReleaseFolder, is_begun
from centra.runtime.merged import Release
from centra.store import BlobReader, BlobStore, LocalStore, open_store
from centra.store.layout import is_digest
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["find_release", "load_release", "read_manifest"]

_log = logging.getLogger(__name__)


def load_release(
    source: str | os.PathLike[str],
    *,
    tasks: Collection[str] | str | None = None,
    keys: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
    engine: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    base: Release | None = None,
) -> Release:
    """Load a release for answering.

    Every file is checked against its digest on the way.

    Args:
        source: a release folder (``centra compose --output``, ``centra release pull``), or a store:
            a folder or ``s3://bucket/prefix``, followed by ``#CHANNEL`` or ``#DIGEST``. Without
            either, it is the channel ``production``, or where there is none ``latest``, which may
            serve what nobody has tested; which of the two is logged.
        tasks: load these tasks, or this one, alone, and the trunk only as deep as they need;
            default all.
        keys: public keys, or one, as PEM files; a valid signature by one of them is required.
        engine: ``"torch"``, the default where torch sees a GPU, which answers in a precision of its
            own whatever the release gives a task; or ``"onnx"``, on the CPU, the default elsewhere
            where onnxruntime is installed.
        threads: how many processors the onnx engine uses; default all that this process may.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; default the torch engine's GPU where there is
            one. ``"cpu"`` alone stands for the default engine of machines without a GPU.
        precision: of the torch engine: ``"fp32"``, ``"bf16"`` or ``"fp16"``; default bf16 on a GPU,
            and fp32 on the CPU, where it is the reference.
        base: a loaded release that this one is to replace. What both hold was checked when it was
            loaded, and is neither read nor compiled again by the onnx engine.

    Raises:
        UsageError: there is no such engine, device or precision here.
        NotFoundError: no release there, no such channel, no such task, no such key.
        SignatureError: keys are given, and the release is not signed by any of them.
        FormatError, CorruptBlobError: a file is damaged or of another major version.
        StoreError: the store cannot be reached.
    """
    manifest, reader = find_release(os.fspath(source))
    if keys:
        from centra.releases.signing import verify_release

        files = [keys] if isinstance(keys, str | os.PathLike) else keys
        verify_release(manifest, reader, [Path(key) for key in files])
    return Release.load(
        manifest,
        reader,
        tasks=tasks,
        engine=engine,
        threads=threads,
        device=device,
        precision=precision,
        base=base,
    )


def find_release(source: str) -> tuple[ReleaseManifest, BlobReader]:
    """The manifest of a release, and where its blobs are; see :func:`load_release`.

    Raises:
        NotFoundError, FormatError, CorruptBlobError, StoreError: see :func:`load_release`.
    """
    address, selected = _split(source)
    if not selected and is_begun(Path(address)):
        folder = ReleaseFolder.open(Path(address))
        return folder.manifest, folder
    told = redacted(address, address)
    if "://" in address:
        store = open_store(address)
    elif Path(address).is_dir():
        store = LocalStore(Path(address))
    else:
        raise NotFoundError(
            f"{told}: no such folder; expected a release folder or a store, optionally with #CHANNEL"
        )
    digest = selected if is_digest(selected) else None
    if digest is None:
        digest = _pointer(told, store, (selected,) if selected else DEFAULT_CHANNELS).manifest
    return read_manifest(digest, store), store


def _pointer(address: str, store: BlobStore, channels: Sequence[str]) -> ChannelPointer:
    """The first of these channels that a store has; where that was a choice, it is logged."""
    for channel in channels:
        data = store.read_pointer(channel)
        if data is not None:
            pointer = ChannelPointer.of_channel(data, channel, f"{address} channel {channel}")
            if len(channels) > 1:
                level = logging.INFO if channel == channels[0] else logging.WARNING
                text = "%s: no release is named; taking release %d, which %s serves"
                _log.log(level, text, address, pointer.release, channel)
            return pointer
    named = " or ".join(repr(channel) for channel in channels)
    raise NotFoundError(f"{address}: there is no release here and no channel {named}")


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
            f"{address}/.#{selected} for a channel of the second"
        )
    return source, ""


def read_manifest(digest: str, reader: BlobReader) -> ReleaseManifest:
    """A published release's manifest, from a store.

    Raises:
        NotFoundError, CorruptBlobError, FormatError, StoreError: see :func:`load_release`.
    """
    try:
        data = reader.fetch(digest).read_bytes()
    except BlobNotFoundError as error:
        raise NotFoundError(f"the manifest of release sha256:{digest} is missing") from error
    return ReleaseManifest.from_bytes(data, f"release sha256:{digest}")
