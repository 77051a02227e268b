"""A task's labelled examples, read once and encoded for one backbone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.data.findings import split_findings
from centra.data.inputs import example_lines, examples_of, fingerprint
from centra.data.lengths import cut_entities, spans_of
from centra.data.rows import is_undivided
from centra.data.source import DataSource
from centra.data.words import are_characters
from centra.errors import DataError, FormatError
from centra.formats.decision import Decision
from centra.formats.task_module import HeadSpec, TaskSpec
from centra.formats.template import PLAIN
from centra.kinds import kind_named
from centra.progress import Notice
from centra.tokenization.text_encoder import Reading, TextEncoder
from centra.training.contract_inference import InferredContract, infer_contract
from centra.training.inputs import DataBlobs, read_split
from centra.training.soft_targets import SOFT_TARGETS, SoftTargets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.data.inputs import Example
    from centra.data.labelling import Labelling
    from centra.data.tags import Scheme
    from centra.formats.backbone import BackboneSpec
    from centra.formats.thresholds import Thresholds
    from centra.store import BlobReader
    from centra.store.s3.path import S3Path
    from centra.tokenization.text_encoder import Row

__all__ = ["Split", "TaskData"]


@dataclass(frozen=True)
class Split:
    """Encoded examples with what the head should say; see :meth:`centra.kinds.base.Kind.target`."""

    rows: list[Row]
    targets: list[np.ndarray]
    examples: list[Example]
    soft: list[np.ndarray] | None = None
    """A teacher's logits: per example ``(outputs,)``, or ``(seq, outputs)``."""
    labelled: np.ndarray | None = None
    """With these, ``(examples,)``: whether its label was given, and is not the teacher's answer."""
    agreement: bool = False
    """Whether its labels are a teacher's answers."""


@dataclass(frozen=True)
class TaskData:
    """What is learnt from, and what it is measured on."""

    spec: TaskSpec
    """What the data say of the task: kind, input, labels and head; neither tap nor depth."""
    train: Split
    dev: Split
    fingerprint: str
    """Over the examples of both parts; see :func:`centra.data.inputs.fingerprint_of`."""
    pad_token_id: int
    scheme: Scheme = "bio"
    """The scheme of a tagging task's tags before they were converted to BIO."""
    thresholds: Thresholds | None = None
    """That the module gets, its teacher's decision aside."""
    teacher: Mapping[str, Any] | None = None
    """What is to be said of the checkpoint whose answers are among the data; None for none."""
    remarks: tuple[str, ...] = ()
    """What the labels were taken for, what is odd about them, and what truncation cuts off."""

    @classmethod
    def load(
        cls,
        backbone: BackboneSpec,
        reader: BlobReader,
        folder: Path | S3Path | DataSource | DataBlobs,
        *,
        max_length: int = 0,
        template: str | tuple[str, str] = PLAIN,
        labelling: Labelling | None = None,
        like: TaskSpec | None = None,
    ) -> TaskData:
        """Read and encode a folder.

        Args:
            backbone: whose tokenizer encodes.
            reader: where its blobs are.
            folder: holds both parts; see :func:`centra.data.rows.read_part`.
            max_length: tokens kept of each input; 0 for the backbone's maximum.
            template: what each text is put in; that of ``like`` where there is one.
            labelling: what the labels mean, where the data do not say it.
            like: see :func:`centra.training.contract_inference.infer_contract`.

        Raises:
            DataError: missing, empty or malformed data; a label that is not in train, or not in the
                set that was given.
            StoreError: data in a bucket cannot be reached.
        """
        if not isinstance(folder, DataBlobs) and is_undivided(source := DataSource.of(folder)):
            is_folder = isinstance(source.place, Path) and source.place.is_dir()
            raise DataError(
                f"{folder}: is {'a data set without splits' if is_folder else 'a file'}; expected a folder "
                "with train.jsonl and dev.jsonl, or the same in another format",
                code="undivided-data",
            )
        # Read once: what is learnt is what the fingerprint names.
        parts = read_split(folder, "train"), read_split(folder, "dev")
        files = [part.name for part in parts]
        train, dev = (examples_of(part) for part in parts)
        inferred = infer_contract(train, dev, labelling, like)
        spec = TaskSpec(
            **inferred.contract.to_dict(),
            backbone=backbone.digest,
            tap_layer=0,
            depth=0,
            head=_head(inferred, labelling, like),
            decision=Decision(
                template=template if like is None else like.decision.template,
                # What was learnt from so many tokens is asked about as many.
                max_length=max_length if 0 < max_length < backbone.max_length else None,
            ),
        )
        try:
            spec.check(files[0])
        except FormatError as error:
            raise DataError(str(error)) from error
        thresholds = labelling.thresholds if labelling else None
        if thresholds is not None:
            thresholds.decide(spec)  # Refused here, before anything is computed.
        encoder = TextEncoder.of(backbone, reader, max_length=max_length)
        encoder = encoder.with_templates(Reading.of(spec).templates)
        encoder.check_room("training", pair=spec.input == "pair")
        splits = [_encode(spec, examples, encoder) for examples in (inferred.train, inferred.dev)]
        soft, teacher = None, None
        contents = [example_lines(inferred.train), example_lines(inferred.dev)]
        if isinstance(folder, DataBlobs) and SOFT_TARGETS in folder.blobs:
            path = folder.blobs[SOFT_TARGETS].fetch()
            contents.append(path.read_bytes())
            soft = SoftTargets.read(path)
            teacher = soft.teacher
            splits = [_with_soft_targets(spec, splits[0], soft), splits[1]]
            splits[1] = replace(splits[1], agreement=soft.agreement)
        remarks = [text for part in parts for text in part.remarks]
        remarks += inferred.remarks
        if spec.head.words == "characters":
            remarks.append("every token is one character: texts are cut into characters, too")
        cut = [_cut_remark(file, split) for file, split in zip(files, splits, strict=True)]
        return cls(
            spec=spec,
            train=splits[0],
            dev=splits[1],
            fingerprint=fingerprint(contents),
            pad_token_id=encoder.pad_token_id,
            scheme=inferred.scheme,
            thresholds=thresholds,
            teacher=teacher,
            remarks=(*remarks, *(text for texts in cut for text in texts)),
        )

    def warnings(self) -> list[str]:
        """What a check of the data finds beyond the remarks, in a sentence; nothing where all is well.

        See :func:`centra.data.findings.split_findings`.
        """
        found = split_findings({"train": self.train.examples, "dev": self.dev.examples})
        if not found:
            return []
        parts = [f"{each.text} ({each.places[0]})" if each.places else each.text for each in found]
        return [Notice("; ".join(parts), code="data-warnings")]


