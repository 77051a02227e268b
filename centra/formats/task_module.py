"""A task module: the weights and spec of one version of a task, in one safetensors file.

The spec is JSON in the file's metadata, beside a checksum over spec and tensors, so that the two
cannot part and a flipped bit shows. Judging a file (:func:`read_spec`, :func:`check_module`) needs
no torch; loading its weights (:class:`TaskModule`) does.

Tensors: ``layers.<i>.<name as in transformers>`` with i from 1, ``head.<name>``, and the probe:
``probe.input_ids``, ``probe.attention_mask``, ``probe.token_type_ids`` of ``(batch, seq)`` and
``probe.logits``, the module's own answer to them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from centra.errors import FormatError, IncompatibleError, StoreNotWritableError
from centra.formats.contract import Contract, InputForm
from centra.formats.decision import Decision
from centra.formats.documents import (
    Count,
    DigestField,
    FormattedDocument,
    Text,
    canonical_json,
)
from centra.formats.head import HeadNorm, HeadSpec
from centra.formats.identities import Digest
from centra.formats.strict_json import parse_document
from centra.formats.tensors import (
    LARGEST_HEADER,
    RawTensor,
    check_finite,
    check_header_size,
    content_checksum,
    read_header,
    read_raw,
)
from centra.kinds import KINDS, kind_named
from centra.system.files import file_digest, make_folder, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np
    import torch

    from centra.formats.backbone import BackboneSpec

__all__ = [
    "HeadNorm",
    "HeadSpec",
    "KindName",
    "ModuleFile",
    "TaskModule",
    "TaskSpec",
    "check_fits",
    "check_module",
    "check_stored",
    "read_spec",
]


def _known_kind(name: str) -> str:
    if name in KINDS:
        return name
    *others, last = (repr(known) for known in KINDS)
    expected = f"{', '.join(others)} or {last}"
    raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})


KindName = Annotated[str, AfterValidator(_known_kind)]
"""The name of a kind of tasks; see :mod:`centra.kinds`."""

_KEY = "centra"
_LAYER = re.compile(r"layers\.([1-9][0-9]{0,3})\..")
_SHOWN = 5
"""So many of a file's layers are named."""
_OF_WORDS = {"crf": False, "words": "unicode", "tags": ()}
"""The settings of heads on every token, and what says nothing."""
_PROBE = ("probe.input_ids", "probe.attention_mask", "probe.token_type_ids", "probe.logits")


class TaskSpec(FormattedDocument):
    """What a task module says about itself."""

    FORMAT: ClassVar[str] = "centra/task-module"

    kind: KindName
    input: InputForm
    labels: tuple[str, ...]
    """In the order of the logits; BIO tags for tagging; empty for regression."""
    backbone: DigestField
    tap_layer: Count
    """The backbone layer whose hidden state is read; 0 is the embedding output."""
    depth: Count
    """Transformer layers of its own."""
    head: HeadSpec
    decision: Decision = Field(default=Decision(), exclude_if=lambda value: value == Decision())
    """How logits become an answer, where that is not as usual; written only there. See
    :attr:`effective_decision`."""
    dtype: Literal["float32"] = "float32"
    metrics: dict[Text, float] = Field(default_factory=dict)
    """Reported by whoever trained it, on the dev set."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Data fingerprint, hyper-parameters, seed, library versions."""
    teacher: DigestField | None = None
    """The module it was distilled from."""

    @property
    def outputs(self) -> int:
        """How many logits the head gives per input, or per token for tagging."""
        return kind_named(self.kind).outputs(self.logit_names)

    @property
    def reads_every_token(self) -> bool:
        """Whether logits are ``(batch, seq, outputs)``, one for each token."""
        return kind_named(self.kind).reads_every_token

    @cached_property
    def effective_decision(self) -> Decision:
        """How logits become an answer, with what kind and head say of it."""
        return self.decision.completed(self, kind_named(self.kind))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """See pydantic; what was worked out for this spec is worked out anew for the copy."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("effective_decision", None)
        return copied

    @property
    def logit_names(self) -> tuple[str, ...]:
        """What each logit stands for: a label, or a tag of the head's own; none for regression."""
        return self.head.tags or self.labels

    @property
    def contract(self) -> Contract:
        """What a caller of the task relies on."""
        return Contract.of(self)

    def check(self, where: str) -> None:
        """Refuse a spec whose fields contradict each other.

        Raises:
            FormatError: naming the field.
            IncompatibleError: a decision that this Centra cannot carry out.
        """
        kind = kind_named(self.kind)
        if len(set(self.labels)) != len(self.labels) or "" in self.labels:
            raise FormatError(f"{where}: labels must be distinct and not empty")
        if len(self.labels) < kind.least_labels or (self.labels and not kind.has_labels):
            expected = f"at least {kind.least_labels}" if kind.has_labels else "none"
            raise FormatError(
                f"{where}: a {self.kind} task with {len(self.labels)} labels; expected {expected}"
            )
        if fault := self.head.fault(every_token=kind.reads_every_token):
            raise FormatError(f"{where}: {fault} a {self.kind} task")
        for name, usual in _OF_WORDS.items():
            if getattr(self.head, name) != usual and not kind.reads_every_token:
                raise FormatError(
                    f"{where}: head.{name} is for tagging tasks, but this is a {self.kind} task"
                )
        if self.input not in kind.inputs:
            raise FormatError(f"{where}: {self.kind} takes {' or '.join(kind.inputs)} inputs")
        try:
            kind.check(self)
        except ValueError as error:
            raise FormatError(f"{where}: {error}") from error
        self.decision.check(self, kind, where)


