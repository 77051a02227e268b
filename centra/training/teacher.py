"""A classifier of transformers' own classes, of any size and family, that answers as a teacher.

It is checked before any class of transformers sees it: weights are safetensors alone, nothing names
code of its own, and the class that saved it is one that transformers ships.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.checkpoints.pretrained import find_file, refuse_code
from centra.checkpoints.saved_model import read_config, read_headers
from centra.errors import FormatError, IncompatibleError, first_line
from centra.formats.documents import canonical_json, sha256
from centra.system.panics import no_panic
from centra.system.snapshot import called

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from centra.formats.identities import Digest
    from centra.store import BlobReader, BlobStore

__all__ = ["LoadedTeacher", "Teacher", "import_teacher"]

_log = logging.getLogger(__name__)

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "sentencepiece.bpe.model",
    "spm.model",
    "spiece.model",
    "tokenizer.model",
)
_INDEX = "model.safetensors.index.json"
_KINDS = {
    "single_label_classification": "classification",
    "multi_label_classification": "multilabel",
    "regression": "regression",
}
"""By what transformers calls a ``problem_type``."""
_LARGEST_LENGTH = 1 << 20
"""Tokens; a tokenizer that knows no limit says a number beyond."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A checkpoint as it was checked: a message to whoever is to load it."""

    name: str
    """Where it came from, for errors."""
    architecture: str
    """transformers' class, e.g. ``BertForSequenceClassification``."""
    kind: str
    """Of the task that its head is for."""
    labels: tuple[str, ...]
    """What its logits stand for, in their order; ``LABEL_0`` and so on where it does not say."""
    files: Mapping[str, Digest]
    reader: BlobReader
    """Has the files."""

    @property
    def digest(self) -> str:
        """Names its weights, its settings and its tokenizer."""
        return sha256(canonical_json(dict(self.files)))

    @property
    def entailment(self) -> int | None:
        """The logit of entailment, where it is a model of natural-language inference; else None."""
        return _only(self.labels, "entail")

    @property
    def contradiction(self) -> int | None:
        """The logit that stands against entailment; None where it says of none."""
        if len(self.labels) == 2 and self.entailment is not None:
            return 1 - self.entailment
        return _only(self.labels, "contradict")

    def load(self) -> LoadedTeacher:
        """Load it into this process, on its GPU where there is one.

        Raises:
            FormatError: transformers cannot load it, or would have to make weights up.
            BlobNotFoundError, CorruptBlobError, StoreError: a file cannot be had.
        """
        with _assembled(self.files, self.reader) as folder, called(folder, self.name):
            return _load(folder, self.architecture, self.name)


@dataclass(frozen=True, kw_only=True)
class LoadedTeacher:
    """Model and tokenizer, as transformers has them."""

    model: Any
    tokenizer: Any
    max_length: int
    """Tokens that it reads of an input."""


def import_teacher(source: str, store: BlobStore) -> Teacher:
    """Check a fine-tuned checkpoint, and put its files into a store for whoever loads it.

    Args:
        source: a folder that ``save_pretrained`` wrote, or a name on the Hugging Face hub, also
            ``NAME@REVISION`` with a branch, tag or commit.
        store: gets the files.

    Raises:
        NotFoundError: there is no such folder or hub repository.
        FormatError: its settings or weights are missing, damaged, or pickled.
        IncompatibleError: code of its own (``auto_map``), or a class that transformers does not have
            for sequences or tokens.
        StoreError, StoreNotWritableError: the store refused.
    """
    place, _, commit = source.partition("@")
    if Path(source).is_dir() or not commit:
        place, commit = source, ""
    revision = commit or None
    _check(place, revision)
    names = ["config.json", *_TOKENIZER_FILES, _INDEX]
    paths = {name: path for name in names if (path := find_file(place, name, revision)) is not None}
    paths |= {tensor.path.name: tensor.path for tensor in read_headers(place, revision).values()}
    files = {name: store.put(paths[name]) for name in sorted(paths)}
    # What was put there is what is loaded, so that is what must be right.
    with _assembled(files, store) as folder, called(folder, source):
        architecture, kind, labels = _check(str(folder))
    return Teacher(
        name=source,
        architecture=architecture,
        kind=kind,
        labels=labels,
        files=files,
        reader=store,
    )


@contextmanager
def _assembled(files: Mapping[str, Digest], reader: BlobReader) -> Iterator[Path]:
    """A folder with files of a store, under their names."""
    with tempfile.TemporaryDirectory(prefix="centra-") as scratch:
        folder = Path(scratch) / "teacher"
        folder.mkdir()
        for name, digest in files.items():
            blob = reader.fetch(digest)
            try:
                os.link(blob, folder / name)
            except OSError:  # On another disk, or one without links.
                shutil.copyfile(blob, folder / name)
        yield folder


