"""A family is one file: one that nobody has runs on both engines, and equals a plain reference."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from centra.bench.work import layer_work, task_work
from centra.checkpoints.backbone import check_backbone, import_backbone
from centra.data.inputs import Input
from centra.errors import ConflictError, FormatError, IncompatibleError
from centra.families import FAMILIES, add_family, family_named
from centra.formats.task_module import HeadSpec, TaskModule, check_fits, check_module
from centra.modeling.branch import Branch
from centra.modeling.trunk import Trunk
from centra.runtime import Release
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.store import LocalStore
from centra.tokenization.text_encoder import Encoded
from tests import support, toy_family
from tests.centra.test_onnx_engine import (
    TOLERANCE,
    assert_same_bits,
    encoded,
    onnx_states,
    tensors,
    texts,
)
from tests.centra.test_queries import assert_answered_as_alone
from tests.centra.test_torch_engine import NEAR, states_of
from tests.toy_family import TOY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest

Tensors = dict[str, torch.Tensor]

# Last layers of every sort: with and without a norm, turned, biased, in a window; above the last.
TASKS: dict[str, tuple[Any, int, int, str, str | None]] = {
    "bare": ("classification", 0, 0, "single", "tanh"),
    "turned": ("classification", 0, 1, "single", "gelu"),
    "window": ("multilabel", 1, 1, "single", "relu"),
    "both": ("regression", 1, 2, "single", "tanh"),
    "deep": ("classification", 2, 3, "single", "tanh"),
    "pair": ("classification", 2, 1, "pair", "tanh"),
    "tags": ("tagging", 4, 0, "single", None),
    "more-tags": ("tagging", 1, 2, "single", None),
}


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    """The family is known while these tests run."""
    add_family(TOY)
    yield
    del FAMILIES["toy"]


@pytest.fixture(scope="module")
def toy(known: None, tmp_path_factory: pytest.TempPathFactory) -> support.Backbone:
    folder = toy_family.make_encoder(tmp_path_factory.mktemp("toy"))
    store = LocalStore(tmp_path_factory.mktemp("toy-store"))
    return support.Backbone(import_backbone(str(folder), store), store, folder)


@pytest.fixture(scope="module")
def modules(toy: support.Backbone) -> dict[str, TaskModule]:
    return {
        name: support.make_module(
            kind,
            toy.spec,
            toy.store,
            tap=tap,
            depth=depth,
            form=form,
            seed=seed,
            head=HeadSpec(activation=activation),
        )
        for seed, (name, (kind, tap, depth, form, activation)) in enumerate(TASKS.items())
    }


@pytest.fixture
def manifest(
    toy: support.Backbone, modules: dict[str, TaskModule], store: LocalStore
) -> ReleaseManifest:
    support.copy_backbone(toy, store)
    return support.put_release(modules, [toy.spec], store)


# The reference: written down from what the family's file says, without anything of Centra's


def bucket(distance: int, buckets: int = 8, farthest: int = 16) -> int:
    """T5's, for one pair of tokens."""
    half = buckets // 2
    start, distance = (half, distance) if distance > 0 else (0, -distance)
    single = half // 2
    if distance < single:
        return start + distance
    far = math.log(distance / single) / math.log(farthest / single) * (half - single)
    return start + min(single + int(far), half - 1)


def turn(rows: torch.Tensor, base: float) -> torch.Tensor:
    """``(heads, tokens, size)``, as complex numbers."""
    half = rows.shape[-1] // 2
    speeds = torch.tensor([base ** (-i / half) for i in range(half)])
    angles = torch.arange(rows.shape[1])[:, None] * speeds
    numbers = torch.complex(rows[..., :half], rows[..., half:]) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat([numbers.real, numbers.imag], dim=-1)


