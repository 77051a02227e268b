"""From texts and a teacher of any family to data that runs learn from.

The teacher's answers stand in for labels that are missing, and go beside the data as soft targets. So
a search, its students and the choice among them need know nothing of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.data.inputs import Example, Input
from centra.data.labelling import Labelling, read_as
from centra.data.reading import all_labels
from centra.errors import ConflictError, DataError
from centra.formats.identities import Digest
from centra.formats.task_module import HeadSpec, TaskSpec
from centra.kinds import kind_named
from centra.progress import Progress, Remark, silent, unheard
from centra.training.answers import Part, Question, answer, forget_teacher, parts, words_of
from centra.training.engines import LocalEngine
from centra.training.inputs import DATA_FILES, Blob, DataBlobs, input_store, mark_folder
from centra.training.questions import other_labels, question_for
from centra.training.recipe import DEFAULT_HYPOTHESIS
from centra.training.soft_targets import SOFT_TARGETS, SoftTargets
from centra.training.teacher import Teacher, import_teacher
from centra.training.texts import Text, read_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from centra.data.source import DataSource
    from centra.store.s3.path import S3Path
    from centra.training.engines import Engine

__all__ = ["TaughtData", "teach"]

_SURE = 20.0
"""The logit of a word's tag that is known while the teacher says nothing of it."""


@dataclass(frozen=True, kw_only=True)
class TaughtData:
    """Data with a teacher's answers, for every run of a pipeline."""

    data: DataBlobs
    labelling: Labelling


