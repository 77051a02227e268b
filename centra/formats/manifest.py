"""The manifest of a release: which modules, over which frozen layers. Pure: no disk, no database.

It holds no time, no person and no version number: the same modules give the same digest anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, Self

from pydantic import Field, StringConstraints, model_validator

from centra.errors import FormatError
from centra.formats.contract import Contract
from centra.formats.documents import Count, DigestField, Document, FormattedDocument
from centra.formats.identities import VersionNumber  # noqa: TC001 - pydantic reads it
from centra.formats.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.formats.backbone import BackboneSpec
    from centra.formats.identities import Digest
    from centra.formats.task_module import TaskSpec

__all__ = [
    "DEEPEST",
    "DEFAULT_CHANNELS",
    "ChangeKind",
    "ChannelPointer",
    "LayerAccount",
    "ReleaseManifest",
    "TaskChange",
    "TaskEntry",
    "TrunkEntry",
    "Versioned",
    "changes",
]


FileName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*\.?$", max_length=63)
]
"""A name that becomes part of a path; see :func:`centra.formats.names.parse_name`."""


DEEPEST = 9999
"""Layers of a task's own: module files number theirs with four digits."""


class TaskEntry(Document):
    """One task of a release."""

    digest: DigestField
    """The digest of the task module's file."""
    backbone: DigestField
    kind: str
    input: str
    labels: tuple[str, ...]
    tap_layer: Count
    depth: Count
    precision: Precision = Field(
        default=Precision.FP32, exclude_if=lambda value: value == Precision.FP32
    )
    """Written where it is not fp32: a release of fp32 tasks keeps the digest that it has always had."""

    @property
    def contract(self) -> Contract:
        """What a caller relies on; a change of it is a redefinition."""
        return Contract.of(self)

    def check(self, name: str, module: TaskSpec) -> None:
        """Refuse a manifest that contradicts a task's module.

        Raises:
            FormatError: it does.
        """
        if (module.contract, module.backbone, module.tap_layer, module.depth) != (
            self.contract,
            self.backbone,
            self.tap_layer,
            self.depth,
        ):
            raise FormatError(f"task {name}: its module's spec contradicts the manifest")


class TrunkEntry(Document):
    """The frozen layers of one backbone, up to the deepest tap."""

    spec: DigestField
    """The digest of ``backbone.json``, which is the backbone's own."""
    num_layers: Annotated[int, Field(ge=1)]
    """N, of the whole backbone."""
    embeddings: DigestField
    layers: tuple[DigestField, ...]
    tokenizer: dict[FileName, DigestField]

    @classmethod
    def of(cls, backbone: BackboneSpec, depth: int) -> Self:
        """So many layers of a backbone."""
        return cls(
            spec=backbone.digest,
            num_layers=backbone.num_layers,
            embeddings=backbone.embeddings,
            layers=backbone.layers[:depth],
            tokenizer=backbone.tokenizer,
        )

    @property
    def short(self) -> str:
        """The folder name of this backbone inside a release."""
        return self.spec[:12]


@dataclass(frozen=True, kw_only=True)
class LayerAccount:
    """Transformer layers computed to answer all tasks: the paper's "Layers" and "Overhead"."""

    shared: int
    """The trunk; of both backbones while a release holds two, and once for each precision."""
    task: int
    """Σ depth."""
    total: int
    single_task: int
    """Layers that a full model per task would compute: tasks × N."""
    overhead: float
    """total / single_task."""

    @classmethod
    def of(cls, *, shared: int, task: int, single_task: int) -> LayerAccount:
        """The account of so many shared layers, layers of tasks, and layers of single models."""
        total = shared + task
        overhead = round(total / single_task, 4) if single_task else 0.0
        return cls(
            shared=shared, task=task, total=total, single_task=single_task, overhead=overhead
        )


class ChangeKind(StrEnum):
    """What can happen to a task from one release to the next."""

    ADDED = "added"
    UPDATED = "updated"
    """Another module or another precision, under the same contract."""
    REDEFINED = "redefined"
    """Another contract."""
    REMOVED = "removed"


