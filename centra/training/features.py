"""Frozen hidden states, computed once per backbone and data instead of once per epoch and trial.

A cache is a folder of flat float32 files, one per (backbone, texts, tap), named by the digest of
these three and read through memory maps. Any process may use it at the same time as others: files
appear in one step, and removing one leaves the maps of those who read it.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from centra.errors import StoreNotWritableError
from centra.formats.documents import canonical_json, sha256
from centra.progress import Progress, silent
from centra.store import cache_folder
from centra.system.files import replacing
from centra.system.locking import locked
from centra.system.memory import available_memory

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from centra.formats.backbone import BackboneSpec
    from centra.store import BlobReader
    from centra.tokenization.text_encoder import Row

__all__ = ["FeatureCache", "Features", "MachineCache", "default_budget", "open_cache"]

_MOST = 20 * 10**9
_BATCH_TOKENS = 8192
_FORMAT = 1
_OWN = re.compile(r"\.?[0-9a-f]{64}\.f32(\..+)?")
"""What the cache writes: its files, and those that are not yet whole."""


def default_budget() -> int:
    """The bytes that a cache may hold where nobody says: 20 GB, or half of the memory there is.

    Every epoch reads all of a file. What does not stay in memory would be read from the disk each
    time, and push out what the training itself needs.
    """
    memory = available_memory()
    return _MOST if memory is None else min(_MOST, memory // 2)


class Features:
    """The hidden states of some rows at one tap, memory-mapped."""

    def __init__(self, path: Path, rows: Sequence[Row], hidden_size: int) -> None:
        lengths = [len(row.input_ids) for row in rows]
        self._ends = np.cumsum([0, *lengths])
        shape = (int(self._ends[-1]), hidden_size)
        self._states = np.memmap(path, dtype=np.float32, mode="r", shape=shape)

    def __getitem__(self, index: int) -> np.ndarray:
        """The states of one row, ``(seq, hidden)``."""
        states: np.ndarray = self._states[self._ends[index] : self._ends[index + 1]]
        return states


@dataclass(frozen=True)
class FeatureCache:
    """Hidden states on disk, up to a budget."""

    folder: Path
    budget: int
    """Bytes that the folder may hold; what was used longest ago makes room."""

    def ensure(
        self,
        backbone: BackboneSpec,
        reader: BlobReader,
        rows: Sequence[Row],
        taps: Collection[int],
        progress: Progress = silent,
    ) -> None:
        """Compute, in one pass over the frozen layers, what the cache lacks and has room for.

        What another process is about to compute is waited for.

        Args:
            backbone: the frozen encoder.
            reader: where its blobs are.
            rows: the encoded inputs.
            taps: the layers to keep, deepest first where there is not room for all: those save
                the most.
            progress: told of the rows done.

        Raises:
            StoreNotWritableError: the folder cannot be written.
        """
        size = 4 * backbone.hidden_size * sum(len(row.input_ids) for row in rows)
        wanted = {tap: self._path(backbone, rows, tap) for tap in sorted(taps, reverse=True)}
        fitting = dict(list(wanted.items())[: self.budget // size])
        if not _missing(fitting):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder, logging.INFO):
                if missing := _missing(fitting):
                    keep = {path.name for path in fitting.values()}
                    self._make_room(size * len(missing), keep=keep)
                    _compute(backbone, reader, rows, missing, progress)
        except FileNotFoundError:
            return  # Another process made room for its own: this one goes on without.
        except OSError as error:
            raise StoreNotWritableError(
                f"cannot write the feature cache {self.folder}: {error.strerror}; free some space",
                code="feature-cache-not-writable",
                folder=str(self.folder),
            ) from error

    def find(self, backbone: BackboneSpec, rows: Sequence[Row], tap: int) -> Features | None:
        """The hidden states at a tap; None where the cache does not hold them."""
        path = self._path(backbone, rows, tap)
        try:
            os.utime(path)  # It is used now, so it is not the next to make room.
            return Features(path, rows, backbone.hidden_size)
        except (OSError, ValueError):
            return None

    def _path(self, backbone: BackboneSpec, rows: Sequence[Row], tap: int) -> Path:
        texts = sha256(canonical_json([[row.input_ids, row.token_type_ids] for row in rows]))
        key = {"format": _FORMAT, "backbone": backbone.digest, "texts": texts, "tap": tap}
        return self.folder / f"{sha256(canonical_json(key))}.f32"

    def _make_room(self, needed: int, *, keep: Collection[str]) -> None:
        """Remove what was used longest ago until ``needed`` bytes fit, too."""
        files = []
        for path in self.folder.iterdir():
            # Others' files are not the cache's to remove, and its own may have gone meanwhile.
            if _OWN.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    files.append((path, path.stat()))
        held = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda item: item[1].st_mtime):
            if held + needed <= self.budget:
                return
            if path.name not in keep:
                path.unlink(missing_ok=True)
                held -= stat.st_size


@dataclass(frozen=True)
class MachineCache:
    """The cache of whichever machine needs it, in that one's :func:`centra.store.cache_folder`."""

    budget: int | None = None
    """Bytes on each machine; None for its :func:`default_budget`."""


def open_cache(
    cache: FeatureCache | MachineCache | str | os.PathLike[str] | None,
) -> FeatureCache | None:
    """A cache as it is, this machine's, or one in a folder with room for :func:`default_budget`."""
    if cache is None or isinstance(cache, FeatureCache):
        return cache
    if isinstance(cache, MachineCache):
        return FeatureCache(cache_folder() / "features", cache.budget or default_budget())
    return FeatureCache(Path(cache), default_budget())


def _missing(paths: dict[int, Path]) -> dict[int, Path]:
    """Those of some taps' files that are not there."""
    return {tap: path for tap, path in paths.items() if not path.is_file()}


def _compute(
    backbone: BackboneSpec,
    reader: BlobReader,
    rows: Sequence[Row],
    paths: dict[int, Path],
    progress: Progress,
) -> None:
    """Run the frozen layers over rows of similar length together, and write each tap's file."""
    from contextlib import ExitStack

    import torch

    from centra.modeling.trunk import Trunk
    from centra.tokenization.text_encoder import Encoded

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trunk = Trunk(backbone, reader, depth=max(paths)).to(device)
    ends = np.cumsum([0, *(len(row.input_ids) for row in rows)])
    done = 0
    with ExitStack() as stack, torch.inference_mode():
        # Not through a map: on a full disk that would end the process.
        files = {
            tap: stack.enter_context(stack.enter_context(replacing(path)).open("wb"))
            for tap, path in paths.items()
        }
        for part in _batches(rows):
            batch = Encoded.pad([rows[i] for i in part], backbone.pad_token_id)
            inputs = {name: torch.from_numpy(a).to(device) for name, a in vars(batch).items()}
            states = trunk(**inputs, taps=list(paths))
            for tap, hidden in states.items():
                array = hidden.float().cpu().numpy()
                for place, i in enumerate(part):
                    files[tap].seek(4 * backbone.hidden_size * int(ends[i]))
                    files[tap].write(array[place, : ends[i + 1] - ends[i]].tobytes())
            done += len(part)
            progress("frozen layers", done, len(rows))


def _batches(rows: Sequence[Row]) -> list[list[int]]:
    """The indices of the rows, in batches of similar length and about as many tokens each."""
    batches: list[list[int]] = [[]]
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids)):
        if (len(batches[-1]) + 1) * len(rows[i].input_ids) > _BATCH_TOKENS and batches[-1]:
            batches.append([])
        batches[-1].append(i)
    return batches
