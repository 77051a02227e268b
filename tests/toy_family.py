"""A family that nobody has: all that Centra is told of it stands in this file.

Norms come first and have no bias, nor has any linear layer; feed-forward is gated; tensors are fused;
the last layer ends without a norm. Layers differ by their number: the first has no norm before its
attention; one of three looks at a window, and others turn queries and keys by two bases; biases by
distance come from one table that all layers share.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from centra.families.base import (
    ACTIVATION,
    EPSILON,
    SIZE,
    TOKEN_ID,
    Family,
    Setting,
    size_of,
)
from centra.families.description import (
    Attention,
    Embeddings,
    FeedForward,
    Layer,
    Linear,
    Norm,
    RelativeBias,
    Rotary,
    Table,
)
from centra.families.heads import CheckpointHead

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

__all__ = ["CONFIG", "TOY", "make_encoder", "make_weights"]

CONFIG = {
    "model_type": "toy",
    "width": 32,
    "heads": 4,
    "inner": 48,
    "depth": 4,
    "longest": 64,
    "window": 2,
    "turns": 10000.0,
    "buckets": 8,
    "act": "silu",
    "eps": 1e-5,
    "pad_token_id": 0,
}
_FARTHEST = 16


def _embeddings(settings: Mapping[str, Any]) -> Embeddings:
    width = settings["width"]
    return Embeddings(
        tables=(Table(name="tokens", rows=settings["vocab_size"], width=width, ids="input_ids"),),
        norm=Norm(name="norm", size=width, epsilon=settings["eps"], bias=False),
        relative_biases=(_bias(settings),),
        heads=settings["heads"],
    )


def _bias(settings: Mapping[str, Any]) -> RelativeBias:
    return RelativeBias(table="distances", buckets=settings["buckets"], farthest=_FARTHEST)


def _layer(settings: Mapping[str, Any], number: int) -> Layer:
    width, inner, epsilon = settings["width"], settings["inner"], settings["eps"]

    def part(name: str, place: int, count: int, outputs: int) -> Linear:
        return Linear(
            name=name,
            inputs=width,
            outputs=outputs,
            bias=False,
            first_row=place * outputs,
            stored_rows=count * outputs,
        )

    query, key, value = (part("attention.qkv", place, 3, width) for place in range(3))
    windowed = number % 3 == 2
    base = settings["turns"] if number % 3 == 1 else 100.0
    return Layer(
        hidden=width,
        norm_first=True,
        attention=Attention(
            heads=settings["heads"],
            query=query,
            key=key,
            value=value,
            output=Linear(name="attention.out", inputs=width, outputs=width, bias=False),
            rotary=None if windowed else Rotary(base=base, size=width // settings["heads"]),
            relative_bias=None if number % 3 == 1 else _bias(settings),
            window=settings["window"] if windowed else None,
        ),
        attention_norm=None
        if number == 1
        else Norm(name="attention.norm", size=width, epsilon=epsilon, bias=False),
        feed_forward=FeedForward(
            inner=part("mlp.in", 0, 2, inner),
            gate=part("mlp.in", 1, 2, inner),
            outer=Linear(name="mlp.out", inputs=inner, outputs=width, bias=False),
            activation=settings["act"],
        ),
        feed_forward_norm=Norm(
            name="mlp.norm", size=width, epsilon=epsilon, kind="rms", bias=False
        ),
    )


TOY = Family(
    model_type="toy",
    settings={
        "width": size_of("tokens.weight", axis=1),
        "heads": SIZE,
        "inner": size_of("blocks.0.mlp.out.weight", axis=1),
        "depth": SIZE,
        "longest": SIZE,
        "window": SIZE,
        "turns": Setting(
            fits=lambda value: type(value) is float and value > 1, expected="a number above 1"
        ),
        "buckets": size_of("distances"),
        "act": ACTIVATION,
        "eps": EPSILON,
        "pad_token_id": TOKEN_ID,
        "vocab_size": size_of("tokens.weight"),
    },
    defaults={"pad_token_id": 0},
    embeddings=_embeddings,
    layer=_layer,
    final_norm=lambda settings: Norm(
        name="final_norm", size=settings["width"], epsilon=settings["eps"], bias=False
    ),
    layers_alike=False,
    layer_prefix="blocks.",
    prefix="toy.",
    word_embeddings="tokens.weight",
    hidden_key="width",
    heads_key="heads",
    layers_key="depth",
    max_length_key="longest",
    token_types=False,
    pooler=None,
    transformers=None,
    sentence_head=lambda _: CheckpointHead(
        dense="classifier.dense", activation="gelu", out="classifier.out"
    ),
)


def make_weights(vocab_size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of an encoder, by their names in it; written out, not made from the family."""
    import torch

    width, inner = 32, 48
    shapes: dict[str, tuple[int, ...]] = {
        "tokens.weight": (vocab_size, width),
        "norm.weight": (width,),
        "distances": (8, 4),
        "final_norm.weight": (width,),
    }
    for i in range(4):
        shapes |= {
            f"blocks.{i}.attention.qkv.weight": (3 * width, width),
            f"blocks.{i}.attention.out.weight": (width, width),
            f"blocks.{i}.mlp.norm.weight": (width,),
            f"blocks.{i}.mlp.in.weight": (2 * inner, width),
            f"blocks.{i}.mlp.out.weight": (width, inner),
        }
        if i:
            shapes[f"blocks.{i}.attention.norm.weight"] = (width,)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (1.0 if "norm" in name else 0.0) + 0.15 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def make_encoder(folder: Path, **settings: Any) -> Path:
    """Write an encoder as ``save_pretrained`` would, with a tokenizer; settings may be others."""
    from safetensors.torch import save_file

    from tests import support

    tokenizer = support.make_tokenizer("distilbert")
    tokenizer.save_pretrained(folder)
    save_file(make_weights(len(tokenizer)), folder / "model.safetensors", {"format": "pt"})
    config = CONFIG | {"vocab_size": len(tokenizer)} | settings
    (folder / "config.json").write_text(json.dumps(config))
    return folder
