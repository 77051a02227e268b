"""The other ways to answer 21 tasks, for ``runtime.py``: run by an interpreter that has them.

It reads one JSON request a line, ``{"batch": 8, "length": 32}``, and answers each with the seconds
that one pass for all tasks took. Weights are random, those of distinct models distinct: what they say
does not matter here.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS = 3


class Models(Protocol):
    """A way to answer all tasks."""

    def run(self, tokens: np.ndarray) -> None:
        """Compute all tasks' logits of real tokens ``(batch, length)``."""
        ...


class Eager:
    """A transformers model per task, one after the other."""

    def __init__(self, tasks: int, threads: int, _folder: Path) -> None:
        import torch

        torch.set_num_threads(threads)
        self._models = [_single() for _ in range(tasks)]

    def run(self, tokens: np.ndarray) -> None:
        import torch

        ids = torch.from_numpy(tokens)
        with torch.inference_mode():
            for model in self._models:
                model(input_ids=ids, attention_mask=torch.ones_like(ids))


class Onnx:
    """An ONNX Runtime session per task, each with a model of its own in memory.

    The graph is torch's export, fused by ONNX Runtime's own optimiser for transformers. Threads do
    not spin: those of one session would take the processor from the next, and all took 1.7 times as
    long for one input of 32 tokens.
    """

    def __init__(self, tasks: int, threads: int, folder: Path) -> None:
        import onnxruntime

        path = folder / "single.onnx"
        if not path.is_file():
            _export(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = [
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for _ in range(tasks)
        ]
        self._names = [value.name for value in self._sessions[0].get_inputs()]

    def run(self, tokens: np.ndarray) -> None:
        known = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        feed = {name: known[name] for name in self._names}
        for session in self._sessions:
            session.run(None, feed)


class Adapters:
    """The adapters library: one adapter and one head per task, composed in parallel."""

    skipped = 0
    """Layers without an adapter, which are computed once for all tasks."""

    def __init__(self, tasks: int, threads: int, _folder: Path) -> None:
        import adapters  # type: ignore[import-not-found]
        import torch
        import transformers

        torch.set_num_threads(threads)
        config = transformers.BertConfig()
        self._model = adapters.AutoAdapterModel.from_config(config)
        kind = adapters.SeqBnConfig(leave_out=[*range(self.skipped)])
        names = [f"task-{number}" for number in range(tasks)]
        for name in names:
            self._model.add_adapter(name, config=kind)
            self._model.add_classification_head(name, num_labels=LABELS)
        self._model.active_adapters = adapters.composition.Parallel(*names)
        self._model.active_head = names
        self._model.eval()

    def run(self, tokens: np.ndarray) -> None:
        import torch

        ids = torch.from_numpy(tokens)
        with torch.inference_mode():
            found = self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
        assert len(found) == len(self._model.active_head)


class AdaptersAbove(Adapters):
    """The same with adapters in the upper layers alone."""

    skipped = 8


class Peft:
    """peft: one LoRA adapter per task, in batches that mix them; every input comes once per task."""

    def __init__(self, tasks: int, threads: int, _folder: Path) -> None:
        import peft  # type: ignore[import-not-found]
        import torch

        torch.set_num_threads(threads)
        lora = peft.LoraConfig(r=8, target_modules=["query", "value"])
        self._names = [f"task-{number}" for number in range(tasks)]
        self._model = peft.get_peft_model(_single(), lora, adapter_name=self._names[0])
        for name in self._names[1:]:
            self._model.add_adapter(name, lora)
        self._model.eval()

    def run(self, tokens: np.ndarray) -> None:
        import torch

        ids = torch.from_numpy(tokens).repeat(len(self._names), 1)
        names = [name for name in self._names for _ in tokens]
        with torch.inference_mode():
            self._model(input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=names)


KINDS: dict[str, Callable[[int, int, Path], Models]] = {
    "transformers": Eager,
    "onnx": Onnx,
    "adapters": Adapters,
    "adapters-above": AdaptersAbove,
    "peft": Peft,
}


def _single() -> Any:
    """A BERT of base size with a head, in evaluation mode."""
    import transformers

    config = transformers.BertConfig(num_labels=LABELS)
    return transformers.BertForSequenceClassification(config).eval()


def _export(path: Path) -> None:
    import torch
    import transformers
    from onnxruntime.transformers import optimizer

    config = transformers.BertConfig(num_labels=LABELS, attn_implementation="eager")
    model = transformers.BertForSequenceClassification(config).eval()
    ids = torch.arange(1000, 1064).reshape(2, 32)
    plain = path.with_suffix(".plain.onnx")
    torch.onnx.export(
        model,
        (ids, torch.ones_like(ids)),
        plain,
        input_names=["input_ids", "attention_mask"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")},
        opset_version=17,
        dynamo=False,
    )
    fused = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
    )
    found = fused.get_fused_operator_statistics()
    if found["Attention"] + found["MultiHeadAttention"] != config.num_hidden_layers:
        raise RuntimeError(f"the optimiser did not recognise the model: {found}")
    fused.save_model_to_file(str(path))
    plain.unlink()


def main() -> None:
    """Answer requests until there are no more: ``KIND TASKS THREADS FOLDER``."""
    kind, tasks, threads, folder = sys.argv[1:]
    models = KINDS[kind](int(tasks), int(threads), Path(folder))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        shape = (request["batch"], request["length"])
        tokens = np.random.default_rng(0).integers(1000, 20000, shape)
        start = time.perf_counter()
        models.run(tokens)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
