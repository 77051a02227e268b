"""DistilBERT: BERT without token types, under other names, with a fixed epsilon in its norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.families.base import (
    ACTIVATION,
    DROPOUT,
    SIZE,
    SWITCH,
    TOKEN_ID,
    Family,
    TransformersClasses,
    size_of,
)
from centra.families.description import (
    Embeddings,
    Layer,
    Norm,
    Table,
)
from centra.families.heads import CheckpointHead
from centra.families.post_norm import post_norm_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DISTILBERT"]

_EPSILON = 1e-12


def _embeddings(settings: Mapping[str, Any]) -> Embeddings:
    hidden = settings["dim"]
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
        norm=Norm(name="embeddings.LayerNorm", size=hidden, epsilon=_EPSILON),
    )


def _layer(settings: Mapping[str, Any], number: int) -> Layer:  # noqa: ARG001 - all are alike
    return post_norm_layer(
        hidden=settings["dim"],
        inner=settings["hidden_dim"],
        heads=settings["n_heads"],
        activation=settings["activation"],
        epsilon=_EPSILON,
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        attention_norm="sa_layer_norm",
        feed_forward=("ffn.lin1", "ffn.lin2"),
        feed_forward_norm="output_layer_norm",
    )


DISTILBERT = Family(
    model_type="distilbert",
    settings={
        "activation": ACTIVATION,
        "attention_dropout": DROPOUT,
        "dim": size_of("transformer.layer.0.sa_layer_norm.bias"),
        "dropout": DROPOUT,
        "hidden_dim": size_of("transformer.layer.0.ffn.lin1.bias"),
        "max_position_embeddings": size_of("embeddings.position_embeddings.weight"),
        "n_heads": SIZE,
        "n_layers": SIZE,
        "pad_token_id": TOKEN_ID,
        "sinusoidal_pos_embds": SWITCH,
        "vocab_size": size_of("embeddings.word_embeddings.weight"),
    },
    embeddings=_embeddings,
    layer=_layer,
    layer_prefix="transformer.layer.",
    prefix="distilbert.",
    hidden_key="dim",
    heads_key="n_heads",
    layers_key="n_layers",
    token_types=False,
    pooler=None,
    transformers=TransformersClasses(
        module="transformers.models.distilbert.modeling_distilbert",
        config="DistilBertConfig",
        model="DistilBertModel",
        embeddings="Embeddings",
        layer="TransformerBlock",
    ),
    sentence_head=lambda _: CheckpointHead(
        dense="pre_classifier", activation="relu", out="classifier"
    ),
)
