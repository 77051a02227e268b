"""BERT, and what its descendants have of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    Attention,
    Embeddings,
    FeedForward,
    Layer,
    Linear,
    Norm,
    Table,
)
from centra.families.heads import CheckpointHead

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
    """Words, token types and positions; a projection where they are narrower than the layers."""
    hidden = settings["hidden_size"]
    width = settings.get("embedding_size", hidden)
    return Embeddings(
        tables=(
            Table(
                name="embeddings.word_embeddings",
                rows=settings["vocab_size"],
                width=width,
                ids="input_ids",
            ),
            Table(
                name="embeddings.token_type_embeddings",
                rows=settings["type_vocab_size"],
                width=width,
                ids="token_type_ids",
            ),
            Table(
                name="embeddings.position_embeddings",
                rows=settings["max_position_embeddings"],
                width=width,
                ids="positions",
            ),
        ),
        norm=Norm(name="embeddings.LayerNorm", size=width, epsilon=settings["layer_norm_eps"]),
        projection=None
        if width == hidden
        else Linear(name="embeddings_project", inputs=width, outputs=hidden),
    )


def layer(settings: Mapping[str, Any], number: int) -> Layer:  # noqa: ARG001 - all are alike
    """Norms after attention and feed-forward, a bias in every linear layer."""
    hidden, inner = settings["hidden_size"], settings["intermediate_size"]
    epsilon = settings["layer_norm_eps"]

    def square(name: str) -> Linear:
        return Linear(name=name, inputs=hidden, outputs=hidden)

    return Layer(
        hidden=hidden,
        norm_first=False,
        attention=Attention(
            heads=settings["num_attention_heads"],
            query=square("attention.self.query"),
            key=square("attention.self.key"),
            value=square("attention.self.value"),
            output=square("attention.output.dense"),
        ),
        attention_norm=Norm(name="attention.output.LayerNorm", size=hidden, epsilon=epsilon),
        feed_forward=FeedForward(
            inner=Linear(name="intermediate.dense", inputs=hidden, outputs=inner),
            outer=Linear(name="output.dense", inputs=inner, outputs=hidden),
            activation=settings["hidden_act"],
        ),
        feed_forward_norm=Norm(name="output.LayerNorm", size=hidden, epsilon=epsilon),
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