def _check(source: str, revision: str | None = None) -> tuple[str, str, tuple[str, ...]]:
    """A checkpoint's class, its kind of task and its labels."""
    raw = read_config(source, revision)
    refuse_code(source, revision)
    if "quantization_config" in raw:
        raise IncompatibleError(
            f"{source}: its weights are quantised; give the checkpoint that they were made from"
        )
    read_headers(source, revision)
    architecture, tokens = _architecture(raw, source)
    labels = _labels(raw, source)
    problem = raw.get("problem_type")
    if tokens:
        kind = "tagging"
    elif problem is not None:
        if problem not in _KINDS:
            raise FormatError(
                f"{source}: its config.json says problem_type {problem!r:.60}; expected one of "
                f"{', '.join(_KINDS)}"
            )
        kind = _KINDS[problem]
    else:
        kind = "regression" if len(labels) == 1 else "classification"
    if kind == "regression" and len(labels) != 1:
        raise FormatError(
            f"{source}: has {len(labels)} outputs for regression; expected one number"
        )
    return architecture, kind, labels


def _architecture(raw: dict[str, Any], source: str) -> tuple[str, bool]:
    """The class that saved it, and whether it reads every token."""
    from transformers.models.auto import modeling_auto as auto

    known = {
        False: auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        True: auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    }
    model_type, named = raw.get("model_type"), raw.get("architectures")
    expected = [classes[model_type] for classes in known.values() if model_type in classes]
    if not expected:
        raise IncompatibleError(
            f"{source}: its config.json says model_type {model_type!r:.60}, of which transformers "
            "has no classifier of sequences or tokens"
        )
    for tokens, classes in known.items():
        if named == [classes.get(model_type)]:
            return named[0], tokens
    raise IncompatibleError(
        f"{source}: its config.json says architectures {named!r:.80}; a teacher must have been saved "
        f"by {' or '.join(expected)}"
    )


def _labels(raw: dict[str, Any], source: str) -> tuple[str, ...]:
    """What the logits stand for, as ``id2label`` and ``label2id`` say alike."""
    names = _places(raw.get("id2label"), source)
    given = raw.get("label2id")
    if isinstance(given, dict) and given:
        inverse = _places({place: name for name, place in given.items()}, source)
        if names and names != inverse:
            raise FormatError(
                f"{source}: in its config.json id2label says {_shown(names)}, label2id "
                f"{_shown(inverse)}; correct one of them"
            )
        names = inverse
    if not names:
        count = raw.get("num_labels", 2)
        if not isinstance(count, int) or not 1 <= count < 1 << 20:
            raise FormatError(f"{source}: its config.json says num_labels {count!r:.40}")
        names = {place: f"LABEL_{place}" for place in range(count)}
    if [*names] != [*range(len(names))] or len({*names.values()}) != len(names):
        raise FormatError(
            f"{source}: its config.json names its outputs {_shown(names)}; expected a label of its "
            "own for each, counted from 0"
        )
    return tuple(names.values())


def _places(names: object, source: str) -> dict[int, str]:
    """Labels by their places, in order."""
    if not isinstance(names, dict):
        return {}
    try:
        return dict(sorted((int(place), str(name)) for place, name in names.items()))
    except (TypeError, ValueError) as error:
        raise FormatError(
            f"{source}: its config.json names outputs by {first_line(error)}"
        ) from error


def _load(folder: Path, architecture: str, name: str) -> LoadedTeacher:
    import torch
    import transformers

    from centra.training.trainer import transformers_silenced

    try:
        with _no_bars(), transformers_silenced(), no_panic(lambda error: ValueError(str(error))):
            model, found = getattr(transformers, architecture).from_pretrained(
                folder,
                # Whatever the settings say: no kernel of the hub, no pickle.
                attn_implementation="eager",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers' own are of any class.
        raise FormatError(f"{folder}: transformers cannot load it ({first_line(error)})") from error
    if missing := sorted(found["missing_keys"]):
        raise FormatError(
            f"{folder}: lacks {len(missing)} tensors of a {architecture}, such as "
            f"{', '.join(missing[:_SHOWN])}, which would be random; save the whole fine-tuned model"
        )
    if unread := sorted(found["unexpected_keys"]):
        _log.warning(
            "%s has %d tensors that a %s does not use, such as %s",
            name,
            len(unread),
            architecture,
            ", ".join(unread[:_SHOWN]),
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return LoadedTeacher(
        model=model.eval().to(device),
        tokenizer=tokenizer,
        max_length=_max_length(model.config, tokenizer),
    )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' own progress bars out: standard error has one of ours."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _max_length(config: Any, tokenizer: Any) -> int:
    """How many tokens it reads: as its tokenizer says, or else as many as it has positions for."""
    length = int(tokenizer.model_max_length)
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and length > positions > 0:
        # Some families begin to count behind the padding's own place.
        return positions - 1 - (config.pad_token_id or 0)
    return min(length, _LARGEST_LENGTH)


def _only(labels: tuple[str, ...], start: str) -> int | None:
    """The place of the one label that begins with a word; None where there is none, or several."""
    places = [i for i, label in enumerate(labels) if label.casefold().startswith(start)]
    return places[0] if len(places) == 1 else None


def _shown(names: Mapping[int, str]) -> str:
    items = [f"{place} {name!r}" for place, name in names.items()]
    return ", ".join(items[:_SHOWN]) + (" …" if len(items) > _SHOWN else "")
