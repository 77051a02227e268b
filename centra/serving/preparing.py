"""Bringing a release to where it can answer: pull, verify, load, warm."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.runtime.release import Release

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from centra.formats.manifest import TaskEntry
    from centra.releases.find import ReleaseLocation

__all__ = ["LoadOptions", "prepare_release"]

_log = logging.getLogger(__name__)

_WARM_WORDS = (8, 32, 128)
"""How long the inputs are, in words, that a release is warmed with."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How releases are loaded, one after the other; each field as for :func:`centra.load_release`."""

    tasks: Collection[str] | str | None = None
    keys: tuple[Path, ...] = ()
    engine: str | None = None
    threads: int | None = None
    device: str | None = None
    dtype: str | None = None


def prepare_release(
    location: ReleaseLocation, options: LoadOptions, *, base: Release | None = None
) -> Release:
    """Load a release that was found, verify it, and let it answer once.

    Args:
        location: where it is.
        options: how it is loaded.
        base: the loaded release that it is to replace. What both hold was verified then, and is
            neither pulled, compiled nor verified again.

    Raises:
        SignatureError: keys are given, and the release is not signed by any of them.
        ComposeError: the logits of a task on its probe are not those that its module recorded.
        CentraError: see :meth:`Release.load`.
    """
    began = time.perf_counter()
    if options.keys:
        from centra.releases.signing import verify_release

        verify_release(location.manifest, location.reader, options.keys)
    release = Release.load(
        location.manifest,
        location.reader,
        tasks=options.tasks,
        engine=options.engine,
        threads=options.threads,
        device=options.device,
        dtype=options.dtype,
        base=base,
    )
    try:
        changed = _changed_tasks(release, base)
        _check_parity(release, location, changed)
        # The torch engine captures graphs for each release, and stacks branches: all of it is new.
        _warm(release, changed if release.engine == "onnx" else release.tasks)
    except BaseException:
        release.close()
        raise
    _log.info(
        "loaded release sha256:%s in %.2f s: engine %s, tasks %s, of which verified anew %s",
        release.digest,
        time.perf_counter() - began,
        release.engine,
        ", ".join(release.tasks),
        ", ".join(changed) or "none",
    )
    return release


def _changed_tasks(release: Release, base: Release | None) -> list[str]:
    """The tasks that the base does not have, or has with another module, trunk or precision."""
    before: Mapping[str, TaskEntry] = {}
    if base is not None:
        before = {name: base.manifest.tasks[name] for name in base.tasks}
    return [name for name in release.tasks if before.get(name) != release.manifest.tasks[name]]


def _check_parity(release: Release, location: ReleaseLocation, tasks: Collection[str]) -> None:
    from centra.releases.parity import check_loaded_parity

    check_loaded_parity(release, location.reader, tasks)


def _warm(release: Release, tasks: Collection[str]) -> None:
    """Let tasks answer inputs of several lengths, so that no caller waits for what comes once."""
    entries = release.manifest.tasks
    for words in _WARM_WORDS:
        text = "a " * words
        for form, item in (("single", text), ("pair", (text, text))):
            if names := [name for name in tasks if entries[name].input == form]:
                release.predict([item], names)
