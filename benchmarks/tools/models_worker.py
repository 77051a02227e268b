"""The other ways to answer 21 tasks, for ``runtime.py``: run by an interpreter that has them.

It reads one JSON request a line, ``{"batch": 8, "length": 32}``, and answers each with the seconds
that one pass for all tasks took. Weights are random, those of distinct models distinct: what they say
does not matter here. How large models are, and of which family, is what a transformers config is told.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LABELS = 3
Settings = dict[str, Any]
"""Of a transformers config, its ``model_type`` among them."""


class Models(Protocol):
    """A way to answer all tasks."""

    def run(self, tokens: np.ndarray) -> None:
        """Compute all tasks' logits of real tokens ``(batch, length)``."""
        ...


class Eager:
    """A transformers model per task, one after the other."""

    def __init__(self, tasks: int, threads: int, _folder: Path, settings: Settings) -> None:
        import torch

        torch.set_num_threads(threads)
        self._models = [_single(settings) for _ in range(tasks)]

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

    def __init__(self, tasks: int, threads: int, folder: Path, settings: Settings) -> None:
        path = folder / "single.onnx"
        if not path.is_file():
            _export_single(path, settings)
        self._sessions = [_session(path, threads) for _ in range(tasks)]
        self._names = _inputs(self._sessions[0])

    def run(self, tokens: np.ndarray) -> None:
        known = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        feed = {name: known[name] for name in self._names}
        for session in self._sessions:
            session.run(None, feed)


class OnnxLayer:
    """One layer as ONNX Runtime runs it: exported by itself, with what the model hands it as inputs.

    Shapes are fixed, so that whatever follows from them is computed beforehand.
    """

    def __init__(self, number: int, threads: int, folder: Path, settings: Settings) -> None:
        self._number, self._threads, self._folder = number, threads, folder
        self._settings = settings | {"num_hidden_layers": number}
        self._made: dict[tuple[int, ...], tuple[Any, dict[str, np.ndarray]]] = {}

    def run(self, tokens: np.ndarray) -> None:
        if tokens.shape not in self._made:
            self._made[tokens.shape] = self._make(tokens)
        session, feed = self._made[tokens.shape]
        session.run(None, feed)

    def _make(self, tokens: np.ndarray) -> tuple[Any, dict[str, np.ndarray]]:
        import torch
        import transformers

        config = _config(self._settings, attn_implementation="eager")
        model = transformers.AutoModel.from_config(config).eval()
        stacks = (part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
        layer = next(stack for stack in stacks if len(stack) == self._number)[-1]
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        layer.register_forward_pre_hook(
            lambda _, args, named: calls.append((args, named)), with_kwargs=True
        )
        ids = torch.from_numpy(tokens)
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        called = _called(layer, *calls[0])
        path = self._folder / f"layer-{self._number}-{'x'.join(map(str, tokens.shape))}.onnx"
        _export(called, called.given, {}, path, config)
        session = _session(path, self._threads)
        # What does not matter to the result is no input any more.
        feed = {name: called.given[name].numpy() for name in _inputs(session)}
        (found,) = session.run(None, feed)
        with torch.no_grad():
            expected = called(*called.given.values()).numpy()
        if not np.allclose(found, expected, atol=1e-4):
            raise RuntimeError("the exported layer computes something else")
        return session, feed


class Adapters:
    """The adapters library: one adapter and one head per task, composed in parallel."""

    skipped = 0
    """Layers without an adapter, which are computed once for all tasks."""

    def __init__(self, tasks: int, threads: int, _folder: Path, settings: Settings) -> None:
        import adapters  # type: ignore[import-not-found]
        import torch

        torch.set_num_threads(threads)
        self._model = adapters.AutoAdapterModel.from_config(_config(settings))
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

    def __init__(self, tasks: int, threads: int, _folder: Path, settings: Settings) -> None:
        import peft  # type: ignore[import-not-found]
        import torch

        torch.set_num_threads(threads)
        lora = peft.LoraConfig(r=8, target_modules=["query", "value"])
        self._names = [f"task-{number}" for number in range(tasks)]
        self._model = peft.get_peft_model(_single(settings), lora, adapter_name=self._names[0])
        for name in self._names[1:]:
            self._model.add_adapter(name, lora)
        self._model.eval()

    def run(self, tokens: np.ndarray) -> None:
        import torch

        ids = torch.from_numpy(tokens).repeat(len(self._names), 1)
        names = [name for name in self._names for _ in tokens]
        with torch.inference_mode():
            self._model(input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=names)


KINDS: dict[str, Callable[[int, int, Path, Settings], Models]] = {
    "transformers": Eager,
    "onnx": Onnx,
    "onnx-layer": OnnxLayer,
    "adapters": Adapters,
    "adapters-above": AdaptersAbove,
    "peft": Peft,
}


def _config(settings: Settings, **more: object) -> Any:
    import transformers

    return transformers.AutoConfig.for_model(**settings | more)


def _single(settings: Settings, **more: object) -> Any:
    """A model of base size with a head, in evaluation mode."""
    import transformers

    config = _config(settings, num_labels=LABELS, **more)
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def _called(layer: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """A layer as a module of the tensors among what it was called with, which are its ``given``."""
    import torch

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer
            both = {f"input_{i}": value for i, value in enumerate(args)} | dict(named)
            self.given = {k: v for k, v in both.items() if isinstance(v, torch.Tensor)}

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            given = dict(zip(self.given, tensors, strict=True))
            own = [given.get(f"input_{i}", value) for i, value in enumerate(args)]
            found = self.layer(*own, **{k: given.get(k, v) for k, v in named.items()})
            return found if isinstance(found, torch.Tensor) else found[0]

    return Called().eval()


def _export_single(path: Path, settings: Settings) -> None:
    import torch

    model = _single(settings, attn_implementation="eager")
    ids = torch.arange(1000, 1064).reshape(2, 32)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    axes = {name: {0: "batch", 1: "length"} for name in given}
    found = _export(model, given, axes, path, model.config)
    attention = found["Attention"] + found["MultiHeadAttention"]
    if settings["model_type"] == "bert" and attention != model.config.num_hidden_layers:
        path.unlink()
        raise RuntimeError(f"the optimiser did not recognise the model: {found}")
    path.with_suffix(".json").write_text(json.dumps(found), encoding="utf-8")


def _export(
    model: Any,
    given: Mapping[str, Any],
    axes: Mapping[str, Mapping[int, str]],
    path: Path,
    config: Any,
) -> dict[str, int]:
    """Write a model as torch exports it and ONNX Runtime fuses it.

    Returns:
        How many there are of each operator that was fused.
    """
    import torch
    from onnxruntime.transformers import optimizer

    plain = path.with_suffix(".plain.onnx")
    torch.onnx.export(
        model,
        tuple(given.values()),
        plain,
        input_names=[*given],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    fused = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
    )
    fused.save_model_to_file(str(path))
    plain.unlink()
    found: dict[str, int] = fused.get_fused_operator_statistics()
    return found


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _inputs(session: Any) -> list[str]:
    return [value.name for value in session.get_inputs()]


def main() -> None:
    """Answer requests until there are no more: ``KIND TASKS THREADS FOLDER SETTINGS``.

    A kind of layers takes the layer's number in place of the tasks.
    """
    kind, tasks, threads, folder, settings = sys.argv[1:]
    models = KINDS[kind](int(tasks), int(threads), Path(folder), json.loads(settings))
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
