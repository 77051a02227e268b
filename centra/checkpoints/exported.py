"""What Centra wrote beside a checkpoint that it exported: what ``config.json`` has no words for.

So a task that was exported and is taken back answers as before, and nothing need be declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from centra.checkpoints.pretrained import read_json
from centra.errors import FormatError, UnsupportedFormatError
from centra.exports.manifest import FORMAT, MANIFEST, ExportManifest
from centra.formats.decision import Decision
from centra.formats.documents import canonical_json
from centra.formats.head import HeadSpec
from centra.formats.validation import explain
from centra.kinds import kind_named

if TYPE_CHECKING:
    from pathlib import Path

    from centra.exports.manifest import TaskManifest

__all__ = ["exported_decision", "exported_task"]


def exported_task(folder: Path) -> TaskManifest | None:
    """What the ``manifest.json`` of a folder says of its one task; None where Centra wrote none.

    Raises:
        UnsupportedFormatError: it is of another version.
        FormatError: it is no JSON, or a field is wrong (named).
    """
    content = read_json(str(folder), MANIFEST)
    found = content.get("format")
    if not isinstance(found, str) or not found.startswith(FORMAT.rpartition("/")[0]):
        return None
    where = f"{folder}: its {MANIFEST}"
    if found != FORMAT:
        raise UnsupportedFormatError(where, found=found[:60], supported=FORMAT)
    try:
        manifest = ExportManifest.model_validate_json(canonical_json(content), strict=True)
    except ValidationError as error:
        raise FormatError(f"{where}: {explain(error, ExportManifest)[0]}") from error
    tasks = [*manifest.tasks.values()]
    return tasks[0] if len(tasks) == 1 else None


def exported_decision(said: TaskManifest, longest: int) -> Decision:
    """The decision of an exported task, but for its pooling, which its class says.

    Args:
        said: what its manifest says.
        longest: the backbone's longest input.
    """
    usual = HeadSpec().threshold
    activation = (
        None if said.activation == kind_named(said.kind).activations[0] else said.activation
    )
    return Decision(
        activation=activation,
        threshold=None if said.threshold == usual else said.threshold,
        rejection=said.rejection,
        max_length=None if said.max_length == longest else said.max_length,
        template=said.template,
    )
