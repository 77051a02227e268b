"""CUDA graphs: what is computed again and again in the same shape is launched in one go.

A function of tensors is captured at its first use with inputs of some shapes, and replayed from then
on. A replay reads and writes the memory of its capture, so inputs are copied in and the result is
copied out, under a lock. Hence nothing in that memory is needed after a replay, and all graphs of a
release can share it, in whatever order they are replayed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Graphs"]

_WARM_UPS = 3
"""Runs before a capture, in which libraries choose their kernels and take their memory."""
_MOST = 64
"""Shapes for which a function is captured: more than there are buckets up to 32 inputs of 512 tokens.
What comes later is run without a graph."""

_CAPTURING = threading.Lock()
"""One capture at a time in a process: torch allows no more."""

_Shapes = tuple[torch.Size, ...]


class Graphs:
    """The graphs of one release on one device; on the CPU there are none, and functions just run."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._inputs: dict[tuple[_Shapes, tuple[torch.dtype, ...]], Sequence[torch.Tensor]] = {}
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._memory = torch.cuda.graph_pool_handle()
                # Of its own: graphs that were captured on one stream share cuBLAS's workspace,
                # which goes with the first of them, e.g. with another release
                # (https://github.com/pytorch/pytorch/issues/193402).
                self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def unit(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The same function, replayed from a graph where the device has them.

        Args:
            function: of tensors on the device, without synchronising with the CPU; all that it
                reads besides its arguments must stay where it is. Called in inference mode.
        """
        if self._device.type != "cuda":
            return function
        captured: dict[_Shapes, _Captured] = {}

        def run(*inputs: torch.Tensor) -> torch.Tensor:
            shapes = tuple(tensor.shape for tensor in inputs)
            if shapes not in captured and len(captured) >= _MOST:
                return function(*inputs)
            with self._lock, torch.cuda.device(self._device):
                if shapes not in captured:
                    with _CAPTURING:
                        captured[shapes] = self._capture(function, inputs)
                return captured[shapes].replay(inputs)

        return run

    def _capture(
        self, function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]
    ) -> _Captured:
        key = tuple(t.shape for t in inputs), tuple(t.dtype for t in inputs)
        # Graphs whose inputs look alike share these, too.
        static = self._inputs.setdefault(key, [torch.empty_like(t) for t in inputs])
        for own, given in zip(static, inputs, strict=True):
            own.copy_(given)
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                function(*static)
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may wait for results of theirs meanwhile.
        with torch.cuda.graph(
            graph, pool=self._memory, stream=self._stream, capture_error_mode="thread_local"
        ):
            result = function(*static)
        return _Captured(graph, static, result)


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: Sequence[torch.Tensor]
    result: torch.Tensor

    def replay(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.result.clone()
