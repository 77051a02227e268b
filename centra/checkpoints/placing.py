"""Which tensor of a saved model goes where; one that nobody placed is never dropped without a word.

transformers ignores what a class does not know. Where that is a CRF, an adapter or a second layer of
a head, the answers without it are others. So each tensor is either placed, or one of the few that
are known to have no part in the answers (:func:`ignored_names`), or the model is refused by its name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from centra.checkpoints.saved_model import StoredTensor, load
from centra.errors import FormatError, IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.families.base import Family

__all__ = ["check_placed", "encoder_prefix", "ignored_names", "named_by_class"]

_PARTS = r"\.(weight|bias)"
# Heads of pre-training: left in the file by fine-tuning, read by no task.
_PRETRAINING = "|".join(
    (
        rf"cls\.predictions\.(bias|(decoder|transform\.dense|transform\.LayerNorm){_PARTS})",
        rf"cls\.seq_relationship{_PARTS}",
        rf"lm_head\.(bias|weight|(dense|layer_norm|decoder){_PARTS})",
        rf"vocab_(transform|layer_norm|projector){_PARTS}",
        rf"discriminator_predictions\.(dense|dense_prediction){_PARTS}",
        rf"generator_predictions\.(dense|LayerNorm){_PARTS}",
        rf"generator_lm_head{_PARTS}",
        rf"lm_predictions\.lm_head\.(bias|(dense|LayerNorm){_PARTS})",
        rf"mask_predictions\.(dense|LayerNorm|classifier){_PARTS}",
        rf"decoder{_PARTS}",
        rf"predictions\.(bias|(decoder|dense|LayerNorm){_PARTS})",
        rf"sop_classifier\.classifier{_PARTS}",
    )
)
# Heads of transformers' own task classes: no part of the encoder below them.
_TASK_HEADS = "|".join(
    (
        rf"(pre_)?classifier{_PARTS}",
        rf"classifier\.(dense|out_proj){_PARTS}",
        rf"pooler\.dense{_PARTS}",
        rf"qa_outputs{_PARTS}",
        rf"head\.(dense|norm){_PARTS}",
        rf"sequence_summary\.summary{_PARTS}",
    )
)
# Older versions of transformers saved these counts; today's make them anew.
_COUNTS = r"embeddings\.(position_ids|token_type_ids)"

_WRAPPERS = {
    "module": ("torch.nn.DataParallel or DistributedDataParallel adds", "model.module"),
    "_orig_mod": ("torch.compile adds", "model._orig_mod"),
    "_fsdp_wrapped_module": ("FSDP adds", "the model inside"),
    "_checkpoint_wrapped_module": ("activation checkpointing adds", "the model inside"),
}
_CRF = re.compile(r"\bcrf\b")
_HINTS = {
    r"lora_|\.base_layer\.": "Merge the adapter first (peft: model.merge_and_unload()) and save "
    "the whole model.",
    r"adapter|prefix_tuning|loreft|ia3": "Merge the adapters into the layers where that can be "
    "done, or fine-tune layers instead.",
    _CRF.pattern: "Centra decodes the CRFs that it trains itself.",
}


def named_by_class(
    tensors: Mapping[str, StoredTensor], family: Family, where: str
) -> dict[str, StoredTensor]:
    """Tensors by the names that the family's class has for them; see :attr:`Family.saved_names`.

    Those that nobody knows keep the names of the file.

    Raises:
        FormatError: two are one in the class.
    """
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        for own, part in _parts(name, tensor, family):
            if own in found:
                raise FormatError(
                    f"{where}: holds tensor {own} twice, once as {name}; save the model again"
                )
            found[own] = part
    return found


def encoder_prefix(tensors: Mapping[str, StoredTensor], family: Family, where: str) -> str:
    """What comes before the encoder's names in a model: the family's prefix, or nothing.

    Raises:
        FormatError: there is no encoder of this family in it, or all names have a wrapper's prefix.
    """
    for name in tensors:
        wrapper = next((part for part in name.split(".") if part in _WRAPPERS), None)
        if wrapper is not None:
            by, inner = _WRAPPERS[wrapper]
            raise FormatError(
                f"{where}: its tensors are named like {name!r}: '{wrapper}.' is what {by}, and "
                f"transformers reads no such names. Save the model inside: {inner}"
                f".save_pretrained(NEW_FOLDER); or rename in the file: tensors = "
                "safetensors.torch.load_file(FILE), then safetensors.torch.save_file({name.replace"
                f"('{wrapper}.', ''): t for name, t in tensors.items()}}, FILE, {{'format': 'pt'}})."
            )
    for prefix in (family.prefix, ""):
        if f"{prefix}{family.word_embeddings}" in tensors:
            return prefix
    end = family.word_embeddings
    other = next((name for name in tensors if name.endswith(end)), None)
    if other is not None:
        raise FormatError(
            f"{where}: its tensors are named like {other!r}; expected {family.prefix + end!r}. Save "
            "the transformers model itself, not the class around it."
        )
    raise FormatError(f"{where}: has no weights for {end}")


def ignored_names(family: Family, prefix: str, *, heads: bool) -> re.Pattern[str]:
    """The names of tensors that have no part in the answers.

    Args:
        family: the encoder family.
        prefix: of the encoder's names; see :func:`encoder_prefix`.
        heads: whether the heads of task classes are among them, as above a backbone.
    """
    inside = f"{_COUNTS}|{re.escape(family.pooler)}{_PARTS}" if family.pooler else _COUNTS
    inside = f"{inside}|{family.unused}" if family.unused else inside
    outside = f"{_PRETRAINING}|{_TASK_HEADS}" if heads else _PRETRAINING
    return re.compile(f"{re.escape(prefix)}({inside})|{outside}")


def check_placed(
    tensors: Mapping[str, StoredTensor],
    expected: Mapping[str, tuple[int, ...]],
    ignored: re.Pattern[str],
    where: str,
    class_name: str,
) -> None:
    """Check that a model holds what it needs, in the right shape, and nothing that nobody placed.

    Args:
        tensors: all that its files hold.
        expected: the shape of each tensor that is placed.
        ignored: what may be left out; see :func:`ignored_names`.
        where: what to call the model in errors.
        class_name: the class that the tensors are placed in.

    Raises:
        IncompatibleError: a tensor has no place; it is named. Or it is of a type that Centra does
            not compute in.
        FormatError: a tensor is missing or misshapen.
    """
    unknown = [name for name in tensors if name not in expected and not ignored.fullmatch(name)]
    if unknown:
        raise IncompatibleError(
            f"{where}: {_some(unknown)} no place in {class_name}: without "
            f"{'it' if len(unknown) == 1 else 'them'} its answers would be others. "
            + next(
                (hint for pattern, hint in _HINTS.items() if re.search(pattern, unknown[0])),
                "Fine-tune transformers' own class; if the tensor is left over, take it out of the "
                "file.",
            ),
            code="crf-unplaced" if _CRF.search(unknown[0]) else "tensor-unplaced",
            tensor=unknown[0],
        )
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise FormatError(f"{where}: has no weights for {', '.join(missing[:3])}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise FormatError(
                f"{where}: tensor {name} is {tensors[name].shape}; by its config.json it is {shape}"
            )
        if tensors[name].dtype not in ("F64", "F32", "F16", "BF16"):
            raise IncompatibleError(
                f"{where}: tensor {name} is {tensors[name].dtype}, expected floats; save the model "
                "in float32, float16 or bfloat16"
            )
    _check_counts(tensors, ignored, where)


def _parts(name: str, tensor: StoredTensor, family: Family) -> list[tuple[str, StoredTensor]]:
    """What the class has of a tensor of the file, by name."""
    inner = name.removeprefix(family.prefix)
    before = name.removesuffix(inner)
    for pattern, names in family.saved_names.items():
        match = re.fullmatch(pattern, inner)
        if match is None or not tensor.shape or tensor.shape[0] % len(names):
            continue
        if len(names) == 1:
            return [(before + match.expand(names[0]), tensor)]
        count = tensor.shape[0] // len(names)
        shape = (count, *tensor.shape[1:])
        return [
            (
                before + match.expand(own),
                replace(tensor, shape=shape, rows=slice(first, first + count)),
            )
            for own, first in zip(names, range(0, tensor.shape[0], count), strict=True)
        ]
    return [(name, tensor)]


def _check_counts(
    tensors: Mapping[str, StoredTensor], ignored: re.Pattern[str], where: str
) -> None:
    """Positions counted otherwise than from 0 up would be another model."""
    import torch

    counts = {name: t for name, t in tensors.items() if name.endswith(("position_ids", "type_ids"))}
    for name, tensor in load({n: t for n, t in counts.items() if ignored.fullmatch(n)}).items():
        flat = tensor.flatten()
        usual = torch.arange(len(flat)) if name.endswith("position_ids") else torch.zeros(len(flat))
        if not torch.equal(flat.double(), usual.double()):
            raise IncompatibleError(
                f"{where}: tensor {name} does not hold what transformers puts there, and today's "
                "transformers would not read it"
            )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    if len(names) == 1:
        return f"tensor {shown} has"
    return f"tensors {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "") + " have"
