"""Heads of every form: how one row is made of tokens, and what stands before and behind it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from centra.data.inputs import Input
from centra.errors import FormatError
from centra.formats.decision import Decision
from centra.formats.task_module import HeadNorm, HeadSpec, TaskModule, check_module
from centra.modeling.heads import pooled
from centra.modeling.trunk import Trunk
from centra.runtime import Release
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.tokenization.text_encoder import TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.store import LocalStore

LAYER, RMS = HeadNorm(epsilon=1e-5), HeadNorm(epsilon=1e-6, kind="rms", bias=False)
SENTENCE = HeadSpec(activation="tanh")
# Kind, tap, depth, pooling, head.
TASKS: dict[str, tuple[Any, int, int, str, HeadSpec]] = {
    "mean": ("classification", 1, 1, "mean", SENTENCE),
    "mean-too": ("classification", 1, 1, "mean", SENTENCE),
    "mean-tap": ("regression", 2, 0, "mean", SENTENCE),
    "max": ("multilabel", 1, 1, "max", HeadSpec(activation="silu", dense_norm=LAYER)),
    "max-tap": ("classification", 2, 0, "max", HeadSpec(activation="gelu_pytorch_tanh")),
    "late": (
        "classification",
        1,
        1,
        "late",
        HeadSpec(activation="gelu", dense_bias=False, dense_norm=RMS),
    ),
    "late-tap": ("classification", 2, 0, "late", SENTENCE),
    "plain": ("classification", 1, 1, "mean", HeadSpec(dense=False)),
    "first": ("classification", 1, 1, "first", HeadSpec(activation="relu", dense_norm=RMS)),
    "tags": ("tagging", 1, 1, "first", HeadSpec(activation="gelu", dense=True, dense_norm=LAYER)),
}
INPUTS = ["rain", "wake me at seven, please, and play some jazz", "go to rome", "is there snow"]


@pytest.fixture(scope="module")
def modules(tiny_backbone: support.Backbone) -> dict[str, TaskModule]:
    return {
        name: support.make_module(
            kind,
            tiny_backbone.spec,
            tiny_backbone.store,
            tap=tap,
            depth=depth,
            seed=seed,
            head=head,
            decision=Decision(pooling=pooling),
        )
        for seed, (name, (kind, tap, depth, pooling, head)) in enumerate(TASKS.items())
    }


@pytest.fixture
def manifest(
    modules: dict[str, TaskModule], tiny_backbone: support.Backbone, store: LocalStore
) -> ReleaseManifest:
    support.copy_backbone(tiny_backbone, store)
    return support.put_release(modules, [tiny_backbone.spec], store)


@torch.inference_mode()
def by_hand(module: TaskModule, backbone: support.Backbone, text: str) -> np.ndarray:
    """A head written down, on the states of one input without padding."""
    from centra.modeling.branch import Branch

    spec, own = module.spec, module.weights
    _, batch = TextEncoder.of(backbone.spec, backbone.store).batch([Input(text)])
    arrays = {name: torch.from_numpy(array) for name, array in vars(batch).items()}
    trunk = Trunk(backbone.spec, backbone.store, depth=spec.tap_layer)
    states = trunk(**arrays, taps=[spec.tap_layer])[spec.tap_layer]
    for layer in Branch(backbone.spec, spec).load(own).eval().layers:
        states = layer(states, trunk.shared_state(arrays["attention_mask"]))
    tokens, head, pooling = states[0], spec.head, spec.decision.pooling
    if not spec.reads_every_token and pooling != "late":
        tokens = {"first": tokens[0], "mean": tokens.mean(0), "max": tokens.max(0).values}[pooling]
    if head.activation is not None:
        tokens = torch.nn.functional.linear(
            tokens, own["head.dense.weight"], own.get("head.dense.bias")
        )
        names = {"gelu_pytorch_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh")}
        names |= {"tanh": torch.tanh}
        tokens = (names.get(head.activation) or getattr(torch.nn.functional, head.activation))(
            tokens
        )
    if head.dense_norm is not None:
        centred = tokens if head.dense_norm.kind == "rms" else tokens - tokens.mean(-1, True)
        tokens = centred / (centred.pow(2).mean(-1, True) + head.dense_norm.epsilon).sqrt()
        tokens = tokens * own["head.dense_norm.weight"]
        if head.dense_norm.bias:
            tokens = tokens + own["head.dense_norm.bias"]
    logits = tokens @ own["head.out.weight"].T + own["head.out.bias"]
    return (logits.mean(0) if pooling == "late" else logits).numpy()


@pytest.mark.parametrize("engine", ["torch", "onnx", "batched"])
def test_every_head_answers_on_every_engine_as_written_down(
    engine: str,
    modules: dict[str, TaskModule],
    manifest: ReleaseManifest,
    tiny_backbone: support.Backbone,
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one batch with padding, in which each input has another length."""
    options: dict[str, Any] = {"engine": engine}
    if engine == "batched":
        batched = BatchedEngine(torch.device("cpu"), "fp32")
        monkeypatch.setattr("centra.runtime.parts.open_engine", lambda *_, **__: batched)
        options = {}

    found = Release.load(manifest, store, **options).logits(INPUTS)

    for name, module in modules.items():
        for text, own in zip(INPUTS, found[name], strict=True):
            wanted = by_hand(module, tiny_backbone, text)
            assert np.allclose(own, wanted, rtol=0, atol=2e-5), (name, text)


