"""ALBERT: layers that are one set of weights, or a few sets, behind embeddings that are narrower.

Each layer is a shard as in other families; those of one set are the same blob. A task module's layers
are weights of their own, which begin as copies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from centra.families import bert
from centra.families.base import SIZE, Family, Setting, TransformersClasses, size_of
from centra.families.description import (
    Embeddings,
    Layer,
    Linear,
)
from centra.families.heads import CheckpointHead
from centra.families.post_norm import post_norm_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALBERT"]

_GROUPS, _GROUP_PART = "encoder.albert_layer_groups.", "albert_layers.0."
_FIRST = f"{_GROUPS}0.{_GROUP_PART}"
_MOST = 256
"""Layers that may be stated: no tensor bears their number out."""


def _embeddings(settings: Mapping[str, Any]) -> Embeddings:
    """BERT's, and always a projection, whatever the widths."""
    return replace(
        bert.embeddings(settings),
        projection=Linear(
            name="encoder.embedding_hidden_mapping_in",
            inputs=settings["embedding_size"],
            outputs=settings["hidden_size"],
        ),
    )


def _layer(settings: Mapping[str, Any], number: int) -> Layer:  # noqa: ARG001 - all are alike
    return post_norm_layer(
        hidden=settings["hidden_size"],
        inner=settings["intermediate_size"],
        heads=settings["num_attention_heads"],
        activation=settings["hidden_act"],
        epsilon=settings["layer_norm_eps"],
        query="attention.query",
        key="attention.key",
        value="attention.value",
        output="attention.dense",
        attention_norm="attention.LayerNorm",
        feed_forward=("ffn", "ffn_output"),
        feed_forward_norm="full_layer_layer_norm",
    )


def _contradiction(settings: Mapping[str, Any]) -> str | None:
    groups, layers = settings["num_hidden_groups"], settings["num_hidden_layers"]
    if groups > layers:
        return f"num_hidden_groups {groups} and num_hidden_layers {layers}, so a group has no layer"
    return None


ALBERT = Family(
    model_type="albert",
    settings=bert.SETTINGS
    | {
        "embedding_size": size_of("embeddings.word_embeddings.weight", axis=1),
        "hidden_size": size_of(f"{_FIRST}attention.LayerNorm.bias"),
        "inner_group_num": Setting(
            fits=lambda value: type(value) is int and value == 1,
            expected="1: Centra knows no groups in which one layer stands behind another",
        ),
        "intermediate_size": size_of(f"{_FIRST}ffn.bias"),
        "num_hidden_groups": SIZE,
        "num_hidden_layers": Setting(
            fits=lambda value: type(value) is int and 1 <= value <= _MOST,
            expected=f"a whole number from 1 to {_MOST}",
        ),
    },
    contradiction=_contradiction,
    embeddings=_embeddings,
    layer=_layer,
    layer_prefix=_GROUPS,
    groups_key="num_hidden_groups",
    group_part=_GROUP_PART,
    prefix="albert.",
    transformers=TransformersClasses(
        module="transformers.models.albert.modeling_albert",
        config="AlbertConfig",
        model="AlbertModel",
        embeddings="AlbertEmbeddings",
        layer="AlbertLayer",
    ),
    pooler="pooler",
    sentence_head=lambda _: CheckpointHead(
        dense="albert.pooler", activation="tanh", out="classifier"
    ),
)
