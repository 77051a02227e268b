"""The reference of the Python API: one page for each module whose names are public."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MODULES", "python_pages"]

MODULES = {
    "centra": "training, loading and answering",
    "centra.data.check": "labelled data, checked",
    "centra.data.split": "labelled data, split",
    "centra.evaluation.report": "what a task gets wrong",
    "centra.exports": "releases for other engines, from a store alone",
    "centra.serving": "batches of many callers' requests, and channels that are followed",
    "registry": "the registry, opened",
    "registry.backbones": "backbones",
    "registry.tasks": "tasks and their versions",
    "registry.releases": "composing and reading releases",
    "registry.evaluations": "measured metrics",
    "registry.exports": "releases and tasks for other engines",
    "registry.promotion": "moving a channel past its gates",
    "registry.channels": "channels",
    "registry.policies": "what channels demand",
    "registry.signatures": "signatures of releases",
    "registry.transfer": "from one registry to another",
    "registry.cards": "model cards",
    "registry.graphs": "a release as a picture",
    "registry.audit": "the log of changes",
    "registry.storage.stores": "the store: showing, copying, moving it",
    "registry.storage.gc": "removing what nothing needs",
    "registry.doctor": "what is wrong with a setup",
}
"""The modules that programs import from, and what each is about."""

_INTRODUCTION = """\
# Python API

Generated from the docstrings. [Python](../python.md) shows the functions at work.

| module | about |
| --- | --- |
"""


def python_pages(root: Path) -> dict[str, str]:
    """The pages by their names: one that lists the modules, and one for each.

    Args:
        root: of the repository. Nothing is imported; the generator reads the source, too.
    """
    rows = [f"| [`{name}`](python/{name}.md) | {about} |\n" for name, about in MODULES.items()]
    pages = {"python.md": _INTRODUCTION + "".join(rows)}
    for name in MODULES:
        names = [public for public in _public(root, name) if not public.startswith("__")]
        parts = [f"# {name}\n", *(f"::: {name}.{public}\n" for public in names)]
        pages[f"python/{name}.md"] = "\n".join(parts)
    return pages


def _public(root: Path, module: str) -> list[str]:
    """A module's ``__all__``."""
    path = root.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                names: list[str] = ast.literal_eval(value)
                return names
    raise ValueError(f"{source}: no __all__")
