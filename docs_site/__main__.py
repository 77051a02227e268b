"""Build the documentation site in ``build/site``; any warning is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from docs_site.assemble import assemble

_ROOT = Path(__file__).resolve().parents[1]
_COMPLAINTS = ("griffe:", "WARNING", "Warning:")


def _build() -> int:
    """Lay out the pages and run the generator; its exit code, or 1 where it complained."""
    assemble(_ROOT, _ROOT / "build" / "pages")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        check=False,
        cwd=_ROOT,
        env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    sys.stdout.write(done.stdout)
    return done.returncode or any(word in done.stdout for word in _COMPLAINTS)


if __name__ == "__main__":
    sys.exit(_build())
