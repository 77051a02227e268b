"""The parts of a loaded release: trunks by backbone and precision, branches by task.

They share nothing else, so a task's answer cannot depend on which other tasks are loaded. Trunks
and branches are reached only through :mod:`centra.runtime.engine`.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from centra.errors import NotFoundError, UsageError
from centra.formats.backbone import BackboneSpec
from centra.formats.contract import InputForm
from centra.formats.names import distinct_names
from centra.formats.precision import Precision
from centra.progress import Progress, silent
from centra.runtime.engines import default_engine, open_engine
from centra.runtime.units import UnitCache, UnitKey
from centra.system.forks import computing
from centra.system.memory import trim_memory
from centra.tokenization.checks import checked_text_encoder
from centra.tokenization.text_encoder import Reading, TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from concurrent.futures import Future

    from centra.formats.manifest import ReleaseManifest, TaskEntry
    from centra.runtime.engine import Engine, LoadedTask, TrunkEngine
    from centra.runtime.pool import Pool
    from centra.store import BlobReader

__all__ = ["LoadedTrunk", "Parts", "TrunkKey", "load_parts"]

T = TypeVar("T")
TrunkKey = tuple[str, Precision]
"""A backbone's digest, and the precision that its layers are computed in."""

_log = logging.getLogger(__name__)

_ENCODERS = UnitCache()

_TASKS_PER_TRIM = 8
"""After how many tasks memory is given back: an engine that compiles a task holds it twice meanwhile,
and much of that would stay with the process."""

_SHARE_BESIDE_REQUESTS = 4
"""One of so many threads compiles while others answer."""


@dataclass(frozen=True)
class LoadedTrunk:
    """The shared layers of a backbone in one precision."""

    spec: BackboneSpec
    engine: TrunkEngine
    depth: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Everything that a release computes with."""

    encoders: Mapping[str, TextEncoder]
    """What turns texts into tokens, by the digests of the backbones."""
    readings: Mapping[Reading, TextEncoder]
    """What turns texts into tokens as tasks read them."""
    trunks: Mapping[TrunkKey, LoadedTrunk]
    tasks: Mapping[str, LoadedTask]
    trunk_of: Mapping[str, TrunkKey]
    """The shared layers that each task stands on."""
    reading_of: Mapping[str, Reading]
    """How each task reads texts."""
    engine: str
    """The name of what computes them."""
    dtype: str | None
    """What it computes in; None where each task's precision says it."""
    pool: Pool
    taking: Mapping[InputForm, tuple[str, ...]]
    """The tasks that take single texts and those that take pairs, sorted."""
    forks: int | None
    """The forks behind the process that loaded them; None where more of them do no harm."""

    def check_process(self) -> None:
        """Refuse to compute where it would hang or crash.

        Raises:
            UsageError: they are on a GPU, and were loaded before this process was forked.
        """
        if self.forks not in (None, self.pool.forks):
            raise UsageError(
                "this release was loaded on a GPU by the process that this one was forked from, and "
                "a GPU's memory does not go through a fork. Load it in each worker: fork before "
                "anything uses the GPU (gunicorn without preloading), or start workers by 'spawn'",
                code="gpu-after-fork",
            )


