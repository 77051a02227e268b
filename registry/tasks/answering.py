"""A version of a task by itself: loaded without any release, to be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from centra.progress import Progress, silent

if TYPE_CHECKING:
    from centra.formats.identities import Digest
    from centra.runtime import Release
    from registry.connection import Registry

__all__ = ["load_version"]


def load_version(
    registry: Registry, task: str, digest: Digest, progress: Progress = silent
) -> Release:
    """A release of one version alone, in float32 on the CPU; nothing is published.

    Args:
        registry: where.
        task: its name.
        digest: of the version's module.
        progress: told of each part.

    Raises:
        ComposeError: a blob is missing or corrupt.
        StoreError: the store cannot be reached.
    """
    from centra.releases.compose import merge
    from centra.runtime import Release
    from centra.runtime.engines import default_engine

    manifest = merge({task: digest}, registry.store, progress=progress)
    return Release.load(
        manifest, registry.store, engine=default_engine("cpu"), device="cpu", progress=progress
    )
