"""From a fine-tuned Hugging Face checkpoint to a task module.

A team that trains with its own script keeps the lower layers frozen and saves a whole model. Which
layers it kept is read off the weights (:mod:`centra.checkpoints.frozen`); every tensor above them is placed, or
the checkpoint is refused (:mod:`centra.checkpoints.placing`); and the module must answer as transformers answers
with the checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from centra.checkpoints.exported import exported_decision, exported_task
from centra.checkpoints.fine_tuned import FineTuned
from centra.checkpoints.frozen import BackboneMatch, match_backbones
from centra.checkpoints.saved_model import load
from centra.checkpoints.shards import check_finite_weights
from centra.checkpoints.task import read_task
from centra.checkpoints.tokenizer import check_same_tokenizer
from centra.data.inputs import Input
from centra.data.tags import TagError, bio_head
from centra.errors import FormatError, IncompatibleError, UsageError
from centra.exports.manifest import MANIFEST
from centra.families.base import DROPOUT
from centra.formats.decision import Decision
from centra.formats.head import HeadNorm, HeadSpec
from centra.formats.task_module import TaskModule, TaskSpec
from centra.formats.template import PLAIN
from centra.formats.tensors import under
from centra.kinds import kind_named
from centra.progress import Notice, Progress, Remark, silent, unheard
from centra.system.snapshot import copy_model
from centra.tokenization.text_encoder import Reading, TextEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from centra.data.tags import Scheme
    from centra.data.words import Segmentation
    from centra.exports.manifest import TaskManifest
    from centra.families.heads import CheckpointHead
    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader

__all__ = ["convert", "head_spec"]

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
    form: Literal["single", "pair"] | None = None,
    kind: str | None = None,
    labels: Sequence[str] | None = None,
    tags: Scheme | None = None,
    words: Segmentation | None = None,
    template: str | tuple[str, str] = PLAIN,
    remark: Remark = unheard,
    progress: Progress = silent,
) -> TaskModule:
    """Cut the task module out of a fine-tuned checkpoint.

    Args:
        folder: with ``config.json`` and safetensors weights.
        backbones: those it may stand on, by name; see :func:`centra.checkpoints.frozen.match_backbones`.
        reader: where the backbones' blobs are.
        tap: the tap that was meant; layers up to it must be the backbone's own. None finds the
            highest there is.
        form: whether its inputs are single texts or pairs, which a checkpoint does not say. None
            takes single texts, and says so.
        kind: what its task is, where the checkpoint does not say.
        labels: of its outputs, in their order, instead of those that it names.
        tags: the scheme of a tagging head's labels; None finds it. Callers get BIO.
        words: how a tagging task's texts are cut into words; None for those that the tokenizer
            has, as whoever trained it elsewhere had no other.
        template: what its texts were put in when it was trained; see :mod:`centra.formats.template`.
            What is declared neither here nor above is as its ``manifest.json`` says, where Centra
            exported it.
        remark: told what was taken for granted.
        progress: told of each layer.

    Returns:
        The module; its probe records the checkpoint's own logits, and the module has been run
        against them.

    Raises:
        FormatError: no usable checkpoint, pickled or damaged weights, or a ``config.json`` that
            contradicts itself or them.
        IncompatibleError: another class than the family's own, a tensor that has no place, the
            embeddings or a layer up to ``tap`` differ from the backbone's (it is named), or another
            tokenizer, or code of its own (``auto_map``).
        UsageError: what was declared contradicts the checkpoint.
        StoreError: there is no room for a copy.
    """
    with copy_model(str(folder)) as copy:
        return _convert(
            Path(copy),
            backbones,
            reader,
            tap=tap,
            form=form,
            kind=kind,
            labels=labels,
            tags=tags,
            words=words,
            template=template,
            remark=remark,
            progress=progress,
        )


def _convert(
    folder: Path,
    backbones: Mapping[str, BackboneSpec],
    reader: BlobReader,
    *,
    tap: int | None,
    form: Literal["single", "pair"] | None,
    kind: str | None,
    labels: Sequence[str] | None,
    tags: Scheme | None,
    words: Segmentation | None,
    template: str | tuple[str, str],
    remark: Remark,
    progress: Progress,
) -> TaskModule:
    from centra.checkpoints.probe import with_probe

    checkpoint = FineTuned.open(folder)
    task, names = read_task(
        checkpoint.raw,
        checkpoint.outputs,
        tagging=checkpoint.tagging,
        kind=kind,
        labels=labels,
        where=str(folder),
        remark=remark,
    )
    said = exported_task(folder)
    if said is not None and not _is_of(said, task, names, renamed=labels is not None):
        remark(f"its {MANIFEST} is of another task, and counts for nothing")
        said = None
    if said is not None:
        remark(f"what is not declared is as its {MANIFEST} says, which Centra wrote")
        form, words = form or said.input, words or (said.words if checkpoint.tagging else None)
        template = said.template if template == PLAIN else template
    state = load(checkpoint.tensors)
    check_finite_weights(state, str(folder))
    matches = match_backbones(
        under(state, checkpoint.family.prefix),
        checkpoint.family,
        checkpoint.settings,
        backbones,
        reader,
        folder=folder,
        progress=progress,
    )
    matched = _fitting(checkpoint, matches, reader, pairs=form == "pair")
    tap = _tap(tap, checkpoint, matched)
    if tied := _tied(checkpoint, matched):
        remark(tied)
    if not checkpoint.tagging and (tags or words):
        raise UsageError(
            f"{folder}: is a {task} task, which has no words to tag; a scheme of tags and a way "
            "to cut words are declared for token classifiers"
        )
    head = head_spec(checkpoint.head, every_token=checkpoint.tagging)
    if checkpoint.tagging:
        if said is None or tags is not None or labels is not None:
            names, own = _own_tags(names, tags, where=str(folder), remark=remark)
        else:
            names, own = said.labels, said.tags
        head = head.model_copy(update={"tags": own, "words": words or "tokenizer"})
    longest = matched.backbone.max_length
    spec = _spec(
        checkpoint,
        matched,
        tap=tap,
        kind=task,
        labels=names,
        head=head,
        form=form or _single(task, remark),
        decision=Decision() if said is None else exported_decision(said, longest),
        template=template,
    )
    module = TaskModule(spec, _weights(state, checkpoint, spec))
    pair = _PROBE_TEXTS[0] if spec.input == "pair" else None
    inputs = [Input(text, pair) for text in _PROBE_TEXTS]
    encoder = TextEncoder.of(matched.backbone, reader).with_templates(Reading.of(spec).templates)
    encoder.check_room(str(folder), pair=spec.input == "pair")
    _, batch = encoder.batch(inputs)
    return with_probe(module, checkpoint, matched, batch=batch, reader=reader, remark=remark)


def _is_of(said: TaskManifest, kind: str, names: Sequence[str], *, renamed: bool) -> bool:
    """Whether a manifest is of what a checkpoint has become, and not of what lay in its folder before."""
    own = said.tags or said.labels
    return said.kind == kind and (len(own) == len(names) if renamed else own == tuple(names))


def _fitting(
    checkpoint: FineTuned, matches: Sequence[BackboneMatch], reader: BlobReader, *, pairs: bool
) -> BackboneMatch:
    """The first backbone whose settings and tokenizer are the checkpoint's, too.

    Backbones of the same weights may have been registered with other tokenizers.
    """
    errors = []
    for matched in matches:
        try:
            _check_config(checkpoint, matched)
            check_same_tokenizer(
                checkpoint.folder, matched.backbone, reader, pairs=pairs, config=checkpoint.config
            )
        except IncompatibleError as error:
            errors.append(error)
        else:
            return matched
    raise errors[0]


def _check_config(checkpoint: FineTuned, matched: BackboneMatch) -> None:
    family, name = checkpoint.family, matched.name
    config = dict(matched.backbone.config)
    # What is said layer by layer is said of as many as the checkpoint has.
    config |= family.more_layers(config, matched.depth)
    for key, setting in family.settings.items():
        if setting is DROPOUT or key == family.layers_key:
            continue
        # Where positions do not count from it, no layer depends on it.
        if key == "pad_token_id" and not family.position_offset:
            continue
        own, given = checkpoint.settings[key], config[key]
        if own != given:
            raise IncompatibleError(
                f"{checkpoint.folder}: {key} is {own!r}, {name} has {given!r}, so its layers "
                f"compute otherwise. Fine-tune {name} with its own settings."
            )


def _tied(checkpoint: FineTuned, matched: BackboneMatch) -> str:
    """Why one layer that was trained is many that differ, where these are one set of weights."""
    first = matched.layers + 1
    if first > min(matched.depth, matched.backbone.num_layers):
        return ""
    same = checkpoint.family.same_weights(checkpoint.settings, first)
    if len(same) == 1:
        return ""
    below = f"layers 1 to {matched.layers}" if matched.layers else "the embeddings alone"
    return (
        f"its layers {same[0]} to {same[-1]} are one set of weights, which training changed: none of "
        f"them is {matched.name}'s any more. It shares {below}, and a module of it has each of the "
        f"{matched.depth - matched.layers} layers above as its own. A task that Centra trains itself "
        "has copies of the layers above its tap, and shares those below it"
    )


def _tap(declared: int | None, checkpoint: FineTuned, matched: BackboneMatch) -> int:
    if declared is None:
        return matched.layers
    if not 0 <= declared <= matched.backbone.num_layers:
        raise UsageError(f"tap {declared}: {matched.name} has {matched.backbone.num_layers} layers")
    if declared > matched.layers:
        most, tied = matched.layers, _tied(checkpoint, matched)
        frozen = (
            f"Layers 1 to {most} are frozen; declare a tap up to {most}"
            if most
            else "No layer is frozen; declare tap 0"
        )
        raise IncompatibleError(
            f"{checkpoint.folder}: layer {most + 1} differs from {matched.name}'s, but tap {declared} "
            f"was declared. {frozen} or leave it out." + (f" For {tied}." if tied else "")
        )
    return declared


def _spec(
    checkpoint: FineTuned,
    matched: BackboneMatch,
    *,
    tap: int,
    kind: str,
    labels: tuple[str, ...],
    head: HeadSpec,
    form: Literal["single", "pair"],
    decision: Decision,
    template: str | tuple[str, str],
) -> TaskSpec:
    pooling = "first" if checkpoint.tagging else checkpoint.head.pooling
    spec = TaskSpec(
        kind=kind,
        input=form,
        labels=labels,
        backbone=matched.backbone.digest,
        tap_layer=tap,
        depth=matched.depth - tap,
        head=head,
        decision=decision.model_copy(update={"pooling": pooling, "template": template}),
        training={"checkpoint": checkpoint.architecture},
    )
    spec.check(str(checkpoint.folder))
    return spec


def head_spec(head: CheckpointHead, *, every_token: bool) -> HeadSpec:
    """A checkpoint's head as a task module's."""
    norm = head.norm
    has_dense = head.dense is not None
    return HeadSpec.model_validate(
        {
            "activation": head.activation,
            "dense": None if has_dense != every_token else has_dense,
            "dense_bias": head.dense_bias,
            "dense_norm": None
            if norm is None
            else HeadNorm(epsilon=norm.epsilon, kind=norm.kind, bias=norm.bias),
        }
    )


def _own_tags(
    names: Sequence[str], scheme: Scheme | None, *, where: str, remark: Remark
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The BIO labels of a tagging head, and its own tags where these are others."""
    try:
        labels, tags, notation = bio_head(names, scheme)
    except TagError as error:
        raise FormatError(f"{where}: its labels: {error}") from error
    if not notation.is_bio:
        remark(f"its labels are {notation}; callers get BIO")
    return labels, tags


