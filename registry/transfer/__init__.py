"""Moving tasks or a release from one registry to another that shares nothing with it, in a file."""

from __future__ import annotations

from registry.transfer.exporting import Exported, export_file
from registry.transfer.importing import (
    Imported,
    ImportedBackbone,
    ImportedRelease,
    ImportedTask,
    import_file,
)

__all__ = [
    "Exported",
    "Imported",
    "ImportedBackbone",
    "ImportedRelease",
    "ImportedTask",
    "export_file",
    "import_file",
]