def plain_norm(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    centred = rows - rows.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def plain_layer(
    states: torch.Tensor, w: Tensors, number: int, distances: torch.Tensor
) -> torch.Tensor:
    """One input ``(tokens, 32)`` through a layer."""
    count = len(states)
    read = states if number == 1 else plain_norm(states, w["attention.norm.weight"])
    query, key, value = (
        (read @ part.T).view(count, 4, 8).transpose(0, 1)
        for part in w["attention.qkv.weight"].split(32)
    )
    if number % 3 != 2:
        base = 10000.0 if number % 3 == 1 else 100.0
        query, key = turn(query, base), turn(key, base)
    scores = query @ key.transpose(1, 2) / 8**0.5
    for i in range(count):
        for j in range(count):
            if number % 3 != 1:
                scores[:, i, j] += distances[bucket(j - i)]
            if number % 3 == 2 and abs(i - j) > 2:
                scores[:, i, j] = -torch.inf
    context = (scores.softmax(-1) @ value).transpose(0, 1).reshape(count, 32)
    states = states + context @ w["attention.out.weight"].T
    read = states / (states.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w["mlp.norm.weight"]
    inner, gate = (read @ part.T for part in w["mlp.in.weight"].split(48))
    return states + (inner * inner.sigmoid() * gate) @ w["mlp.out.weight"].T


def under(weights: Tensors, prefix: str) -> Tensors:
    return {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}


@torch.inference_mode()
def plain_states(weights: Tensors, batch: Encoded, layers: int = 4) -> list[torch.Tensor]:
    """Hidden states at every layer ``(batch, seq, 32)``, one input after the other, zeros for padding."""
    found = [torch.zeros(*batch.input_ids.shape, 32) for _ in range(layers + 1)]
    for row, (ids, mask) in enumerate(zip(batch.input_ids, batch.attention_mask, strict=True)):
        real = torch.from_numpy(mask.astype(bool))
        states = plain_norm(
            weights["tokens.weight"][ids[mask.astype(bool)]], weights["norm.weight"]
        )
        found[0][row, real] = states
        for number in range(1, layers + 1):
            layer = under(weights, f"blocks.{number - 1}.")
            states = plain_layer(states, layer, number, weights["distances"])
            found[number][row, real] = states
    return found


def weights_of(toy: support.Backbone) -> Tensors:
    return load_file(toy.folder / "model.safetensors")


def padded_left(batch: Encoded) -> Encoded:
    """The same inputs with their padding before them."""

    def moved(array: np.ndarray) -> np.ndarray:
        lengths = batch.attention_mask.sum(axis=1)
        pairs = zip(array, lengths, strict=True)
        return np.stack([np.roll(row, len(row) - int(length)) for row, length in pairs])

    return Encoded(**{name: moved(array) for name, array in vars(batch).items()})


BATCHES = {
    "ragged": [Input(text) for text in texts(7)],
    "one": [Input("wake me at seven")],
    "longest": [Input("rain " * 200), Input("go"), Input("go to rome")],
    "pairs": [Input("is there snow", "yes it is"), Input("go", "no never")],
}
every_batch = pytest.mark.parametrize("inputs", BATCHES.values(), ids=BATCHES)


def assert_near(own: np.ndarray, theirs: torch.Tensor, batch: Encoded, near: float) -> None:
    tokens = batch.attention_mask.astype(bool)
    error = np.abs(own - theirs.numpy())[tokens].max()
    assert error <= near * max(1.0, float(theirs.abs().max()))


def torch_states(toy: support.Backbone, batch: Encoded) -> list[np.ndarray]:
    with torch.inference_mode():
        states = Trunk(toy.spec, toy.store, depth=4)(**tensors(batch), taps=range(5))
    return [states[tap].numpy() for tap in range(5)]


@every_batch
def test_hidden_states_are_those_of_the_reference_at_every_layer(
    inputs: list[Input], toy: support.Backbone
) -> None:
    batch = encoded(toy, inputs)
    theirs = plain_states(weights_of(toy), batch)

    for ours in (torch_states(toy, batch), onnx_states(toy.spec, toy.store, batch)):
        assert len(ours) == len(theirs) == 5
        for own, other in zip(ours, theirs, strict=True):
            assert_near(own, other, batch, TOLERANCE)


@every_batch
def test_padding_may_come_first_in_torch(inputs: list[Input], toy: support.Backbone) -> None:
    batch = padded_left(encoded(toy, inputs))

    for own, other in zip(
        torch_states(toy, batch), plain_states(weights_of(toy), batch), strict=True
    ):
        assert_near(own, other, batch, TOLERANCE)


@every_batch
@pytest.mark.parametrize("dtype", NEAR)
def test_hidden_states_of_the_batched_engine_are_near_the_reference(
    inputs: list[Input], dtype: str, toy: support.Backbone
) -> None:
    batch = encoded(toy, inputs)

    ours = states_of(BatchedEngine(torch.device("cpu"), dtype), toy.spec, toy, batch)

    for own, other in zip(ours, plain_states(weights_of(toy), batch), strict=True):
        assert_near(own, other, batch, NEAR[dtype])


def test_a_long_input_is_biased_by_distance_in_its_window(tmp_path: Path) -> None:
    """Block by block, against all pairs."""
    folder = toy_family.make_encoder(tmp_path / "model", longest=512)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 512}))
    store = LocalStore(tmp_path / "store")
    toy = support.Backbone(import_backbone(str(folder), store), store, folder)
    batch = encoded(toy, [Input("rain go " * 200), Input("go to rome " * 90), Input("go")])
    assert batch.attention_mask.sum(axis=1).tolist() == [402, 272, 3]

    theirs = torch_states(toy, batch)

    batched = states_of(BatchedEngine(torch.device("cpu"), "fp32"), toy.spec, toy, batch)
    for ours in (onnx_states(toy.spec, toy.store, batch), batched):
        for own, other in zip(ours, theirs, strict=True):
            assert_near(own, torch.from_numpy(other), batch, TOLERANCE)


