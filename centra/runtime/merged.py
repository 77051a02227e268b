"""A loaded release: tokenise once, run the trunk once to the deepest tap needed, then each branch.

The parts are held per backbone and precision and per task, and share nothing else, so a task's
answer cannot depend on which other tasks are loaded. ``Release`` reaches trunks and branches only
through :mod:`centra.runtime.engine`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from centra.data.inputs import Input, Row, TextEncoder
from centra.errors import DataError, NotFoundError, UsageError
from centra.formats.backbone import BackboneSpec, text_encoder
from centra.formats.names import several
from centra.kinds import kind_named
from centra.progress import Progress, silent
from centra.runtime.engine import default_engine, open_engine
from centra.runtime.schedule import Job, Profile, compute, compute_alone
from centra.system.forks import computing
from centra.system.memory import trim_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    import numpy as np

    from centra.formats.manifest import Precision, ReleaseManifest, TaskEntry
    from centra.runtime.engine import Engine, LoadedTask, TrunkEngine
    from centra.store.blobs import BlobReader

__all__ = ["Release"]

T = TypeVar("T")
_log = logging.getLogger(__name__)

_BATCH = 32
_TRIM = 8
"""After how many tasks memory is given back: an engine that compiles a task holds it twice meanwhile,
and much of that would stay with the process."""


@dataclass(frozen=True)
class _Backbone:
    """The shared layers of a backbone in one precision."""

    spec: BackboneSpec
    trunk: TrunkEngine
    depth: int


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Some inputs of a request that are computed together."""

    inputs: list[Input]
    rows: list[Row]