def load_parts(
    manifest: ReleaseManifest,
    reader: BlobReader,
    *,
    tasks: Collection[str] | str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    encoders: Mapping[str, TextEncoder] | None = None,
    checked: Collection[str] = (),
    beside_requests: bool = False,
    progress: Progress = silent,
) -> Parts:
    """Load what some tasks of a release need.

    Args:
        manifest, reader, tasks, engine, threads, device, dtype, progress: see
            :meth:`centra.runtime.release.Release.load`.
        encoders: made for another release, by the digests of the backbones.
        checked: the digests of blobs that were checked for another loaded release and are not read
            again.
        beside_requests: leave most processors to who asks another release meanwhile.

    Raises:
        CentraError: see :meth:`centra.runtime.release.Release.load`.
    """
    engine_name = engine or default_engine(device, dtype)
    opened = open_engine(engine_name, threads=threads, device=device, dtype=dtype)
    entries = _entries(manifest, tasks)
    _warn_of_int8(engine_name, entries)
    workers = opened.pool.workers
    if beside_requests:
        workers = max(1, workers // _SHARE_BESIDE_REQUESTS)
    loader = _Loader(opened, manifest, reader, frozenset(checked), workers, progress)
    with ThreadPoolExecutor(workers) as executor:
        trunks = loader.load_trunks(executor, entries)
        # Now that the lengths of their embeddings are known to be those of tensors.
        known = encoders or {}
        specs = {digest: trunk.spec for (digest, _), trunk in trunks.items()}
        made = {
            digest: known.get(digest) or _submit(executor, _encoder, spec, reader).result()
            for digest, spec in specs.items()
        }
        trim_memory()
        loaded = loader.load_tasks(executor, entries, trunks)
    reading_of = {name: Reading.of(task.spec) for name, task in loaded.items()}
    readings = {
        reading: _reading_encoder(reading, made, specs, reader)
        for reading in dict.fromkeys(reading_of.values())
    }
    for name, reading in reading_of.items():
        readings[reading].check_room(f"task {name}", pair=loaded[name].spec.input == "pair")
    return Parts(
        encoders=made,
        readings=readings,
        reading_of=reading_of,
        trunks=trunks,
        tasks=loaded,
        trunk_of={name: (entry.backbone, entry.precision) for name, entry in entries.items()},
        engine=engine_name,
        dtype=opened.dtype,
        pool=opened.pool,
        taking={
            form: tuple(name for name in sorted(loaded) if loaded[name].spec.input == form)
            for form in get_args(InputForm)
        },
        forks=None if opened.forks else opened.pool.forks,
    )


@dataclass(frozen=True)
class _Loader:
    engine: Engine
    manifest: ReleaseManifest
    reader: BlobReader
    checked: frozenset[str]
    workers: int
    progress: Progress

    def load_trunks(
        self, executor: ThreadPoolExecutor, entries: Mapping[str, TaskEntry]
    ) -> dict[TrunkKey, LoadedTrunk]:
        """One after the other; each loads its layers side by side."""
        trunks: dict[TrunkKey, LoadedTrunk] = {}
        depths = self.manifest.model_copy(update={"tasks": dict(entries)}).trunk_depths()
        for (digest, precision), depth in depths.items():
            spec = BackboneSpec.fetch(digest, self.reader)
            self.manifest.check_trunk(spec)
            loading = _submit(
                executor,
                self.engine.load_trunk,
                spec,
                self.reader,
                depth=depth,
                precision=precision,
                checked=self.checked,
                workers=self.workers,
            )
            trunks[digest, precision] = LoadedTrunk(spec, loading.result(), depth)
            _log.debug("loaded %d layers of backbone sha256:%s in %s", depth, digest, precision)
            trim_memory()
        return trunks

    def load_tasks(
        self,
        executor: ThreadPoolExecutor,
        entries: Mapping[str, TaskEntry],
        trunks: Mapping[TrunkKey, LoadedTrunk],
    ) -> dict[str, LoadedTask]:
        """Side by side."""
        loading = {
            name: _submit(
                executor,
                self.engine.load_task,
                entry.digest,
                trunks[entry.backbone, entry.precision].spec,
                self.reader,
                precision=entry.precision,
                checked=self.checked,
                workers=self.workers,
            )
            for name, entry in entries.items()
        }
        loaded: dict[str, LoadedTask] = {}
        try:
            for done, (name, task) in enumerate(loading.items(), 1):
                loaded[name] = task.result()
                entries[name].check(name, loaded[name].spec)
                _log.debug("loaded task %s, sha256:%s", name, entries[name].digest)
                self.progress("load tasks", done, len(entries))
                if done % _TASKS_PER_TRIM == 0 or done == len(entries):
                    trim_memory()
        finally:
            executor.shutdown(cancel_futures=True)
        return loaded


def _encoder(spec: BackboneSpec, reader: BlobReader) -> TextEncoder:
    """What turns texts into a backbone's tokens, the same for all releases that are loaded."""
    for digest in spec.tokenizer.values():
        # Checked even where another release has it: a damaged one must not load.
        reader.fetch(digest)
    key = UnitKey(digest=spec.digest, precision="", engine="tokenizers", settings=None)
    return _ENCODERS.get(key, lambda: checked_text_encoder(spec, reader))


def _reading_encoder(
    reading: Reading,
    encoders: Mapping[str, TextEncoder],
    specs: Mapping[str, BackboneSpec],
    reader: BlobReader,
) -> TextEncoder:
    """A backbone's encoder as some tasks read; a shorter limit takes a tokenizer of its own."""
    digest, templates, limit = reading
    encoder = encoders[digest]
    if limit:
        key = UnitKey(digest=digest, precision="", engine="tokenizers", settings=limit)
        encoder = _ENCODERS.get(
            key, lambda: TextEncoder.of(specs[digest], reader, max_length=limit)
        )
    return encoder.with_templates(templates)


def _submit(
    executor: ThreadPoolExecutor, load: Callable[..., T], *arguments: Any, **options: Any
) -> Future[T]:
    """In a thread of its own, which a fork leaves behind with all that torch keeps for it."""

    def guarded() -> T:
        with computing:
            return load(*arguments, **options)

    return executor.submit(guarded)


def _entries(
    manifest: ReleaseManifest, tasks: Collection[str] | str | None
) -> dict[str, TaskEntry]:
    names = sorted(manifest.tasks) if tasks is None else distinct_names(tasks)
    for name in names:
        if name not in manifest.tasks:
            raise no_such_task(name, sorted(manifest.tasks))
    return {name: manifest.tasks[name] for name in names}


def no_such_task(name: str, tasks: Collection[str]) -> NotFoundError:
    """The error that a release holds no task of a name."""
    return NotFoundError(
        f"this release holds no task {name!r}; it holds {', '.join(tasks)}",
        code="no-such-task",
        task=name,
        tasks=list(tasks),
    )


def _warn_of_int8(engine: str, entries: Mapping[str, TaskEntry]) -> None:
    int8 = [name for name, entry in entries.items() if entry.precision == Precision.INT8]
    if int8 and engine != "onnx":
        _log.warning("the %s engine does not compute in int8: %s", engine, ", ".join(int8))
