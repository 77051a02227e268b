"""MPNet: positions twice, as RoBERTa's embeddings and as one table of biases by distance for all layers.

The table lies in its encoder; here it is with the embeddings, for no layer owns it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from centra.families import bert
from centra.families.base import Family, Setting, TransformersClasses, size_of
from centra.families.description import (
    Attention,
    Embeddings,
    FeedForward,
    Layer,
    Linear,
    Norm,
    RelativeBias,
    Table,
)
from centra.families.heads import CheckpointHead

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
    hidden = settings["hidden_size"]
    return Embeddings(
        tables=(
            Table(
                name="embeddings.word_embeddings",
                rows=settings["vocab_size"],
                width=hidden,
                ids="input_ids",
            ),
            Table(
                name="embeddings.position_embeddings",
                rows=settings["max_position_embeddings"],
                width=hidden,
                ids="positions",
            ),
        ),
        norm=Norm(name="embeddings.LayerNorm", size=hidden, epsilon=settings["layer_norm_eps"]),
        relative_biases=(_bias(),),
        heads=settings["num_attention_heads"],
    )


def _layer(settings: Mapping[str, Any], number: int) -> Layer:  # noqa: ARG001 - all are alike
    hidden, inner = settings["hidden_size"], settings["intermediate_size"]
    epsilon = settings["layer_norm_eps"]

    def square(name: str) -> Linear:
        return Linear(name=name, inputs=hidden, outputs=hidden)

    return Layer(
        hidden=hidden,
        norm_first=False,
        attention=Attention(
            heads=settings["num_attention_heads"],
            query=square("attention.attn.q"),
            key=square("attention.attn.k"),
            value=square("attention.attn.v"),
            output=square("attention.attn.o"),
            relative_bias=_bias(),
        ),
        attention_norm=Norm(name="attention.LayerNorm", size=hidden, epsilon=epsilon),
        feed_forward=FeedForward(
            inner=Linear(name="intermediate.dense", inputs=hidden, outputs=inner),
            outer=Linear(name="output.dense", inputs=inner, outputs=hidden),
            activation=settings["hidden_act"],
        ),
        feed_forward_norm=Norm(name="output.LayerNorm", size=hidden, epsilon=epsilon),
    )


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
