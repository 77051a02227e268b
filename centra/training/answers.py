"""A teacher's answers to texts: computed once, in parts, each of which is kept by its digest.

A part is a message to a worker, as a training run is: on a cluster any machine may answer it, and
one that was answered before, by whom ever, is only read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from centra.data.words import Segmentation, refine, segment
from centra.errors import FormatError, StoreNotWritableError, first_line
from centra.formats.documents import canonical_json, sha256
from centra.system.files import make_folder, replacing
from centra.system.panics import no_panic
from centra.tokenization.text_encoder import Row
from centra.training.inputs import check_mark
from centra.training.remote_work import opened_work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from centra.data.inputs import Input
    from centra.data.words import Span
    from centra.store.s3.path import S3Path
    from centra.training.teacher import LoadedTeacher, Teacher

__all__ = ["Part", "Question", "answer", "forget_teacher", "parts", "words_of"]

_FORMAT = 1
_FILE = "answers.safetensors"
_ROWS = 256
"""So many inputs of the teacher make a part."""
_BATCH_TOKENS = 4096
_NEVER = -1e4
"""A logit of what cannot be."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a teacher is asked about each text."""

    labels: tuple[str, ...]
    """Of the task; none for a number."""
    logits: tuple[tuple[int, ...], ...] = ()
    """The teacher's logits that stand for each label together, or for the number."""
    hypotheses: tuple[str, ...] = ()
    """Of natural-language inference: one for each label, to hold against the text."""
    entailment: int = 0
    """Then: the logit that says that it holds."""
    contradiction: int | None = None
    """Then: the logit that is taken off; None for labels that compete with each other."""
    words: Segmentation | None = None
    """How texts are cut into the words that are asked about; None for whole texts."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some texts for a teacher, as a message to a worker."""

    teacher: Teacher
    question: Question
    inputs: tuple[Input, ...]
    work: Path | S3Path
    """Keeps the answers."""
    mark: str | None = None
    """Of the folder around ``work``; see :class:`centra.training.jobs.Job`."""


