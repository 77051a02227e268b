"""ONNX Runtime sessions over graphs of ours: numpy arrays in, numpy arrays out, nothing copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime

if TYPE_CHECKING:
    import numpy as np

    from centra.runtime.onnx.graph import Graph

__all__ = ["VERSION", "Program"]

VERSION: str = onnxruntime.__version__
"""ONNX Runtime's version."""

_ERRORS = 3
"""Of ONNX Runtime's levels of logging, the one for errors alone."""


class Program:
    """A compiled graph. May be called from several threads at once."""

    def __init__(self, graph: Graph, *, threads: int = 1) -> None:
        """Compile a graph.

        Args:
            graph: with its weights.
            threads: how many work on one operator, the caller's among them.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # An arena keeps the most that a session ever needed, and there are many sessions.
        options.enable_cpu_mem_arena = False
        # The graphs are written with the fused operators that optimising would arrive at.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Many sessions run one after the other or side by side: a pool that spins while another
        # session runs takes the processor from it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in graph.weights.values()]
        options.add_external_initializers(list(graph.weights), values)
        self._session = onnxruntime.InferenceSession(
            graph.to_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = graph.inputs
        """The names of the inputs, in order."""
        self._outputs = graph.outputs

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Run it: the inputs in the graph's order to the outputs in the graph's order."""
        feed = dict(zip(self.inputs, arrays, strict=True))
        found: list[np.ndarray] = self._session.run(self._outputs, feed)
        return found
