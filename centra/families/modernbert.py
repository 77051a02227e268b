"""ModernBERT, and mmBERT under its name: norms first, gates, rotary positions, and windows.

A layer looks everywhere or at a window, and turns queries and keys by one base or another, by its
number; the first has no norm before its attention.
"""

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
    Setting,
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
    Rotary,
    Table,
)
from centra.families.heads import CheckpointHead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MODERNBERT"]

_FULL, _SLIDING = _KINDS = ("full_attention", "sliding_attention")


def _embeddings(settings: Mapping[str, Any]) -> Embeddings:
    hidden = settings["hidden_size"]
    return Embeddings(
        tables=(
            Table(
                name="embeddings.tok_embeddings",
                rows=settings["vocab_size"],
                width=hidden,
                ids="input_ids",
            ),
        ),
        norm=_norm("embeddings.norm", settings),
    )


def _norm(name: str, settings: Mapping[str, Any]) -> Norm:
    return Norm(
        name=name,
        size=settings["hidden_size"],
        epsilon=settings["norm_eps"],
        bias=settings["norm_bias"],
    )


def _layer(settings: Mapping[str, Any], number: int) -> Layer:
    hidden, inner = settings["hidden_size"], settings["intermediate_size"]
    heads = settings["num_attention_heads"]
    kind = _kinds(settings["layer_types"], number)[-1]
    attention_bias, mlp_bias = settings["attention_bias"], settings["mlp_bias"]

    def part(name: str, place: int, count: int, outputs: int, *, bias: bool) -> Linear:
        return Linear(
            name=name,
            inputs=hidden,
            outputs=outputs,
            bias=bias,
            first_row=place * outputs,
            stored_rows=count * outputs,
        )

    query, key, value = (
        part("attn.Wqkv", place, 3, hidden, bias=attention_bias) for place in range(3)
    )
    return Layer(
        hidden=hidden,
        norm_first=True,
        attention=Attention(
            heads=heads,
            query=query,
            key=key,
            value=value,
            output=Linear(name="attn.Wo", inputs=hidden, outputs=hidden, bias=attention_bias),
            rotary=Rotary(
                base=float(settings["rope_parameters"][kind]["rope_theta"]), size=hidden // heads
            ),
            window=settings["local_attention"] // 2 if kind == _SLIDING else None,
        ),
        attention_norm=None if number == 1 else _norm("attn_norm", settings),
        feed_forward=FeedForward(
            inner=part("mlp.Wi", 0, 2, inner, bias=mlp_bias),
            gate=part("mlp.Wi", 1, 2, inner, bias=mlp_bias),
            outer=Linear(name="mlp.Wo", inputs=inner, outputs=hidden, bias=mlp_bias),
            activation=settings["hidden_activation"],
        ),
        feed_forward_norm=_norm("mlp_norm", settings),
    )


def _kinds(stated: Sequence[str], count: int) -> list[str]:
    """The kinds of so many layers: as a config says, and above its last layer as they come round."""
    period = next(
        n for n in range(1, len(stated) + 1) if all(map(str.__eq__, stated[n:], stated[:-n]))
    )
    return [stated[i] if i < len(stated) else stated[i % period] for i in range(count)]


def _head(settings: Mapping[str, Any]) -> CheckpointHead:
    """Of sentences and of tokens; pooling comes before it."""
    return CheckpointHead(
        out="classifier",
        dense="head.dense",
        dense_bias=settings["classifier_bias"],
        activation=settings["classifier_activation"],
        norm=_norm("head.norm", settings),
        pooling="mean" if settings["classifier_pooling"] == "mean" else "first",
    )


def _layer_arguments(config: Any, number: int) -> tuple[Any, ...]:
    """The class takes all that differs by the number of the layer out of the config."""
    config.layer_types = _kinds(config.layer_types, number)
    return config, number - 1


def _are_kinds(value: Any) -> bool:
    return type(value) is list and bool(value) and all(kind in _KINDS for kind in value)


def _are_bases(value: Any) -> bool:
    if type(value) is not dict or value.keys() != {*_KINDS}:
        return False
    return all(
        type(kind) is dict
        and kind.keys() == {"rope_theta", "rope_type"}
        and kind["rope_type"] == "default"
        and rotary.is_base(kind["rope_theta"])
        for kind in value.values()
    )


def _bases(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: kind | {"rope_theta": float(kind["rope_theta"])} for name, kind in value.items()}


def _contradiction(settings: Mapping[str, Any]) -> str | None:
    kinds, layers = len(settings["layer_types"]), settings["num_hidden_layers"]
    if kinds != layers:
        return f"layer_types of {kinds} layers and num_hidden_layers {layers}"
    size = settings["hidden_size"] // settings["num_attention_heads"]
    if size % 2:
        return f"heads of {size} values, which rotary positions cannot turn in pairs"
    return None


MODERNBERT = Family(
    model_type="modernbert",
    settings={
        "attention_bias": SWITCH,
        "attention_dropout": DROPOUT,
        "embedding_dropout": DROPOUT,
        "hidden_activation": ACTIVATION,
        "hidden_size": size_of("embeddings.tok_embeddings.weight", axis=1),
        "intermediate_size": size_of("layers.0.mlp.Wo.weight", axis=1),
        "layer_types": Setting(
            fits=_are_kinds, expected=f"a list of {_FULL} and {_SLIDING}, one per layer"
        ),
        "local_attention": SIZE,
        "max_position_embeddings": SIZE,
        "mlp_bias": SWITCH,
        "mlp_dropout": DROPOUT,
        "norm_bias": SWITCH,
        "norm_eps": EPSILON,
        "num_attention_heads": SIZE,
        "num_hidden_layers": SIZE,
        "pad_token_id": TOKEN_ID,
        "rope_parameters": Setting(
            fits=_are_bases,
            expected=f"rope_theta, a number above 1, and rope_type default, for {_FULL} and {_SLIDING}",
            kept_as=_bases,
        ),
        "vocab_size": size_of("embeddings.tok_embeddings.weight"),
    },
    older_settings={
        "global_attn_every_n_layers": SIZE,
        "global_rope_theta": rotary.BASE,
        "local_rope_theta": rotary.BASE,
    },
    contradiction=_contradiction,
    embeddings=_embeddings,
    layer=_layer,
    final_norm=lambda settings: _norm("final_norm", settings),
    more_layers=lambda settings, count: {"layer_types": _kinds(settings["layer_types"], count)},
    layers_alike=False,
    layer_prefix="layers.",
    prefix="model.",
    word_embeddings="embeddings.tok_embeddings.weight",
    token_types=False,
    pooler=None,
    transformers=TransformersClasses(
        module="transformers.models.modernbert.modeling_modernbert",
        config="ModernBertConfig",
        model="ModernBertModel",
        embeddings="ModernBertEmbeddings",
        layer="ModernBertEncoderLayer",
        layer_arguments=_layer_arguments,
        layer_inputs=rotary.layer_inputs,
    ),
    head_settings={
        "classifier_activation": ACTIVATION,
        "classifier_bias": SWITCH,
        "classifier_pooling": Setting(
            fits=lambda value: value in ("cls", "mean"), expected="cls or mean"
        ),
    },
    sentence_head=_head,
    token_head=_head,
)
