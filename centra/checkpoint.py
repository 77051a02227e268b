"""From a fine-tuned Hugging Face checkpoint to a task module.

A team that trains with its own script keeps the lower layers frozen and saves a whole model. Which
layers it kept is read off the weights: a layer whose shard has the backbone's digest is frozen, and
the tap is the last of the leading run of such layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from centra.backbone import BackboneSpec, load_pretrained, shard
from centra.checkpoint_tokenizer import check_same_tokenizer
from centra.data import Input, TextEncoder
from centra.documents import sha256
from centra.errors import FormatError, IncompatibleError, UsageError
from centra.families import Family, family_of
from centra.pretrained import refuse_code
from centra.progress import Progress, silent
from centra.task_module import HeadSpec, Kind, TaskModule, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from centra.blobs import BlobReader

__all__ = ["convert"]

_HEADS = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
}
_PROBE_TEXTS = (
    "Yes.",
    "Turn the lights on in the kitchen, please!",
    "What will the weather be like in Lisbon tomorrow at 7 am?",
    "The film was long, but nobody in the audience wanted it to end.",
)


def convert(
    folder: Path,
    backbones: Mapping[str, BackboneSpec],
    reader: BlobReader,
    *,
    tap: int | None = None,
    form: Literal["single", "pair"] = "single",
    progress: Progress = silent,
) -> TaskModule:
    """Cut the task module out of a fine-tuned checkpoint.

    Args:
        folder: with ``config.json`` and safetensors weights.
        backbones: those it may stand on, by name; one with the same embeddings is taken.
        reader: where the backbones' blobs are.
        tap: the tap that was meant; layers up to it must be the backbone's own. None finds the
            highest there is.
        form: whether its inputs are single texts or pairs, which a checkpoint does not say.
        progress: told of each layer.

    Returns:
        The module; its probe records the checkpoint's own logits, and the module has been run
        against them.

    Raises:
        FormatError: no usable checkpoint, pickled weights, or a head that Centra does not know.
        IncompatibleError: the embeddings or a layer up to ``tap`` differ from the backbone's; the
            first differing one is named. Or another tokenizer, or code of its own (``auto_map``).
    """
    config = _read_config(folder)
    refuse_code(str(folder))
    family = family_of(str(config.get("model_type")))
    model = load_pretrained(str(folder), _auto_class(config, folder))
    state = dict(model.state_dict())
    encoder = {
        name.removeprefix(family.prefix): tensor
        for name, tensor in state.items()
        if name.startswith(family.prefix)
    }
    shards = shard(encoder, family, progress)
    layers = [sha256(layer) for layer in shards.layers]
    name, backbone = _backbone(folder, family, sha256(shards.embeddings), backbones)
    _check_config(folder, model.config, family, name, backbone)
    frozen = _frozen(layers, backbone)
    if tap is not None and not 0 <= tap <= backbone.num_layers:
        raise UsageError(f"tap {tap}: {name} has {backbone.num_layers} layers")
    if tap is not None and tap > frozen:
        raise IncompatibleError(
            f"{folder}: layer {frozen + 1} differs from {name}'s, but tap {tap} was declared. "
            f"Layers 1 to {frozen} are frozen; declare a tap up to {frozen} or leave it out."
        )
    tap = frozen if tap is None else tap
    tagging = model.config.architectures[0].endswith("ForTokenClassification")
    kind = _kind(model.config, tagging=tagging)
    labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    spec = TaskSpec(
        kind=kind,
        input=form,
        labels=() if kind == "regression" else tuple(labels),
        backbone=backbone.digest,
        tap_layer=tap,
        depth=len(layers) - tap,
        head=HeadSpec.model_validate({"activation": None if tagging else family.sentence_head[1]}),
        training={"checkpoint": model.config.architectures[0]},
    )
    spec.check(str(folder))
    module = TaskModule(spec, _weights(state, encoder, family, spec))
    return _with_probe(module, model, backbone, reader, folder)


def _read_config(folder: Path) -> dict[str, Any]:
    import json

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{folder}: expected a task module file or a Hugging Face checkpoint folder with a "
            f"readable config.json ({error})"
        ) from error
    if not isinstance(config, dict):
        raise FormatError(f"{folder / 'config.json'}: expected a JSON object")
    return config


def _auto_class(config: dict[str, Any], folder: Path) -> str:
    architecture = (config.get("architectures") or ["unknown"])[0]
    for suffix, auto_class in _HEADS.items():
        if architecture.endswith(suffix):
            return auto_class
    raise FormatError(
        f"{folder}: its architecture is {architecture}; expected a model {' or '.join(_HEADS)}"
    )


def _backbone(
    folder: Path, family: Family, embeddings: str, backbones: Mapping[str, BackboneSpec]
) -> tuple[str, BackboneSpec]:
    for name, spec in backbones.items():
        if spec.family == family.model_type and spec.embeddings == embeddings:
            return name, spec
    raise IncompatibleError(
        f"{folder}: its embeddings (layer 0) differ from those of "
        f"{', '.join(backbones) or 'any backbone: none is registered'}. "
        "Freeze the embeddings while fine-tuning, or register the backbone it started from."
    )


def _check_config(
    folder: Path, config: Any, family: Family, name: str, backbone: BackboneSpec
) -> None:
    for key in family.config_keys:
        if "dropout" in key or key in ("num_hidden_layers", "n_layers"):
            continue
        if getattr(config, key) != backbone.config[key]:
            raise IncompatibleError(
                f"{folder}: {key} is {getattr(config, key)!r}, {name} has {backbone.config[key]!r}"
            )


def _frozen(layers: list[str], backbone: BackboneSpec) -> int:
    """How many leading layers are the backbone's own."""
    count = 0
    for own, frozen in zip(layers, backbone.layers, strict=False):
        if own != frozen:
            break
        count += 1
    return count


