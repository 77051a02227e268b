"""Centra's model library: backbones, task modules, training, composing, and the merged runtime.

It knows no database and no command line. Importing it imports nothing heavy; each name below is
loaded when it is first used::

    import centra

    with centra.load_release("s3://models/centra#production") as release:
        release.predict("wake me at seven")
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from centra import serving
    from centra.data.source import DataSource
    from centra.errors import CentraError
    from centra.releases.find import ReleaseLocation, find_release
    from centra.runtime import Release, load_release
    from centra.training.backbone import Backbone
    from centra.training.distill import distill
    from centra.training.finetune import finetune
    from centra.training.fit import fit
    from centra.training.train import TrainedModule

    __version__: str

__all__ = [
    "Backbone",
    "CentraError",
    "DataSource",
    "Release",
    "ReleaseLocation",
    "TrainedModule",
    "__version__",
    "distill",
    "find_release",
    "finetune",
    "fit",
    "load_release",
    "serving",
]

_PLACES = {
    "Backbone": "centra.training.backbone",
    "CentraError": "centra.errors",
    "DataSource": "centra.data.source",
    "Release": "centra.runtime",
    "ReleaseLocation": "centra.releases.find",
    "TrainedModule": "centra.training.train",
    "distill": "centra.training.distill",
    "find_release": "centra.releases.find",
    "finetune": "centra.training.finetune",
    "fit": "centra.training.fit",
    "load_release": "centra.runtime",
}


logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("centra")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name == "serving":
        return import_module("centra.serving")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
