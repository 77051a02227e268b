"""What is MPNet's own: the table of biases for all layers, its tokenizer, and its real weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from benchmarks.tools.weights import MPNET_DIGEST
from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import FormatError, IncompatibleError
from centra.families.positions import distance_buckets, distances
from centra.system.files import file_digest
from centra.tokenization.text_encoder import TextEncoder
from tests import support
from tests.centra.checkpoints import SENTENCE, configure, converted, copied, rewrite
from tests.centra.states import PAIRS, SINGLES, assert_same_states, reference_states
from tests.centra.test_onnx_engine import encoded, onnx_states, tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.store import LocalStore

TABLE = "encoder.relative_attention_bias.weight"


def test_distances_fall_into_the_buckets_that_transformers_has(
    imported: Callable[[str], support.Backbone],
) -> None:
    bias = imported("mpnet").spec.layer(1).attention.relative_bias
    assert bias is not None
    places = torch.arange(600)

    theirs = MPNetEncoder.relative_position_bucket(places[None] - places[:, None])

    assert np.array_equal(distance_buckets(bias, distances(600, 600)), theirs.numpy())


def test_the_table_is_part_of_layer_0(imported: Callable[[str], support.Backbone]) -> None:
    spec = imported("mpnet").spec
    assert spec.shapes(0)[TABLE] == (32, 2)
    assert all(TABLE not in spec.shapes(number) for number in (1, 2, 3))


@pytest.mark.usefixtures("few_samples")
def test_a_checkpoint_that_trained_the_table_stands_on_no_backbone(
    fine_tuned_once: Callable[[str, str], Path],
    imported: Callable[[str], support.Backbone],
    tmp_path: Path,
) -> None:
    folder = copied(fine_tuned_once("mpnet", SENTENCE), tmp_path / "trained")
    rewrite(folder, lambda state: state | {f"mpnet.{TABLE}": state[f"mpnet.{TABLE}"] + 0.1})

    with pytest.raises(
        IncompatibleError, match=r"relative_attention_bias\.weight was changed in 32 of 32 rows"
    ):
        converted(folder, imported("mpnet"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"relative_attention_num_buckets": 16},
            "relative_attention_num_buckets 16; expected 32, into which MPNet's distances fall",
        ),
        ({"pad_token_id": 0}, "pad_token_id 0; expected 1, from which MPNet's positions count"),
    ],
)
def test_settings_that_transformers_does_not_read_are_what_it_computes(
    settings: dict[str, int],
    says: str,
    make_encoder: Callable[[str], Path],
    tmp_path: Path,
    store: LocalStore,
) -> None:
    folder = copied(make_encoder("mpnet"), tmp_path / "mpnet")
    configure(folder, **settings)

    with pytest.raises(FormatError, match=says):
        import_backbone(str(folder), store)


def test_two_separators_stand_between_the_texts_of_a_pair(
    imported: Callable[[str], support.Backbone],
) -> None:
    backbone = imported("mpnet")
    encoder = TextEncoder.of(backbone.spec, backbone.store)

    (row,) = encoder.encode([Input("go", "no never")])

    assert [encoder.tokenizer.id_to_token(token) for token in row.input_ids] == [
        *("<s>", "go", "</s>", "</s>", "no", "neve", "##r", "</s>"),
    ]
    assert type(AutoTokenizer.from_pretrained(backbone.folder)).__name__ == "MPNetTokenizer"


# Real weights: `make weights`, and CENTRA_WEIGHTS=.weights


LONG = "The film was long, but nobody in the audience wanted it to end, said the man from Lisbon. "


def test_the_real_mpnet_has_the_digest_that_it_has_everywhere(mpnet: support.Backbone) -> None:
    assert file_digest(mpnet.folder / "model.safetensors") == MPNET_DIGEST
    assert mpnet.spec.digest == "2bdb6e65f2deee31b897959722c74f3236805c6bbb4ae7d113be47376527c477"
    assert (mpnet.spec.num_layers, mpnet.spec.hidden_size, mpnet.spec.max_length) == (12, 768, 512)


@pytest.mark.parametrize(
    "inputs",
    [SINGLES, PAIRS, [Input(LONG * 30), Input("Go.")]],
    ids=["singles", "pairs", "longest"],
)
def test_the_real_mpnet_equals_transformers_at_every_layer(
    inputs: list[Input], mpnet: support.Backbone
) -> None:
    """To the last bit in torch; on the onnx engine as near as float32 is to real numbers."""
    batch = encoded(mpnet, inputs)
    real = batch.attention_mask.astype(bool)

    assert_same_states(mpnet, tensors(batch))
    ours = onnx_states(mpnet.spec, mpnet.store, batch)

    theirs = reference_states(mpnet.folder, tensors(batch))
    for layer, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        largest = float(other[torch.from_numpy(real)].abs().max())
        error = np.abs(own - other.numpy())[real].max()
        assert error <= 1e-5 * max(1.0, largest), f"layer {layer} differs by {error:.3g}"