def parts(
    teacher: Teacher,
    question: Question,
    inputs: Sequence[Input],
    work: Path | S3Path,
    mark: str | None = None,
) -> list[Part]:
    """Cut texts into parts, each kept under the digest of all that decides its answers."""
    size = max(1, _ROWS // max(1, len(question.hypotheses)))
    found = []
    for start in range(0, len(inputs), size):
        some = tuple(inputs[start : start + size])
        texts = [[item.text, item.text_pair, item.tokens] for item in some]
        asked = {
            "format": _FORMAT,
            "teacher": teacher.digest,
            "question": asdict(question),
            "texts": texts,
        }
        name = f"answers-{sha256(canonical_json(asked))}"
        found.append(
            Part(teacher=teacher, question=question, inputs=some, work=work / name, mark=mark)
        )
    return found


def answer(part: Part) -> list[np.ndarray]:
    """Answer a part, or read what was answered before.

    Returns:
        Per text the logits of the task's labels, ``(1, labels)``, or ``(words, labels)``. A word that
        the teacher does not see, as beyond its longest input, has no numbers there but NaN.

    Raises:
        UsageError: the work folder is that of another machine.
        FormatError: transformers cannot load the teacher, or its tokenizer fails on a text.
        StoreError: what is in a bucket cannot be reached.
        StoreNotWritableError: the folder cannot be written.
    """
    if part.mark is not None and isinstance(part.work, Path):
        check_mark(part.work.parent, part.mark)
    with opened_work(part.work) as work:
        path = work.path / _FILE
        if path.is_file():
            return _read(path)
        found = _answer(part)
        try:
            make_folder(path.parent)
            with replacing(path) as temporary:
                _write(temporary, found)
        except OSError as error:
            raise StoreNotWritableError(
                f"cannot write {path}: {error.strerror}", code="folder-not-writable"
            ) from error
        work.save()
        return found


def forget_teacher() -> None:
    """Free the memory of the teacher that this process answered with last."""
    _loaded.cache_clear()


def words_of(item: Input, by: Segmentation) -> list[Span]:
    """The words of an input as its task finds them; see :meth:`centra.data.inputs.Example.tagged_words`."""
    words = segment(item.text, by)
    if item.tokens is None:
        return words
    return [span for spans in refine(item.token_spans, words) for span in spans]


class _Loading:
    """A teacher as what it is loaded by: by its digest, so that a process loads it once."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def __hash__(self) -> int:
        return hash(self.teacher.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Loading) and self.teacher.digest == other.teacher.digest


@lru_cache(maxsize=1)
def _loaded(loading: _Loading) -> LoadedTeacher:
    return loading.teacher.load()


def _answer(part: Part) -> list[np.ndarray]:
    teacher, question = _loaded(_Loading(part.teacher)), part.question
    try:
        with no_panic(lambda error: ValueError(str(error))):
            if question.words is not None:
                return _tag(teacher, question, part.inputs, question.words)
            if question.hypotheses:
                return _infer(teacher, question, part.inputs)
            texts = [(item.text, item.text_pair) for item in part.inputs]
            logits = _logits(teacher, _encode(teacher, texts, "longest_first"))
    except Exception as error:  # transformers' own are of any class.
        raise FormatError(
            f"{part.teacher.name}: fails on a text ({first_line(error)})", code="teacher-failed"
        ) from error
    return [_combined(row, question.logits) for row in logits]


def _infer(teacher: LoadedTeacher, question: Question, inputs: Sequence[Input]) -> list[np.ndarray]:
    """How far each text entails each hypothesis."""
    pairs = [(item.text, hypothesis) for item in inputs for hypothesis in question.hypotheses]
    logits = np.stack(_logits(teacher, _encode(teacher, pairs, "only_first")))[:, 0]
    scores = logits[:, question.entailment]
    if question.contradiction is not None:
        scores = scores - logits[:, question.contradiction]
    return [*scores.reshape(len(inputs), 1, len(question.hypotheses))]


def _tag(
    teacher: LoadedTeacher, question: Question, inputs: Sequence[Input], by: Segmentation
) -> list[np.ndarray]:
    """The tags of each word: those of the first token that touches it."""
    encoded = _encode(teacher, [(item.text, None) for item in inputs], "longest_first")
    found = []
    for item, fields, logits in zip(inputs, encoded, _logits(teacher, encoded), strict=True):
        words = words_of(item, by)
        names = teacher.tokenizer.convert_ids_to_tokens(fields["input_ids"])
        offsets = [
            # A space of its own before a word touches none of the word's characters.
            (start, start) if name == "▁" else (start, end)
            for name, (start, end) in zip(names, fields["offset_mapping"], strict=True)
        ]
        row = Row(input_ids=fields["input_ids"], token_type_ids=[], offsets=offsets)
        scores = np.full((len(words), len(question.labels)), np.nan, dtype=np.float32)
        last = -1
        for word, token in enumerate(row.first_tokens(words)):
            if token < 0:
                continue
            scores[word] = _combined(logits[token : token + 1], question.logits)[0]
            if token == last:
                scores[word] = _continued(scores[word], question.labels)
            last = token
        found.append(scores)
    return found


def _continued(scores: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Of a token that is several words, what it says of those behind the first: they begin nothing."""
    found = scores.copy()
    for begin, label in enumerate(labels):
        if label.startswith("B-"):
            inside = labels.index(f"I-{label[2:]}")
            found[inside] = np.logaddexp(scores[inside], scores[begin])
            found[begin] = _NEVER
    return found


def _combined(logits: np.ndarray, columns: Sequence[Sequence[int]]) -> np.ndarray:
    """The logits of labels, each of which may be several of a teacher's, ``(rows, labels)``."""
    parts_ = [
        np.logaddexp.reduce(logits[:, [*places]], axis=1)
        if places
        else np.full(len(logits), _NEVER)
        for places in columns
    ]
    return np.stack(parts_, axis=1).astype(np.float32)


def _encode(
    teacher: LoadedTeacher, texts: Sequence[tuple[str, str | None]], truncation: str
) -> list[dict[str, Any]]:
    tokenizer = teacher.tokenizer
    return [
        dict(
            tokenizer(
                text,
                pair,
                truncation=truncation,
                max_length=teacher.max_length,
                return_offsets_mapping=tokenizer.is_fast,
            )
        )
        for text, pair in texts
    ]


def _logits(teacher: LoadedTeacher, encoded: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """The model's own logits, ``(1, outputs)``, or of each token ``(seq, outputs)``."""
    import torch

    tokenizer, device = teacher.tokenizer, teacher.model.device
    found: dict[int, np.ndarray] = {}
    for batch in _batches([len(fields["input_ids"]) for fields in encoded], tokenizer):
        rows = [
            {name: value for name, value in encoded[i].items() if name != "offset_mapping"}
            for i in batch
        ]
        inputs = (
            tokenizer.pad(rows, padding_side="right", return_tensors="pt")
            if len(rows) > 1
            else {name: torch.tensor([value]) for name, value in rows[0].items()}
        )
        with torch.inference_mode():
            logits = teacher.model(**{n: t.to(device) for n, t in inputs.items()}).logits
        arrays = logits.float().cpu().numpy()
        for i, array in zip(batch, arrays, strict=True):
            found[i] = array[: len(encoded[i]["input_ids"])] if array.ndim > 1 else array[None]
    return [found[i] for i in range(len(encoded))]


def _batches(lengths: Sequence[int], tokenizer: Any) -> Iterator[list[int]]:
    """The places of inputs of similar length, together as many as are computed at once."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = (len(batch) + 1) * lengths[i] > _BATCH_TOKENS or tokenizer.pad_token is None
        if batch and full:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _write(path: Path, found: Sequence[np.ndarray]) -> None:
    from safetensors.numpy import save_file

    lengths = np.array([len(array) for array in found], dtype=np.int64)
    save_file({"logits": np.concatenate(found), "lengths": lengths}, path)


def _read(path: Path) -> list[np.ndarray]:
    from safetensors.numpy import load_file

    stored = load_file(path)
    return np.split(stored["logits"], np.cumsum(stored["lengths"])[:-1])
