"""Lay out the pages of the site: those of the repository where they are, and the generated ones."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING
from urllib.parse import unquote

from docs_site.commands import command_pages
from docs_site.notebook import notebook_page
from docs_site.python import python_pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["assemble", "linked", "written"]

_WRITTEN = ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/*.md")
_NOTEBOOKS = "examples/*.ipynb"
_STYLE = "site.css"
_FENCED = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|\bsrc=\"([^\"]+)\"")


def assemble(root: Path, target: Path) -> None:
    """Write all that the site is made of.

    Args:
        root: of the repository.
        target: the folder, which is made anew.
    """
    shutil.rmtree(target, ignore_errors=True)
    texts = {path: path.read_text(encoding="utf-8") for path in written(root)}
    for path, text in texts.items():
        _write(target / path.relative_to(root), text)
    for path in _assets(root, texts):
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.copyfile(root / "docs_site" / _STYLE, target / _STYLE)
    for notebook in sorted(root.glob(_NOTEBOOKS)):
        place = target / notebook.relative_to(root)
        _write(place.with_suffix(".md"), notebook_page(notebook))
    for name, text in {**command_pages(), **python_pages(root)}.items():
        _write(target / "docs" / "reference" / name, text)


def written(root: Path) -> list[Path]:
    """The pages that somebody wrote."""
    return sorted({path for pattern in _WRITTEN for path in root.glob(pattern)})


def linked(text: str) -> Iterator[str]:
    """The targets of a page's links and pictures, but for those outside the repository."""
    prose = _CODE.sub("``", _FENCED.sub("", text))
    for found in _LINK.finditer(prose):
        link = unquote(found[1] or found[2])
        if not re.match(r"[a-z]+:", link):
            yield link


def _assets(root: Path, texts: dict[Path, str]) -> set[Path]:
    """Everything else that pages show or link to."""
    found = set()
    for page, text in texts.items():
        for link in linked(text):
            path = (page.parent / link.partition("#")[0]).resolve()
            if path.suffix != ".md" and path.is_file() and path.is_relative_to(root):
                found.add(path)
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
