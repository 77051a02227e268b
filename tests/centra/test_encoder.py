"""Branches against transformers' own fine-tuned models, and the trunk's bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import CorruptBlobError
from centra.families import family_named
from centra.modeling.branch import Branch
from centra.modeling.shards import backbone_layer
from centra.modeling.shared_state import attention_bias
from centra.modeling.trunk import Trunk
from centra.store import LocalStore
from centra.tokenization.text_encoder import Encoded, TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.backbone import BackboneSpec
    from centra.formats.task_module import TaskModule

SINGLES = [Input("wake me at seven"), Input("play some jazz, please, and will it rain tomorrow?")]


@pytest.mark.parametrize("family", support.FAMILIES)
@pytest.mark.parametrize("tap", [0, 2, 3])
def test_branch_with_a_checkpoint_s_own_head_gives_its_sentence_logits(
    family: str, tap: int, tmp_path: Path, store: LocalStore
) -> None:
    folder = support.make_checkpoint(family, "AutoModelForSequenceClassification", tmp_path)
    spec = import_backbone(str(folder), store)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    head = family_named(family).sentence_head({})

    own = _branch_logits(spec, store, _tensors(model, spec, tap, head.parts), tap, head.activation)

    assert torch.equal(own, _logits(model, spec, store))


@pytest.mark.parametrize("family", support.FAMILIES)
def test_branch_with_a_checkpoint_s_own_head_gives_its_token_logits(
    family: str, tmp_path: Path, store: LocalStore
) -> None:
    folder = support.make_checkpoint(family, "AutoModelForTokenClassification", tmp_path)
    spec = import_backbone(str(folder), store)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    head = family_named(family).token_head({}).parts

    own = _branch_logits(spec, store, _tensors(model, spec, 1, head), 1, None)

    assert own.ndim == 3
    assert torch.equal(own, _logits(model, spec, store))


def _tensors(
    model: Any, spec: BackboneSpec, tap: int, head: dict[str, str]
) -> dict[str, torch.Tensor]:
    """A checkpoint's layers above the tap, and its head, under the names of a task module."""
    family, state = family_named(spec.family), model.state_dict()
    layers = {
        f"layers.{i}.{name}": state[f"{family.prefix}{family.layer_prefix}{tap + i - 1}.{name}"]
        for i in range(1, spec.num_layers - tap + 1)
        for name in spec.layer_tensors
    }
    return layers | {
        f"head.{ours}.{part}": state[f"{theirs}.{part}"]
        for ours, theirs in head.items()
        for part in ("weight", "bias")
    }


def _encoded(spec: BackboneSpec, store: LocalStore) -> Encoded:
    return TextEncoder.of(spec, store).batch(SINGLES)[1]


def _branch_logits(
    spec: BackboneSpec,
    store: LocalStore,
    tensors: dict[str, torch.Tensor],
    tap: int,
    activation: str | None,
) -> torch.Tensor:
    task = support.make_spec(
        spec.digest,
        "tagging" if activation is None else "classification",
        tap=tap,
        depth=spec.num_layers - tap,
        head={"activation": activation},
    )
    branch = Branch(spec, task).load(tensors).eval()
    inputs = {k: torch.from_numpy(v) for k, v in vars(_encoded(spec, store)).items()}
    with torch.inference_mode():
        trunk = Trunk(spec, store, depth=tap)
        hidden = trunk(**inputs, taps=[tap])[tap]
        return branch(hidden, trunk.shared_state(inputs["attention_mask"]))


def _logits(model: Any, spec: BackboneSpec, store: LocalStore) -> torch.Tensor:
    encoded = _encoded(spec, store)
    with torch.inference_mode():
        return model(
            input_ids=torch.from_numpy(encoded.input_ids),
            attention_mask=torch.from_numpy(encoded.attention_mask),
        ).logits


