"""On which device, and in which number type, the torch engine computes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "check_device", "choose_device", "has_gpu"]

DTYPES = ("fp32", "bf16", "fp16")
"""The floating-point types; not to be taken for the precision of a release's tasks."""
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""What NVIDIA's driver makes on Linux, and what stands for it in WSL."""


def has_gpu() -> bool:
    """Whether torch is here and sees a GPU. Without a GPU's driver torch is not imported."""
    if not any(Path(name).exists() for name in _DRIVERS):
        return False
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def check_device(device: str | None, dtype: str | None) -> None:
    """Refuse names that mean nothing.

    Raises:
        UsageError: an unknown device or number type.
    """
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UsageError(
            f"unknown device {device!r}; expected cpu, cuda, or cuda:1 for one of some",
            code="unknown-device",
            device=device,
        )
    if dtype not in (None, *DTYPES):
        raise UsageError(
            f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}",
            code="unknown-dtype",
            dtype=dtype,
            known=list(DTYPES),
        )


def choose_device(device: str | None, dtype: str | None) -> tuple[torch.device, str]:
    """The device that a name means, and the dtype.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; by default a GPU where there is one.
        dtype: one of :data:`DTYPES`; by default ``"fp32"`` on the CPU and ``"bf16"`` on a
            GPU, or ``"fp16"`` on one that has no bf16.

    Raises:
        UsageError: an unknown name, or a device that is not there or cannot be used.
    """
    import torch

    check_device(device, dtype)
    if (device or ("cuda" if has_gpu() else "cpu")) == "cpu":
        return torch.device("cpu"), dtype or "fp32"
    if not torch.cuda.is_available():
        raise UsageError(
            f"there is no device {device!r}: this torch ({torch.__version__}) sees no GPU",
            code="no-such-device",
            device=device,
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        # As in a process that was forked from one which uses it.
        raise UsageError(
            f"the GPU cannot be used here: {error}", code="device-unusable", device=device
        ) from error
    index = int(device.partition(":")[2]) if device and ":" in device else None
    chosen = torch.device("cuda", torch.cuda.current_device() if index is None else index)
    if chosen.index >= torch.cuda.device_count():
        raise UsageError(
            f"there is no device {device!r}: torch sees {torch.cuda.device_count()}",
            code="no-such-device",
            device=device,
        )
    if dtype is None:
        with torch.cuda.device(chosen):
            half = torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bf16" if half else "fp16"
    return chosen, dtype
