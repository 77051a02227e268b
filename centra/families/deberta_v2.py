"""DeBERTa-v2 and v3, and mDeBERTa: positions meet content in scores of their own.

Embeddings of distances lie in its encoder and are shared by all layers, each of which projects them;
here they are with the embeddings. Most of these models have no other positions, and so no table for
them among the embeddings. A convolution beside the first layer, which only DeBERTa-v2 in its largest
sizes has, lies in the encoder too, and is part of that layer here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from centra.families import bert
from centra.families.base import ACTIVATION, SWITCH, Family, Setting, TransformersClasses, size_of
from centra.families.description import (
    Convolution,
    Disentangled,
    DistanceEmbeddings,
    Embeddings,
    Layer,
    Linear,
    Norm,
    Table,
)
from centra.families.heads import CheckpointHead
from centra.families.post_norm import post_norm_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.modeling.shared_state import SharedState

__all__ = ["DEBERTA_V2"]

_MOST = 2**17
"""Positions that may be stated where no tensor bears them out."""


def _terms(stated: Any) -> list[str]:
    """Which terms scores have beside content and content; older configs join them by bars."""
    parts = stated.lower().split("|") if isinstance(stated, str) else stated
    return [part.strip() for part in parts]


def _known_terms(stated: Any) -> bool:
    if not isinstance(stated, str | list) or not all(isinstance(part, str) for part in stated):
        return False
    terms = _terms(stated)
    return 0 < len(terms) == len({*terms}) and {*terms} <= {"c2p", "p2c"}


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= _MOST


def _distances(settings: Mapping[str, Any]) -> DistanceEmbeddings:
    hidden, buckets = settings["hidden_size"], settings["position_buckets"]
    farthest = settings["max_relative_positions"]
    if farthest < 1:
        farthest = settings["max_position_embeddings"]
    norm = Norm(name="encoder.LayerNorm", size=hidden, epsilon=settings["layer_norm_eps"])
    return DistanceEmbeddings(
        table="encoder.rel_embeddings.weight",
        size=hidden,
        span=buckets if buckets > 0 else farthest,
        farthest=farthest if buckets > 0 else None,
        norm=norm if settings["norm_rel_ebd"] == "layer_norm" else None,
    )


def _embeddings(settings: Mapping[str, Any]) -> Embeddings:
    hidden, width = settings["hidden_size"], settings["embedding_size"]
    tables = [
        Table(
            name="embeddings.word_embeddings",
            rows=settings["vocab_size"],
            width=width,
            ids="input_ids",
        )
    ]
    if settings["position_biased_input"]:
        table = Table(
            name="embeddings.position_embeddings",
            rows=settings["max_position_embeddings"],
            width=width,
            ids="positions",
        )
        tables.append(table)
    if settings["type_vocab_size"]:
        table = Table(
            name="embeddings.token_type_embeddings",
            rows=settings["type_vocab_size"],
            width=width,
            ids="token_type_ids",
        )
        tables.append(table)
    return Embeddings(
        tables=tuple(tables),
        norm=Norm(name="embeddings.LayerNorm", size=hidden, epsilon=settings["layer_norm_eps"]),
        projection=None
        if width == hidden
        else Linear(name="embeddings.embed_proj", inputs=width, outputs=hidden, bias=False),
        norm_last=True,
        distances=_distances(settings),
    )


def _convolution(settings: Mapping[str, Any]) -> Convolution:
    hidden = settings["hidden_size"]
    return Convolution(
        name="conv.conv",
        hidden=hidden,
        kernel=settings["conv_kernel_size"],
        activation=settings["conv_act"],
        norm=Norm(name="conv.LayerNorm", size=hidden, epsilon=settings["layer_norm_eps"]),
    )


def _layer(settings: Mapping[str, Any], number: int) -> Layer:
    plain = post_norm_layer(
        hidden=settings["hidden_size"],
        inner=settings["intermediate_size"],
        heads=settings["num_attention_heads"],
        activation=settings["hidden_act"],
        epsilon=settings["layer_norm_eps"],
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        feed_forward=("intermediate.dense", "output.dense"),
        feed_forward_norm="output.LayerNorm",
    )
    terms, content = _terms(settings["pos_att_type"]), plain.attention
    of_key, of_query = content.key, content.query
    if not settings["share_att_key"]:
        of_key = replace(content.key, name="attention.self.pos_key_proj")
        of_query = replace(content.query, name="attention.self.pos_query_proj")
    disentangled = Disentangled(
        distances=_distances(settings),
        key=of_key if "c2p" in terms else None,
        query=of_query if "p2c" in terms else None,
    )
    return replace(
        plain,
        attention=replace(content, disentangled=disentangled),
        convolution=_convolution(settings)
        if number == 1 and settings["conv_kernel_size"]
        else None,
    )


def _layer_inputs(shared: SharedState, layer: Layer) -> dict[str, Any]:
    """Padding looks nowhere, as in transformers' encoder."""
    real = shared.attention_mask.bool()
    return {
        "attention_mask": real[:, None, None, :] & real[:, None, :, None],
        "rel_embeddings": shared.distances(layer.attention),
    }


DEBERTA_V2 = Family(
    model_type="deberta-v2",
    settings=bert.SETTINGS
    | {
        "conv_act": ACTIVATION,
        "conv_kernel_size": Setting(
            fits=lambda value: _whole(value, 0) and (value == 0 or value % 2 == 1),
            expected=f"0 for none, or an odd number up to {_MOST}",
        ),
        "embedding_size": size_of("embeddings.word_embeddings.weight", axis=1),
        "max_position_embeddings": Setting(
            fits=lambda value: _whole(value, 1), expected=f"a whole number from 1 to {_MOST}"
        ),
        "max_relative_positions": Setting(
            fits=lambda value: _whole(value, -1), expected=f"a whole number from -1 to {_MOST}"
        ),
        "norm_rel_ebd": Setting(
            fits=lambda value: value in ("none", "layer_norm"), expected="none or layer_norm"
        ),
        "pos_att_type": Setting(fits=_known_terms, expected="some of c2p and p2c"),
        "position_biased_input": SWITCH,
        "position_buckets": Setting(
            fits=lambda value: _whole(value, -1) and value not in (1, 2, 3),
            expected=f"-1 for none, or a whole number from 4 to {_MOST}",
        ),
        "relative_attention": Setting(
            fits=lambda value: value is True, expected="true: without, it would be a BERT"
        ),
        "share_att_key": SWITCH,
        "type_vocab_size": Setting(
            fits=lambda value: _whole(value, 0), expected="a whole number, 0 for none"
        ),
    },
    embeddings=_embeddings,
    layer=_layer,
    layers_alike=False,
    layer_prefix="encoder.layer.",
    outside_layers={"conv.": "encoder.conv."},
    prefix="deberta.",
    defaults={
        "conv_act": "tanh",
        "conv_kernel_size": 0,
        "norm_rel_ebd": "none",
        "position_buckets": -1,
        "share_att_key": False,
    },
    unused=r"embeddings\.position_embeddings\.weight",
    pooler=None,
    transformers=TransformersClasses(
        module="transformers.models.deberta_v2.modeling_deberta_v2",
        config="DebertaV2Config",
        model="DebertaV2Model",
        embeddings="DebertaV2Embeddings",
        layer="DebertaV2Layer",
        convolution=("conv", "ConvLayer"),
        layer_inputs=_layer_inputs,
    ),
    head_settings={"pooler_hidden_act": ACTIVATION},
    sentence_head=lambda settings: CheckpointHead(
        dense="pooler.dense", activation=settings["pooler_hidden_act"], out="classifier"
    ),
)
