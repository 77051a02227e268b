"""Merging task modules into a release: the compatibility rules and the proof of parity."""

from __future__ import annotations

import importlib.util
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.errors import (
    BlobNotFoundError,
    CentraError,
    IncompatibleError,
    UsageError,
    VerificationError,
)
from centra.formats.backbone import BackboneSpec
from centra.formats.manifest import ReleaseManifest
from centra.formats.task_module import read_spec
from centra.progress import Progress, silent
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from centra.formats.identities import Digest
    from centra.formats.task_module import ModuleFile, TaskSpec
    from centra.store import BlobReader, BlobStore

__all__ = ["Checked", "ComposeError", "check_parity", "merge", "prove", "proven"]

_TOLERANCE = 1e-4
"""Largest difference of logits that counts as rounding. On one machine the difference is 0; other
processors and library versions add up in another order."""


_PROVEN: dict[tuple[str, str], float] = {}
"""What this process has proven, by the digests of module and backbone: the same bytes give the same."""
_REMEMBERED = 4096


class ComposeError(VerificationError):
    """A set of modules that cannot become a release; names the task and the cause."""

    def __init__(self, task: str, cause: str) -> None:
        super().__init__(f"task {task}: {cause}")
        self.task = task
        self.cause = cause


class Checked:
    """Blobs that a store holds and that were hashed, and what those among them say that are specs.

    Whoever merges several sets in a row, because others were faster, reads only what is new.
    """

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.parity: dict[str, float] = {}
        """Per module whose parity was proven, the largest difference of logits."""
        self._held: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._tasks: dict[str, TaskSpec] = {}
        self._backbones: dict[str, BackboneSpec] = {}

    def require(self, digest: str) -> None:
        """Refuse a blob that the store itself does not hold, even where a cache still has a copy.

        Raises:
            BlobNotFoundError, CorruptBlobError, StoreError: see :meth:`BlobStore.fetch`.
        """
        if digest in self._held:
            return
        if not self.store.has(digest):
            raise BlobNotFoundError(digest, redacted(self.store.url, self.store.url))
        self.size(digest)
        self._held.add(digest)

    def size(self, digest: str) -> int:
        """The bytes of a blob, which was hashed; errors as :meth:`require`."""
        if digest not in self._sizes:
            self._sizes[digest] = self.store.fetch(digest).stat().st_size
        return self._sizes[digest]

    def task(self, digest: str) -> TaskSpec:
        """What a module says; errors as :meth:`require`, and those of :func:`read_spec`."""
        if digest not in self._tasks:
            self.require(digest)
            self._tasks[digest] = read_spec(self.store.fetch(digest))
        return self._tasks[digest]

    def backbone(self, digest: str) -> BackboneSpec:
        """What a ``backbone.json`` says; errors as :meth:`require`, and those of its reading."""
        if digest not in self._backbones:
            self.require(digest)
            self._backbones[digest] = BackboneSpec.fetch(digest, self.store)
        return self._backbones[digest]


def merge(
    modules: Mapping[str, Digest],
    store: BlobStore,
    *,
    allow_two_backbones: bool = False,
    checked: Checked | None = None,
    progress: Progress = silent,
) -> ReleaseManifest:
    """Check a set of modules against each other and against the store, and merge them.

    Args:
        modules: per task the digest of its module's file.
        store: must hold every blob of the release; each is hashed.
        allow_two_backbones: accept tasks on two backbones, while they move from one to the other.
        checked: what was hashed before in the same store, and need not be again; grows.
        progress: told of each task.

    Returns:
        The manifest; nothing has been written.

    Raises:
        UsageError: there is no task.
        ComposeError: a blob is missing or corrupt, a backbone differs, or a tap lies beyond its
            backbone; the task is named.
        StoreError: the store cannot be reached.
    """
    if not modules:
        raise UsageError("there is no active task to compose; register one first")
    checked = checked or Checked(store)
    specs: dict[str, TaskSpec] = {}
    for done, (task, digest) in enumerate(sorted(modules.items()), 1):
        with _naming(task):
            specs[task] = checked.task(digest)
        progress("check modules", done, len(modules))
    backbones = _backbones(specs, checked, allow_two=allow_two_backbones)
    manifest = ReleaseManifest.build(
        {task: (modules[task], spec) for task, spec in specs.items()}, backbones
    )
    for trunk in manifest.trunks:
        deepest = max(
            (task for task in specs if specs[task].backbone == trunk.spec),
            key=lambda task: specs[task].tap_layer,
        )
        with _naming(deepest):
            for digest in (trunk.embeddings, *trunk.layers, *trunk.tokenizer.values()):
                checked.require(digest)
    return manifest


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
    on: dict[str, list[str]] = {}
    for task in sorted(tasks):
        on.setdefault(manifest.tasks[task].backbone, []).append(task)
    for digest, names in on.items():
        with _naming(max(names, key=lambda name: manifest.tasks[name].tap_layer)):
            backbone = BackboneSpec.fetch(digest, reader)
            manifest.check_trunk(backbone)
            depth = max(manifest.tasks[name].tap_layer for name in names)
            trunk = opened.load_trunk(backbone, reader, depth=depth)
        for task in names:
            with _naming(task):
                entry = manifest.tasks[task]
                loaded = opened.load_task(entry.digest, backbone, reader)
                entry.check(task, loaded.spec)
            differences[task] = _difference(task, *loaded.probe_logits(trunk))
            progress("check parity", len(differences), len(tasks))
    return dict(sorted(differences.items()))


