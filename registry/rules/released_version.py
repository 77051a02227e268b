"""A version of a task as a release holds it: what is compared where releases are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from centra.formats.precision import Precision

if TYPE_CHECKING:
    from centra.formats.contract import Contract
    from centra.formats.identities import Digest, VersionNumber

__all__ = ["ReleasedVersion"]


@dataclass(frozen=True, kw_only=True)
class ReleasedVersion:
    """A version of a task as a release holds it."""

    number: VersionNumber
    digest: Digest
    contract: Contract
    precision: Precision

    def __str__(self) -> str:
        number = str(self.number)
        return number if self.precision == Precision.FP32 else f"{number} {self.precision}"
