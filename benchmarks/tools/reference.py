"""The reference set-ups: an encoder with random weights, and sets of tasks on it.

S has 21 sentence tasks, M 15 and 6 that tag words, H a hundred sentence tasks of one layer. On a BERT of
base size the taps of S and M spread over layers 1 to 8 and depths alternate 2 and 1: 32 task layers and 8
shared ones, as in the paper's appendix E. On other encoders the deepest tap leaves as large a share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.tools.encoders import BASE, Encoder, write_encoder
from centra.checkpoints.backbone import import_backbone
from centra.formats.backbone import BackboneSpec
from centra.formats.identities import Digest
from centra.formats.manifest import ReleaseManifest
from centra.formats.precision import Precision
from centra.kinds import kind_named
from centra.store import LocalStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from centra.formats.task_module import TaskSpec
    from centra.modeling.branch import Branch

__all__ = [
    "TASKS",
    "ReferenceTask",
    "Setup",
    "Setups",
    "sentence_tasks",
]

TASKS = 21
_TAGS = ("O", "B-city", "I-city")
_LABELS = ("alarm", "music", "weather")


@dataclass(frozen=True)
class ReferenceTask:
    """One task; its seed makes its weights."""

    seed: int
    tap: int
    depth: int
    tags: bool = False

    @property
    def name(self) -> str:
        """Two tasks of one name have the same module."""
        kind = "tag" if self.tags else "sort"
        return f"{kind}-{self.seed:03}-{self.tap}-{self.depth}"


@dataclass(frozen=True)
class Setup:
    """A release of the reference store."""

    manifest: ReleaseManifest
    store: LocalStore

    @property
    def address(self) -> str:
        """Where ``load_release`` finds it."""
        return f"{self.store.root}#{self.manifest.digest}"

    @property
    def full_layers(self) -> int:
        """Layers that are computed on all tokens: a sentence task's last one is not."""
        tasks = self.manifest.tasks.values()
        own = sum(task.depth - (not kind_named(task.kind).reads_every_token) for task in tasks)
        return self.manifest.account.shared + own

    @property
    def sentence_tasks(self) -> int:
        """Each ends in a layer on the first token."""
        return sum(
            not kind_named(task.kind).reads_every_token for task in self.manifest.tasks.values()
        )

    @property
    def blob_bytes(self) -> int:
        """The sizes of all its blobs together."""
        return sum(
            self.store.fetch(digest).stat().st_size for digest in {*self.manifest.files().values()}
        )