@torch.inference_mode()
def plain_logits(module: TaskModule, weights: Tensors, batch: Encoded) -> list[torch.Tensor]:
    """A task's logits for each input."""
    spec, own = module.spec, module.weights
    states = plain_states(weights, batch)[spec.tap_layer]
    found = []
    for row, mask in zip(states, batch.attention_mask, strict=True):
        tokens = row[torch.from_numpy(mask.astype(bool))]
        for i in range(1, spec.depth + 1):
            layer, number = under(own, f"layers.{i}."), spec.tap_layer + i
            tokens = plain_layer(tokens, layer, number, weights["distances"])
        tokens = plain_norm(tokens, own["head.norm.weight"])
        if spec.head.activation is not None:
            activation = getattr(torch.nn.functional, spec.head.activation)
            tokens = tokens[0] @ own["head.dense.weight"].T + own["head.dense.bias"]
            tokens = activation(tokens)
        found.append(tokens @ own["head.out.weight"].T + own["head.out.bias"])
    return found


def load(
    manifest: ReleaseManifest, store: LocalStore, engine: str = "onnx", **options: Any
) -> Release:
    if engine == "torch":
        options["device"] = "cpu"
    return Release.load(manifest, store, engine=engine, **options)


INPUTS = [*texts(9), *((text, "no never") for text in texts(4, seed=1))]
both_engines = pytest.mark.parametrize("engine", ["onnx", "torch"])


@both_engines
def test_every_task_answers_as_the_reference(
    engine: str,
    toy: support.Backbone,
    modules: dict[str, TaskModule],
    manifest: ReleaseManifest,
    store: LocalStore,
) -> None:
    release = load(manifest, store, engine)

    found = release.logits(INPUTS)

    inputs = [Input.parse(item) for item in INPUTS]
    for name, module in modules.items():
        batch = encoded(toy, [item for item in inputs if item.form == module.spec.input])
        for own, other in zip(
            found[name], plain_logits(module, weights_of(toy), batch), strict=True
        ):
            assert np.abs(own - other.numpy()).max() <= 1e-4, name
        own, recorded = release.probe_logits(name)
        assert np.allclose(own, recorded, rtol=0, atol=TOLERANCE), name


