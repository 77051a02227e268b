"""Thresholds that a team sets: from which score a label is named, and below which none is.

They stand in a small file, and become part of a module's decision; see :mod:`centra.formats.decision`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centra.errors import DataError, FormatError, IncompatibleError
from centra.formats.decision import Decision
from centra.formats.strict_json import parse_foreign
from centra.formats.task_module import HeadSpec, TaskSpec
from centra.formats.toml import read_toml
from centra.kinds import kind_named
from centra.system.files import decode_text
from centra.system.reading import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Thresholds", "read_thresholds"]

_FIELDS = ("threshold", "rejection")
_NONE = "none"
_LARGEST = 1 << 20
_EXPECTED = (
    "expected 'threshold', a number or an object from label to number, or 'rejection', a number or "
    f"{_NONE!r}, or both"
)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a team sets; what it does not name stays as it is."""

    threshold: float | Mapping[str, float] | None = None
    """The score from which a multilabel task names a label: one for all, or some labels' own."""
    rejection: float | None = None
    """The score below which a classification gives no label."""
    never_rejects: bool = False
    """Whether it is said that no answer is rejected; there is no ``rejection`` then."""
    where: str = "thresholds"
    """What to call them in errors."""

    def decide(self, spec: TaskSpec) -> TaskSpec:
        """A module's spec with these thresholds.

        Metrics that were measured under another decision are left out.

        Args:
            spec: of a module that fits them or not.

        Raises:
            DataError: the kind has no such threshold, or no label of that name.
        """
        rejection = spec.decision.rejection
        if self.rejection is not None or self.never_rejects:
            rejection = self.rejection
        head, threshold = self._named_from(spec)
        decision = Decision(
            **{
                **{name: getattr(spec.decision, name) for name in Decision.model_fields},
                "threshold": threshold,
                "rejection": rejection,
            }
        )
        fields = {name: getattr(spec, name) for name in TaskSpec.model_fields}
        changed = TaskSpec(**{**fields, "head": head, "decision": decision})
        try:
            decision.check(changed, kind_named(spec.kind), self.where)
        except (FormatError, IncompatibleError) as error:
            raise DataError(str(error), code="bad-thresholds") from error
        if changed.effective_decision == spec.effective_decision:
            return spec
        return TaskSpec(**{**fields, "head": head, "decision": decision, "metrics": {}})

    def _named_from(self, spec: TaskSpec) -> tuple[HeadSpec, float | tuple[float, ...] | None]:
        """The head, where one threshold for all labels has always stood, and the decision's own."""
        if self.threshold is None:
            return spec.head, spec.decision.threshold
        if not kind_named(spec.kind).takes_threshold:
            raise DataError(
                f"{self.where}: a {spec.kind} task has no 'threshold'; only a task that names several "
                "labels has",
                code="bad-thresholds",
            )
        if isinstance(self.threshold, float):
            return spec.head.model_copy(update={"threshold": self.threshold}), None
        for label in self.threshold:
            if label not in spec.labels:
                raise DataError(
                    f"{self.where}: threshold: no label {label!r}; the task has "
                    f"{', '.join(spec.labels)}",
                    code="bad-thresholds",
                )
        before = spec.decision.threshold
        if before is None:
            before = spec.head.threshold
        usual = before if isinstance(before, tuple) else (before,) * len(spec.labels)
        own = tuple(
            self.threshold.get(label, kept) for label, kept in zip(spec.labels, usual, strict=True)
        )
        if len({*own}) == 1:
            return spec.head.model_copy(update={"threshold": own[0]}), None
        return spec.head.model_copy(
            update={"threshold": HeadSpec.model_fields["threshold"].default}
        ), own


def read_thresholds(path: Path) -> Thresholds:
    """Read thresholds from a file: JSON where its name ends so, else TOML.

    ::

        threshold = 0.4            # of a multilabel task; or [threshold] and label = number
        rejection = 0.6            # of a classification; "none" for never

    Raises:
        DataError: there is no such file, or it says something else.
    """
    try:
        if path.suffix == ".json":
            found = parse_foreign(decode_text(read_regular(path, _LARGEST)))
        else:
            found = read_toml(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})", code="bad-thresholds"
        ) from error
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise DataError(
            f"{path}: not {kind} ({error}); {_EXPECTED}", code="bad-thresholds"
        ) from error
    if not isinstance(found, dict) or not found or found.keys() - {*_FIELDS}:
        shown = json.dumps(sorted(found) if isinstance(found, dict) else found, default=str)[:80]
        raise DataError(f"{path}: found {shown}; {_EXPECTED}", code="bad-thresholds")
    threshold, rejection = found.get("threshold"), found.get("rejection")
    if isinstance(threshold, dict):
        threshold = {
            label: _number(value, f"{path}: threshold: {label}")
            for label, value in threshold.items()
        }
    elif "threshold" in found:
        threshold = _number(threshold, f"{path}: threshold")
    never = "rejection" in found and rejection in (_NONE, None)
    return Thresholds(
        threshold=threshold,
        rejection=None
        if never or "rejection" not in found
        else _number(rejection, f"{path}: rejection"),
        never_rejects=never,
        where=str(path),
    )


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where} is {value!r}; expected a number", code="bad-thresholds")
    return float(value)
