"""Time a release: size by size beside its floor and beside single models, and part by part."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from centra.bench.floor import Floor, limits
from centra.bench.requests import make_input
from centra.bench.singles import single_models
from centra.bench.timing import measure
from centra.bench.work import release_work
from centra.errors import NotFoundError, UsageError
from centra.formats.backbone import BackboneSpec
from centra.formats.task_module import read_spec
from centra.progress import Progress, silent
from centra.runtime import Release
from centra.runtime.engines import default_engine
from centra.system.processors import processors
from centra.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from centra.data.inputs import Input
    from centra.formats.manifest import ReleaseManifest
    from centra.runtime.schedule import Profile
    from centra.store import BlobReader

__all__ = ["PartsReport", "Report", "SizeReport", "TaskReport", "bench"]

_Size = tuple[int, int]
"""Inputs, and tokens of each."""


@dataclass(frozen=True, kw_only=True)
class SizeReport:
    """How fast requests of one size are answered. All times are in seconds."""

    batch: int
    """Inputs."""
    length: int
    """Tokens of each input."""
    requests: int
    """How many were timed."""
    median: float
    p95: float
    inputs_per_second: float
    """At the median; so is the next."""
    answers_per_second: float
    floor: float | None
    """The least that this machine can take; see :mod:`centra.bench.floor`. None where the report
    has none."""
    floor_share: float | None
    """floor / median: 1 is what no code can better."""
    singles_median: float | None
    """Of one full model per task, all of them; None where they were not asked for."""
    singles_ratio: float | None
    """singles_median / median."""

    @classmethod
    def of(
        cls,
        batch: int,
        length: int,
        seconds: Sequence[float],
        *,
        tasks: int,
        floor: float | None,
        singles: Sequence[float] | None,
    ) -> SizeReport:
        """The report of so many tasks from the seconds of each request."""
        middle, single = median(seconds), median(singles) if singles else None
        return cls(
            batch=batch,
            length=length,
            requests=len(seconds),
            median=middle,
            p95=float(np.percentile(seconds, 95)),
            inputs_per_second=batch / middle,
            answers_per_second=batch * tasks / middle,
            floor=floor,
            floor_share=floor / middle if floor else None,
            singles_median=single,
            singles_ratio=single / middle if single else None,
        )


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """What one task's branch takes, in seconds, with its decoding."""

    task: str
    tap_layer: int
    depth: int
    median: float


