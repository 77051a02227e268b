"""Centra's model library: backbones, task modules, training, composing, and the merged runtime.

It knows no database and no command line. Importing it imports neither torch nor transformers::

    import centra

    release = centra.load_release("s3://models/centra#production")
    release.predict(["wake me at seven"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from centra.runtime import Release, load_release

__all__ = ["Release", "load_release"]


def __getattr__(name: str) -> Any:
    # The runtime needs numpy and pydantic; a listing command should not wait for them.
    if name in __all__:
        import centra.runtime

        return getattr(centra.runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