@dataclass(frozen=True, kw_only=True)
class ModuleFile:
    """A task module's file that has been checked throughout."""

    path: Path
    spec: TaskSpec
    digest: Digest
    size: int
    """Bytes."""
    tensors: dict[str, RawTensor]
    parity: float | None = None
    """The largest difference of logits when it was run on its probe; see :func:`centra.releases.parity.check_module_parity`."""
    source: str | None = None
    """Where it was fetched from; see :attr:`centra.checkpoints.sources.Fetched.source`."""


def read_spec(path: Path) -> TaskSpec:
    """Read a module's spec from the file's header alone.

    Raises:
        FormatError: no safetensors file, or not a task module.
        UnsupportedFormatError: a task module of another major version.
    """
    spec, _, _ = _read_header(path)
    return spec


def check_module(path: Path, digest: Digest | None = None) -> ModuleFile:
    """Check all of a module that can be checked without its backbone and without torch.

    Args:
        path: the file.
        digest: its own, where its bytes have just been hashed; so they are not hashed for it again.

    Raises:
        FormatError: truncated, a flipped bit, a pickle, NaN or infinite weights, labels that do not
            match the head, missing or misshapen tensors; each named.
        UnsupportedFormatError: a task module of another major version.
    """
    spec, header, tensors = _read_all(path)
    actual = content_checksum(header["spec"], tensors)
    if header["checksum"] != actual:
        raise FormatError(
            f"{path}: is corrupt: its content's SHA-256 is {actual}, its header says "
            f"{header['checksum']}. Copy or write the file again."
        )
    return _check_content(path, digest or file_digest(path), spec, tensors)


