"""The part of a report that is kept with its measurement: what it says without any text of the data."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from centra.evaluation.calibration import Calibration, KeptShare, ScoreBin
from centra.evaluation.report import ClassScore, Slice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from centra.evaluation.report import Report

__all__ = ["Confusion", "Summary"]

_CONFUSIONS = 20
"""So many pairs of labels are kept."""
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A label that was answered where another was wanted."""

    wanted: str | None
    """None where nothing was."""
    answered: str | None
    """None where nothing was."""
    count: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is kept of a report."""

    all: Slice
    """Of all rows."""
    errors: int
    """How many rows have one."""
    confusions: tuple[Confusion, ...]
    """The most frequent first."""

    @classmethod
    def of(cls, report: Report) -> Summary:
        """The summary of a report."""
        wrong = Counter({pair: n for pair, n in report.confusion.items() if pair[0] != pair[1]})
        return cls(
            all=report.all,
            errors=report.errors,
            confusions=tuple(
                Confusion(wanted=wanted, answered=answered, count=count)
                for (wanted, answered), count in wrong.most_common(_CONFUSIONS)
            ),
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Summary:
        """The summary that :meth:`to_dict` gave."""
        found = dict(fields["all"])
        calibration = found["calibration"]
        return cls(
            all=Slice(
                **found
                | {
                    "classes": tuple(ClassScore(**score) for score in found["classes"]),
                    "calibration": calibration
                    and Calibration(
                        error=calibration["error"],
                        bins=tuple(ScoreBin(**one) for one in calibration["bins"]),
                    ),
                    "kept": tuple(KeptShare(**share) for share in found["kept"]),
                }
            ),
            errors=fields["errors"],
            confusions=tuple(Confusion(**one) for one in fields["confusions"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values, for JSON."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    match value:
        case float():
            # JSON has no infinite numbers.
            return round(value, _DIGITS) if math.isfinite(value) else None
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