@pytest.mark.parametrize("dtype", NEAR)
def test_groups_of_the_batched_engine_answer_near_the_reference(
    dtype: str, manifest: ReleaseManifest, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = load(manifest, store, "torch").logits(INPUTS)
    engine = BatchedEngine(torch.device("cpu"), dtype)
    monkeypatch.setattr("centra.runtime.parts.open_engine", lambda *_, **__: engine)

    found = Release.load(manifest, store).logits(INPUTS)

    for name, arrays in found.items():
        largest = max(np.abs(other).max() for other in exact[name])
        for own, other in zip(arrays, exact[name], strict=True):
            assert np.abs(own - other).max() <= 2 * NEAR[dtype] * max(1, largest), name


def test_tasks_in_one_group_answer_each_as_alone(
    toy: support.Backbone, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stacked: each task with norms, a window and a first-token layer of its own weights."""
    support.copy_backbone(toy, store)
    for tap, depth in ((1, 1), (0, 2), (2, 1), (0, 1)):
        modules = {
            f"task-{seed}": support.make_module(
                "classification", toy.spec, toy.store, tap=tap, depth=depth, seed=seed
            )
            for seed in range(3)
        }
        manifest = support.put_release(modules, [toy.spec], store)
        exact = load(manifest, store, "torch").logits(texts(5))
        with monkeypatch.context() as patched:
            engine = BatchedEngine(torch.device("cpu"), "fp32")
            patched.setattr("centra.runtime.parts.open_engine", lambda *_, e=engine, **__: e)
            found = Release.load(manifest, store).logits(texts(5))
        for name, arrays in found.items():
            assert np.allclose(np.vstack(arrays), np.vstack(exact[name]), rtol=0, atol=1e-4)


# Isolation


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("int8", [[], [*TASKS], [*TASKS][::2]], ids=["fp32", "int8", "mixed"])
def test_every_task_answers_the_same_bits_alone_and_merged(
    threads: int,
    int8: list[str],
    toy: support.Backbone,
    modules: dict[str, TaskModule],
    store: LocalStore,
) -> None:
    support.copy_backbone(toy, store)
    manifest = support.put_release(modules, [toy.spec], store, int8)
    together = load(manifest, store, threads=threads).logits(INPUTS)

    for name in manifest.tasks:
        alone = load(manifest, store, tasks=[name], threads=threads)
        assert_same_bits(alone.logits(INPUTS), {name: together[name]})


def test_the_reference_answers_the_same_bits_alone_and_merged(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    together = load(manifest, store, "torch").logits(INPUTS)

    for name in manifest.tasks:
        alone = load(manifest, store, "torch", tasks=[name])
        assert_same_bits(alone.logits(INPUTS), {name: together[name]})


def test_an_input_answers_the_same_bits_whatever_its_batch(
    manifest: ReleaseManifest, store: LocalStore
) -> None:
    release = load(manifest, store, threads=2)
    (text,) = texts(1, seed=2)
    alone = release.logits([text])

    for size in (1, 2, 5, 17, 33):
        others = texts(size, seed=size)
        place = size // 2
        found = release.logits([*others[:place], text, *others[place + 1 :]])
        assert_same_bits({name: [arrays[place]] for name, arrays in found.items()}, alone)


@pytest.mark.parametrize("int8", [[], [*TASKS][::2]], ids=["fp32", "mixed"])
def test_an_input_answers_the_same_bits_whatever_its_batch_is_asked(
    int8: list[str], toy: support.Backbone, modules: dict[str, TaskModule], store: LocalStore
) -> None:
    support.copy_backbone(toy, store)
    manifest = support.put_release(modules, [toy.spec], store, int8)
    assert_answered_as_alone(load(manifest, store, threads=2))


def test_int8_is_close_to_fp32(
    toy: support.Backbone, modules: dict[str, TaskModule], store: LocalStore
) -> None:
    support.copy_backbone(toy, store)
    exact, rounded = (
        load(support.put_release(modules, [toy.spec], store, int8), store).logits(INPUTS)
        for int8 in ([], [*TASKS])
    )

    for name, arrays in rounded.items():
        own, fp32 = np.vstack(arrays), np.vstack(exact[name])
        assert np.abs(own - fp32).max() <= 0.05 * np.abs(fp32).max(), name
    assert any(
        a.tobytes() != b.tobytes() for a, b in zip(rounded["deep"], exact["deep"], strict=True)
    )


# Importing


def test_import_places_every_tensor(toy: support.Backbone) -> None:
    weights, spec = weights_of(toy), toy.spec
    placed = [load_file(toy.store.fetch(d)) for d in (spec.embeddings, *spec.layers)]

    assert [sorted(shard) for shard in placed[:2]] == [
        ["distances", "norm.weight", "tokens.weight"],
        [
            f"blocks.0.{n}.weight"
            for n in ("attention.out", "attention.qkv", "mlp.in", "mlp.norm", "mlp.out")
        ],
    ]
    assert "final_norm.weight" in placed[-1]
    together = {name: tensor for shard in placed for name, tensor in shard.items()}
    assert together.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in together.items())
    check_backbone(spec, toy.store)


def test_a_tensor_that_nobody_placed_is_refused_by_its_name(
    tmp_path: Path, store: LocalStore
) -> None:
    folder = toy_family.make_encoder(tmp_path / "toy")
    file = folder / "model.safetensors"
    weights = load_file(file)
    # The first layer has no norm before its attention; others do.
    save_file(weights | {"blocks.0.attention.norm.weight": torch.ones(32)}, file, {"format": "pt"})

    with pytest.raises(IncompatibleError, match=r"blocks\.0\.attention\.norm\.weight has no place"):
        import_backbone(str(folder), store)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 64}, "width 64, but tensor tokens.weight"),
        ({"depth": 3}, "says 3 layers"),
        ({"turns": "fast"}, "turns 'fast'; expected a number above 1"),
        ({"heads": 3}, "heads 3, which does not divide"),
        ({"act": "gelx"}, "expected an activation"),
    ],
)
def test_settings_are_held_against_the_weights(
    settings: dict[str, Any], says: str, tmp_path: Path, store: LocalStore
) -> None:
    folder = toy_family.make_encoder(tmp_path / "toy", **settings)

    with pytest.raises(FormatError, match=says):
        import_backbone(str(folder), store)


def test_without_the_family_its_backbone_is_refused(
    toy: support.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FAMILIES, "toy")

    with pytest.raises(
        IncompatibleError, match=r"'toy' is not supported; Centra knows .*bert"
    ) as caught:
        toy.spec.check("it")
    assert caught.value.code == "family-unknown"


def test_a_family_is_added_once() -> None:
    assert family_named("toy") is TOY
    with pytest.raises(ConflictError, match="'toy' already"):
        add_family(TOY)


# Modules


@pytest.mark.parametrize("task", TASKS)
def test_a_module_passes_what_registering_checks(
    task: str,
    toy: support.Backbone,
    modules: dict[str, TaskModule],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    support.copy_backbone(toy, store)

    assert support.parity(modules[task], toy, store, tmp_path) <= TOLERANCE


def test_layers_keep_their_number_where_a_module_stands(
    toy: support.Backbone, modules: dict[str, TaskModule], tmp_path: Path
) -> None:
    """Its first layer on tap 0 is number 1, which has no norm before attention; on tap 1 it has."""
    names = {task: {*modules[task].weights} for task in ("turned", "window")}
    assert "layers.1.attention.norm.weight" in names["window"] - names["turned"]
    module = modules["window"]
    moved = TaskModule(module.spec.model_copy(update={"tap_layer": 0}), module.tensors)
    moved.write(tmp_path / "moved.safetensors")

    with pytest.raises(IncompatibleError, match=r"layers\.1\.attention\.norm\.weight is unknown"):
        check_fits(check_module(tmp_path / "moved.safetensors"), toy.spec, "toy@1")


def test_a_head_without_the_norm_is_refused(
    toy: support.Backbone, modules: dict[str, TaskModule], tmp_path: Path
) -> None:
    module = modules["bare"]
    kept = {name: t for name, t in module.tensors.items() if name != "head.norm.weight"}
    TaskModule(module.spec, kept).write(tmp_path / "bare.safetensors")

    with pytest.raises(IncompatibleError, match=r"head\.norm\.weight is None, toy@1 needs \(32,\)"):
        check_fits(check_module(tmp_path / "bare.safetensors"), toy.spec, "toy@1")


def test_a_branch_starts_as_the_backbone_goes_on(toy: support.Backbone) -> None:
    batch = tensors(encoded(toy, BATCHES["ragged"]))
    spec = support.make_spec(toy.spec.digest, "tagging", tap=1, depth=3)
    branch = Branch(toy.spec, spec)

    branch.start_from(toy.spec, toy.store)

    trunk = Trunk(toy.spec, toy.store, depth=4)
    with torch.inference_mode():
        states = trunk(**batch, taps=[1, 4])
        own = branch.eval()(states[1], trunk.shared_state(batch["attention_mask"]))
        assert torch.equal(own, branch.head(states[4]))
    assert branch.head.norm is not None
    norm = branch.head.norm.state_dict()["weight"]
    assert torch.equal(norm, weights_of(toy)["final_norm.weight"])


# Work


def test_work_is_counted_by_what_each_layer_has(
    toy: support.Backbone, manifest: ReleaseManifest
) -> None:
    linear = 32 * 96 + 32 * 32 + 32 * 96 + 48 * 32
    first, second = (layer_work(toy.spec.layer(n), batch=3, length=20) for n in (1, 2))
    assert first.flops == 2 * 60 * linear + 4 * 60 * 20 * 32
    assert second.flops == 2 * 60 * linear + 4 * 60 * 5 * 32  # In its window.
    assert first.bytes == 4 * (linear + 32)
    assert second.bytes == 4 * (linear + 2 * 32)

    head = 2 * 3 * 32 * (32 + 3)
    attention = 4 * 3 * 4 * 20 * 32
    window, turned = (
        task_work(manifest.tasks[name], toy.spec, batch=3, length=20)
        for name in ("window", "turned")
    )
    # A first token sees itself and two more.
    assert window.flops == 2 * 3 * linear + 4 * 3 * 4 * 3 * 32 + head
    # Its keys turn with their positions, so each token has one.
    assert turned.flops == 2 * (3 * linear + 3 * 19 * 32 * 32) + attention + head
