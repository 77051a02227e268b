"""NomicBERT: BERT with rotary positions and gates, without biases in its linear layers.

Its checkpoints were published with code of their own, which is never run. transformers has the class
since, and saves it under that code's names, with query, key and value as one tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.families import rotary
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
from centra.families.description import Embeddings, Layer, Norm, Table
from centra.families.heads import CheckpointHead

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NOMIC_BERT"]

_TRAINED = 2048
"""How many positions the published checkpoints were trained with; beyond, their own code may scale."""


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
                name="embeddings.token_type_embeddings",
                rows=settings["type_vocab_size"],
                width=hidden,
                ids="token_type_ids",
            ),
        ),
        norm=_norm("embeddings.LayerNorm", settings),
    )


def _norm(name: str, settings: Mapping[str, Any]) -> Norm:
    return Norm(name=name, size=settings["hidden_size"], epsilon=settings["layer_norm_eps"])


def _layer(settings: Mapping[str, Any], number: int) -> Layer:  # noqa: ARG001 - all are alike
    return Layer(
        hidden=settings["hidden_size"],
        norm_first=False,
        attention=rotary.attention(settings),
        attention_norm=_norm("post_attention_layernorm", settings),
        feed_forward=rotary.gated(settings),
        feed_forward_norm=_norm("post_mlp_layernorm", settings),
    )


def _published_as(settings: Mapping[str, Any]) -> dict[str, Any]:
    scaled = settings["max_position_embeddings"] > _TRAINED
    return {
        "activation_function": {"gelu": "geglu", "silu": "swiglu"}.get(settings["hidden_act"]),
        "causal": False,
        "layer_norm_epsilon": settings["layer_norm_eps"],
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "n_embd": settings["hidden_size"],
        "n_head": settings["num_attention_heads"],
        "n_inner": settings["intermediate_size"],
        "n_layer": settings["num_hidden_layers"],
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_base": settings["rope_parameters"]["rope_theta"],
        "rotary_emb_fraction": 1,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        **({"rotary_scaling_factor": None} if scaled else {}),
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
        "use_rms_norm": False,
    }


NOMIC_BERT = Family(
    model_type="nomic_bert",
    settings={
        "attention_probs_dropout_prob": DROPOUT,
        "hidden_act": ACTIVATION,
        "hidden_dropout_prob": DROPOUT,
        "hidden_size": size_of("embeddings.word_embeddings.weight", axis=1),
        "intermediate_size": size_of("layers.0.mlp.down_proj.weight", axis=1),
        "layer_norm_eps": EPSILON,
        "max_position_embeddings": SIZE,
        "num_attention_heads": SIZE,
        "num_hidden_layers": SIZE,
        "pad_token_id": TOKEN_ID,
        "type_vocab_size": size_of("embeddings.token_type_embeddings.weight"),
        "vocab_size": size_of("embeddings.word_embeddings.weight"),
    }
    | rotary.ROTARY_SETTINGS,
    older_settings=rotary.OLDER_SETTINGS,
    published_as=_published_as,
    contradiction=rotary.contradiction,
    embeddings=_embeddings,
    layer=_layer,
    layer_prefix="layers.",
    prefix="nomic_bert.",
    saved_names={
        r"emb_ln\.(weight|bias)": (r"embeddings.LayerNorm.\1",),
        r"encoder\.layers\.(\d+)\.attn\.Wqkv\.weight": tuple(
            rf"layers.\1.self_attn.{part}_proj.weight" for part in "qkv"
        ),
        r"encoder\.layers\.(\d+)\.attn\.out_proj\.weight": (r"layers.\1.self_attn.o_proj.weight",),
        r"encoder\.layers\.(\d+)\.mlp\.fc11\.weight": (r"layers.\1.mlp.up_proj.weight",),
        r"encoder\.layers\.(\d+)\.mlp\.fc12\.weight": (r"layers.\1.mlp.gate_proj.weight",),
        r"encoder\.layers\.(\d+)\.mlp\.fc2\.weight": (r"layers.\1.mlp.down_proj.weight",),
        r"encoder\.layers\.(\d+)\.norm1\.(weight|bias)": (
            r"layers.\1.post_attention_layernorm.\2",
        ),
        r"encoder\.layers\.(\d+)\.norm2\.(weight|bias)": (r"layers.\1.post_mlp_layernorm.\2",),
    },
    transformers=TransformersClasses(
        module="transformers.models.nomic_bert.modeling_nomic_bert",
        config="NomicBertConfig",
        model="NomicBertModel",
        embeddings="NomicBertEmbeddings",
        layer="NomicBertLayer",
        layer_inputs=rotary.layer_inputs,
    ),
    sentence_head=lambda _: CheckpointHead(
        dense="nomic_bert.pooler.dense", activation="tanh", out="classifier"
    ),
)
