"""A task's labelled examples, read once and encoded for one backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.data import TextEncoder, fingerprint, read_examples
from centra.errors import DataError, FormatError
from centra.task_module import HeadSpec, TaskSpec
from centra.training.contract import make_contract
from centra.training.targets import target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from centra.backbone import BackboneSpec
    from centra.blobs import BlobReader
    from centra.data import Example, Row
    from centra.labelling import Labelling
    from centra.tags import Scheme

__all__ = ["Split", "TaskData"]


@dataclass(frozen=True)
class Split:
    """Encoded examples with what the head should say; see :func:`centra.training.targets.target`."""

    rows: list[Row]
    targets: list[np.ndarray]


@dataclass(frozen=True)
class TaskData:
    """The ``train.jsonl`` and ``dev.jsonl`` of one folder."""

    spec: TaskSpec
    """What the data say of the task: kind, input, labels and head; neither tap nor depth."""
    train: Split
    dev: Split
    fingerprint: str
    """Over the bytes of both files."""
    pad_token_id: int
    scheme: Scheme = "bio"
    """The scheme of a tagging task's tags before they were converted to BIO."""
    remarks: tuple[str, ...] = ()
    """What the labels were taken for, and what is odd about them."""

    @classmethod
    def load(
        cls,
        backbone: BackboneSpec,
        reader: BlobReader,
        folder: Path,
        *,
        max_length: int = 0,
        labelling: Labelling | None = None,
        like: TaskSpec | None = None,
    ) -> TaskData:
        """Read and encode a folder.

        Args:
            backbone: whose tokenizer encodes.
            reader: where its blobs are.
            folder: holds both files; see :func:`centra.data.read_examples`.
            max_length: tokens kept of each input; 0 for the backbone's maximum.
            labelling: what the labels mean, where the data do not say it.
            like: see :func:`centra.training.contract.make_contract`.

        Raises:
            DataError: missing, empty or malformed data; a label that is not in train, or not in the
                set that was given.
        """
        if folder.is_file():
            raise DataError(
                f"{folder}: is a file; expected a folder with train.jsonl and dev.jsonl"
            )
        files = [folder / "train.jsonl", folder / "dev.jsonl"]
        train, dev = (read_examples(path) for path in files)
        contract = make_contract(train, dev, labelling, like)
        spec = TaskSpec(
            kind=contract.kind,
            input=contract.input,
            labels=contract.labels,
            backbone=backbone.digest,
            tap_layer=0,
            depth=0,
            head=HeadSpec(activation=None if contract.kind == "tagging" else "tanh"),
        )
        try:
            spec.check(str(files[0]))
        except FormatError as error:
            raise DataError(str(error)) from error
        encoder = TextEncoder.of(backbone, reader, max_length=max_length)
        return cls(
            spec=spec,
            train=_encode(spec, contract.train, encoder),
            dev=_encode(spec, contract.dev, encoder),
            fingerprint=fingerprint(files),
            pad_token_id=encoder.pad_token_id,
            scheme=contract.scheme,
            remarks=tuple(contract.remarks),
        )


def _encode(spec: TaskSpec, examples: Sequence[Example], encoder: TextEncoder) -> Split:
    rows = encoder.encode(example.input for example in examples)
    return Split(
        rows, [target(spec, example, row) for example, row in zip(examples, rows, strict=True)]
    )
