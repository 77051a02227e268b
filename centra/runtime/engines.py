"""Which engines there are, and which of them computes where none is named."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from centra.errors import UsageError
from centra.runtime.devices import check_device, has_gpu
from centra.system.processors import processors

if TYPE_CHECKING:
    from centra.runtime.engine import Engine

__all__ = ["ENGINES", "default_engine", "engine_version", "open_engine"]

ENGINES = ("onnx", "torch")


def default_engine(device: str | None = None, dtype: str | None = None) -> str:
    """The engine that is used where none is named.

    ``"torch"`` on a GPU, and where a number type is named; else ``"onnx"`` where onnxruntime is
    installed.

    Args:
        device, dtype: as for :func:`open_engine`; without a device, a GPU counts where torch
            sees one.
    """
    on_gpu = has_gpu() if device is None else device != "cpu"
    if on_gpu or dtype is not None or importlib.util.find_spec("onnxruntime") is None:
        return "torch"
    return "onnx"


def engine_version(name: str) -> str:
    """The library that computes for an engine, and its version: ``onnxruntime 1.32.0``."""
    library = {"onnx": "onnxruntime", "torch": "torch"}[name]
    # Asked of the module, because several packages bring onnxruntime.
    return f"{library} {importlib.import_module(library).__version__}"


def open_engine(
    name: str | None = None,
    *,
    threads: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Engine:
    """An engine for a release to be loaded.

    On the CPU in float32 it is the same for the same choice.

    Args:
        name: ``"onnx"`` or ``"torch"``; see :func:`default_engine`.
        threads: how many processors to use; by default all that this process may. The torch engine
            takes torch's own setting instead.
        device: ``"cpu"``, or for the torch engine ``"cuda"`` or ``"cuda:1"``; by default its GPU
            where there is one.
        dtype: the torch engine's floating-point type, ``"fp32"``, ``"bf16"`` or ``"fp16"``; by
            default fp32 on the CPU and bf16 on a GPU. The onnx engine computes each task as its
            release says.

    Raises:
        UsageError: an unknown engine, device or dtype, or one that is not here or not the
            engine's, or no thread.
    """
    if threads is not None and threads < 1:
        raise UsageError(
            f"threads must be at least 1, not {threads}", code="bad-threads", threads=threads
        )
    check_device(device, dtype)
    match name or default_engine(device, dtype):
        case "onnx":
            return _onnx(threads, device, dtype)
        case "torch":
            from centra.runtime.torch.engine import torch_engine

            return torch_engine(device, dtype)
    raise UsageError(
        f"unknown engine {name!r}; expected one of {', '.join(ENGINES)}",
        code="unknown-engine",
        engine=name,
        known=list(ENGINES),
    )


def _onnx(threads: int | None, device: str | None, dtype: str | None) -> Engine:
    if importlib.util.find_spec("onnxruntime") is None:
        raise UsageError(
            "engine 'onnx' needs onnxruntime: pip install 'centra[serve]'",
            code="extra-missing",
            extra="serve",
        )
    if device not in (None, "cpu"):
        raise UsageError(
            f"engine 'onnx' computes on the CPU; for {device!r} take engine 'torch'",
            code="engine-device",
            engine="onnx",
            device=device,
        )
    if dtype is not None:
        raise UsageError(
            f"engine 'onnx' computes each task as its release says (fp32 or int8); for "
            f"{dtype!r} take engine 'torch'",
            code="engine-dtype",
            engine="onnx",
            dtype=dtype,
        )
    from centra.runtime.onnx.engine import onnx_engine

    return onnx_engine(threads or processors())