@dataclass(frozen=True, kw_only=True)
class TaskChange:
    """What happens to one task from one release to the next."""

    task: str
    change: ChangeKind


class ReleaseManifest(FormattedDocument):
    """Everything that a serving process must have, by digest."""

    FORMAT: ClassVar[str] = "centra/release"

    trunks: tuple[TrunkEntry, ...]
    """One, or two while tasks move between backbones; in the order of their digests."""
    tasks: dict[FileName, TaskEntry]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse numbers of layers that the layers which are named do not bear out."""
        trunks = {trunk.spec: trunk for trunk in self.trunks}
        if len({trunk.short for trunk in self.trunks}) < len(self.trunks):
            raise ValueError("two trunks of one backbone")
        for trunk in self.trunks:
            if len(trunk.layers) > trunk.num_layers:
                raise ValueError(
                    f"trunk {trunk.short} has {len(trunk.layers)} layers of {trunk.num_layers}"
                )
        for name, entry in self.tasks.items():
            if entry.backbone not in trunks:
                raise ValueError(f"task {name} is on backbone {entry.backbone[:12]}, no trunk is")
            if entry.tap_layer > (layers := len(trunks[entry.backbone].layers)):
                raise ValueError(
                    f"task {name} taps layer {entry.tap_layer}, its trunk has {layers}"
                )
            if entry.depth > DEEPEST:
                raise ValueError(
                    f"task {name} has {entry.depth} layers, at most {DEEPEST} are read"
                )
        return self

    @classmethod
    def build(
        cls,
        tasks: Mapping[str, tuple[Digest, TaskSpec]],
        backbones: Mapping[Digest, BackboneSpec],
        precisions: Mapping[str, Precision] = MappingProxyType({}),
    ) -> ReleaseManifest:
        """Merge modules into a manifest (paper section 3.3).

        Args:
            tasks: per task the digest of its module's file and its spec.
            backbones: the specs of the backbones the modules name, by digest.
            precisions: per task, where it is not fp32.
        """
        entries = {
            name: TaskEntry(
                digest=digest,
                backbone=spec.backbone,
                **spec.contract.to_dict(),
                tap_layer=spec.tap_layer,
                depth=spec.depth,
                precision=precisions.get(name, Precision.FP32),
            )
            for name, (digest, spec) in sorted(tasks.items())
        }
        taps = _taps(entries)
        trunks = tuple(
            TrunkEntry.of(backbones[digest], max(taps[digest])) for digest in sorted(taps)
        )
        return cls(trunks=trunks, tasks=entries)

    def check_trunk(self, backbone: BackboneSpec) -> None:
        """Refuse a manifest that contradicts a backbone that its tasks name.

        Raises:
            FormatError: a task reads a layer that the backbone does not have, or the shared layers
                are not the backbone's, up to the deepest that a task reads.
        """
        where = f"release sha256:{self.digest}"
        taps = _taps(self.tasks)[backbone.digest]
        if min(taps) < 0 or max(taps) > backbone.num_layers:
            raise FormatError(
                f"{where}: a task taps layer {max(taps) if min(taps) >= 0 else min(taps)!r:.60}, but "
                f"its backbone has {backbone.num_layers} layers"
            )
        if TrunkEntry.of(backbone, max(taps)) not in self.trunks:
            raise FormatError(
                f"{where}: its trunks contradict the backbone.json of sha256:{backbone.digest}"
            )

    @property
    def account(self) -> LayerAccount:
        """How many layers this release computes, and how many it saves."""
        depth = {trunk.spec: trunk.num_layers for trunk in self.trunks}
        shared = sum(self.trunk_depths().values())
        own = sum(entry.depth for entry in self.tasks.values())
        single = sum(depth[entry.backbone] for entry in self.tasks.values())
        return LayerAccount.of(shared=shared, task=own, single_task=single)

    @property
    def precisions(self) -> dict[str, Precision]:
        """In which precision each task is computed."""
        return {name: entry.precision for name, entry in self.tasks.items()}

    def trunk_depths(self) -> dict[tuple[str, Precision], int]:
        """How many shared layers are computed, per backbone and precision: to its deepest tap."""
        found: dict[tuple[str, Precision], int] = {}
        for entry in self.tasks.values():
            key = entry.backbone, entry.precision
            found[key] = max(found.get(key, 0), entry.tap_layer)
        return dict(sorted(found.items()))

    def with_precisions(self, precisions: Mapping[str, Precision]) -> ReleaseManifest:
        """The same modules in other precisions; tasks that are not named keep theirs."""
        tasks = {
            name: entry.model_copy(
                update={"precision": Precision(precisions.get(name, entry.precision))}
            )
            for name, entry in self.tasks.items()
        }
        return self.model_copy(update={"tasks": tasks})

    def files(self) -> dict[str, Digest]:
        """Every file of a release folder that is a blob: relative path to digest."""
        files = {}
        for trunk in self.trunks:
            folder = f"backbone/{trunk.short}"
            files[f"{folder}/backbone.json"] = trunk.spec
            files[f"{folder}/embeddings.safetensors"] = trunk.embeddings
            for number, digest in enumerate(trunk.layers, 1):
                files[f"{folder}/layer-{number:02}.safetensors"] = digest
            for name, digest in trunk.tokenizer.items():
                files[f"tokenizer/{trunk.short}/{name}"] = digest
        for name, entry in self.tasks.items():
            files[f"tasks/{name}.safetensors"] = entry.digest
        return files


def _taps(tasks: Mapping[str, TaskEntry]) -> dict[Digest, list[int]]:
    """Per backbone the layers that tasks read."""
    taps: dict[Digest, list[int]] = {}
    for entry in tasks.values():
        taps.setdefault(entry.backbone, []).append(entry.tap_layer)
    return taps


DEFAULT_CHANNELS = ("production", "latest")
"""The channels that are meant where no release is named, the first that there is."""


class ChannelPointer(FormattedDocument):
    """The published copy of a channel: which release it serves, and what people call it."""

    FORMAT: ClassVar[str] = "centra/channel"
    MINOR: ClassVar[int] = 1

    name: str
    revision: Annotated[int, Field(ge=1)]
    """Grows by one with every move."""
    release: Annotated[int, Field(ge=1)]
    manifest: DigestField
    """The digest of the release's manifest."""
    versions: dict[FileName, VersionNumber] = Field(
        default_factory=dict, exclude_if=lambda versions: not versions
    )
    """Per task of the release the number of its version, which the manifest does not hold; none in
    a pointer of format 1.0."""

    @classmethod
    def of_channel(cls, data: bytes, channel: str, where: str) -> Self:
        """Read the pointer of a channel.

        Args:
            data: the document.
            channel: whose it must be.
            where: what to call it in errors.

        Raises:
            FormatError: it is damaged, or another channel's; both are named.
            UnsupportedFormatError: another major format version.
        """
        pointer = cls.from_bytes(data, where)
        if pointer.name != channel:
            raise FormatError(
                f"{where}: is a pointer of the channel {pointer.name!r}, expected one of {channel!r}",
                code="pointer-of-another-channel",
                channel=channel,
                found=pointer.name,
            )
        return pointer


class Versioned(Protocol):
    """A task of a release: an entry of its manifest, or what the registry knows of it."""

    @property
    def digest(self) -> str:
        """The digest of its module's file."""
        ...

    @property
    def contract(self) -> Contract:
        """What its callers rely on."""
        ...

    @property
    def precision(self) -> Precision:
        """How it is computed."""
        ...


def changes(before: Mapping[str, Versioned], after: Mapping[str, Versioned]) -> list[TaskChange]:
    """What changes from one set of tasks to another, in the order of the task names.

    A task counts as redefined when kind, input or labels differ, as updated when only its module or
    its precision does. A task that is not listed has the same bytes in both, and the same answers.
    """
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            found.append(TaskChange(task=name, change=ChangeKind.ADDED))
        elif new is None:
            found.append(TaskChange(task=name, change=ChangeKind.REMOVED))
        elif (old.digest, old.precision) != (new.digest, new.precision):
            same = old.contract == new.contract
            kind = ChangeKind.UPDATED if same else ChangeKind.REDEFINED
            found.append(TaskChange(task=name, change=kind))
    return found
