"""EuroBERT: norms first, without a mean or biases; gates, rotary positions, fewer heads of keys than of queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.families import rotary
from centra.families.base import (
    ACTIVATION,
    DROPOUT,
    EPSILON,
    SIZE,
    SWITCH,
    TOKEN_ID,
    Family,
    TransformersClasses,
    one_of,
    size_of,
)
from centra.families.description import Embeddings, Layer, Norm, Table
from centra.families.heads import CheckpointHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.heads import Pooling

__all__ = ["EUROBERT"]

_POOLINGS: dict[str, Pooling] = {"bos": "first", "late": "late", "mean": "mean"}


def _embeddings(settings: Mapping[str, Any]) -> Embeddings:
    words = Table(
        name="embed_tokens",
        rows=settings["vocab_size"],
        width=settings["hidden_size"],
        ids="input_ids",
    )
    return Embeddings(tables=(words,), norm=None)


def _norm(name: str, settings: Mapping[str, Any]) -> Norm:
    return Norm(
        name=name,
        size=settings["hidden_size"],
        epsilon=settings["rms_norm_eps"],
        kind="rms",
        bias=False,
    )


def _layer(settings: Mapping[str, Any], number: int) -> Layer:  # noqa: ARG001 - all are alike
    return Layer(
        hidden=settings["hidden_size"],
        norm_first=True,
        attention=rotary.attention(settings, bias=settings["attention_bias"]),
        attention_norm=_norm("input_layernorm", settings),
        feed_forward=rotary.gated(settings, bias=settings["mlp_bias"]),
        feed_forward_norm=_norm("post_attention_layernorm", settings),
    )


def _published_as(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Only the way of pooling was called otherwise."""
    pooling = settings.get("classifier_pooling")
    return {} if pooling is None else {"clf_pooling": pooling}


EUROBERT = Family(
    model_type="eurobert",
    settings={
        "attention_bias": SWITCH,
        "attention_dropout": DROPOUT,
        "hidden_act": ACTIVATION,
        "hidden_size": size_of("embed_tokens.weight", axis=1),
        "intermediate_size": size_of("layers.0.mlp.down_proj.weight", axis=1),
        "max_position_embeddings": SIZE,
        "mlp_bias": SWITCH,
        "num_attention_heads": SIZE,
        "num_hidden_layers": SIZE,
        "num_key_value_heads": SIZE,
        "pad_token_id": TOKEN_ID,
        "rms_norm_eps": EPSILON,
        "vocab_size": size_of("embed_tokens.weight"),
    }
    | rotary.ROTARY_SETTINGS,
    older_settings=rotary.OLDER_SETTINGS,
    published_as=_published_as,
    contradiction=rotary.contradiction,
    embeddings=_embeddings,
    layer=_layer,
    final_norm=lambda settings: _norm("norm", settings),
    layer_prefix="layers.",
    prefix="model.",
    word_embeddings="embed_tokens.weight",
    token_types=False,
    pooler=None,
    transformers=TransformersClasses(
        module="transformers.models.eurobert.modeling_eurobert",
        config="EuroBertConfig",
        model="EuroBertModel",
        embeddings=None,
        layer="EuroBertDecoderLayer",
        layer_arguments=lambda config, number: (config, number - 1),
        layer_inputs=rotary.layer_inputs,
    ),
    head_settings={"classifier_pooling": one_of(*_POOLINGS)},
    sentence_head=lambda settings: CheckpointHead(
        dense="dense",
        activation="gelu",
        out="classifier",
        pooling=_POOLINGS[settings["classifier_pooling"]],
    ),
)