def check_fits(module: ModuleFile, backbone: BackboneSpec, called: str) -> None:
    """Check that a module can run on a backbone.

    Args:
        module: the checked file.
        backbone: the spec whose digest the module names.
        called: the backbone's name, for errors.

    Raises:
        IncompatibleError: another backbone, a tap beyond its layers, or layers of another shape.
    """
    spec, where = module.spec, str(module.path)
    if spec.backbone != backbone.digest:
        raise IncompatibleError(
            f"{where}: was made for backbone sha256:{spec.backbone}, "
            f"not for {called} (sha256:{backbone.digest})"
        )
    if spec.tap_layer > backbone.num_layers:
        raise IncompatibleError(
            f"{where}: taps layer {spec.tap_layer}, but {called} has {backbone.num_layers} layers"
        )
    if (limit := spec.decision.max_length) is not None and limit > backbone.max_length:
        raise IncompatibleError(
            f"{where}: decision.max_length is {limit}, but {called} reads {backbone.max_length} tokens"
        )
    expected = {
        f"layers.{i}.{name}": shape
        for i in range(1, spec.depth + 1)
        for name, shape in backbone.layer_shapes(spec.tap_layer + i).items()
    } | {"head.out.weight": (spec.outputs, backbone.hidden_size)}
    expected |= {f"head.{name}": shape for name, shape in backbone.head_norm_shapes.items()}
    for name, shape in expected.items():
        found = module.tensors[name].shape if name in module.tensors else None
        if found != shape:
            raise IncompatibleError(f"{where}: tensor {name} is {found}, {called} needs {shape}")
    for name in module.tensors:
        if name.startswith(("layers.", "head.norm.")) and name not in expected:
            raise IncompatibleError(f"{where}: tensor {name} is unknown to {called}'s layers")
    limits = {
        "probe.input_ids": backbone.vocab_size,
        "probe.token_type_ids": max(int(backbone.config.get("type_vocab_size", 2)), 1),
    }
    fits = module.tensors["probe.input_ids"].shape[1] <= backbone.max_length
    for name, limit in limits.items():
        ids = _integers(module.tensors[name])
        fits = fits and ids.min() >= 0 and ids.max() < limit
    if not fits:
        raise IncompatibleError(f"{where}: its probe does not fit {called}'s vocabulary or length")


def check_stored(path: Path, digest: str, backbone: BackboneSpec) -> ModuleFile:
    """Check a module that a store or a release folder handed out, before anything is made of it.

    Args:
        path: the file, whose digest has just been checked.
        digest: its own.
        backbone: what it is to run on.

    Raises:
        FormatError, UnsupportedFormatError, IncompatibleError: see :func:`check_module` and
            :func:`check_fits`.
    """
    # Its checksum is not taken again: these are the very bytes that were checked when they came in.
    spec, _, tensors = _read_all(path)
    module = _check_content(path, Digest(digest), spec, tensors)
    check_fits(module, backbone, f"backbone sha256:{backbone.digest[:12]}")
    return module


def _read_all(path: Path) -> tuple[TaskSpec, dict[str, Any], dict[str, RawTensor]]:
    """The spec, the metadata that it stands in, and the tensors."""
    spec, text, header = _read_header(path)
    if text.encode() != canonical_json(header):
        raise FormatError(f"{path}: is corrupt: its header is not as Centra writes it")
    return spec, header, read_raw(path)


def _check_content(
    path: Path, digest: Digest, spec: TaskSpec, tensors: dict[str, RawTensor]
) -> ModuleFile:
    where = str(path)
    spec.check(where)
    check_finite(tensors, where)
    _check_shapes(spec, tensors, where)
    return ModuleFile(
        path=path, spec=spec, digest=digest, size=path.stat().st_size, tensors=tensors
    )


def _integers(tensor: RawTensor) -> np.ndarray:
    import numpy as np

    return np.frombuffer(tensor.data, dtype="<i8")


