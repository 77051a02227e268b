"""What callers of a task rely on, and how two versions differ in it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Contract", "ContractDifference", "compare"]

Contract = tuple[str, str, tuple[str, ...]]
"""Kind, input and labels in their order: what callers of a task rely on."""


@dataclass(frozen=True, kw_only=True)
class ContractDifference:
    """How a new version's contract differs from the current one."""

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
        lines = []
        for what, change in (("kind", self.kind), ("input", self.input)):
            if change:
                lines.append(f"{what}: {change[0]} → {change[1]}")
        for what, labels in (("added", self.added), ("removed", self.removed)):
            if labels:
                lines.append(f"labels {what}: {', '.join(labels)}")
        if self.renamed:
            pairs = ", ".join(f"{old} → {new}" for old, new in self.renamed)
            lines.append(f"labels renamed: {pairs}")
        if self.reordered:
            lines.append("labels: the same, in another order")
        return lines


def compare(old: Contract, new: Contract) -> ContractDifference:
    """The difference between two contracts; false where there is none."""
    before, after = old[2], new[2]
    added = tuple(label for label in after if label not in before)
    removed = tuple(label for label in before if label not in after)
    renamed: tuple[tuple[str, str], ...] = ()
    pairs = [(a, b) for a, b in zip(before, after, strict=False) if a != b]
    if len(before) == len(after) and {(a, b) for a, b in pairs} == set(
        zip(removed, added, strict=False)
    ):
        renamed, added, removed = tuple(pairs), (), ()
    return ContractDifference(
        kind=(old[0], new[0]) if old[0] != new[0] else None,
        input=(old[1], new[1]) if old[1] != new[1] else None,
        added=added,
        removed=removed,
        renamed=renamed,
        reordered=before != after and set(before) == set(after),
    )
