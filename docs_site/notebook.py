"""A notebook as a page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["notebook_page"]


def notebook_page(path: Path) -> str:
    """The page: text as it stands, code and what it printed as blocks."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    blocks = [block for cell in notebook["cells"] for block in _blocks(cell)]
    return "\n\n".join(blocks) + "\n"


def _blocks(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        if text := "".join(text).rstrip():
            yield f"```text\n{text}\n```"
