"""What every family must pass, with the tiny encoders of :data:`tests.families.TINY`.

transformers' own model is what hidden states and answers are held against. What is special to a family
is tested elsewhere.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import IncompatibleError
from centra.families import FAMILIES, family_named
from centra.formats.decision import Decision
from centra.formats.task_module import HeadSpec, TaskModule
from centra.runtime import Release
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.store import LocalStore
from centra.tokenization.text_encoder import Encoded, TextEncoder
from centra.training.recipe import Recipe
from centra.training.train import train_module
from tests import support
from tests.centra.checkpoints import (
    SENTENCE,
    TOKEN,
    WEIGHTS,
    converted,
    copied,
    rewrite,
    with_tensors,
)
from tests.centra.states import PAIRS, SINGLES, reference_states, trunk_states
from tests.centra.test_onnx_engine import (
    TOLERANCE,
    assert_same_bits,
    encoded,
    onnx_states,
    tensors,
    texts,
)
from tests.centra.test_queries import assert_answered_as_alone
from tests.centra.test_torch_engine import NEAR, assert_near, needs_cuda, states_of
from tests.families import TINY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest

every_family = pytest.mark.parametrize("family", TINY)
few_samples = pytest.mark.usefixtures("few_samples")

BATCHES = {
    "padded": SINGLES,
    "not padded": SINGLES[:1],
    "pairs": PAIRS,
    "ragged": [Input(text) for text in texts(7)],
    "longest": [Input("rain " * 200), Input("rain"), Input("go to rome")],
}
# Kind, tap, depth above it counted from the last layer where negative, form, activation of the head, pooling.
TASKS: dict[str, tuple[Any, int, int, str, str | None, str]] = {
    "bare": ("classification", 0, 0, "single", "tanh", "max"),
    "last": ("classification", -1, 0, "single", "gelu", "first"),
    "one": ("multilabel", 1, 1, "single", "relu", "first"),
    "also-one": ("classification", 1, 1, "single", "relu", "first"),
    "two": ("regression", 1, 2, "single", "tanh", "first"),
    "above": ("classification", -1, 1, "single", "tanh", "mean"),
    "pair": ("classification", 2, 1, "pair", "tanh", "first"),
    "tags": ("tagging", 2, 1, "single", None, "first"),
}
INPUTS = [*texts(7), *((text, "no never") for text in texts(4, seed=1))]


def padded_left(batch: Encoded) -> Encoded:
    """The same inputs with their padding before them."""
    lengths = batch.attention_mask.sum(axis=1)

    def moved(array: np.ndarray) -> np.ndarray:
        pairs = zip(array, lengths, strict=True)
        return np.stack([np.roll(row, len(row) - int(length)) for row, length in pairs])

    return Encoded(**{name: moved(array) for name, array in vars(batch).items()})


def assert_states(
    ours: list[Any],
    theirs: list[torch.Tensor],
    batch: Encoded,
    near: float,
    *,
    relative: bool = False,
) -> None:
    """States of tokens are as near as that, of padding whatever they are; 0 is all bits of both."""
    real = batch.attention_mask.astype(bool)
    assert len(ours) == len(theirs)
    for layer, (own, reference) in enumerate(zip(ours, theirs, strict=True)):
        assert near or torch.equal(own, reference), f"layer {layer} differs"
        error = np.abs(np.asarray(own)[real] - reference.numpy()[real]).max()
        bound = near * max(1.0, float(reference.abs().max())) if relative else near
        assert error <= bound, f"layer {layer} differs by {error:.3g}"


@every_family
@pytest.mark.parametrize("inputs", BATCHES.values(), ids=BATCHES)
def test_states_are_those_of_transformers_at_every_layer(
    family: str, inputs: list[Input], imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    batch = encoded(backbone, inputs)
    assert bool((batch.attention_mask == 0).any()) == (len(inputs) > 1)
    theirs = reference_states(backbone.folder, tensors(batch))

    ours: list[Any] = [*trunk_states(backbone, tensors(batch))]
    assert_states(ours, theirs, batch, 0.0 if TINY[family].exact else TOLERANCE)
    ours = onnx_states(backbone.spec, backbone.store, batch)
    assert_states(ours, theirs, batch, TOLERANCE)
    for dtype, near in NEAR.items():
        engine = BatchedEngine(torch.device("cpu"), dtype)
        ours = states_of(engine, backbone.spec, backbone, batch)
        assert_states(ours, theirs, batch, near, relative=True)


@every_family
def test_padding_may_come_first(family: str, imported: Callable[[str], support.Backbone]) -> None:
    """In the reference; what Centra itself pads it pads behind."""
    backbone = imported(family)
    batch = padded_left(encoded(backbone, BATCHES["ragged"]))

    ours = trunk_states(backbone, tensors(batch))

    theirs = reference_states(backbone.folder, tensors(batch))
    assert_states([*ours], theirs, batch, 0.0 if TINY[family].exact else TOLERANCE)


@every_family
@few_samples
def test_inputs_are_padded_behind_on_whatever_side_the_tokenizer_pads(
    family: str, make_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    """They are as transformers computes them where it pads before them, and counts from the first token."""
    folder, store = copied(make_encoder(family), tmp_path / "model"), LocalStore(tmp_path / "store")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    backbone = support.Backbone(import_backbone(str(folder), store), store, folder)
    batch, inputs = encoded(backbone, BATCHES["ragged"]), [item.text for item in BATCHES["ragged"]]
    assert (np.diff(batch.attention_mask, axis=1) <= 0).all()

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    left = {**tokenizer(inputs, padding=True, truncation=True, return_tensors="pt")}
    before = left["attention_mask"].numpy().astype(bool)
    assert (np.diff(before.astype(int), axis=1) >= 0).all()
    assert not before.all()
    if not family_named(backbone.spec.family).position_offset:
        left["position_ids"] = (left["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    theirs = reference_states(folder, left)

    behind = batch.attention_mask.astype(bool)
    ours = onnx_states(backbone.spec, store, batch)
    both = zip(trunk_states(backbone, tensors(batch)), ours, theirs, strict=True)
    for torch_states, onnx, reference in both:
        for own in (torch_states.numpy(), onnx):
            assert np.abs(own[behind] - reference.numpy()[before]).max() <= TOLERANCE


@every_family
def test_a_backbone_has_token_types_and_a_longest_input_as_its_tokenizer_says(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)

    assert backbone.spec.token_types == TINY[family].token_types
    assert backbone.spec.max_length == support.MAX_LENGTH
    assert encoded(backbone, BATCHES["longest"]).input_ids.shape[1] == support.MAX_LENGTH


@every_family
def test_every_tensor_lies_in_one_shard(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    state = transformers.AutoModel.from_pretrained(backbone.folder).state_dict()

    found: dict[str, torch.Tensor] = {}
    for digest in dict.fromkeys((backbone.spec.embeddings, *backbone.spec.layers)):
        shard = load_file(backbone.store.fetch(digest))
        assert not found.keys() & shard.keys()
        found |= shard

    assert found.keys() == {name for name in state if not name.startswith("pooler.")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())


@every_family
@few_samples
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_folders_in_half_precision_and_in_many_files_are_taken(
    family: str, dtype: torch.dtype, make_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    source, folder = make_encoder(family), tmp_path / "model"
    model = transformers.AutoModel.from_pretrained(source, dtype=dtype)
    model.save_pretrained(folder, max_shard_size="20KB")
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    assert len([*folder.glob("*.safetensors")]) > 1

    spec = import_backbone(str(folder), LocalStore(tmp_path / "store"))

    store = LocalStore(tmp_path / "store")
    found: dict[str, torch.Tensor] = {}
    for digest in (spec.embeddings, *spec.layers):
        found |= load_file(store.fetch(digest))
    state = model.state_dict()
    assert all(torch.equal(tensor, state[name].float()) for name, tensor in found.items())


@every_family
@few_samples
def test_a_tensor_that_nobody_placed_is_refused_by_its_name(
    family: str, make_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(make_encoder(family), tmp_path / "model")
    name = f"{family_named(TINY[family].model_type).layer_prefix}0.extra.weight"
    rewrite(folder, with_tensors(name))

    with pytest.raises(IncompatibleError, match=f"tensor {name} has no place"):
        import_backbone(str(folder), LocalStore(tmp_path / "store"))


# Fine-tuned checkpoints


@every_family
@few_samples
@pytest.mark.parametrize("auto_class", [SENTENCE, TOKEN])
def test_a_fine_tuned_checkpoint_is_cut_at_its_tap_and_answers_as_before(
    family: str,
    auto_class: str,
    fine_tuned_once: Callable[[str, str], Path],
    imported: Callable[[str], support.Backbone],
    tmp_path: Path,
) -> None:
    """Of pairs where texts are classified, of single texts where tokens are."""
    backbone, folder = imported(family), fine_tuned_once(family, auto_class)
    form, inputs = ("pair", PAIRS) if auto_class == SENTENCE else ("single", SINGLES)

    module, _ = converted(folder, backbone, form=form)

    assert (module.spec.tap_layer, module.spec.depth) == (backbone.spec.num_layers - 1, 1)
    model = getattr(transformers, auto_class).from_pretrained(folder).eval()
    rows, batch = TextEncoder.of(backbone.spec, backbone.store).batch(inputs)
    names = {"input_ids", "attention_mask"} | (
        {"token_type_ids"} if backbone.spec.token_types else set()
    )
    with torch.inference_mode():
        theirs = model(**{n: t for n, t in tensors(batch).items() if n in names}).logits.numpy()
    store = LocalStore(tmp_path / "store")
    support.copy_backbone(backbone, store)
    manifest = support.put_release({"task": module}, [backbone.spec], store)
    for engine in ("torch", "onnx"):
        release = Release.load(manifest, store, engine=engine, device="cpu")
        found = release.logits(inputs)["task"]
        for own, other, row in zip(found, theirs, rows, strict=True):
            expected = other[: len(row.input_ids)] if other.ndim == 2 else other
            assert np.abs(own - expected).max() <= TOLERANCE


@every_family
@few_samples
@pytest.mark.parametrize(
    ("auto_class", "dtype"), [(SENTENCE, torch.bfloat16), (TOKEN, torch.float16)]
)
def test_a_fine_tuned_checkpoint_in_half_precision_and_many_files_stands_on_the_same_layers(
    family: str,
    auto_class: str,
    dtype: torch.dtype,
    fine_tuned_once: Callable[[str, str], Path],
    imported: Callable[[str], support.Backbone],
    tmp_path: Path,
) -> None:
    backbone = imported(family)
    folder = copied(fine_tuned_once(family, auto_class), tmp_path / "rounded")
    model = getattr(transformers, auto_class).from_pretrained(folder, dtype=dtype)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len([*folder.glob("*.safetensors")]) > 1

    module, remarks = converted(folder, backbone)

    assert (module.spec.tap_layer, module.spec.depth) == (backbone.spec.num_layers - 1, 1)
    assert any(f"rounded to {str(dtype).removeprefix('torch.')}" in text for text in remarks)


@every_family
@few_samples
def test_a_tensor_of_a_checkpoint_that_nobody_placed_is_refused_by_its_name(
    family: str,
    fine_tuned_once: Callable[[str, str], Path],
    imported: Callable[[str], support.Backbone],
    tmp_path: Path,
) -> None:
    folder = copied(fine_tuned_once(family, SENTENCE), tmp_path / "more")
    rewrite(folder, with_tensors("classifier.second.weight"))

    with pytest.raises(IncompatibleError, match=r"classifier\.second\.weight has no place"):
        converted(folder, imported(family))


# Tasks


@pytest.fixture(scope="module")
def tasks(imported: Callable[[str], support.Backbone]) -> Callable[[str], dict[str, TaskModule]]:
    """Modules of every sort on a family's tiny encoder; made once."""

    @cache
    def tasks(family: str) -> dict[str, TaskModule]:
        backbone = imported(family)
        layers = backbone.spec.num_layers
        return {
            name: support.make_module(
                kind,
                backbone.spec,
                backbone.store,
                tap=tap if tap >= 0 else layers + 1 + tap,
                depth=depth,
                form=form,
                seed=seed,
                head=HeadSpec(activation=activation),
                decision=Decision(pooling=pooling),
            )
            for seed, (name, (kind, tap, depth, form, activation, pooling)) in enumerate(
                TASKS.items()
            )
        }

    return tasks


