"""What an export is made from, what a format says of itself, and what was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.progress import Progress
    from centra.store import BlobReader

__all__ = ["Export", "ExportPrecision", "Format", "Package", "Source", "Written"]


class ExportPrecision(StrEnum):
    """The numbers that weights are written in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    """Products in eight bits, as a release computes tasks in int8; the rest in fp32."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A release to be exported, or a task: that is a release which holds it alone."""

    manifest: ReleaseManifest
    reader: BlobReader
    """Where its blobs are."""
    task: str | None = None
    """The name of a task that is exported by itself; None for a release."""
    release: int | None = None
    """Its number; None for a task, and where no registry says it."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Per task the number of its version, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A library that a format needs."""

    module: str
    """What is imported."""
    install: str
    """What pip takes for it."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a format says of what it wrote."""

    parity: Mapping[str, float] = field(default_factory=dict)
    """Per task the largest difference between what the peer computed from the files on the task's probe
    and the logits that its module recorded."""
    notes: tuple[str, ...] = ()
    """What the format could not take over, in words."""
    output: str | None = None
    """Where it is, where it was not written to a folder."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each file that is there then."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Format:
    """A format."""

    name: str
    summary: str
    """Who reads it, in a few words."""
    several: bool
    """Whether it may hold several tasks; otherwise it is for one."""
    write: Callable[[Source, Path, ExportPrecision, Progress], Written]
    """Fill an empty folder, and hold what the peer makes of it against every probe.

    Raises:
        IncompatibleError: what the format cannot say; or the peer's answers are others.
    """
    push: Callable[[Source, str, Progress], Written] | None = None
    """Write to an address instead of a folder, and check what is there then; None where it has none.

    Raises:
        UsageError: the address is none of the format's.
        NotAllowedError, StoreError: it cannot be written.
    """
    packages: tuple[Package, ...] = ()
    precisions: tuple[ExportPrecision, ...] = (ExportPrecision.FP32,)
    """Those that it can be written in, the usual one first."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written."""

    format: str
    output: str
    """The folder, or the address."""
    precision: ExportPrecision
    files: dict[str, int]
    """Bytes of each file, by its path."""
    tasks: dict[str, str | None]
    """Per task the number of its version, where that is known."""
    release: int | None
    parity: dict[str, float]
    """See :attr:`Written.parity`."""
    notes: tuple[str, ...]
    """See :attr:`Written.notes`."""
