"""A trained branch as a task module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from centra.formats.task_module import TaskModule

if TYPE_CHECKING:
    from centra.formats.task_module import TaskSpec
    from centra.modeling.branch import Branch
    from centra.modeling.trunk import Trunk
    from centra.tokenization.text_encoder import Encoded

__all__ = ["make_module"]


@torch.inference_mode()
def make_module(spec: TaskSpec, trunk: Trunk, branch: Branch, probe: Encoded) -> TaskModule:
    """Put a trained branch and its probe together into a module.

    Args:
        spec: what it says about itself.
        trunk: a trunk at least as deep as the tap.
        branch: in evaluation mode, on the CPU.
        probe: the inputs to record, ``(batch, seq)`` each.
    """
    inputs = {
        name: torch.from_numpy(getattr(probe, name))
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    hidden = trunk(**inputs, taps=[spec.tap_layer])[spec.tap_layer]
    logits = branch(hidden, trunk.shared_state(inputs["attention_mask"]))
    return TaskModule(
        spec,
        branch.tensors()
        | {f"probe.{name}": tensor for name, tensor in inputs.items()}
        | {"probe.logits": logits},
    )