def _kind(config: Any, *, tagging: bool) -> Kind:
    if tagging:
        return "tagging"
    if config.problem_type == "multi_label_classification":
        return "multilabel"
    if config.problem_type == "regression" or config.num_labels == 1:
        return "regression"
    return "classification"


def _weights(
    state: Mapping[str, torch.Tensor],
    encoder: Mapping[str, torch.Tensor],
    family: Family,
    spec: TaskSpec,
) -> dict[str, torch.Tensor]:
    """The tensors above the tap under a task module's names."""
    weights = {}
    for i in range(1, spec.depth + 1):
        prefix = f"{family.layer_prefix}{spec.tap_layer + i - 1}."
        for name, tensor in encoder.items():
            if name.startswith(prefix):
                weights[f"layers.{i}.{name.removeprefix(prefix)}"] = tensor
    if spec.kind == "tagging":
        parts = {"out": family.token_head}
    else:
        dense, _, out = family.sentence_head
        parts = {"dense": dense, "out": out}
    for part, source in parts.items():
        for end in ("weight", "bias"):
            weights[f"head.{part}.{end}"] = state[f"{source}.{end}"]
    return {name: tensor.detach().contiguous() for name, tensor in weights.items()}


def _with_probe(
    module: TaskModule, model: Any, backbone: BackboneSpec, reader: BlobReader, folder: Path
) -> TaskModule:
    """Record the checkpoint's own logits, and refuse a module that does not reproduce them."""
    import torch

    from centra.encoder import Branch, Trunk

    spec = module.spec
    pair = _PROBE_TEXTS[0] if spec.input == "pair" else None
    inputs = [Input(text, pair) for text in _PROBE_TEXTS]
    check_same_tokenizer(folder, backbone, reader, pairs=pair is not None)
    _, batch = TextEncoder.of(backbone, reader).batch(inputs)
    arrays = {name: torch.from_numpy(array) for name, array in vars(batch).items()}
    trunk = Trunk(backbone, reader, depth=spec.tap_layer)
    branch = Branch(backbone, spec).load(module.tensors).eval()
    with torch.inference_mode():
        kinds = (
            {} if backbone.family == "distilbert" else {"token_type_ids": arrays["token_type_ids"]}
        )
        expected = model(
            input_ids=arrays["input_ids"], attention_mask=arrays["attention_mask"], **kinds
        ).logits
        hidden = trunk(**arrays, taps=[spec.tap_layer])[spec.tap_layer]
        own = branch(hidden, arrays["attention_mask"])
    if not torch.allclose(own, expected, rtol=1e-4, atol=1e-4):
        raise IncompatibleError(
            f"{folder}: rebuilt on the backbone, its logits differ by up to "
            f"{(own - expected).abs().max():.3g} from the checkpoint's own"
        )
    probe = {f"probe.{name}": tensor for name, tensor in arrays.items()}
    return TaskModule(spec, module.tensors | probe | {"probe.logits": expected.clone()})
