"""The probe of a module that came from a checkpoint: it must answer as transformers answers with it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from centra.errors import FormatError, IncompatibleError, first_line
from centra.formats.task_module import TaskModule
from centra.modeling.branch import Branch
from centra.modeling.trunk import Trunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from centra.checkpoints.fine_tuned import FineTuned
    from centra.checkpoints.frozen import BackboneMatch
    from centra.families.description import Embeddings
    from centra.formats.task_module import TaskSpec
    from centra.progress import Remark
    from centra.store import BlobReader
    from centra.tokenization.text_encoder import Encoded

__all__ = ["with_probe"]

_TOLERANCE = 1e-4
_ROUNDINGS = 8
"""How many roundings of the largest logit may part answers from rounded weights and from float32.

Each frozen weight is off by at most half a rounding, in directions that have nothing to do with each
other, and layer norms keep what they add up to from growing with the depth: fine-tuned MiniLMs of
six layers part by 0.2 to 1.3.
"""


def with_probe(
    module: TaskModule,
    checkpoint: FineTuned,
    matched: BackboneMatch,
    *,
    batch: Encoded,
    reader: BlobReader,
    remark: Remark,
) -> TaskModule:
    """Record the checkpoint's own logits, and refuse a module that does not reproduce them.

    Args:
        module: without a probe.
        checkpoint: what it came from.
        matched: the backbone that it stands on.
        batch: the probe's inputs.
        reader: where the backbone's blobs are.
        remark: told how far a rounded checkpoint's answers move.

    Raises:
        IncompatibleError: the answers are others.
        FormatError: transformers cannot load the checkpoint.
    """
    spec, folder = module.spec, checkpoint.folder
    arrays = {name: torch.from_numpy(array) for name, array in vars(batch).items()}
    trunk = Trunk(matched.backbone, reader, depth=spec.tap_layer)
    branch = Branch(matched.backbone, spec).load(module.tensors).eval()
    model = _transformers_model(checkpoint)
    with torch.inference_mode():
        hidden = trunk(**arrays, taps=[spec.tap_layer])[spec.tap_layer]
        mask = arrays["attention_mask"]
        own = _of_tokens(branch(hidden, trunk.shared_state(mask)), mask)
        expected = _logits(model, arrays, matched.backbone.description)
        if matched.precision != torch.float32:
            rounded = _of_tokens(expected, mask)
            model.load_state_dict(_frozen(checkpoint, matched, spec, reader), strict=False)
            expected = _logits(model, arrays, matched.backbone.description)
            _check_rounding(rounded, _of_tokens(expected, mask), matched, folder, remark)
    shown = _of_tokens(expected, mask)
    if not torch.allclose(own, shown, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise IncompatibleError(
            f"{folder}: rebuilt on the backbone, its logits differ by up to "
            f"{(own - shown).abs().max():.3g} from the checkpoint's own"
        )
    probe = {f"probe.{name}": tensor for name, tensor in arrays.items()}
    return TaskModule(spec, module.tensors | probe | {"probe.logits": expected.clone()})


def _transformers_model(checkpoint: FineTuned) -> Any:
    """The checkpoint as transformers' own class loads it, in float32."""
    checkpoint.config.num_labels = checkpoint.outputs
    with _quiet():
        try:
            assert checkpoint.family.transformers is not None
            kind = checkpoint.family.transformers.named(checkpoint.architecture)
            model = kind.from_pretrained(
                str(checkpoint.folder),
                config=checkpoint.config,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
            )
        except Exception as error:
            raise FormatError(
                f"{checkpoint.folder}: transformers cannot load it ({first_line(error)})"
            ) from error
    return model.eval()


def _logits(
    model: Any, arrays: Mapping[str, torch.Tensor], description: Embeddings
) -> torch.Tensor:
    tables = {table.ids for table in description.tables} & {"token_type_ids"}
    names = ["input_ids", "attention_mask", *tables]
    logits: torch.Tensor = model(**{name: arrays[name] for name in names}).logits
    return logits


def _of_tokens(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The logits, 0 for padding, which transformers computes as it likes."""
    return logits if logits.ndim == 2 else logits * mask[:, :, None]


def _frozen(
    checkpoint: FineTuned, matched: BackboneMatch, spec: TaskSpec, reader: BlobReader
) -> dict[str, torch.Tensor]:
    """The backbone's own float32 up to the tap, under the checkpoint's names."""
    from safetensors.torch import load_file

    backbone, prefix = matched.backbone, checkpoint.family.prefix
    return {
        prefix + name: tensor
        for digest in (backbone.embeddings, *backbone.layers[: spec.tap_layer])
        for name, tensor in load_file(reader.fetch(digest)).items()
    }


def _check_rounding(
    rounded: torch.Tensor,
    expected: torch.Tensor,
    matched: BackboneMatch,
    folder: Path,
    remark: Remark,
) -> None:
    """Hold a checkpoint's answers from rounded weights against those from the backbone's float32."""
    apart = float((rounded - expected).abs().max())
    largest = max(1.0, float(expected.abs().max()))
    precision = str(matched.precision).removeprefix("torch.")
    if not apart <= _ROUNDINGS * torch.finfo(matched.precision).eps * largest:
        raise IncompatibleError(
            f"{folder}: was saved in {precision}; on {matched.name}'s own float32 its logits "
            f"differ by up to {apart:.3g} from the checkpoint's, more than rounding explains. "
            f"Fine-tune {matched.name} in float32, or save the model before it is rounded."
        )
    remark(
        f"its frozen layers are {matched.name}'s, rounded to {precision}; the module stands on "
        f"{matched.name}'s own float32, which moves the probe's logits by up to {apart:.2g}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting what has been judged here already."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # Centra shows its own
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
