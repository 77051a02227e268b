"""A fine-tuned checkpoint in a folder: which class saved it, and where each of its tensors goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.checkpoints.placing import (
    check_placed,
    encoder_prefix,
    ignored_names,
    named_by_class,
)
from centra.checkpoints.pretrained import refuse_code
from centra.checkpoints.saved_model import StoredTensor, read_config, read_headers
from centra.errors import FormatError, IncompatibleError
from centra.families.settings import (
    check_published,
    encoder_shapes,
    read_family,
    read_head_settings,
    read_settings,
    transformers_config,
)
from centra.formats.head import ACTIVATIONS
from centra.formats.tensors import under

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from centra.families.base import Family
    from centra.families.heads import CheckpointHead

__all__ = ["FineTuned"]


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A checkpoint whose tensors all have their place; only headers have been read yet."""

    folder: Path
    raw: dict[str, Any]
    """What its ``config.json`` says."""
    family: Family
    settings: dict[str, Any]
    """The encoder's."""
    config: Any
    """transformers' config of it."""
    architecture: str
    head: CheckpointHead
    tensors: dict[str, StoredTensor]
    """The encoder's and the head's; what is harmless is left out."""

    @property
    def tagging(self) -> bool:
        """Whether its head reads every token."""
        return _tagging(self.architecture)

    @property
    def outputs(self) -> int:
        """How many its head has."""
        return self.tensors[f"{self.head.out}.weight"].shape[0]

    @classmethod
    def open(cls, folder: Path) -> FineTuned:
        """Read ``config.json`` and the headers of the weights.

        Raises:
            FormatError: it cannot be read, contradicts itself, or is of a class that is not
                transformers' own for sentences or tokens.
            IncompatibleError: a family or setting that Centra does not serve, or code of its own
                (``auto_map``), or a tensor that has no place; it is named.
        """
        where = str(folder)
        raw = read_config(where)
        refuse_code(where)
        family = read_family(raw, where)
        architecture = _architecture(raw, family, where)
        headers = named_by_class(read_headers(where), family, where)
        prefix = encoder_prefix(headers, family, where)
        if prefix != family.prefix:
            raise FormatError(
                f"{where}: holds an encoder alone, without the head of a {architecture}; save "
                "the whole fine-tuned model"
            )
        shapes = {name: tensor.shape for name, tensor in under(headers, prefix).items()}
        settings = read_settings(raw, family, shapes, where)
        expected = {prefix + n: shape for n, shape in encoder_shapes(settings, family).items()}
        config = transformers_config(raw, family, where, heads=True)
        all_settings = settings | read_head_settings(config, family)
        check_published(raw, all_settings, family, where)
        head = _head(family, all_settings, architecture, where)
        out = headers.get(f"{head.out}.weight")
        outputs = out.shape[0] if out is not None and out.shape else 1
        expected |= head.shapes(settings[family.hidden_key], outputs)
        ignored = ignored_names(family, prefix, heads=False)
        check_placed(headers, expected, ignored, where, architecture)
        return cls(
            folder=folder,
            raw=raw,
            family=family,
            settings=settings,
            config=config,
            architecture=architecture,
            head=head,
            tensors={name: headers[name] for name in expected},
        )


def _tagging(architecture: str) -> bool:
    return architecture.endswith("ForTokenClassification")


def _head(
    family: Family, settings: Mapping[str, Any], architecture: str, where: str
) -> CheckpointHead:
    head = (family.token_head if _tagging(architecture) else family.sentence_head)(settings)
    if head.activation not in (None, *ACTIVATIONS):
        raise IncompatibleError(
            f"{where}: its classifier's activation is {head.activation!r:.60}; heads of task modules "
            f"have {', '.join(ACTIVATIONS)}"
        )
    return head


def _architecture(raw: dict[str, Any], family: Family, where: str) -> str:
    """The class that saved the checkpoint, where it is one of transformers' own two."""
    if family.transformers is None:
        raise IncompatibleError(
            f"{where}: is a {family.model_type}, which transformers does not have; so there is "
            "nothing to hold a fine-tuned checkpoint's answers against"
        )
    stem = family.transformers.model.removesuffix("Model")
    standard = [f"{stem}ForSequenceClassification", f"{stem}ForTokenClassification"]
    expected = " or ".join(standard)
    named = raw.get("architectures")
    names = named if isinstance(named, list) else []
    if len(names) != 1 or not isinstance(names[0], str):
        raise FormatError(
            f"{where}: its config.json says architectures {named!r:.60}; expected the one class "
            f"that saved it, {expected}. Save the fine-tuned model with its save_pretrained."
        )
    if names[0] in standard:
        return str(names[0])
    own = names[0].endswith(("ForSequenceClassification", "ForTokenClassification"))
    raise FormatError(
        f"{where}: its architecture is {names[0]}; expected {expected}. "
        + (
            "A class of another name may compute otherwise than transformers' own, so it is not "
            "taken for it. If it computes the same, load the weights with transformers' class and "
            "save them again; if not, fine-tune that class."
            if own
            else "Fine-tune one of these, and save it with its save_pretrained."
        ),
        code="class-not-transformers",
        architecture=names[0],
    )
