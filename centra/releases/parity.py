"""Parity: a release's logits on every task's probe equal those that its module recorded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.formats.backbone import BackboneSpec
from centra.formats.manifest import ReleaseManifest
from centra.formats.precision import Precision
from centra.progress import Progress, silent
from centra.releases.compose import ComposeError, attributed_to

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import numpy as np

    from centra.formats.identities import Digest
    from centra.formats.task_module import ModuleFile
    from centra.releases.verified import VerifiedBlobs
    from centra.runtime.release import Release
    from centra.store import BlobReader

__all__ = ["check_loaded_parity", "check_module_parity", "check_parity", "check_parity_once"]

_TOLERANCE = 1e-4
"""Largest difference of logits that counts as rounding. On one machine the difference is 0; other
processors and library versions add up in another order."""

_MODULE_PARITY: dict[tuple[str, str], float] = {}
"""What this process has found, by the digests of module and backbone: the same bytes give the same."""
_REMEMBERED = 4096


def check_parity(
    manifest: ReleaseManifest,
    reader: BlobReader,
    tasks: Collection[str],
    progress: Progress = silent,
    *,
    engine: str = "torch",
) -> dict[str, float]:
    """Run tasks of a merged release on the probes that their modules carry, in float32.

    Args:
        manifest: the release; in which precisions does not matter.
        reader: where its blobs are.
        tasks: those to check; loading follows them, so checking none costs nothing.
        progress: told of each task.
        engine: ``"torch"`` is the reference.

    Returns:
        Per task the largest difference between the release's logits and the module's own.

    Raises:
        ComposeError: a task's logits differ by more than rounding, or it cannot run at all.
        StoreError: the reader cannot be reached.
    """
    if not tasks:
        return {}
    from centra.runtime.engines import open_engine

    # One thread: a process that registers may fork, and threads do not go with it.
    opened = open_engine(engine, threads=1, device="cpu")
    differences: dict[str, float] = {}
    tasks_on: dict[str, list[str]] = {}
    for task in sorted(tasks):
        tasks_on.setdefault(manifest.tasks[task].backbone, []).append(task)
    for digest, names in tasks_on.items():
        with attributed_to(max(names, key=lambda name: manifest.tasks[name].tap_layer)):
            backbone = BackboneSpec.fetch(digest, reader)
            manifest.check_trunk(backbone)
            depth = max(manifest.tasks[name].tap_layer for name in names)
            trunk = opened.load_trunk(backbone, reader, depth=depth)
        for task in names:
            with attributed_to(task):
                entry = manifest.tasks[task]
                loaded = opened.load_task(entry.digest, backbone, reader)
                entry.check(task, loaded.spec)
            differences[task] = _difference(task, *loaded.probe_logits(trunk))
            progress("check parity", len(differences), len(tasks))
    return dict(sorted(differences.items()))


def check_loaded_parity(
    release: Release, reader: BlobReader, tasks: Collection[str]
) -> dict[str, float]:
    """Run tasks of a loaded release on their probes.

    The onnx engine's tasks in float32 are run as they will answer. All others are loaded once more
    for it, because only float32 can be held against what a module recorded.

    Args:
        release: loaded, with these tasks.
        reader: where its blobs are.
        tasks: those to check.

    Returns:
        As :func:`check_parity`.

    Raises:
        ComposeError, StoreError: as :func:`check_parity`.
    """
    entries = release.manifest.tasks
    exact = release.engine == "onnx"
    as_loaded = [task for task in tasks if exact and entries[task].precision == Precision.FP32]
    differences = {task: _difference(task, *release.probe_logits(task)) for task in as_loaded}
    others = [task for task in tasks if task not in differences]
    return differences | check_parity(release.manifest, reader, others, engine=release.engine)


def check_parity_once(
    manifest: ReleaseManifest,
    tasks: Collection[str],
    verified: VerifiedBlobs,
    progress: Progress = silent,
) -> dict[str, float]:
    """:func:`check_parity`, of each module once: what it reads is the same in every release."""
    digests = {task: manifest.tasks[task].digest for task in tasks}
    unchecked = [task for task, digest in digests.items() if digest not in verified.parity]
    for task, difference in check_parity(manifest, verified.store, unchecked, progress).items():
        verified.parity[digests[task]] = difference
    return {task: verified.parity[digest] for task, digest in digests.items()}


def check_module_parity(
    modules: Mapping[str, ModuleFile],
    backbones: Mapping[Digest, BackboneSpec],
    reader: BlobReader,
    progress: Progress = silent,
) -> dict[str, float]:
    """Run modules that are about to be taken in on their probes, over their own backbones.

    Where onnxruntime is installed, torch is needed in doubt alone: the reference decides.

    Args:
        modules: the checked modules, by task.
        backbones: the specs of the backbones that they name, by digest.
        reader: where the backbones' blobs are.
        progress: told of each task.

    Returns:
        As :func:`check_parity`.

    Raises:
        ComposeError: as :func:`check_parity`.
    """
    keys = {name: (module.digest, module.spec.backbone) for name, module in modules.items()}
    known = {name: _MODULE_PARITY[key] for name, key in keys.items() if key in _MODULE_PARITY}
    unchecked = {name: module for name, module in modules.items() if name not in known}
    checked = _run_modules(unchecked, backbones, reader, progress) if unchecked else {}
    if len(_MODULE_PARITY) >= _REMEMBERED:
        _MODULE_PARITY.clear()
    _MODULE_PARITY.update({keys[name]: parity for name, parity in checked.items()})
    return known | checked


def _run_modules(
    modules: Mapping[str, ModuleFile],
    backbones: Mapping[Digest, BackboneSpec],
    reader: BlobReader,
    progress: Progress,
) -> dict[str, float]:
    manifest = ReleaseManifest.build(
        {name: (module.digest, module.spec) for name, module in modules.items()}, backbones
    )
    files = _WithFiles(reader, {module.digest: module.path for module in modules.values()})
    if importlib.util.find_spec("onnxruntime") is not None:
        try:
            return check_parity(manifest, files, modules, progress, engine="onnx")
        except ComposeError:
            pass
    return check_parity(manifest, files, modules, progress)


@dataclass(frozen=True)
class _WithFiles:
    """Blobs of a store, and beside them files that are not in it yet."""

    reader: BlobReader
    files: Mapping[str, Path]
    """By digest."""

    def fetch(self, digest: str) -> Path:
        return self.files.get(digest) or self.reader.fetch(digest)

    def signatures(self, manifest: str) -> list[bytes]:
        return self.reader.signatures(manifest)


def _difference(task: str, computed: np.ndarray, recorded: np.ndarray) -> float:
    """The largest difference of logits, where it is no more than rounding."""
    import numpy as np

    difference = float(np.abs(computed - recorded).max(initial=0.0))
    if not np.allclose(computed, recorded, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ComposeError(
            task,
            f"parity failed: on its backbone, its logits differ by up to {difference:.3g} from those "
            f"its module recorded (allowed: {_TOLERANCE:g}). The module was changed after its "
            "probe was made, or made on another backbone; train or convert it again.",
        )
    return difference