@pytest.fixture
def merged(
    tasks: Callable[[str], dict[str, TaskModule]],
    imported: Callable[[str], support.Backbone],
    store: LocalStore,
) -> Callable[..., ReleaseManifest]:
    """A release of them, some in int8."""

    def merged(family: str, int8: list[str] | None = None) -> ReleaseManifest:
        support.copy_backbone(imported(family), store)
        return support.put_release(tasks(family), [imported(family).spec], store, int8 or [])

    return merged


@every_family
def test_every_task_answers_as_the_reference_on_every_engine(
    family: str,
    merged: Callable[..., ReleaseManifest],
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Branches of the first token and of all, on inputs of all lengths; on GPUs in groups."""
    manifest = merged(family)
    theirs = Release.load(manifest, store, engine="torch", device="cpu").logits(INPUTS)

    ours = Release.load(manifest, store, engine="onnx")

    assert_near(ours.logits(INPUTS), theirs, TOLERANCE)
    for name in ours.tasks:
        own, recorded = ours.probe_logits(name)
        assert np.allclose(own, recorded, rtol=0, atol=TOLERANCE), name
    for dtype, near in NEAR.items():
        engine = BatchedEngine(torch.device("cpu"), dtype)
        monkeypatch.setattr("centra.runtime.parts.open_engine", lambda *_, e=engine, **__: e)
        assert_near(Release.load(manifest, store).logits(INPUTS), theirs, 2 * near)


@every_family
@needs_cuda
def test_groups_and_graphs_answer_near_the_reference_on_a_gpu(
    family: str, merged: Callable[..., ReleaseManifest], store: LocalStore
) -> None:
    manifest = merged(family)
    theirs = Release.load(manifest, store, engine="torch", device="cpu").logits(INPUTS)

    for dtype, near in NEAR.items():
        release = Release.load(manifest, store, engine="torch", device="cuda", dtype=dtype)
        for _ in range(3):  # As it is, captured, and replayed.
            assert_near(release.logits(INPUTS), theirs, 2 * near)


@every_family
def test_int8_is_close_to_fp32(
    family: str, merged: Callable[..., ReleaseManifest], store: LocalStore
) -> None:
    exact, rounded = (
        Release.load(merged(family, int8), store, engine="onnx").logits(INPUTS)
        for int8 in ([], [*TASKS])
    )

    for name, arrays in rounded.items():
        own, fp32 = np.vstack(arrays), np.vstack(exact[name])
        assert 0 < np.abs(own - fp32).max() <= 0.05 * np.abs(fp32).max(), name


@every_family
@pytest.mark.parametrize("int8", [[], [*TASKS][::2]], ids=["fp32", "mixed"])
def test_every_task_answers_the_same_bits_alone_and_merged_and_in_any_batch(
    family: str,
    int8: list[str],
    merged: Callable[..., ReleaseManifest],
    store: LocalStore,
) -> None:
    manifest = merged(family, int8)
    whole = Release.load(manifest, store, engine="onnx", threads=2)
    together = whole.logits(INPUTS)

    for name in manifest.tasks:
        alone = Release.load(manifest, store, engine="onnx", tasks=[name], threads=2)
        assert_same_bits(alone.logits(INPUTS), {name: together[name]})
    assert_answered_as_alone(whole, batches=4)


# Training


@every_family
def test_a_task_is_trained_and_distilled(
    family: str,
    imported: Callable[[str], support.Backbone],
    tiny_data: Callable[[str], Path],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    backbone = imported(family)
    support.copy_backbone(backbone, store)

    def trained(tap: int, depth: int, epochs: int, teacher: Path | None = None) -> TaskModule:
        recipe = Recipe(
            tap=tap, depth=depth, epochs=epochs, learning_rate=5e-3, batch_size=8, dropout=0.0
        )
        return train_module(
            backbone.spec,
            backbone.store,
            tiny_data("single"),
            recipe,
            teacher=teacher,
            work=tmp_path / "work",
        )

    teacher = trained(1, 2, 6)
    assert teacher.spec.metrics["accuracy"] > 0.5
    assert support.parity(teacher, backbone, store, tmp_path) <= TOLERANCE
    teacher.write(tmp_path / "teacher.safetensors")

    student = trained(1, 1, 2, tmp_path / "teacher.safetensors")

    assert student.spec.teacher is not None
    assert student.spec.metrics["accuracy"] > 0.4
    assert support.parity(student, backbone, store, tmp_path) <= TOLERANCE


def test_every_family_that_centra_knows_is_among_them() -> None:
    assert {tiny.model_type for tiny in TINY.values()} == set(FAMILIES)
