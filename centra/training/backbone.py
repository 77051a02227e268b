"""A backbone as training takes it: what it is, and where its blobs are."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centra.store import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.formats.backbone import BackboneSpec
    from centra.progress import Progress
    from centra.store import BlobReader

__all__ = ["Backbone", "opened_backbone"]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen encoder."""

    spec: BackboneSpec
    reader: BlobReader
    """Has its blobs."""

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        store: str | os.PathLike[str],
        *,
        revision: str | None = None,
        progress: Progress | None = None,
    ) -> Backbone:
        """Import an encoder into a folder, from where any number of runs can read it.

        Args:
            source: a folder that ``save_pretrained`` wrote, or a name of the Hugging Face hub.
            store: the folder; made where it is missing. What it has already is not written again.
            revision: the hub's branch, tag or commit.
            progress: told of each part.

        Raises:
            NotFoundError: there is no such folder or hub repository.
            IncompatibleError: an encoder that Centra cannot serve.
            FormatError: its files are damaged or contradict each other.
            StoreNotWritableError: the store cannot be written.
        """
        from centra.checkpoints.backbone import import_backbone
        from centra.progress import silent

        blobs = LocalStore(Path(store))
        spec = import_backbone(
            os.fspath(source), blobs, revision=revision, progress=progress or silent
        )
        return cls(spec=spec, reader=blobs)


@contextmanager
def opened_backbone(
    source: Backbone | str | os.PathLike[str], progress: Progress
) -> Iterator[Backbone]:
    """A backbone as it is, or one that is imported for this block alone.

    Args:
        source: a backbone, or as for :meth:`Backbone.load`.
        progress: told of each part that is imported.
    """
    if isinstance(source, Backbone):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="centra-") as folder:
        yield Backbone.load(source, folder, progress=progress)
