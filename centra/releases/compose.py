"""Merging task modules into a release: which go together, over which frozen layers."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from centra.errors import BlobNotFoundError, IncompatibleError, UsageError, VerificationError
from centra.formats.manifest import ReleaseManifest
from centra.progress import Progress, silent
from centra.releases.verified import VerifiedBlobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from centra.formats.backbone import BackboneSpec
    from centra.formats.identities import Digest
    from centra.formats.task_module import TaskSpec
    from centra.store import BlobStore

__all__ = ["ComposeError", "attributed_to", "merge"]


class ComposeError(VerificationError):
    """A set of modules that cannot become a release; names the task and the cause."""

    code = "not-composable"

    def __init__(self, task: str, cause: str, *, code: str | None = None, **data: Any) -> None:
        super().__init__(f"task {task}: {cause}", code=code, task=task, cause=cause, **data)
        self.task = task
        self.cause = cause


@contextmanager
def attributed_to(task: str) -> Iterator[None]:
    """Say which task a verification failed for; an unreachable store stays what it is.

    Raises:
        ComposeError: what is done in the block failed because of the task.
    """
    try:
        yield
    except (VerificationError, BlobNotFoundError, IncompatibleError) as error:
        raise ComposeError(task, str(error)) from error


def merge(
    modules: Mapping[str, Digest],
    store: BlobStore,
    *,
    allow_two_backbones: bool = False,
    verified: VerifiedBlobs | None = None,
    progress: Progress = silent,
) -> ReleaseManifest:
    """Check a set of modules against each other and against the store, and merge them.

    Args:
        modules: per task the digest of its module's file.
        store: must hold every blob of the release; each is hashed.
        allow_two_backbones: accept tasks on two backbones, while they move from one to the other.
        verified: what was hashed before in the same store, and need not be again; grows.
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
    verified = verified or VerifiedBlobs(store)
    specs: dict[str, TaskSpec] = {}
    for done, (task, digest) in enumerate(sorted(modules.items()), 1):
        with attributed_to(task):
            specs[task] = verified.task(digest)
        progress("check modules", done, len(modules))
    backbones = _read_backbones(specs, verified, allow_two=allow_two_backbones)
    manifest = ReleaseManifest.build(
        {task: (modules[task], spec) for task, spec in specs.items()}, backbones
    )
    for trunk in manifest.trunks:
        deepest = max(
            (task for task in specs if specs[task].backbone == trunk.spec),
            key=lambda task: specs[task].tap_layer,
        )
        with attributed_to(deepest):
            for digest in (trunk.embeddings, *trunk.layers, *trunk.tokenizer.values()):
                verified.require(digest)
    return manifest


def _read_backbones(
    specs: Mapping[str, TaskSpec], verified: VerifiedBlobs, *, allow_two: bool
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
            with attributed_to(task):
                backbones[spec.backbone] = verified.backbone(spec.backbone)
        backbone = backbones[spec.backbone]
        if spec.tap_layer > backbone.num_layers:
            raise ComposeError(
                task,
                f"taps layer {spec.tap_layer}, but its backbone has {backbone.num_layers} layers",
            )
    return backbones