def test_branch_that_copies_the_backbone_s_layers_continues_the_trunk(
    tiny_backbone: support.Backbone,
) -> None:
    """With its layers on tap 1, the states before the head are the backbone's last ones."""
    spec, store = tiny_backbone.spec, tiny_backbone.store
    inputs = {k: torch.from_numpy(v) for k, v in vars(_encoded(spec, store)).items()}
    task = support.make_spec(spec.digest, "tagging", tap=1, depth=2, labels=["O"])
    branch = Branch(spec, task)
    weights = {
        f"layers.{i}.{name}": tensor
        for i in (1, 2)
        for name, tensor in backbone_layer(spec, store, 1 + i).items()
    }
    branch.load(weights | {"head.out.weight": torch.ones(1, 32), "head.out.bias": torch.zeros(1)})
    branch.eval()

    with torch.inference_mode():
        trunk = Trunk(spec, store, depth=3)
        states = trunk(**inputs, taps=[1, 3])
        own = branch(states[1], trunk.shared_state(inputs["attention_mask"]))

        assert torch.equal(own, branch.head(states[3]))


def test_branch_gives_back_the_tensors_that_it_took(
    make_module: Callable[..., TaskModule], tiny_backbone: support.Backbone
) -> None:
    module = make_module(tap=0, depth=2)
    branch = Branch(tiny_backbone.spec, module.spec).load(module.weights)

    again = branch.tensors()

    assert again.keys() == module.weights.keys()
    assert all(torch.equal(tensor, module.weights[name]) for name, tensor in again.items())


def test_branch_without_weights_is_not_random(tiny_backbone: support.Backbone) -> None:
    """Its layers wait on the meta device, so forgetting to load them cannot pass unseen."""
    branch = Branch(tiny_backbone.spec, support.make_spec(tiny_backbone.spec.digest, depth=1))

    assert {parameter.device.type for parameter in branch.layers.parameters()} == {"meta"}


def test_trunk_is_frozen_and_in_evaluation_mode(tiny_backbone: support.Backbone) -> None:
    trunk = Trunk(tiny_backbone.spec, tiny_backbone.store, depth=2)

    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    assert not any(part.training for part in trunk.modules())
    assert len(trunk.layers) == 2


def test_trunk_computes_no_layer_above_the_deepest_tap(
    tiny_backbone: support.Backbone,
) -> None:
    spec, store = tiny_backbone.spec, tiny_backbone.store
    trunk = Trunk(spec, store, depth=3)
    inputs = {k: torch.from_numpy(v) for k, v in vars(_encoded(spec, store)).items()}
    ran: list[int] = []
    for number, layer in enumerate(trunk.layers, 1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))

    for taps, expected in (([0], []), ([1, 0], [1]), ([2], [1, 2]), ([0, 3], [1, 2, 3])):
        ran.clear()
        assert trunk(**inputs, taps=taps).keys() == set(taps)
        assert ran == expected


def test_shallow_and_deep_trunk_agree_bit_for_bit(tiny_backbone: support.Backbone) -> None:
    spec, store = tiny_backbone.spec, tiny_backbone.store
    inputs = {k: torch.from_numpy(v) for k, v in vars(_encoded(spec, store)).items()}

    shallow = Trunk(spec, store, depth=1)(**inputs, taps=[1])[1]
    deep = Trunk(spec, store, depth=3)(**inputs, taps=[0, 1, 2, 3])[1]

    assert torch.equal(shallow, deep)


def test_damaged_layer_is_refused(
    tiny_backbone: support.Backbone, backbone_store: LocalStore
) -> None:
    damaged = tiny_backbone.spec.layers[1]
    support.flip(backbone_store.fetch(damaged), 9000)

    Trunk(tiny_backbone.spec, backbone_store, depth=1)
    with pytest.raises(CorruptBlobError, match=damaged):
        Trunk(tiny_backbone.spec, backbone_store, depth=2)


def test_mask_is_left_out_where_there_is_no_padding() -> None:
    assert attention_bias(torch.ones(2, 5, dtype=torch.int64)) is None


def test_mask_lets_every_token_look_at_tokens_but_not_at_padding() -> None:
    bias = attention_bias(torch.tensor([[1, 1, 1], [1, 0, 0]]))

    assert bias is not None
    assert bias.shape == (2, 1, 3, 3)
    assert bias[0].all()
    assert bias[1, 0].tolist() == [[True, False, False]] * 3
