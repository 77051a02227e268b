"""BERT, and what its descendants have of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from centra.families.base import (
    ACTIVATION,
    DROPOUT,
    EPSILON,
    SIZE,
    TOKEN_ID,
    Family,
    TransformersClasses,
    size_of,
)
from centra.families.description import (
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

__all__ = ["BERT", "SETTINGS", "embeddings", "layer"]

SETTINGS = {
    "attention_probs_dropout_prob": DROPOUT,
    "hidden_act": ACTIVATION,
    "hidden_dropout_prob": DROPOUT,
    "hidden_size": size_of("encoder.layer.0.attention.output.LayerNorm.bias"),
    "intermediate_size": size_of("encoder.layer.0.intermediate.dense.bias"),
    "layer_norm_eps": EPSILON,
    "max_position_embeddings": size_of("embeddings.position_embeddings.weight"),
    "num_attention_heads": SIZE,
    "num_hidden_layers": SIZE,
    "pad_token_id": TOKEN_ID,
    "type_vocab_size": size_of("embeddings.token_type_embeddings.weight"),
    "vocab_size": size_of("embeddings.word_embeddings.weight"),
}


def embeddings(settings: Mapping[str, Any]) -> Embeddings:
    """Words, token types where there are any, positions; a projection where they are narrower."""
    hidden = settings["hidden_size"]
    width = settings.get("embedding_size", hidden)
    tables: tuple[tuple[str, str, Literal["input_ids", "token_type_ids", "positions"]], ...] = (
        ("embeddings.word_embeddings", "vocab_size", "input_ids"),
        ("embeddings.token_type_embeddings", "type_vocab_size", "token_type_ids"),
        ("embeddings.position_embeddings", "max_position_embeddings", "positions"),
    )
    return Embeddings(
        tables=tuple(
            Table(name=name, rows=settings[rows], width=width, ids=ids)
            for name, rows, ids in tables
            if rows in settings
        ),
        norm=Norm(name="embeddings.LayerNorm", size=width, epsilon=settings["layer_norm_eps"]),
        projection=None
        if width == hidden
        else Linear(name="embeddings_project", inputs=width, outputs=hidden),
    )


def layer(settings: Mapping[str, Any], number: int) -> Layer:  # noqa: ARG001 - all are alike
    """Norms after attention and feed-forward, a bias in every linear layer."""
    return post_norm_layer(
        hidden=settings["hidden_size"],
        inner=settings["intermediate_size"],
        heads=settings["num_attention_heads"],
        activation=settings["hidden_act"],
        epsilon=settings["layer_norm_eps"],
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        feed_forward=("intermediate.dense", "output.dense"),
        feed_forward_norm="output.LayerNorm",
    )


BERT = Family(
    model_type="bert",
    settings=SETTINGS,
    embeddings=embeddings,
    layer=layer,
    layer_prefix="encoder.layer.",
    prefix="bert.",
    transformers=TransformersClasses(
        module="transformers.models.bert.modeling_bert",
        config="BertConfig",
        model="BertModel",
        embeddings="BertEmbeddings",
        layer="BertLayer",
    ),
    sentence_head=lambda _: CheckpointHead(
        dense="bert.pooler.dense", activation="tanh", out="classifier"
    ),
)