def sentence_tasks(encoder: Encoder) -> list[ReferenceTask]:
    """The tasks of S on an encoder."""
    # Depths of 2 and 1 by turns, so 32 in all, grown to what the encoder's tasks have in all.
    ends = [(i + (i + 1) // 2) * encoder.own_layers // 32 for i in range(TASKS + 1)]
    return [
        ReferenceTask(seed=i, tap=1 + i * encoder.deepest // TASKS, depth=ends[i + 1] - ends[i])
        for i in range(TASKS)
    ]


class Setups:
    """A store with the backbone, and the modules that were asked for so far."""

    def __init__(self, folder: Path, encoder: Encoder = BASE) -> None:
        """Open, or make, a store.

        Args:
            folder: for it; of base size about 1.3 GB for S, and 2.9 GB more for H.
            encoder: of the backbone; a folder keeps to the one that it was made with.
        """
        self.encoder = encoder
        self.store = LocalStore(folder / "store")
        self.encoder_folder = folder / "encoder"
        made = folder / "backbone.txt"
        if not made.is_file():
            spec = import_backbone(str(write_encoder(self.encoder_folder, encoder)), self.store)
            made.write_text(spec.digest, encoding="utf-8")
        self.backbone = BackboneSpec.fetch(made.read_text(encoding="utf-8"), self.store)
        self._modules = folder / "modules"
        self._modules.mkdir(exist_ok=True)

    def sentences(self) -> list[ReferenceTask]:
        """The tasks of S."""
        return sentence_tasks(self.encoder)

    def mixed(self) -> list[ReferenceTask]:
        """The tasks of M: those of S, of which 6 tag words."""
        return [
            ReferenceTask(seed=task.seed, tap=task.tap, depth=task.depth, tags=True)
            if task.seed % 7 in (2, 5)
            else task
            for task in self.sentences()
        ]

    def hundred(self) -> list[ReferenceTask]:
        """The tasks of H."""
        return [
            ReferenceTask(seed=100 + i, tap=1 + i * self.encoder.deepest // 100, depth=1)
            for i in range(100)
        ]

    def full(self, tasks: int = TASKS) -> list[ReferenceTask]:
        """Tasks that share the embeddings alone: each has all layers of its own."""
        return [ReferenceTask(seed=300 + i, tap=0, depth=self.encoder.layers) for i in range(tasks)]

    def release(self, tasks: Sequence[ReferenceTask]) -> Setup:
        """A release of some tasks, whose modules are made where they are not there yet."""
        specs = self._specs(tasks)
        manifest = ReleaseManifest.build(specs, {self.backbone.digest: self.backbone})
        self.store.put(manifest.to_bytes())
        return Setup(manifest, self.store)

    def module(self, task: ReferenceTask) -> Path:
        """The file of a task's module."""
        digest, _ = self._specs([task])[task.name]
        return self.store.fetch(digest)

    def rounded(self, setup: Setup) -> Setup:
        """The same release in int8."""
        manifest = setup.manifest.with_precisions(
            dict.fromkeys(setup.manifest.tasks, Precision.INT8)
        )
        self.store.put(manifest.to_bytes())
        return Setup(manifest, self.store)

    def _specs(self, tasks: Sequence[ReferenceTask]) -> Mapping[str, tuple[Digest, TaskSpec]]:
        from centra.formats.task_module import read_spec

        made = {}
        missing = [task for task in tasks if not (self._modules / task.name).is_file()]
        if missing:
            _write(missing, self.backbone, self.store, self._modules)
        for task in tasks:
            digest = Digest((self._modules / task.name).read_text(encoding="utf-8"))
            made[task.name] = (digest, read_spec(self.store.fetch(digest)))
        return made


def _write(
    tasks: Sequence[ReferenceTask], backbone: BackboneSpec, store: LocalStore, modules: Path
) -> None:
    """Make modules: random weights of the size that a BERT begins with, and a true probe."""
    import torch

    from centra.data.inputs import Input
    from centra.formats.task_module import HeadSpec, TaskSpec
    from centra.modeling.branch import Branch
    from centra.modeling.trunk import Trunk
    from centra.tokenization.text_encoder import TextEncoder
    from centra.training.module import make_module

    _, probe = TextEncoder.of(backbone, store).batch([Input("wake me at seven")])
    trunk = Trunk(backbone, store, depth=max(task.tap for task in tasks))
    for task in tasks:
        spec = TaskSpec(
            kind="tagging" if task.tags else "classification",
            input="single",
            labels=_TAGS if task.tags else _LABELS,
            backbone=backbone.digest,
            tap_layer=task.tap,
            depth=task.depth,
            head=HeadSpec(activation=None if task.tags else "tanh"),
        )
        generator = torch.Generator().manual_seed(task.seed)
        branch = Branch(backbone, spec)
        weights = {
            name: 0.02 * torch.randn(tensor.shape, generator=generator)
            + name.lower().endswith("norm.weight")
            for name, tensor in _named(branch).items()
        }
        module = make_module(spec, trunk, branch.load(weights).eval(), probe)
        (modules / task.name).write_text(store.put(module.to_bytes()), encoding="utf-8")


def _named(branch: Branch) -> dict[str, torch.Tensor]:
    """A branch's tensors, still empty, by the names that it takes them under: from layer 1."""
    found = {f"head.{name}": tensor for name, tensor in branch.head.state_dict().items()}
    for number, layer in enumerate(branch.layers, 1):
        found |= {f"layers.{number}.{name}": t for name, t in layer.state_dict().items()}
    return found
