"""The ids of texts, for the graph behind it: a model of Triton's Python backend, with the package ``tokenizers``.

Centra does not run this: it is copied into what is exported, beside its ``config.pbtxt`` and ``tokenizer.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from tokenizers import Tokenizer

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """Texts, or pairs of them, in; ids for each length to which tasks cut them out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer, once for each length."""
        said = json.loads(args["model_config"])["parameters"]
        path = str(Path(args["model_repository"]) / "tokenizer.json")
        self.token_types = json.loads(said["token_types"]["string_value"])
        self.tokenizers = []
        for length in json.loads(said["max_lengths"]["string_value"]):
            tokenizer = Tokenizer.from_file(path)
            tokenizer.enable_truncation(length)
            tokenizer.enable_padding(pad_id=json.loads(said["pad_token_id"]["string_value"]))
            self.tokenizers.append(tokenizer)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        columns = [
            [row[0].decode() for row in tensor.as_numpy()]
            for name in ("TEXT", "TEXT_PAIR")
            if (tensor := triton.get_input_tensor_by_name(request, name)) is not None
        ]
        texts = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        found = []
        for number, tokenizer in enumerate(self.tokenizers):
            rows = tokenizer.encode_batch(texts)
            ids = {
                "input_ids": [row.ids for row in rows],
                "attention_mask": [row.attention_mask for row in rows],
                "token_type_ids": [
                    row.type_ids if self.token_types else [0] * len(row.ids) for row in rows
                ],
            }
            found += [
                triton.Tensor(f"{name}_{number}", np.array(values, dtype=np.int64))
                for name, values in ids.items()
            ]
        return triton.InferenceResponse(found)
