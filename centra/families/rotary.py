"""What families with rotary positions and gates have in common: one base for all layers, or several."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from centra.families.base import SIZE, Setting
from centra.families.description import Attention, FeedForward, Linear, Rotary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.description import Layer
    from centra.modeling.shared_state import SharedState

__all__ = [
    "BASE",
    "OLDER_SETTINGS",
    "ROTARY_SETTINGS",
    "attention",
    "contradiction",
    "gated",
    "is_base",
    "layer_inputs",
]


def is_base(value: Any) -> bool:
    """Whether it may be what angles fall by."""
    return type(value) in (int, float) and math.isfinite(value) and 1 < value < 1e12


def _is_default(value: Any) -> bool:
    return (
        type(value) is dict
        and value.keys() == {"rope_theta", "rope_type"}
        and value["rope_type"] == "default"
        and is_base(value["rope_theta"])
    )


BASE = Setting(fits=is_base, expected="a number above 1")
ROTARY_SETTINGS = {
    "head_dim": SIZE,
    "rope_parameters": Setting(
        fits=_is_default,
        expected="rope_theta, a number above 1, and rope_type default",
        kept_as=lambda value: value | {"rope_theta": float(value["rope_theta"])},
    ),
}
"""Of families whose layers all have one base."""
OLDER_SETTINGS = {
    "rope_scaling": Setting(
        fits=lambda value: value is None, expected="null, as positions are not scaled"
    ),
    "rope_theta": BASE,
}
"""What older ``config.json`` say instead of ``rope_parameters``."""


def attention(settings: Mapping[str, Any], *, bias: bool = False) -> Attention:
    """Attention whose queries and keys turn, in those families' names."""
    hidden, size = settings["hidden_size"], settings["head_dim"]
    heads = settings["num_attention_heads"]

    def part(name: str) -> Linear:
        return Linear(name=f"self_attn.{name}", inputs=hidden, outputs=heads * size, bias=bias)

    return Attention(
        heads=heads,
        query=part("q_proj"),
        key=part("k_proj"),
        value=part("v_proj"),
        output=Linear(name="self_attn.o_proj", inputs=heads * size, outputs=hidden, bias=bias),
        rotary=Rotary(base=settings["rope_parameters"]["rope_theta"], size=size),
    )


def gated(settings: Mapping[str, Any], *, bias: bool = False) -> FeedForward:
    """A gated feed-forward in their names: what they call gate is activated, as ``inner`` is here."""
    hidden, inner = settings["hidden_size"], settings["intermediate_size"]
    return FeedForward(
        inner=Linear(name="mlp.gate_proj", inputs=hidden, outputs=inner, bias=bias),
        gate=Linear(name="mlp.up_proj", inputs=hidden, outputs=inner, bias=bias),
        outer=Linear(name="mlp.down_proj", inputs=inner, outputs=hidden, bias=bias),
        activation=settings["hidden_act"],
    )


def contradiction(settings: Mapping[str, Any]) -> str | None:
    """What no layer can be made of."""
    size = settings["head_dim"]
    if size % 2:
        return f"heads of {size} values, which rotary positions cannot turn in pairs"
    return None


def layer_inputs(shared: SharedState, layer: Layer) -> dict[str, Any]:
    """What transformers' classes of such layers take."""
    attention = layer.attention
    assert attention.rotary is not None
    cosines, sines = shared.rotary(attention.rotary)
    turns: dict[str, Any] = {"position_embeddings": (cosines[None], sines[None])}
    in_window = shared.in_window(attention.window)
    if in_window is not None:
        return turns | {"attention_mask": None, "in_window": in_window}
    return turns | {"attention_mask": shared.looked_at(attention.window)}