class Release:
    """A merged model, ready to answer. Make one with :func:`centra.load_release`.

    A process that is forked from this one can answer with it, too, unless it is on a GPU.
    """

    def __init__(
        self,
        manifest: ReleaseManifest,
        encoders: Mapping[str, TextEncoder],
        backbones: Mapping[tuple[str, Precision], _Backbone],
        tasks: Mapping[str, LoadedTask],
        engine: Engine,
    ) -> None:
        self.manifest = manifest
        self.encoders = encoders
        """What turns texts into tokens, by the digests of the backbones."""
        self._pool = engine.pool
        self._forks = None if engine.forks else engine.pool.forks
        """The forks behind the process that loaded it; None where more of them do no harm."""
        self._backbones = backbones
        self._tasks = tasks

    @classmethod
    def load(
        cls,
        manifest: ReleaseManifest,
        reader: BlobReader,
        *,
        tasks: Collection[str] | str | None = None,
        engine: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        precision: str | None = None,
        base: Release | None = None,
        progress: Progress = silent,
    ) -> Release:
        """Load the parts of a release.

        Every part is read and checked. What another loaded release of this process has in use is
        shared with it. Tasks in int8 that the torch engine answers in a precision of its own are
        logged.

        Args:
            manifest: what it holds.
            reader: where its blobs are; asked from several threads.
            tasks: only these, and the trunk only as deep as they need; default all.
            engine, threads, device, precision: see :func:`centra.runtime.engine.open_engine`.
            base: a loaded release whose parts were checked then and are not read again.
            progress: told of each part.

        Raises:
            UsageError: see :func:`centra.runtime.engine.open_engine`.
            NotFoundError: the release holds no task of that name.
            FormatError: a module contradicts the manifest.
            IncompatibleError: the engine cannot compute such layers.
            BlobNotFoundError, CorruptBlobError, StoreError: a blob cannot be had.
        """
        engine = engine or default_engine(device, precision)
        opened = open_engine(engine, threads=threads, device=device, precision=precision)
        held = base.blobs if base else frozenset()
        chosen = sorted(manifest.tasks) if tasks is None else several(tasks)
        entries = {name: _entry(manifest, name) for name in chosen}
        int8 = [name for name, entry in entries.items() if entry.precision == "int8"]
        if int8 and engine != "onnx":
            _log.warning("the %s engine does not compute in int8: %s", engine, ", ".join(int8))
        depths = manifest.model_copy(update={"tasks": entries}).trunk_depths()
        known = base.encoders if base else {}
        encoders: dict[str, TextEncoder] = {}
        backbones = {}
        loaded = {}

        def load(part: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
            def guarded() -> T:
                with computing:
                    return part(*arguments, **options)

            # In a thread of its own, which a fork leaves behind with all that torch keeps for it.
            return executor.submit(guarded)

        with ThreadPoolExecutor(opened.pool.workers) as executor:
            for (digest, task_precision), depth in depths.items():
                spec = BackboneSpec.fetch(digest, reader)
                manifest.check_trunk(spec)
                trunk = load(
                    opened.load_trunk,
                    spec,
                    reader,
                    depth=depth,
                    precision=task_precision,
                    held=held,
                )
                backbones[digest, task_precision] = _Backbone(spec, trunk.result(), depth)
                # Now that its length is known to be that of a tensor.
                if digest not in encoders:
                    encoders[digest] = known.get(digest) or text_encoder(spec, reader)
                trim_memory()
            parts = {
                name: load(
                    opened.load_task,
                    entry.digest,
                    backbones[entry.backbone, entry.precision].spec,
                    reader,
                    precision=entry.precision,
                    held=held,
                )
                for name, entry in entries.items()
            }
            try:
                for done, (name, part) in enumerate(parts.items(), 1):
                    loaded[name] = part.result()
                    entries[name].check(name, loaded[name].spec)
                    progress("load tasks", done, len(entries))
                    if done % _TRIM == 0 or done == len(parts):
                        trim_memory()
            finally:
                executor.shutdown(cancel_futures=True)
        return cls(manifest, encoders, backbones, loaded, opened)

    @property
    def digest(self) -> str:
        """The release's identity: the digest of its manifest."""
        return self.manifest.digest

    @property
    def blobs(self) -> frozenset[str]:
        """The digests of the blobs that the loaded layers and tasks were made from."""
        trunks = self._backbones.values()
        layers = (digest for trunk in trunks for digest in trunk.spec.layers[: trunk.depth])
        tasks = (self.manifest.tasks[name].digest for name in self._tasks)
        return frozenset((*(trunk.spec.embeddings for trunk in trunks), *layers, *tasks))

    @property
    def tasks(self) -> list[str]:
        """The loaded tasks, sorted."""
        return sorted(self._tasks)

    def predict(
        self, inputs: Iterable[object], tasks: Collection[str] | str | None = None
    ) -> list[dict[str, Any]]:
        """Answer inputs.

        Args:
            inputs: each a text, a pair of texts, or an object with ``text`` (and ``text_pair``) or
                ``tokens``; see :meth:`centra.data.inputs.Input.parse`. One text or object is one input.
            tasks: the tasks to answer, or the only one; only the layers they need are computed.
                Default: every loaded task that takes such an input, single or pair.

        Returns:
            Per input, in order, an object from task name to answer; see
            :meth:`centra.kinds.base.Kind.decode` for the answers. Where an input is longer than the task's
            backbone reads, the answer has ``"truncated": {"tokens", "kept"}``: how many tokens it
            has, and how many of them were read.

        Raises:
            DataError: an input is malformed, or does not suit a task that was named.
            NotFoundError: a task that this release does not hold.
            UsageError: it is on a GPU, and was loaded before this process was forked.
        """
        parsed = _parsed(inputs)
        answers: list[dict[str, Any]] = [{} for _ in parsed]
        for name, positions, found in self._run(parsed, tasks, _decoded):
            for i, answer in zip(positions, found, strict=True):
                answers[i][name] = answer
        return [dict(sorted(answer.items())) for answer in answers]

    def stream(
        self, inputs: Iterable[object], tasks: Collection[str] | str | None = None
    ) -> Iterator[tuple[str, dict[int, Any]]]:
        """Answer inputs, each task as soon as its branch is done.

        Args:
            inputs, tasks: as for :meth:`predict`.

        Yields:
            A task's name and its answers by the inputs' places, from 0. Together they are those of
            :meth:`predict`; a task comes once for every 32 inputs, and apart for pairs.

        Raises:
            DataError, NotFoundError: as :meth:`predict`, before anything is computed.
            Exception: a branch failed; raised when all other tasks of its inputs have been yielded.
        """
        return self._stream(_parsed(inputs), tasks)

    def _stream(
        self, parsed: list[Input], tasks: Collection[str] | str | None
    ) -> Iterator[tuple[str, dict[int, Any]]]:
        for name, positions, found in self._run(parsed, tasks, _decoded):
            yield name, dict(zip(positions, found, strict=True))

    def logits(
        self, inputs: Iterable[object], tasks: Collection[str] | str | None = None
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
        parsed = _parsed(inputs)
        found: dict[str, list[np.ndarray]] = {}
        for name, _, arrays in self._run(parsed, tasks, _trimmed):
            found.setdefault(name, []).extend(arrays)
        return dict(sorted(found.items()))

    def profile(
        self, inputs: Iterable[object], tasks: Collection[str] | str | None = None
    ) -> Profile:
        """How long the parts of a request take, each alone: no branch runs beside another.

        Args:
            inputs, tasks: as for :meth:`predict`.

        Returns:
            The seconds of the embeddings and shared layers, and of each task's branch with its
            decoding. Tokenising is not among them.

        Raises:
            DataError, NotFoundError: as :meth:`predict`.
            Exception: a branch failed.
        """
        profile = Profile()
        for _ in self._run(_parsed(inputs), tasks, _decoded, profile):
            pass
        return profile

    def probe_logits(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """This release's logits on a task's probe, and the ones the module recorded of itself.

        Padding is cut out of tagging logits. Equal up to rounding means parity.
        """
        self._check_process()
        task, trunk = self._tasks[name], self._backbones[self._trunk(name)].trunk
        return self._pool.run(lambda: task.probe_logits(trunk))

    def _run(
        self,
        inputs: Sequence[Input],
        tasks: Collection[str] | str | None,
        finish: Callable[[LoadedTask, np.ndarray, _Batch], list[T]],
        profile: Profile | None = None,
    ) -> Iterator[tuple[str, list[int], list[T]]]:
        """Run a request in batches.

        Args:
            inputs, tasks: the request.
            finish: from a task's logits on a batch to one value per input.
            profile: run part by part, and add here what each takes.

        Yields:
            A task, the places of some inputs, and its values for them.
        """
        chosen = self._chosen(inputs, tasks)
        self._check_process()
        for form in ("single", "pair"):
            positions = [i for i, item in enumerate(inputs) if item.form == form]
            asked: dict[tuple[str, Precision], list[str]] = {}
            for name in chosen:
                if self._tasks[name].spec.input == form:
                    asked.setdefault(self._trunk(name), []).append(name)
            for start in range(0, len(positions), _BATCH):
                part = positions[start : start + _BATCH]
                items = [inputs[i] for i in part]
                for name, values in self._run_batch(items, asked, finish, profile):
                    yield name, part, values

    def _run_batch(
        self,
        inputs: list[Input],
        asked: Mapping[tuple[str, Precision], Sequence[str]],
        finish: Callable[[LoadedTask, np.ndarray, _Batch], list[T]],
        profile: Profile | None,
    ) -> Iterator[tuple[str, list[T]]]:
        """Run inputs of one form together, for the tasks of each backbone and precision."""
        # A backbone in two precisions reads the same tokens.
        with computing:
            tokens = {digest: self.encoders[digest].batch(inputs) for digest, _ in asked}
        failed: Exception | None = None
        for key, names in asked.items():
            rows, encoded = tokens[key[0]]
            batch = _Batch(inputs=inputs, rows=rows)
            taps = {self._tasks[name].spec.tap_layer for name in names}
            steps = self._backbones[key].trunk.run(encoded, taps)
            jobs = [self._job(name, batch, finish) for name in names]
            try:
                if profile is None:
                    yield from compute(self._pool, steps, jobs)
                else:
                    yield from compute_alone(self._pool, steps, jobs, profile)
            except Exception as error:  # noqa: BLE001 - raised when all others are done
                failed = failed or error
        if failed:
            raise failed

    def _check_process(self) -> None:
        """Refuse to compute where it would hang or crash."""
        if self._forks not in (None, self._pool.forks):
            raise UsageError(
                "this release was loaded on a GPU by the process that this one was forked from, and "
                "a GPU's memory does not go through a fork. Load it in each worker: fork before "
                "anything uses the GPU (gunicorn without --preload), or start workers by 'spawn'"
            )

    def __reduce__(self) -> NoReturn:
        """Refuse to be sent to another process.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "a loaded release cannot be sent to another process: send what it was loaded from, and "
            "load it there with centra.load_release(); or load it before the processes are forked"
        )

    def _trunk(self, name: str) -> tuple[str, Precision]:
        """Which shared layers a task stands on."""
        entry = self.manifest.tasks[name]
        return entry.backbone, entry.precision

    def _job(
        self, name: str, batch: _Batch, finish: Callable[[LoadedTask, np.ndarray, _Batch], list[T]]
    ) -> Job[list[T]]:
        task = self._tasks[name]
        spec = task.spec

        def run(hidden_states: Any) -> list[T]:
            return finish(task, task.branch.run(hidden_states), batch)

        # A layer on the first token alone is much shorter than one on all, and still no trifle.
        length = spec.depth if spec.reads_every_token else spec.depth - 0.5
        return Job(name=name, tap=spec.tap_layer, length=length, run=run)

    def _chosen(self, inputs: Sequence[Input], tasks: Collection[str] | str | None) -> list[str]:
        if tasks is None:
            return self.tasks
        names = several(tasks)
        for name in names:
            if name not in self._tasks:
                raise NotFoundError(
                    f"this release holds no task {name!r}; it holds {', '.join(self.tasks)}"
                )
            wanted = self._tasks[name].spec.input
            for i, item in enumerate(inputs, 1):
                if item.form != wanted:
                    raise DataError(
                        f"input {i}: task {name} takes "
                        + ("a pair of texts" if wanted == "pair" else "a single text")
                    )
        return names


def _parsed(inputs: Iterable[object]) -> list[Input]:
    if isinstance(inputs, str | bytes | Mapping | Input):
        inputs = [inputs]
    return [Input.parse(item, f"input {i}") for i, item in enumerate(inputs, 1)]


def _decoded(task: LoadedTask, logits: np.ndarray, batch: _Batch) -> list[dict[str, Any]]:
    kind = kind_named(task.spec.kind)
    answers = kind.decode(task.spec, logits, batch.inputs, batch.rows, task.chain)
    for answer, row in zip(answers, batch.rows, strict=True):
        if row.given:
            answer["truncated"] = {"tokens": row.given, "kept": len(row.input_ids)}
    return answers


def _trimmed(task: LoadedTask, logits: np.ndarray, batch: _Batch) -> list[np.ndarray]:
    """Logits per input, without padding."""
    if not task.spec.reads_every_token:
        return list(logits)
    return [array[: len(row.input_ids)] for array, row in zip(logits, batch.rows, strict=True)]


def _entry(manifest: ReleaseManifest, name: str) -> TaskEntry:
    if name not in manifest.tasks:
        raise NotFoundError(
            f"this release holds no task {name!r}; it holds {', '.join(sorted(manifest.tasks))}"
        )
    return manifest.tasks[name]
