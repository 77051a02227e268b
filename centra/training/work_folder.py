"""What a training run keeps on disk, so that it goes on after a kill.

::

    run               which run this is: the digest of its spec
    checkpoint-<n>/   Trainer's, after each epoch; the last and the best stay
    history.json      the epochs so far, as of the last pause
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centra.errors import StoreNotWritableError
from centra.formats.documents import canonical_json
from centra.system.files import check_utf8, replacing
from centra.training.history import Epoch, History

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WorkFolder", "is_checkpoint"]

_MARKER = "run"
_HISTORY = "history.json"
_STATE = "trainer_state.json"
_CHECKPOINT = "checkpoint-"


class WorkFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        """Name it; nothing is written yet.

        Raises:
            UsageError: the path is not UTF-8.
        """
        check_utf8(path.absolute())
        self.path = path

    @property
    def run_name(self) -> str:
        """What reports call the run."""
        return self.path.name.strip(".").removesuffix(".work")

    def prepare(self, run: str) -> None:
        """Make the folder ready for a run; what another run left there is removed.

        Args:
            run: identifies it.

        Raises:
            StoreNotWritableError: the folder cannot be written.
        """
        marker = self.path / _MARKER
        if marker.is_file() and marker.read_bytes() == run.encode():
            for checkpoint in list(self._checkpoints()):
                # Trainer writes its state last: without it the process died while writing.
                if not _is_json(checkpoint / _STATE):
                    shutil.rmtree(checkpoint)
            return
        try:
            # The marker goes first: half of what it stood for must not be taken for the whole.
            marker.unlink(missing_ok=True)
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            marker.write_bytes(run.encode())
        except OSError as error:
            raise StoreNotWritableError(
                f"cannot write {self.path}: {error.strerror}", code="folder-not-writable"
            ) from error

    def has_checkpoint(self) -> bool:
        """Whether there is one to go on from."""
        return any(self._checkpoints())

    def last_state(self) -> dict[str, Any]:
        """Trainer's state in the last checkpoint, of which there must be one."""
        last = max(self._checkpoints(), key=lambda path: int(path.name.rpartition("-")[2]))
        state: dict[str, Any] = json.loads((last / _STATE).read_text())
        return state

    def best_weights(self) -> Path:
        """The file with the weights of the best epoch; there must be a checkpoint."""
        best = Path(self.last_state()["best_model_checkpoint"]).name
        return self.path / best / "model.safetensors"

    def read_history(self) -> History | None:
        """The epochs as of the last pause; None where there was none."""
        try:
            content = json.loads((self.path / _HISTORY).read_text())
            epochs = tuple(Epoch(**epoch) for epoch in content["epochs"])
            history = History(content["metric"], epochs, content["finished"])
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            return None
        return history if epochs else None

    def write_history(self, history: History) -> None:
        """Keep the epochs so far."""
        with replacing(self.path / _HISTORY) as temporary:
            temporary.write_bytes(canonical_json(asdict(history)))

    def discard_checkpoints(self) -> None:
        """Remove the checkpoints: the run is given up, or its module has been taken."""
        for checkpoint in list(self._checkpoints()):
            shutil.rmtree(checkpoint, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of it: the run is done."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _checkpoints(self) -> Iterator[Path]:
        return self.path.glob(f"{_CHECKPOINT}*")


def is_checkpoint(name: str) -> bool:
    """Whether a path in a run's folder belongs to a checkpoint."""
    return name.startswith(_CHECKPOINT)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return True