def _single(kind: str, remark: Remark) -> Literal["single"]:
    if not kind_named(kind).reads_every_token:
        remark(
            Notice(
                "taken for a task on single texts, which a checkpoint does not say",
                code="input-assumed",
            )
        )
    return "single"


def _weights(
    state: Mapping[str, torch.Tensor], checkpoint: FineTuned, spec: TaskSpec
) -> dict[str, torch.Tensor]:
    """The tensors above the tap under a task module's names."""
    family = checkpoint.family
    weights: dict[str, torch.Tensor] = {}
    for i in range(1, spec.depth + 1):
        number = spec.tap_layer + i
        for name in family.layer(checkpoint.settings, number).shapes:
            source = family.encoder_name(checkpoint.settings, number, name)
            weights[f"layers.{i}.{name}"] = state[family.prefix + source]
    if family.final_norm is not None:
        norm = f"{family.prefix}{family.final_norm(checkpoint.settings).name}."
        weights |= {f"head.norm.{end}": tensor for end, tensor in under(state, norm).items()}
    for part, source in checkpoint.head.parts.items():
        for end in ("weight", "bias"):
            if f"{source}.{end}" in state:
                weights[f"head.{part}.{end}"] = state[f"{source}.{end}"]
    return {name: tensor.float().contiguous() for name, tensor in weights.items()}