def _head(
    inferred: InferredContract, labelling: Labelling | None, like: TaskSpec | None
) -> HeadSpec:
    """The head of a task, which may cut texts into words as its team, its teacher or its data do."""
    words = labelling.words if labelling else None
    if not kind_named(inferred.contract.kind).reads_every_token:
        if words:
            raise DataError(
                f"words were said to be {words}, but this is a {inferred.contract.kind} task"
            )
        return HeadSpec(activation="tanh")
    if like is not None:
        return HeadSpec(words=words or like.head.words)
    tokens = (token for example in inferred.train for token in example.input.tokens or ())
    return HeadSpec(words=words or ("characters" if are_characters(tokens) else "unicode"))


def _encode(spec: TaskSpec, examples: list[Example], encoder: TextEncoder) -> Split:
    rows = encoder.encode(example.input for example in examples)
    pairs = zip(examples, rows, strict=True)
    kind = kind_named(spec.kind)
    return Split(rows, [kind.target(spec, *pair) for pair in pairs], examples)


def _with_soft_targets(spec: TaskSpec, split: Split, soft: SoftTargets) -> Split:
    """A training set with a teacher's answers, those of words at each word's first token."""
    if not spec.reads_every_token:
        logits = [array[0] for array in soft.logits]
    else:
        logits = []
        for example, row, array in zip(split.examples, split.rows, soft.logits, strict=True):
            spread = np.zeros((len(row.input_ids), array.shape[1]), dtype=np.float32)
            words = [span for span, _ in example.tagged_words(spec.head.words)]
            tokens = row.first_tokens(words)
            # Of the words of one token the first is what it learns; see Kind.target.
            for token, scores in reversed([*zip(tokens, array, strict=True)]):
                if token >= 0:
                    spread[token] = scores
            logits.append(spread)
    return replace(split, soft=logits, labelled=soft.labelled)


def _cut_remark(file: str, split: Split) -> list[str]:
    """How much of a file truncation cuts off, in a sentence; nothing where it cuts nothing."""
    cut = [(e, row) for e, row in zip(split.examples, split.rows, strict=True) if row.given]
    if not cut:
        return []
    limit = max(len(row.input_ids) for _, row in cut)
    text = f"{file}: {len(cut)} of {len(split.rows)} inputs are cut at {limit} tokens"
    if entities := sum(len(spans_of(example)) for example, _ in cut):
        lost = sum(len(cut_entities(*pair)) for pair in cut)
        text += f", and {lost} of their {entities} entities, which count as missed"
    return [text]
