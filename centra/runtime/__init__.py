"""The merged model: load a release and answer with it."""

from __future__ import annotations

from centra.runtime.loading import load_release
from centra.runtime.release import Release

__all__ = ["Release", "load_release"]
