"""Hidden states of a backbone as transformers' own model computes them, and inputs to hold them to."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
import transformers

from centra.data.inputs import Input
from centra.families import family_named
from centra.modeling.trunk import Trunk
from centra.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from tests import support

__all__ = ["PAIRS", "SINGLES", "assert_same_states", "batch", "reference_states", "trunk_states"]

SINGLES = [Input("wake me at seven"), Input("play some jazz, please, and will it rain tomorrow?")]
PAIRS = [Input("is there snow", "yes it is"), Input("go", "no never, we fly to new york on friday")]


def reference_states(folder: Path, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """At every layer ``(batch, seq, hidden)``, the embedding output first."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    takes = inspect.signature(model.forward).parameters
    known = {name: tensor for name, tensor in inputs.items() if name in takes}
    last: list[torch.Tensor] = []
    family = family_named(model.config.model_type)
    layers = model.get_submodule(family.layer_prefix.removesuffix("."))
    # transformers has the norm behind the last layer in its last states.
    layers[-1].register_forward_hook(
        lambda *given: last.append(given[-1][0] if isinstance(given[-1], tuple) else given[-1])
    )
    with torch.inference_mode():
        states = model(**known, output_hidden_states=True).hidden_states
    # A layer that is several is run several times.
    return [*states[:-1], last[-1]]


def batch(backbone: support.Backbone, inputs: list[Input]) -> dict[str, torch.Tensor]:
    """What a trunk takes of some inputs."""
    _, encoded = TextEncoder.of(backbone.spec, backbone.store).batch(inputs)
    return {name: torch.from_numpy(array) for name, array in vars(encoded).items()}


def trunk_states(backbone: support.Backbone, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What :func:`reference_states` gives, of the torch trunk."""
    layers = backbone.spec.num_layers
    trunk = Trunk(backbone.spec, backbone.store, depth=layers)
    with torch.inference_mode():
        states = trunk(**inputs, taps=range(layers + 1))
    return [states[tap] for tap in range(layers + 1)]


def assert_same_states(backbone: support.Backbone, inputs: dict[str, torch.Tensor]) -> None:
    """The torch trunk's are transformers' own to the last bit."""
    ours, theirs = trunk_states(backbone, inputs), reference_states(backbone.folder, inputs)
    assert len(ours) == len(theirs) == backbone.spec.num_layers + 1
    for layer, (own, reference) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(own, reference), (
            f"layer {layer} differs by {(own - reference).abs().max():.3g}"
        )