def teach(
    source: str,
    data: Path | S3Path | DataSource,
    *,
    work: Path | S3Path,
    engine: Engine,
    labelling: Labelling | None = None,
    hypothesis: str | None = None,
    progress: Progress = silent,
    remark: Remark = unheard,
) -> TaughtData:
    """Have a teacher answer texts, and make data of them.

    Rows that have labels keep them. The others get the teacher's answer, also as their label. A dev
    set in which every row has a label is measured by these, any other by the teacher's answers.

    Args:
        source: the teacher: a folder that ``save_pretrained`` wrote, or a name on the hub.
        data: see :func:`centra.training.texts.read_texts`.
        work: a folder. It keeps the answers, so that each text is answered once.
        engine: carries it out.
        labelling: what the task's labels are, where that is not what the teacher's are.
        hypothesis: of a model of natural-language inference, with ``{}`` for the label.
        progress: told of the texts that are answered.
        remark: told what was taken for what.

    Raises:
        ConflictError: the teacher's labels or kind are not the task's.
        UsageError: a hypothesis without its place, or for a teacher that takes none.
        DataError: there are no texts, or a row cannot be read.
        CentraError: see :func:`centra.training.teacher.import_teacher` and
            :func:`centra.training.answers.answer`.
    """
    labelling = labelling or Labelling()
    texts = read_texts(data)
    for text in texts.remarks:
        remark(text)
    teacher = import_teacher(source, input_store(work))
    task = _Task.of(teacher, [*texts.train, *texts.dev], labelling, hypothesis)
    for text in task.remarks:
        remark(text)
    inputs = [text.input for text in (*texts.train, *texts.dev)]
    mark = mark_folder(work) if isinstance(work, Path) and not engine.one_machine else None
    found = _ask(parts(teacher, task.question, inputs, work, mark), engine, progress)
    answers = iter(found)
    train, dev = (
        [row for text in part if (row := task.row(text, next(answers))) is not None]
        for part in (texts.train, texts.dev)
    )
    if lost := len(inputs) - len(train) - len(dev):
        remark(f"{lost} texts in which the teacher sees no word are left out")
    if not train or not dev:
        raise DataError(f"{data}: the teacher sees no words in these texts")
    agreement = not all(row.labelled for row in dev)
    record = task.record(teacher, train, dev)
    if agreement:
        if any(row.labelled for row in dev):
            remark("not every dev row has a label: all are measured by the teacher's answers")
        dev = [row.answered() for row in dev]
    else:
        record["metrics"] = task.metrics(dev)
    store = input_store(work)
    soft = SoftTargets(
        logits=[row.logits for row in train],
        labelled=np.array([row.labelled for row in train]),
        agreement=agreement,
        teacher=record,
    )
    contents = {
        DATA_FILES[0]: _jsonl(train),
        DATA_FILES[1]: _jsonl(dev),
        SOFT_TARGETS: soft.to_bytes(),
    }
    return TaughtData(
        data=DataBlobs(
            folder=data,
            blobs={
                name: Blob(reader=store, digest=store.put(content))
                for name, content in contents.items()
            },
        ),
        labelling=replace(
            labelling,
            kind=task.kind,
            labels=task.question.labels,
            tags="bio" if task.kind == "tagging" else None,
            words=task.question.words,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A text with its answer."""

    input: Input
    logits: np.ndarray
    label: Any
    """As an example has it: the given one, or else the answer."""
    answer: Any
    labelled: bool

    def answered(self) -> _Row:
        return replace(self, label=self.answer, labelled=False)

    def to_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"text": self.input.text}
        if self.input.text_pair is not None:
            fields["text_pair"] = self.input.text_pair
        if self.input.tokens is not None:
            fields["tokens"] = [*self.input.tokens]
        if isinstance(self.label, tuple):
            return fields | {"labels": [*self.label]}
        return fields | {"label": self.label}


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is asked of a teacher, and how its answers become data."""

    kind: str
    input: str
    question: Question
    examples: dict[str, Example]
    """The given labels as the task has them, by the places of the rows."""
    hypothesis: str | None
    remarks: tuple[str, ...]

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        texts: Sequence[Text],
        labelling: Labelling,
        hypothesis: str | None,
    ) -> _Task:
        examples = [text.example for text in texts if text.example is not None]
        question, kind, remarks = question_for(teacher, texts, examples, labelling, hypothesis)
        if labelling.kind not in (None, kind):
            raise ConflictError(
                f"{teacher.name}: is a teacher of {kind}, but the task was said to be "
                f"{labelling.kind}",
                code="teacher-differs",
                teacher=teacher.name,
                differs="kind",
            )
        reading = read_as(kind, examples, question.labels, labelling.tags)
        known = {*question.labels}
        for example in reading.examples:
            for label in all_labels(example):
                if label not in known:
                    raise other_labels(teacher, (label,), example.where)
        return cls(
            kind=kind,
            input=texts[0].input.form,
            question=question,
            examples={example.where: example for example in reading.examples},
            hypothesis=(hypothesis or DEFAULT_HYPOTHESIS) if question.hypotheses else None,
            remarks=(*remarks, *reading.remarks),
        )

    def row(self, text: Text, logits: np.ndarray) -> _Row | None:
        """A text with its answer as data; None where the teacher says nothing of it."""
        example = self.examples.get(text.where) if text.example is not None else None
        if self.question.words is not None:
            return self._tagged(text.input, example, logits)
        told = kind_named(self.kind).told_label(self.question.labels, logits)
        return _Row(
            input=text.input,
            logits=logits,
            label=told if example is None else example.label,
            answer=told,
            labelled=example is not None,
        )

    def _tagged(self, item: Input, example: Example | None, logits: np.ndarray) -> _Row | None:
        """A tagging row whose tokens are the task's words."""
        assert self.question.words is not None
        words = words_of(item, self.question.words)
        seen = ~np.isnan(logits[:, 0])
        if example is not None:
            tagged = example.tagged_words(self.question.words)
            given = [tag for _, tag in tagged]
        else:
            # What the teacher did not read is no part of what it teaches.
            count = int(np.flatnonzero(seen)[-1]) + 1 if seen.any() else 0
            words, logits, seen = words[:count], logits[:count], seen[:count]
            given = ["O"] * count
        if not words:
            return None
        labels = self.question.labels
        logits = logits.copy()
        for place in np.flatnonzero(~seen):
            logits[place] = -_SURE
            logits[place, labels.index(given[place])] = _SURE
        told = kind_named(self.kind).told_label(labels, logits)
        text = item.text if example is not None else item.text[: words[-1][1]]
        tokens = tuple(item.text[start:end] for start, end in words)
        return _Row(
            input=Input(text, None, tokens),
            logits=logits,
            label=told if example is None else tuple(given),
            answer=told,
            labelled=example is not None,
        )

    def record(
        self, teacher: Teacher, train: Sequence[_Row], dev: Sequence[_Row]
    ) -> dict[str, Any]:
        """How the data were made, for a module's training record."""
        asked: dict[str, Any] = {}
        if self.hypothesis is not None:
            asked = {"hypothesis": self.hypothesis}
        return {
            "digest": f"sha256:{teacher.digest}",
            "class": teacher.architecture,
            "labels": [*teacher.labels],
            **asked,
            "texts": len(train) + len(dev),
            "labelled": sum(row.labelled for row in (*train, *dev)),
            "dev": len(dev),
        }

    def metrics(self, dev: Sequence[_Row]) -> dict[str, float]:
        """How well the teacher itself does on a labelled dev set; nothing of spans."""
        kind = kind_named(self.kind)
        if kind.reads_every_token:
            return {}
        spec = TaskSpec(
            kind=self.kind,
            input="single" if self.input == "single" else "pair",
            labels=self.question.labels,
            backbone=Digest("0" * 64),
            tap_layer=0,
            depth=0,
            head=HeadSpec(activation="tanh"),
        )
        logits = np.concatenate([row.logits for row in dev])
        answers = kind.decode(spec, logits, [row.input for row in dev], [])
        examples = [Example(row.input, row.label, "") for row in dev]
        found = kind.score(spec.labels, answers, examples)
        return {name: round(value, 6) for name, value in found.items()}


def _ask(asked: Sequence[Part], engine: Engine, progress: Progress) -> list[np.ndarray]:
    """The answers of all parts, in their order."""
    if engine.one_machine and not _has_gpu():
        # Several teachers in memory at once are no faster than one that has all cores.
        engine = LocalEngine(1)
    total = sum(len(part.inputs) for part in asked)
    progress("teacher", 0, total)
    found: dict[int, list[np.ndarray]] = {}
    try:
        for place, logits in engine.map(answer, asked):
            found[place] = logits
            progress("teacher", sum(map(len, found.values())), total)
    finally:
        forget_teacher()
    return [logits for place in range(len(asked)) for logits in found[place]]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _jsonl(rows: Iterable[_Row]) -> bytes:
    lines = (json.dumps(row.to_json(), ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()