@dataclass(frozen=True, kw_only=True)
class PartsReport:
    """What the parts of a request take, each alone; see :meth:`centra.runtime.Release.profile`.

    They add up to more than the request where branches run side by side.
    """

    batch: int
    length: int
    shared: float
    """The median of the embeddings and shared layers, in seconds."""
    tasks: tuple[TaskReport, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What :func:`bench` found."""

    digest: str
    """The release's."""
    tasks: tuple[str, ...]
    """Those that were asked for."""
    engine: str
    device: str
    dtype: str | None
    """The torch engine's; None where the release says how each task is computed."""
    threads: int | None
    """None where torch decides."""
    floor: Floor | None
    """Of the CPU in float32; None for other devices, and where a task has another precision."""
    sizes: tuple[SizeReport, ...]
    parts: PartsReport
    """Of a request of the first size."""


def bench(
    manifest: ReleaseManifest,
    reader: BlobReader,
    *,
    tasks: Collection[str] | None = None,
    batches: Sequence[int] = (1, 8, 32),
    lengths: Sequence[int] | None = None,
    rounds: int = 5,
    engine: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    singles: bool = False,
    progress: Progress = silent,
) -> Report:
    """Load a release and time it.

    Times are those of :meth:`centra.runtime.Release.predict`, with tokenising and decoding. All that
    is timed takes turns, the limits of this machine among it; see
    :func:`centra.bench.timing.measure`.

    Args:
        manifest: what the release holds.
        reader: where its blobs are.
        tasks: which to ask for, all on single texts or all on pairs; default those on single texts,
            or those on pairs where there are no others.
        batches: numbers of inputs, from 1.
        lengths: numbers of tokens of each input, at every one of which every batch is timed;
            default 16, 32 and 128, as far as the backbone takes them.
        rounds: how many, from 1.
        engine, threads, device, dtype: see :func:`centra.runtime.engines.open_engine`.
        singles: time a full model per task too, one after the other, each on all threads; see
            :func:`centra.bench.singles.single_models`.
        progress: told of each task that is loaded and of each size that is timed.

    Raises:
        UsageError: tasks on both single texts and pairs, a length that no input has, threads for
            the torch engine, no such engine, device or dtype.
        NotFoundError: the release holds no such task, or none at all.
        FormatError, IncompatibleError, BlobNotFoundError, CorruptBlobError, StoreError: it cannot
            be loaded.
        StoreNotWritableError: no room for the single models in the folder of temporary files.
    """
    engine = engine or default_engine(device, dtype)
    if engine == "torch" and threads is not None:
        raise UsageError("the torch engine takes torch's own threads: set OMP_NUM_THREADS instead")
    names = _names(manifest, tasks)
    entries = {name: manifest.tasks[name] for name in names}
    backbones = {
        digest: BackboneSpec.fetch(digest, reader)
        for digest in sorted({entry.backbone for entry in entries.values()})
    }
    encoders = [TextEncoder.of(backbone, reader) for backbone in backbones.values()]
    limit = min(backbone.max_length for backbone in backbones.values())
    pair = entries[names[0]].input == "pair"
    items = {length: make_input(encoders, length, pair=pair) for length in _lengths(lengths, limit)}
    sizes = list(product(dict.fromkeys(batches), items))
    inputs = {(batch, length): [items[length]] * batch for batch, length in sizes}
    first = sizes[0]
    load = partial(
        Release.load,
        tasks=names,
        engine=engine,
        threads=threads,
        device=device,
        dtype=dtype,
    )
    release = load(manifest, reader, progress=progress)
    place, exactly = _computed(engine, device, dtype)
    computed = {exactly} if exactly else {entry.precision for entry in entries.values()}
    has_floor = place == "cpu" and computed == {"fp32"}
    reached = limits(threads or processors()) if has_floor else {}

    profiles: list[Profile] = []
    runs: dict[tuple[str, object], Callable[[], object]] = {
        **{("release", size): partial(release.predict, inputs[size], names) for size in sizes},
        **{("floor", name): run for name, run in reached.items()},
        ("parts", first): lambda: profiles.append(release.profile(inputs[first], names)),
    }
    if singles:
        with tempfile.TemporaryDirectory(prefix="centra-bench-") as folder:
            full = load(*single_models(manifest, reader, names, Path(folder)))
        runs |= {("singles", size): partial(_ask_each, full, inputs[size], names) for size in sizes}
    pooled = [
        name
        for name, entry in entries.items()
        if read_spec(reader.fetch(entry.digest)).decision.pooling != "first"
    ]
    times = measure(runs, rounds, progress)
    floor = Floor.of({name: times["floor", name] for name in reached}) if reached else None

    return Report(
        digest=manifest.digest,
        tasks=tuple(names),
        engine=engine,
        device=place,
        dtype=exactly,
        threads=None if engine == "torch" else threads or processors(),
        floor=floor,
        sizes=tuple(
            SizeReport.of(
                batch,
                length,
                times["release", (batch, length)],
                tasks=len(names),
                floor=floor.seconds(
                    release_work(entries, backbones, batch=batch, length=length, pooled=pooled)
                )
                if floor
                else None,
                singles=times.get(("singles", (batch, length))),
            )
            for batch, length in sizes
        ),
        parts=PartsReport(
            batch=first[0],
            length=first[1],
            shared=median(profile.shared for profile in profiles),
            tasks=tuple(
                TaskReport(
                    task=name,
                    tap_layer=entry.tap_layer,
                    depth=entry.depth,
                    median=median(profile.tasks[name] for profile in profiles),
                )
                for name, entry in entries.items()
            ),
        ),
    )


def _computed(engine: str, device: str | None, dtype: str | None) -> tuple[str, str | None]:
    """The device and dtype that an engine computes with."""
    if engine == "onnx":
        return "cpu", None
    from centra.runtime.devices import choose_device

    chosen, exactly = choose_device(device, dtype)
    return str(chosen), exactly


def _names(manifest: ReleaseManifest, tasks: Collection[str] | None) -> list[str]:
    """The tasks to ask for: at least one, all on single texts or all on pairs."""
    if tasks is None:
        forms = {name: entry.input for name, entry in sorted(manifest.tasks.items())}
        names = [name for name, form in forms.items() if form == "single"] or [*forms]
    else:
        names = list(dict.fromkeys(tasks))
    for name in names:
        if name not in manifest.tasks:
            raise NotFoundError(
                f"this release holds no task {name!r}; it holds {', '.join(sorted(manifest.tasks))}"
            )
    if not names:
        raise NotFoundError("this release holds no tasks")
    if len({manifest.tasks[name].input for name in names}) > 1:
        raise UsageError(
            f"{', '.join(names)}: some take single texts, others pairs; bench them apart"
        )
    return names


def _lengths(lengths: Sequence[int] | None, limit: int) -> list[int]:
    if lengths is None:
        return [length for length in (16, 32, 128) if length <= limit] or [limit]
    if max(lengths) > limit:
        raise UsageError(f"{max(lengths)} tokens are more than the backbone takes: at most {limit}")
    return list(lengths)


def _ask_each(release: Release, inputs: Sequence[Input], tasks: Sequence[str]) -> None:
    for task in tasks:
        release.predict(inputs, [task])
