"""What is wrong with a setup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.documents.base import Document, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from registry import doctor
    from registry.storage import scrub

__all__ = ["Check", "DamagedBlob"]


class DamagedBlob(Document):
    """A blob that is not what its name says, or not there."""

    digest: str
    """Its name."""
    fault: str
    """``missing`` or ``damaged``."""
    needed_by: list[str]
    """All that cannot do without it: backbones, versions of tasks, releases."""
    mends: list[str]
    """What puts it back; any of them does."""

    @classmethod
    def of(
        cls, blob: scrub.DamagedBlob, mend: Callable[[str, Mapping[str, Any]], str]
    ) -> DamagedBlob:
        """The document of a damaged blob.

        Args:
            blob: what was found.
            mend: what puts a blob back, by the kind and the data of a need.
        """
        return cls(
            digest=blob.digest,
            fault=blob.problem,
            needed_by=blob.needed_by,
            mends=list(dict.fromkeys(mend(need.kind, need.data) for need in blob.needs)),
        )


class Check(Document):
    """One thing that was looked at."""

    schema_: str = schema("check")
    check: str
    """Its name."""
    state: str
    """``ok``, ``warning``, ``problem``, or ``skipped``."""
    found: str
    """What was found; where it is several things, a line each."""
    mend: str | None
    """What to do about it, unless all is well; likewise."""
    damaged: list[DamagedBlob]
    """Every blob that was read and is not what it should be."""

    @classmethod
    def of(
        cls,
        check: doctor.Check,
        mend: str | None,
        mend_blob: Callable[[str, Mapping[str, Any]], str],
    ) -> Check:
        """The document of a check.

        Args:
            check: what was found.
            mend: what to do about it.
            mend_blob: see :meth:`DamagedBlob.of`.
        """
        return cls(
            check=check.check,
            state=check.state,
            found=check.found,
            mend=mend,
            damaged=[DamagedBlob.of(blob, mend_blob) for blob in check.damaged],
        )
