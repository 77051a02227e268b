"""A task's contract: what its callers rely on, and how two of them differ.

A change of it is a redefinition, the next major version. How a module comes to its answer under the
same contract may change by an update; see :mod:`centra.formats.decision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from centra.formats.documents import canonical_json, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Contract", "ContractDifference", "ContractFields", "InputForm"]

InputForm = Literal["single", "pair"]
"""Whether a task takes one text or two."""


class ContractFields(Protocol):
    """Whatever has a contract's fields among its own: a module's spec, a manifest's entry, a row."""

    @property
    def kind(self) -> str:
        """The name of its kind."""
        ...

    @property
    def input(self) -> str:
        """``single`` or ``pair``."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """In the order of the logits."""
        ...


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What callers of a task rely on."""

    kind: str
    """The name of a kind; see :mod:`centra.kinds`."""
    input: str
    """``single`` or ``pair``."""
    labels: tuple[str, ...]
    """In their order."""

    @classmethod
    def of(cls, fields: ContractFields) -> Contract:
        """The contract of a spec, an entry or a row."""
        return cls(kind=fields.kind, input=fields.input, labels=tuple(fields.labels))

    def to_dict(self) -> dict[str, Any]:
        """The fields that specs, entries and rows store it in."""
        return {"kind": self.kind, "input": self.input, "labels": [*self.labels]}

    @property
    def labels_digest(self) -> str:
        """A SHA-256 digest over the labels in their order, which stands for them in the log."""
        return sha256(canonical_json([*self.labels]))

    def difference(self, new: Contract) -> ContractDifference:
        """How another contract differs from this one; false where it does not."""
        added = tuple(label for label in new.labels if label not in self.labels)
        removed = tuple(label for label in self.labels if label not in new.labels)
        renamed: tuple[tuple[str, str], ...] = ()
        pairs = [(a, b) for a, b in zip(self.labels, new.labels, strict=False) if a != b]
        if len(self.labels) == len(new.labels) and {*pairs} == {*zip(removed, added, strict=False)}:
            renamed, added, removed = tuple(pairs), (), ()
        return ContractDifference(
            kind=(self.kind, new.kind) if self.kind != new.kind else None,
            input=(self.input, new.input) if self.input != new.input else None,
            added=added,
            removed=removed,
            renamed=renamed,
            reordered=self.labels != new.labels and {*self.labels} == {*new.labels},
        )


@dataclass(frozen=True, kw_only=True)
class ContractDifference:
    """How a new contract differs from an old one."""

    kind: tuple[str, str] | None = None
    """Before and after, where it differs."""
    input: tuple[str, str] | None = None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    """Labels that another took the place of, in an otherwise equal list; a guess, but a good one."""
    reordered: bool = False
    """The same labels in another order."""

    def __bool__(self) -> bool:
        return any((self.kind, self.input, self.added, self.removed, self.renamed, self.reordered))

    def lines(self) -> list[str]:
        """One line for each difference, for people."""
        return [
            *_change("kind", self.kind),
            *_change("input", self.input),
            *_listed("labels added", self.added),
            *_listed("labels removed", self.removed),
            *_listed("labels renamed", [f"{old} → {new}" for old, new in self.renamed]),
            *(["labels: the same, in another order"] if self.reordered else []),
        ]


def _change(name: str, change: tuple[str, str] | None) -> list[str]:
    return [f"{name}: {change[0]} → {change[1]}"] if change else []


def _listed(name: str, labels: Iterable[str]) -> list[str]:
    text = ", ".join(labels)
    return [f"{name}: {text}"] if text else []
