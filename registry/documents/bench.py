"""How fast a release is on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.documents.base import Document, schema

if TYPE_CHECKING:
    from centra.bench import floor as measured
    from centra.bench import report as bench

__all__ = ["Bench", "BenchPart", "BenchParts", "BenchSize", "Floor"]


class Floor(Document):
    """The two limits of a machine."""

    flops: float
    """The most float32 operations per second; a multiplication with an addition is two."""
    bandwidth: float
    """The most bytes per second that are read from memory."""

    @classmethod
    def of(cls, floor: measured.Floor) -> Floor:
        """The document of a machine's limits."""
        return cls(flops=floor.flops, bandwidth=floor.bandwidth)


class BenchSize(Document):
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
    """At the median."""
    answers_per_second: float
    """At the median."""
    floor: float | None
    """The least that this machine can take; null where the report has none."""
    floor_share: float | None
    """``floor`` / ``median``: 1 is what no code can better."""
    singles_median: float | None
    """Of one full model per task, all of them; null where they were not asked for."""
    singles_ratio: float | None
    """``singles_median`` / ``median``."""

    @classmethod
    def of(cls, size: bench.SizeReport) -> BenchSize:
        """The document of one size."""
        return cls(
            batch=size.batch,
            length=size.length,
            requests=size.requests,
            median=size.median,
            p95=size.p95,
            inputs_per_second=size.inputs_per_second,
            answers_per_second=size.answers_per_second,
            floor=size.floor,
            floor_share=size.floor_share,
            singles_median=size.singles_median,
            singles_ratio=size.singles_ratio,
        )


class BenchPart(Document):
    """What one task's branch takes, with its decoding."""

    task: str
    tap_layer: int
    depth: int
    median: float
    """Seconds."""


class BenchParts(Document):
    """What the parts of a request take, each alone."""

    batch: int
    """Inputs."""
    length: int
    """Tokens of each input."""
    shared: float
    """The median of the embeddings and shared layers, in seconds."""
    tasks: list[BenchPart]

    @classmethod
    def of(cls, parts: bench.PartsReport) -> BenchParts:
        """The document of the parts."""
        return cls(
            batch=parts.batch,
            length=parts.length,
            shared=parts.shared,
            tasks=[
                BenchPart(
                    task=part.task, tap_layer=part.tap_layer, depth=part.depth, median=part.median
                )
                for part in parts.tasks
            ],
        )


class Bench(Document):
    """How fast a release is on this machine."""

    schema_: str = schema("bench")
    digest: str
    """Of the release's manifest."""
    tasks: list[str]
    """The names of those that were asked for."""
    engine: str
    """``onnx`` or ``torch``."""
    device: str
    dtype: str | None
    """The torch engine's; null where the release says how each task is computed."""
    threads: int | None
    """Null where torch decides."""
    floor: Floor | None
    """Of the CPU in float32; null for other devices, and where a task has another precision."""
    sizes: list[BenchSize]
    parts: BenchParts
    """Of a request of the first size."""

    @classmethod
    def of(cls, report: bench.Report) -> Bench:
        """The document of a report."""
        return cls(
            digest=report.digest,
            tasks=list(report.tasks),
            engine=report.engine,
            device=report.device,
            dtype=report.dtype,
            threads=report.threads,
            floor=Floor.of(report.floor) if report.floor else None,
            sizes=[BenchSize.of(size) for size in report.sizes],
            parts=BenchParts.of(report.parts),
        )
