"""Find a release and load it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from centra.releases.find import find_release
from centra.runtime.release import Release
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["load_release"]

_log = logging.getLogger(__name__)


def load_release(
    source: str | os.PathLike[str],
    *,
    tasks: Collection[str] | str | None = None,
    keys: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
    engine: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    base: Release | None = None,
) -> Release:
    """Load a release for answering.

    Every file is checked against its digest on the way. What it holds is given back by
    :meth:`Release.close`, or at the end of a ``with`` block.

    Args:
        source: a release folder, as composing and pulling write it, or a store: a folder or
            ``s3://bucket/prefix``, followed by ``#CHANNEL`` or ``#DIGEST``. Without either, it is
            the channel ``production``, or where there is none ``latest``, which may serve what
            nobody has tested; which of the two is logged.
        tasks: load these tasks, or this one, alone, and the trunk only as deep as they need;
            default all.
        keys: public keys, or one, as PEM files; a valid signature by one of them is required.
        engine: ``"torch"``, the default where torch sees a GPU, which answers in a dtype of its
            own whatever the release gives a task; or ``"onnx"``, on the CPU, the default elsewhere
            where onnxruntime is installed.
        threads: how many processors the onnx engine uses; default all that this process may.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; default the torch engine's GPU where there is
            one. ``"cpu"`` alone stands for the default engine of machines without a GPU.
        dtype: of the torch engine: ``"fp32"``, ``"bf16"`` or ``"fp16"``; default bf16 on a GPU,
            and fp32 on the CPU, where it is the reference.
        base: a loaded release that this one is to replace. What both hold was checked when it was
            loaded, and is neither read nor compiled again by the onnx engine. It may answer
            meanwhile: loading takes a quarter of the threads.

    Raises:
        UsageError: there is no such engine, device or dtype here, or ``base`` is closed.
        NotFoundError: no release there, no such channel, no such task, no such key.
        SignatureError: keys are given, and the release is not signed by any of them.
        FormatError, CorruptBlobError: a file is damaged or of another major version.
        StoreError: the store cannot be reached.
    """
    start = time.perf_counter()
    location = find_release(source)
    if keys:
        from centra.releases.signing import verify_release

        files = [keys] if isinstance(keys, str | os.PathLike) else keys
        verify_release(location.manifest, location.reader, [Path(key) for key in files])
    release = Release.load(
        location.manifest,
        location.reader,
        tasks=tasks,
        engine=engine,
        threads=threads,
        device=device,
        dtype=dtype,
        base=base,
    )
    _log.info(
        "loaded release sha256:%s from %s in %.2f s: engine %s, tasks %s",
        release.digest,
        redacted(os.fspath(source), os.fspath(source)),
        time.perf_counter() - start,
        release.engine,
        ", ".join(release.tasks),
    )
    return release
