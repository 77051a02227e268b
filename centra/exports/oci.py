"""``oci``: an artifact in the ModelPack layout, in an OCI registry or in a folder in OCI's own layout.

See :mod:`centra.releases.artifact`. It holds the release's own files, so what was checked when the
release was made holds there, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.exports.base import Format, Written

if TYPE_CHECKING:
    from pathlib import Path

    from centra.exports.base import ExportPrecision, Source
    from centra.progress import Progress

__all__ = ["OCI"]


def _write(
    source: Source, folder: Path, _precision: ExportPrecision, progress: Progress
) -> Written:
    from centra.releases.artifact_reading import OciLayout
    from centra.releases.artifact_writing import write_layout

    write_layout(
        source.manifest,
        source.reader,
        folder,
        release=source.release,
        versions=source.versions,
        progress=progress,
    )
    OciLayout(folder)
    return Written()


def _push(source: Source, address: str, progress: Progress) -> Written:
    from centra.releases.artifact_writing import push

    pushed = push(
        source.manifest,
        source.reader,
        address,
        release=source.release,
        versions=source.versions,
        progress=progress,
    )
    sent = f"{len(pushed.sent)} files, {sum(pushed.sent.values()):,} bytes were not there yet"
    return Written(output=pushed.address, files=pushed.files, notes=(sent,))


OCI = Format(
    name="oci",
    summary="an OCI artifact in the ModelPack layout, to oci://HOST/REPOSITORY:TAG or a folder",
    several=True,
    write=_write,
    push=_push,
)
