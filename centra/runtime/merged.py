"""A loaded release: tokenise once, run the trunk once to the deepest tap needed, then each branch.

The parts are held per backbone and per task and share nothing else, so a task's answer cannot
depend on which other tasks are loaded. ``Release`` reaches trunks and branches only through
:mod:`centra.runtime.engine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.backbone import BackboneSpec
from centra.data import Input, Row, TextEncoder
from centra.decoding import decode
from centra.errors import DataError, FormatError, NotFoundError
from centra.progress import Progress, silent
from centra.task_module import TaskSpec, read_spec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from centra.blobs import BlobReader
    from centra.chain_decoding import Chain
    from centra.release import ReleaseManifest
    from centra.runtime.engine import BranchEngine, Probe, TrunkEngine

__all__ = ["Release"]

_BATCH = 32


@dataclass(frozen=True)
class _Task:
    spec: TaskSpec
    branch: BranchEngine
    probe: Probe
    chain: Chain | None


@dataclass(frozen=True)
class _Backbone:
    encoder: TextEncoder
    trunk: TrunkEngine


class Release:
    """A merged model, ready to answer. Make one with :func:`centra.load_release`."""

    def __init__(
        self,
        manifest: ReleaseManifest,
        backbones: Mapping[str, _Backbone],
        tasks: Mapping[str, _Task],
    ) -> None:
        self.manifest = manifest
        self._backbones = backbones
        self._tasks = tasks

    @classmethod
    def load(
        cls,
        manifest: ReleaseManifest,
        reader: BlobReader,
        *,
        tasks: Collection[str] | None = None,
        progress: Progress = silent,
    ) -> Release:
        """Load the parts of a release.

        Args:
            manifest: what it holds.
            reader: where its blobs are.
            tasks: only these, and the trunk only as deep as they need; default all.
            progress: told of each part.

        Raises:
            NotFoundError: the release holds no task of that name.
            FormatError: a module contradicts the manifest.
            BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had.
        """
        from centra.runtime.torch_engine import load_branch, load_trunk

        chosen = sorted(manifest.tasks) if tasks is None else list(dict.fromkeys(tasks))
        entries = {name: _entry(manifest, name) for name in chosen}
        backbones, specs = {}, {}
        for digest in sorted({entry.backbone for entry in entries.values()}):
            backbone = specs[digest] = BackboneSpec.fetch(digest, reader)
            depth = max(e.tap_layer for e in entries.values() if e.backbone == digest)
            backbones[digest] = _Backbone(
                TextEncoder.of(backbone, reader), load_trunk(backbone, reader, depth=depth)
            )
        loaded = {}
        for done, (name, entry) in enumerate(entries.items(), 1):
            path = reader.fetch(entry.digest)
            spec = read_spec(path)
            if (spec.contract, spec.backbone, spec.tap_layer, spec.depth) != (
                entry.contract,
                entry.backbone,
                entry.tap_layer,
                entry.depth,
            ):
                raise FormatError(f"task {name}: its module's spec contradicts the manifest")
            loaded[name] = _Task(spec, *load_branch(specs[entry.backbone], path))
            progress("load tasks", done, len(entries))
        return cls(manifest, backbones, loaded)

    @property
    def digest(self) -> str:
        """The release's identity: the digest of its manifest."""
        return self.manifest.digest

    @property
    def tasks(self) -> list[str]:
        """The loaded tasks, sorted."""
        return sorted(self._tasks)

    def predict(
        self, inputs: Iterable[object], tasks: Collection[str] | None = None
    ) -> list[dict[str, Any]]:
        """Answer inputs.

        Args:
            inputs: each a text, a pair of texts, or an object with ``text`` (and ``text_pair``) or
                ``tokens``; see :meth:`centra.data.Input.parse`.
            tasks: the tasks to answer; only the layers they need are computed. Default: every
                loaded task that takes such an input, single or pair.

        Returns:
            Per input, in order, an object from task name to answer; see
            :func:`centra.decoding.decode` for the answers.

        Raises:
            DataError: an input is malformed, or does not suit a task that was named.
            NotFoundError: a task that this release does not hold.
        """
        parsed = [Input.parse(item, f"input {i}") for i, item in enumerate(inputs, 1)]
        answers: list[dict[str, Any]] = [{} for _ in parsed]
        for name, positions, rows, logits in self._run(parsed, tasks):
            chosen = [parsed[i] for i in positions]
            task = self._tasks[name]
            found = decode(task.spec, logits, chosen, rows, task.chain)
            for i, answer in zip(positions, found, strict=True):
                answers[i][name] = answer
        return [dict(sorted(answer.items())) for answer in answers]

    def logits(
        self, inputs: Iterable[object], tasks: Collection[str] | None = None
    ) -> dict[str, list[np.ndarray]]:
        """The raw logits behind :meth:`predict`, for comparisons.

        Args:
            inputs, tasks: as for :meth:`predict`.

        Returns:
            Per task one array per input that suits it, in order: ``(outputs,)``, or for tagging
            ``(seq, outputs)`` over the input's own tokens.

        Raises:
            DataError, NotFoundError: as :meth:`predict`.
        """
        parsed = [Input.parse(item, f"input {i}") for i, item in enumerate(inputs, 1)]
        found: dict[str, list[np.ndarray]] = {}
        for name, _, rows, logits in self._run(parsed, tasks):
            tagging = self._tasks[name].spec.kind == "tagging"
            found.setdefault(name, []).extend(
                array[: len(row.input_ids)] if tagging else array
                for array, row in zip(logits, rows, strict=True)
            )
        return found

    def probe_logits(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """This release's logits on a task's probe, and the ones the module recorded of itself.

        Padding is cut out of tagging logits. Equal up to rounding means parity.
        """
        task = self._tasks[name]
        batch, tap = task.probe.batch, task.spec.tap_layer
        hidden = self._backbones[task.spec.backbone].trunk.run(batch, [tap])
        own, recorded = task.branch.run(hidden[tap], batch), task.probe.logits
        if task.spec.kind == "tagging":
            tokens = batch.attention_mask.astype(bool)
            return own[tokens], recorded[tokens]
        return own, recorded

    def _run(
        self, inputs: Sequence[Input], tasks: Collection[str] | None
    ) -> Iterator[tuple[str, list[int], list[Row], np.ndarray]]:
        """Run groups of inputs; yields task, positions of the inputs, their rows, and logits."""
        chosen = self._chosen(inputs, tasks)
        for form in ("single", "pair"):
            positions = [i for i, item in enumerate(inputs) if _form(item) == form]
            for digest, backbone in self._backbones.items():
                names = [
                    name
                    for name in chosen
                    if self._tasks[name].spec.input == form
                    and self._tasks[name].spec.backbone == digest
                ]
                if not names:
                    continue
                for start in range(0, len(positions), _BATCH):
                    part = positions[start : start + _BATCH]
                    rows, batch = backbone.encoder.batch(inputs[i] for i in part)
                    taps = {self._tasks[name].spec.tap_layer for name in names}
                    hidden = backbone.trunk.run(batch, taps)
                    for name in names:
                        task = self._tasks[name]
                        yield name, part, rows, task.branch.run(hidden[task.spec.tap_layer], batch)

    def _chosen(self, inputs: Sequence[Input], tasks: Collection[str] | None) -> list[str]:
        if tasks is None:
            return self.tasks
        for name in tasks:
            if name not in self._tasks:
                raise NotFoundError(
                    f"this release holds no task {name!r}; it holds {', '.join(self.tasks)}"
                )
            wanted = self._tasks[name].spec.input
            for i, item in enumerate(inputs, 1):
                if _form(item) != wanted:
                    raise DataError(
                        f"input {i}: task {name} takes "
                        + ("a pair of texts" if wanted == "pair" else "a single text")
                    )
        return list(dict.fromkeys(tasks))


def _form(item: Input) -> str:
    return "single" if item.text_pair is None else "pair"


def _entry(manifest: ReleaseManifest, name: str) -> Any:
    if name not in manifest.tasks:
        raise NotFoundError(
            f"this release holds no task {name!r}; it holds {', '.join(sorted(manifest.tasks))}"
        )
    return manifest.tasks[name]
