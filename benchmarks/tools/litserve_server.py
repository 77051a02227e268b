"""LitServe around a merged release, for ``serving.py``: run by an interpreter that has LitServe.

``litserve_server.py ADDRESS PORT THREADS``. A request is ``{"text": …}``, its answer what
``Release.predict`` gives for it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import litserve  # type: ignore[import-not-found]

from centra.runtime import load_release

BATCH = 32
"""Inputs that are answered together, at most."""
WAIT = 0.005
"""Seconds that the first of them waits for others."""


class Merged(litserve.LitAPI):  # type: ignore[misc]
    """All tasks of a release."""

    def setup(self, _device: str) -> None:
        """Load it, in a worker."""
        self._release = load_release(sys.argv[1], engine="onnx", threads=int(sys.argv[3]))

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of a request."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """A release takes lists."""
        return inputs

    def predict(self, inputs: list[str]) -> list[dict[str, Any]]:
        """The answers of all tasks."""
        return self._release.predict(inputs)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A release gives lists."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """An answer as JSON."""
        return {"tasks": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        Merged(max_batch_size=BATCH, batch_timeout=WAIT), accelerator="cpu", workers_per_device=1
    )
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