def prove(
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
    known = {name: _PROVEN[key] for name, key in keys.items() if key in _PROVEN}
    unproven = {name: module for name, module in modules.items() if name not in known}
    found = _run(unproven, backbones, reader, progress) if unproven else {}
    if len(_PROVEN) >= _REMEMBERED:
        _PROVEN.clear()
    _PROVEN.update({keys[name]: parity for name, parity in found.items()})
    return known | found


def _run(
    modules: Mapping[str, ModuleFile],
    backbones: Mapping[Digest, BackboneSpec],
    reader: BlobReader,
    progress: Progress,
) -> dict[str, float]:
    manifest = ReleaseManifest.build(
        {name: (module.digest, module.spec) for name, module in modules.items()}, backbones
    )
    beside = _Beside(reader, {module.digest: module.path for module in modules.values()})
    if importlib.util.find_spec("onnxruntime") is not None:
        try:
            return check_parity(manifest, beside, modules, progress, engine="onnx")
        except ComposeError:
            pass
    return check_parity(manifest, beside, modules, progress)


@dataclass(frozen=True)
class _Beside:
    """Blobs of a store, and beside them files that are not in it yet."""

    reader: BlobReader
    files: Mapping[str, Path]
    """By digest."""

    def fetch(self, digest: str) -> Path:
        """See :meth:`centra.store.BlobReader.fetch`."""
        return self.files.get(digest) or self.reader.fetch(digest)

    def signatures(self, manifest: str) -> list[bytes]:
        """See :meth:`centra.store.BlobReader.signatures`."""
        return self.reader.signatures(manifest)


def _difference(task: str, own: np.ndarray, recorded: np.ndarray) -> float:
    """The largest difference of logits, where it is no more than rounding."""
    import numpy as np

    difference = float(np.abs(own - recorded).max(initial=0.0))
    if not np.allclose(own, recorded, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ComposeError(
            task,
            f"parity failed: on its backbone, its logits differ by up to {difference:.3g} from those "
            f"its module recorded (allowed: {_TOLERANCE:g}). The module was changed after its "
            "probe was made, or made on another backbone; train or convert it again.",
        )
    return difference


def proven(
    manifest: ReleaseManifest,
    tasks: Collection[str],
    checked: Checked,
    progress: Progress = silent,
) -> dict[str, float]:
    """:func:`check_parity`, of each module once: what it reads is the same in every release."""
    digests = {task: manifest.tasks[task].digest for task in tasks}
    todo = [task for task, digest in digests.items() if digest not in checked.parity]
    for task, difference in check_parity(manifest, checked.store, todo, progress).items():
        checked.parity[digests[task]] = difference
    return {task: checked.parity[digest] for task, digest in digests.items()}


def _backbones(
    specs: Mapping[str, TaskSpec], checked: Checked, *, allow_two: bool
) -> dict[Digest, BackboneSpec]:
    counts = Counter(spec.backbone for spec in specs.values())
    if len(counts) > (2 if allow_two else 1):
        (usual, _), *others = counts.most_common()
        task = min(task for task, spec in specs.items() if spec.backbone == others[0][0])
        hint = (
            "a release holds at most two"
            if allow_two
            else "allow two backbones for the time of a migration, or move the task first"
        )
        raise ComposeError(
            task,
            f"is on backbone sha256:{others[0][0][:12]}, "
            f"while {counts[usual]} other task(s) are on sha256:{usual[:12]}; {hint}",
        )
    backbones = {}
    for task, spec in specs.items():
        if spec.backbone not in backbones:
            with _naming(task):
                backbones[spec.backbone] = checked.backbone(spec.backbone)
        backbone = backbones[spec.backbone]
        if spec.tap_layer > backbone.num_layers:
            raise ComposeError(
                task,
                f"taps layer {spec.tap_layer}, but its backbone has {backbone.num_layers} layers",
            )
    return backbones


@contextmanager
def _naming(task: str) -> Iterator[None]:
    """Say which task a verification failed for; an unreachable store stays what it is."""
    try:
        yield
    except (VerificationError, BlobNotFoundError, IncompatibleError) as error:
        raise ComposeError(task, str(error)) from error
    except CentraError:
        raise
