"""Triton's ONNX Runtime backend in Python, for a server that has none: the wheel's has the Python backend alone.

What a graph gives and what the configuration says of it are compared by the server, as with its own.
"""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """A graph; the name is Triton's."""

    def initialize(self, args):
        name = json.loads(args["model_config"])["default_model_filename"]
        path = Path(args["model_repository"]) / args["model_version"] / name
        self.graph = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        names = [*request.requested_output_names()]
        found = zip(names, self.graph.run(names, given), strict=True)
        return triton.InferenceResponse([triton.Tensor(name, array) for name, array in found])
