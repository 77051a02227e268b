"""Where a model may come from besides a file or folder here: MLflow's registry, the hub, a bucket.

It is fetched into a private folder. Nothing but settings, tokenizers and weights is read of it, and
nothing of it is run.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import (
    DataError,
    FormatError,
    NotFoundError,
    StoreError,
    UsageError,
    first_line,
)
from centra.store.address import is_in_bucket, open_path
from centra.system.redaction import redacted
from centra.system.snapshot import called, is_read

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fetched"]

_log = logging.getLogger(__name__)

_MLFLOW = re.compile(r"models:/[^/]+(?:/[^/]+|@[^/]+)?")
_HUB = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)/?(?:@(?P<revision>[^@\s]+))?")
_MOST = 1000
"""So many files a model in a bucket may have."""
_PART = 1 << 20


@contextmanager
def fetched(source: str | Path) -> Iterator[Path]:
    """A model as a file or folder of this machine, for as long as the block lasts.

    Args:
        source: a path, which stays what it is; ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS`` of
            MLflow's registry; ``hf://ORGANISATION/MODEL@REVISION`` of the hub; or ``s3://BUCKET/KEY``,
            a file or all that lies under a prefix. Each with the settings and logins of its own tools.

    Returns:
        A task module's file, or the folder of a checkpoint. Where a model comes as a folder with more
        than that, as from MLflow, it is the one that is inside.

    Raises:
        UsageError: an address of another kind, or a malformed one; or a package is missing that
            fetches it.
        NotFoundError: there is no such model.
        FormatError: there is none or more than one inside that can be taken.
        StoreError: it cannot be had.
    """
    if isinstance(source, Path):
        yield source
        return
    shown = redacted(source, source)
    with tempfile.TemporaryDirectory(prefix="centra-") as scratch:
        folder = Path(scratch) / "model"
        if source.startswith("models:/"):
            found = _from_mlflow(source, folder)
        elif source.startswith("hf://"):
            found = _from_hub(source)
        elif is_in_bucket(source):
            found = _from_bucket(source, folder)
        else:
            yield Path(source)
            return
        with called(found, shown):
            model = _inside(found, Path(scratch) / "checkpoint")
        _log.info("fetched %s", shown)
        with called(model, shown):
            yield model


def _from_mlflow(source: str, folder: Path) -> Path:
    if not _MLFLOW.fullmatch(source):
        raise UsageError(
            f"{source!r:.200}: expected models:/NAME/VERSION or models:/NAME@ALIAS",
            code="model-address",
        )
    if importlib.util.find_spec("mlflow") is None:
        raise UsageError(
            f"{source}: MLflow's registry needs mlflow: pip install 'centra[mlflow]'",
            code="package-missing",
        )
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder.mkdir()
    try:
        return Path(download_artifacts(artifact_uri=source, dst_path=str(folder)))
    except MlflowException as error:
        text = f"{source}: MLflow's registry does not give it ({first_line(error)})"
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise NotFoundError(text, code="model-not-found", source=source) from error
        raise StoreError(text, code="model-not-fetched", source=source) from error
    except Exception as error:  # Whatever its own store of artifacts raises.
        raise StoreError(
            f"{source}: its files cannot be had ({first_line(error)})",
            code="model-not-fetched",
            source=source,
        ) from error


def _from_hub(source: str) -> Path:
    match = _HUB.fullmatch(source)
    if match is None:
        raise UsageError(
            f"{source!r:.200}: expected hf://ORGANISATION/MODEL or hf://ORGANISATION/MODEL@REVISION",
            code="model-address",
        )
    from huggingface_hub import errors, snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "*.codes", "*.jinja"]
    try:
        # Its cache is private, and what is there already is not fetched again.
        return Path(
            snapshot_download(match["name"], revision=match["revision"], allow_patterns=patterns)
        )
    except (errors.GatedRepoError, errors.RevisionNotFoundError) as error:
        raise FormatError(f"{source}: the hub does not give it ({first_line(error)})") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise NotFoundError(
            f"{source}: there is no such model on the hub ({first_line(error)})",
            code="model-not-found",
            source=source,
        ) from error
    except Exception as error:  # Of whatever it reaches the hub with.
        raise StoreError(
            f"{source}: the hub could not give it ({first_line(error)})",
            code="model-not-fetched",
            source=source,
        ) from error


def _from_bucket(source: str, folder: Path) -> Path:
    root = open_path(source)
    assert not isinstance(root, Path), "an address in a bucket"
    folder.mkdir()
    if not source.partition("?")[0].endswith("/") and root.stat() is not None:
        names = [""]
    else:
        names = [name for name in root.names() if is_read(name.rpartition("/")[2])]
    if not names or len(names) > _MOST:
        raise NotFoundError(
            f"{root}: has {len(names) or 'no'} files of a model; expected a task module, or the folder "
            "of a checkpoint",
            code="model-not-found",
            source=str(root),
        )
    for name in names:
        target = folder / (name or root.name)
        if not target.resolve().is_relative_to(folder.resolve()):
            raise FormatError(f"{root}: the key {name!r:.200} leads out of its folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (root / name if name else root).open() as file, target.open("xb") as out:
                shutil.copyfileobj(file, out, _PART)
        except OSError as error:
            raise StoreError(
                f"cannot copy to {folder}: {error.strerror}. Set TMPDIR to a folder with room for it."
            ) from error
        except DataError as error:
            raise StoreError(str(error), code=error.code) from error
    return folder if names != [""] else folder / root.name


def _inside(found: Path, scratch: Path) -> Path:
    """The module or checkpoint in what was fetched."""
    if found.is_file() or (found / "config.json").is_file():
        return found
    checkpoints = sorted(path.parent for path in found.rglob("config.json"))
    if len(checkpoints) == 1:
        return _with_tokenizer(checkpoints[0], found, scratch)
    modules = sorted(path for path in found.rglob("*.safetensors"))
    if not checkpoints and len(modules) == 1:
        return modules[0]
    names = [str(path.relative_to(found)) for path in (*checkpoints, *modules)][:10]
    raise FormatError(
        f"{found}: expected one task module or one checkpoint of transformers with its config.json; "
        f"found {', '.join(names) or 'neither'}",
        code="no-model-inside",
    )


def _with_tokenizer(checkpoint: Path, found: Path, scratch: Path) -> Path:
    """A checkpoint with the tokenizer that MLflow's transformers flavour keeps in a folder beside it."""
    tokenizer = found / "components" / "tokenizer"
    if not tokenizer.is_dir() or (checkpoint / "tokenizer.json").exists():
        return checkpoint
    scratch.mkdir()
    for folder in (tokenizer, checkpoint):
        for path in sorted(folder.iterdir()):
            if path.is_file() and is_read(path.name):
                shutil.copyfile(path, scratch / path.name)
    return scratch
