"""The trunk: positions, token types and projections, as each family has them.

What all families have in common is tested in ``test_families.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import transformers

from centra.checkpoints.backbone import import_backbone
from centra.errors import IncompatibleError
from centra.families import family_named
from centra.modeling.trunk import Trunk
from tests import support
from tests.centra.states import PAIRS, SINGLES, assert_same_states, batch, trunk_states

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.data.inputs import Input
    from centra.store import LocalStore


@pytest.mark.parametrize("inputs", [SINGLES, PAIRS], ids=["singles", "pairs"])
def test_trunk_equals_the_real_minilm_at_every_layer(
    inputs: list[Input], minilm: support.Backbone
) -> None:
    assert minilm.spec.num_layers == 6

    assert_same_states(minilm, batch(minilm, inputs))


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