@dataclass(frozen=True)
class TaskModule:
    """A task module in memory, with its weights as torch tensors."""

    spec: TaskSpec
    tensors: dict[str, torch.Tensor]

    @classmethod
    def read(cls, path: Path) -> TaskModule:
        """Read a module that has been checked before, e.g. a blob of a store.

        Raises:
            FormatError, UnsupportedFormatError: see :func:`read_spec`.
        """
        from safetensors.torch import load_file

        return cls(read_spec(path), load_file(path))

    def to_bytes(self) -> bytes:
        """The file's bytes; the same spec and weights give the same bytes everywhere.

        Raises:
            FormatError: labels and training record are longer than a header that is read.
        """
        from safetensors.torch import save

        spec = json.loads(self.spec.to_bytes())
        raw = {
            name: RawTensor(
                dtype=_DTYPES[str(tensor.dtype)],
                shape=tuple(tensor.shape),
                data=tensor.contiguous().view(-1).numpy().tobytes(),
            )
            for name, tensor in sorted(self.tensors.items())
        }
        header = {"checksum": content_checksum(spec, raw), "spec": spec}
        # One metadata key, because safetensors does not promise an order among several.
        data = save(
            {name: self.tensors[name].contiguous().clone() for name in raw},
            metadata={_KEY: canonical_json(header).decode()},
        )
        length = int.from_bytes(data[:8], "little")
        check_header_size(length, len(data) - 8 - length, "the task module")
        return data

    def write(self, path: Path) -> None:
        """Write the file in one step: readers never see half of it.

        Raises:
            FormatError: see :meth:`to_bytes`.
            StoreNotWritableError: the folder cannot be written.
        """
        try:
            make_folder(path.parent)
            with replacing(path) as temporary:
                temporary.write_bytes(self.to_bytes())
        except OSError as error:
            raise StoreNotWritableError(f"cannot write {path}: {error.strerror}") from error

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors without the probe."""
        return {name: t for name, t in self.tensors.items() if not name.startswith("probe.")}


_DTYPES = {"torch.float32": "F32", "torch.int64": "I64"}


def _read_header(path: Path) -> tuple[TaskSpec, str, dict[str, Any]]:
    """The spec, and the metadata that it stands in: its text, and what that says."""
    header = read_header(path)
    if _KEY not in header.metadata:
        raise FormatError(
            f"{path}: is a safetensors file but not a Centra task module",
            code="not-a-module",
            path=str(path),
        )
    text = header.metadata[_KEY]
    try:
        content = parse_document(text.encode(), LARGEST_HEADER)
        spec, _ = canonical_json(content["spec"]), content["checksum"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: the task module's header is damaged ({error})") from error
    found = TaskSpec.from_bytes(spec, str(path))
    _check_depth(found, header.tensors, str(path))
    return found, text, content


def _check_depth(spec: TaskSpec, names: Iterable[str], where: str) -> None:
    """Refuse a depth that is not that of the tensors, before anything is made of so many layers."""
    layers = {int(match[1]) for name in names if (match := _LAYER.match(name))}
    if len(layers) != spec.depth or max(layers, default=0) != spec.depth:
        more = f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else ""
        raise FormatError(
            f"{where}: depth is {spec.depth}, but the file has layers "
            f"{sorted(layers)[:_SHOWN]}{more}"
        )


def _check_shapes(spec: TaskSpec, tensors: dict[str, RawTensor], where: str) -> None:
    out = tensors.get("head.out.weight")
    if out is None or len(out.shape) != 2:
        raise FormatError(f"{where}: tensor head.out.weight is missing")
    if out.shape[0] != spec.outputs:
        raise FormatError(
            f"{where}: {len(spec.logit_names)} labels but the head has {out.shape[0]} outputs"
        )
    outputs, hidden = out.shape
    expected = spec.head.shapes(hidden, outputs)
    # Of a backbone whose layers end without a norm; see check_fits.
    norm = ("head.norm.weight", "head.norm.bias")
    expected |= {name: (hidden,) for name in norm if name in tensors}
    inputs = tensors.get("probe.input_ids")
    shape = () if inputs is None else inputs.shape
    if inputs is not None and (len(shape) != 2 or 0 in shape):
        raise FormatError(f"{where}: tensor probe.input_ids is {shape}, expected (batch, seq)")
    expected |= dict.fromkeys(_PROBE[:3], shape)
    expected["probe.logits"] = (*(shape if spec.reads_every_token else shape[:1]), outputs)
    for name, wanted in expected.items():
        if name not in tensors:
            raise FormatError(f"{where}: tensor {name} is missing")
        if tensors[name].shape != wanted:
            raise FormatError(f"{where}: tensor {name} is {tensors[name].shape}, expected {wanted}")
    layers = {name: _LAYER.match(name) for name in tensors if name not in expected}
    for name, tensor in tensors.items():
        if name in layers and not layers[name]:
            raise FormatError(f"{where}: tensor {name} is no part of a task module")
        dtype = "I64" if name in _PROBE[:3] else "F32"
        if tensor.dtype != dtype:
            raise FormatError(f"{where}: tensor {name} holds {tensor.dtype}, expected {dtype}")
