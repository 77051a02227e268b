"""MPNet: positions twice, as RoBERTa's embeddings and as one table of biases by distance for all layers.

The table lies in its encoder; here it is with the embeddings, for no layer owns it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from centra.families import bert
from centra.families.base import Family, Setting, TransformersClasses, size_of
from centra.families.description import (
    Embeddings,
    Layer,
    RelativeBias,
)
from centra.families.heads import CheckpointHead
from centra.families.post_norm import post_norm_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.modeling.shared_state import SharedState

__all__ = ["MPNET"]

_TABLE = "encoder.relative_attention_bias.weight"
# transformers reads neither of the two from a config.json, whatever it says there.
_BUCKETS = 32
_PADDING = 1


def _bias() -> RelativeBias:
    return RelativeBias(table=_TABLE, buckets=_BUCKETS, farthest=128)


def _embeddings(settings: Mapping[str, Any]) -> Embeddings:
    return replace(
        bert.embeddings(settings),
        relative_biases=(_bias(),),
        heads=settings["num_attention_heads"],
    )


def _layer(settings: Mapping[str, Any], number: int) -> Layer:  # noqa: ARG001 - all are alike
    plain = post_norm_layer(
        hidden=settings["hidden_size"],
        inner=settings["intermediate_size"],
        heads=settings["num_attention_heads"],
        activation=settings["hidden_act"],
        epsilon=settings["layer_norm_eps"],
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        feed_forward=("intermediate.dense", "output.dense"),
        feed_forward_norm="output.LayerNorm",
    )
    return replace(plain, attention=replace(plain.attention, relative_bias=_bias()))


def _layer_inputs(shared: SharedState, layer: Layer) -> dict[str, Any]:
    """Padding is in the biases; the layers add both to the scores alike."""
    return {"position_bias": shared.scores(layer.attention)}


MPNET = Family(
    model_type="mpnet",
    settings={name: setting for name, setting in bert.SETTINGS.items() if name != "type_vocab_size"}
    | {
        "hidden_size": size_of("encoder.layer.0.attention.LayerNorm.bias"),
        "pad_token_id": Setting(
            fits=lambda value: value == _PADDING,
            expected=f"{_PADDING}, from which MPNet's positions count",
        ),
        "relative_attention_num_buckets": replace(
            size_of(_TABLE),
            fits=lambda value: value == _BUCKETS,
            expected=f"{_BUCKETS}, into which MPNet's distances fall",
        ),
    },
    embeddings=_embeddings,
    layer=_layer,
    layer_prefix="encoder.layer.",
    prefix="mpnet.",
    position_offset=True,
    token_types=False,
    transformers=TransformersClasses(
        module="transformers.models.mpnet.modeling_mpnet",
        config="MPNetConfig",
        model="MPNetModel",
        embeddings="MPNetEmbeddings",
        layer="MPNetLayer",
        layer_inputs=_layer_inputs,
    ),
    sentence_head=lambda _: CheckpointHead(
        dense="classifier.dense", activation="tanh", out="classifier.out_proj"
    ),
)
