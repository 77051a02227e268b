"""Every family's trunk against transformers' own model, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import IncompatibleError
from centra.families import family_named
from centra.modeling.trunk import Trunk
from centra.store import LocalStore
from centra.tokenization.text_encoder import TextEncoder
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SINGLES = [Input("wake me at seven"), Input("play some jazz, please, and will it rain tomorrow?")]
PAIRS = [Input("is there snow", "yes it is"), Input("go", "no never, we fly to new york on friday")]


def batch(backbone: support.Backbone, inputs: list[Input]) -> dict[str, torch.Tensor]:
    _, encoded = TextEncoder.of(backbone.spec, backbone.store).batch(inputs)
    return {name: torch.from_numpy(array) for name, array in vars(encoded).items()}


def trunk_states(backbone: support.Backbone, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    layers = backbone.spec.num_layers
    trunk = Trunk(backbone.spec, backbone.store, depth=layers)
    with torch.inference_mode():
        states = trunk(**inputs, taps=range(layers + 1))
    return [states[tap] for tap in range(layers + 1)]


def reference_states(folder: Path, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    known = {k: v for k, v in inputs.items() if k != "token_type_ids" or _has_token_types(model)}
    with torch.inference_mode():
        return list(model(**known, output_hidden_states=True).hidden_states)


def _has_token_types(model: Any) -> bool:
    return hasattr(model.embeddings, "token_type_embeddings")


def assert_same_states(backbone: support.Backbone, inputs: dict[str, torch.Tensor]) -> None:
    ours, theirs = trunk_states(backbone, inputs), reference_states(backbone.folder, inputs)
    assert len(ours) == len(theirs) == backbone.spec.num_layers + 1
    for layer, (own, reference) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(own, reference), (
            f"layer {layer} differs by {(own - reference).abs().max():.3g}"
        )


@pytest.mark.parametrize("family", support.FAMILIES)
@pytest.mark.parametrize(
    "inputs", [SINGLES, SINGLES[:1], PAIRS], ids=["padded", "not padded", "pairs"]
)
def test_trunk_equals_transformers_at_every_layer(
    family: str, inputs: list[Input], imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    encoded = batch(backbone, inputs)
    assert bool((encoded["attention_mask"] == 0).any()) == (len(inputs) > 1)

    assert_same_states(backbone, encoded)


@pytest.mark.parametrize("inputs", [SINGLES, PAIRS], ids=["singles", "pairs"])
def test_trunk_equals_the_real_minilm_at_every_layer(
    inputs: list[Input], minilm: support.Backbone
) -> None:
    assert minilm.spec.num_layers == 6

    assert_same_states(minilm, batch(minilm, inputs))


@pytest.mark.parametrize("family", support.FAMILIES)
def test_trunk_equals_transformers_at_the_longest_input(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    encoded = batch(backbone, [Input("rain " * 200), Input("rain")])
    assert encoded["input_ids"].shape[1] == backbone.spec.max_length

    assert_same_states(backbone, encoded)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_token_types_tell_the_texts_of_a_pair_apart(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    encoded = batch(backbone, PAIRS)
    assert backbone.spec.token_types
    assert set(encoded["token_type_ids"].unique().tolist()) == {0, 1}

    flat = encoded | {"token_type_ids": torch.zeros_like(encoded["token_type_ids"])}
    typed, untyped = trunk_states(backbone, encoded), trunk_states(backbone, flat)

    assert all(not torch.equal(a, b) for a, b in zip(typed, untyped, strict=True))


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "distilbert"])
def test_families_without_token_types_always_get_zeros(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    assert not backbone.spec.token_types
    assert not batch(backbone, PAIRS)["token_type_ids"].any()


def test_distilbert_ignores_token_types(imported: Callable[[str], support.Backbone]) -> None:
    backbone = imported("distilbert")
    encoded = batch(backbone, PAIRS)
    typed = encoded | {"token_type_ids": torch.ones_like(encoded["token_type_ids"])}

    for own, other in zip(
        trunk_states(backbone, encoded), trunk_states(backbone, typed), strict=True
    ):
        assert torch.equal(own, other)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_positions_count_from_after_the_padding_token(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    spec = imported(family).spec
    assert spec.pad_token_id == 1
    assert spec.config["max_position_embeddings"] == support.MAX_LENGTH + 2
    assert spec.max_length == support.MAX_LENGTH


def test_position_offset_limits_length_where_the_tokenizer_does_not(
    make_encoder: Callable[[str], Path], tmp_path: Path, store: LocalStore
) -> None:
    folder = _with_tokenizer_limit(make_encoder("roberta"), tmp_path / "unlimited", 10**30)

    assert import_backbone(str(folder), store).max_length == support.MAX_LENGTH


def test_shorter_limit_of_the_tokenizer_wins(
    make_encoder: Callable[[str], Path], tmp_path: Path, store: LocalStore
) -> None:
    folder = _with_tokenizer_limit(make_encoder("bert"), tmp_path / "short", 20)

    assert import_backbone(str(folder), store).max_length == 20


def _with_tokenizer_limit(source: Path, folder: Path, limit: int) -> Path:
    transformers.AutoModel.from_pretrained(source).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = limit
    tokenizer.save_pretrained(folder)
    return folder


def test_electra_projection_belongs_to_layer_0(
    imported: Callable[[str], support.Backbone],
) -> None:
    backbone = imported("electra")
    assert backbone.spec.config["embedding_size"] != backbone.spec.hidden_size
    trunk = Trunk(backbone.spec, backbone.store, depth=0)
    assert trunk.projection is not None

    encoded = batch(backbone, SINGLES)
    with torch.inference_mode():
        layer_0 = trunk(**encoded, taps=[0])[0]
        narrow = trunk.embeddings(encoded["input_ids"], token_type_ids=encoded["token_type_ids"])

    assert narrow.shape[-1] == support.HIDDEN // 2
    assert torch.equal(layer_0, trunk.projection(narrow))
    assert layer_0.shape[-1] == support.HIDDEN


@pytest.mark.parametrize("family", sorted(set(support.FAMILIES) - {"electra"}))
def test_other_families_have_no_projection(
    family: str, imported: Callable[[str], support.Backbone]
) -> None:
    backbone = imported(family)
    assert Trunk(backbone.spec, backbone.store, depth=0).projection is None


def test_unknown_family_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(IncompatibleError, match=r"'gpt2'.*bert.*xlm-roberta"):
        family_named("gpt2")