def test_a_pooled_task_answers_the_same_bits_in_any_company(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    whole = Release.load(manifest, store, engine="onnx", threads=2)
    together = whole.logits(INPUTS)
    for name in manifest.tasks:
        alone = Release.load(manifest, store, engine="onnx", tasks=[name])
        for place, text in enumerate(INPUTS):
            (found,) = alone.logits([text])[name]
            assert np.array_equal(found, together[name][place]), (name, text)


def test_int8_is_near_fp32_whatever_the_head(
    modules: dict[str, TaskModule],
    manifest: ReleaseManifest,
    tiny_backbone: support.Backbone,
    store: LocalStore,
) -> None:
    rounded = support.put_release(modules, [tiny_backbone.spec], store, [*modules])
    exact, found = (
        Release.load(one, store, engine="onnx").logits(INPUTS) for one in (manifest, rounded)
    )
    for name in modules:
        own, fp32 = np.vstack(found[name]), np.vstack(exact[name])
        assert 0 < np.abs(own - fp32).max() <= 0.06 * np.abs(fp32).max(), name


def test_padding_is_no_part_of_a_row() -> None:
    states = torch.tensor([[[1.0], [3.0], [99.0]], [[-5.0], [99.0], [99.0]]])
    real = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert pooled(states, "mean", real).tolist() == [[2.0], [-5.0]]
    assert pooled(states, "max", real).tolist() == [[3.0], [-5.0]]
    assert pooled(states, "first", real).tolist() == [[1.0], [-5.0]]


# The format


def test_what_is_usual_is_not_written(modules: dict[str, TaskModule]) -> None:
    assert HeadSpec(activation="tanh").model_dump() == {"activation": "tanh", "threshold": 0.5}
    written = json.loads(modules["max"].spec.to_bytes())
    assert written["decision"] == {"pooling": "max"}
    assert written["head"]["dense_norm"] == {"epsilon": 1e-5}
    assert written["head"].keys() == {"activation", "threshold", "dense_norm"}


def test_every_head_reads_back(modules: dict[str, TaskModule], tmp_path: Path) -> None:
    for name, module in modules.items():
        module.write(tmp_path / name)
        found = check_module(tmp_path / name).spec
        assert (found.head, found.decision) == (module.spec.head, module.spec.decision), name


@pytest.mark.parametrize(
    ("kind", "head", "pooling", "says"),
    [
        ("classification", {"activation": "tanh", "dense": True}, "first", "what is usual"),
        ("tagging", {"dense": False}, "first", "what is usual"),
        ("tagging", {"dense": True}, "first", "head.activation does not suit a tagging"),
        ("classification", {"dense": False, "dense_norm": LAYER}, "first", "which is not there"),
        ("classification", {"dense": False}, "late", "'late', behind the dense layer"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(
    kind: str, head: dict[str, Any], pooling: str, says: str
) -> None:
    spec = support.make_spec(
        "0" * 64, kind, head=HeadSpec(**head), decision=Decision(pooling=pooling)
    )
    with pytest.raises(FormatError, match=says):
        spec.check("task")


def test_a_norm_without_its_tensor_is_refused(
    make_module: Callable[..., TaskModule], tmp_path: Path
) -> None:
    module = make_module("classification", head=HeadSpec(activation="tanh", dense_norm=LAYER))
    del module.tensors["head.dense_norm.bias"]
    module.write(tmp_path / "task.safetensors")
    with pytest.raises(FormatError, match=r"head\.dense_norm\.bias is missing"):
        check_module(tmp_path / "task.safetensors")
