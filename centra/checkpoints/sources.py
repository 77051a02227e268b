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
from dataclasses import dataclass
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
from centra.system.reading import check_links
from centra.system.redaction import redacted
from centra.system.snapshot import called, copy_file, is_read

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Fetched", "fetched"]

_log = logging.getLogger(__name__)

_MLFLOW = re.compile(
    r"models:/(?:(?P<name>[^/@]+)(?:/[0-9]+|@(?P<alias>[^/@]+))|m-[0-9a-f]+)", re.ASCII
)
_HUB = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)/?(?:@(?P<revision>[^@\s]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FLAVOURS = re.compile(r"^flavors:\n((?: +.*\n)+)", re.MULTILINE)
_FLAVOUR = re.compile(r"^  (\w+):", re.MULTILINE)
"""In the file ``MLmodel``, which MLflow writes in this form."""
_MOST = 1000
"""So many files a model in a bucket may have."""
_PART = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A model that lies here now."""

    path: Path
    """A task module's file, or the folder of a checkpoint."""
    source: str | None = None
    """Where it came from, as it will be found again: the version that an alias stood for, the commit of
    a revision, and no secret; None for what lies here anyway."""


@contextmanager
def fetched(source: str | Path) -> Iterator[Fetched]:
    """A model as a file or folder of this machine, for as long as the block lasts.

    Args:
        source: a path, which stays what it is; ``models:/NAME/VERSION``, ``models:/NAME@ALIAS`` or
            ``models:/ID`` of MLflow's; ``hf://ORGANISATION/MODEL@REVISION`` of the hub; or ``s3://BUCKET/KEY``,
            a file or all that lies under a prefix. Each with the settings and logins of its own tools.

    Returns:
        The model. Where it comes as a folder with more than that, as from MLflow, it is the one that
        is inside.

    Raises:
        UsageError: an address of another kind, or a malformed one; or a package is missing that
            fetches it.
        NotFoundError: there is no such model.
        FormatError: there is none or more than one inside that can be taken.
        StoreError: it cannot be had.
    """
    if isinstance(source, Path):
        yield Fetched(path=source)
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
            yield Fetched(path=Path(source))
            return
        with called(found.path, shown):
            path = _inside(found.path, Path(scratch) / "checkpoint")
        _log.info("fetched %s", found.source)
        with called(path, shown):
            yield Fetched(path=path, source=found.source)


def _from_mlflow(source: str, folder: Path) -> Fetched:
    match = _MLFLOW.fullmatch(source)
    if match is None:
        raise UsageError(
            f"{redacted(source, source)!r:.200}: expected models:/NAME/VERSION with its number, models:/NAME@ALIAS, or "
            "models:/ID of a logged model",
            code="model-address",
        )
    if importlib.util.find_spec("mlflow") is None:
        raise UsageError(
            f"{source}: MLflow's registry needs mlflow: pip install 'centra[mlflow]'",
            code="package-missing",
        )
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder.mkdir()
    version = source
    try:
        if name := match["alias"] and match["name"]:
            found = MlflowClient().get_model_version_by_alias(name, match["alias"])
            version = f"models:/{name}/{found.version}"
        path = Path(download_artifacts(artifact_uri=version, dst_path=str(folder)))
    except MlflowException as error:
        text = f"{source}: MLflow's registry does not give it ({_words(error)})"
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise NotFoundError(text, code="model-not-found", source=source) from error
        raise StoreError(text, code="model-not-fetched", source=source) from error
    except Exception as error:  # Whatever its own store of artifacts raises.
        raise StoreError(
            f"{source}: its files cannot be had ({_words(error)})",
            code="model-not-fetched",
            source=source,
        ) from error
    return Fetched(path=path, source=version)


def _from_hub(source: str) -> Fetched:
    match = _HUB.fullmatch(source)
    if match is None:
        raise UsageError(
            f"{redacted(source, source)!r:.200}: expected hf://ORGANISATION/MODEL or hf://ORGANISATION/MODEL@REVISION",
            code="model-address",
        )
    from huggingface_hub import errors, snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "*.codes", "*.jinja"]
    try:
        # Its cache is private, and what is there already is not fetched again.
        path = Path(
            snapshot_download(match["name"], revision=match["revision"], allow_patterns=patterns)
        )
    except (errors.GatedRepoError, errors.RevisionNotFoundError) as error:
        raise FormatError(f"{source}: the hub does not give it ({_words(error)})") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise NotFoundError(
            f"{source}: there is no such model on the hub ({_words(error)})",
            code="model-not-found",
            source=source,
        ) from error
    except Exception as error:  # Of whatever it reaches the hub with.
        raise StoreError(
            f"{source}: the hub could not give it ({_words(error)})",
            code="model-not-fetched",
            source=source,
        ) from error
    # The cache's folder has the commit's name.
    commit = path.name if _COMMIT.fullmatch(path.name) else match["revision"]
    return Fetched(path=path, source=f"hf://{match['name']}" + (f"@{commit}" if commit else ""))


def _from_bucket(source: str, folder: Path) -> Fetched:
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
    path = folder if names != [""] else folder / root.name
    return Fetched(path=path, source=str(root))


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
    several = (*checkpoints, *modules)
    files = several or sorted(path for path in found.rglob("*") if path.is_file())
    names = [str(path.relative_to(found)) for path in files][:10]
    raise FormatError(
        f"{found}: expected one task module (.safetensors) or one checkpoint of transformers with its "
        f"config.json{_flavours(found)}; found {', '.join(names) or 'no files'}",
        code="no-model-inside",
    )


def _flavours(found: Path) -> str:
    """Which kinds of model it is by MLflow's own file, for people."""
    try:
        written = _FLAVOURS.search((found / "MLmodel").read_text())
    except (OSError, ValueError):
        return ""
    names = _FLAVOUR.findall(written[1]) if written else []
    return f", but this is a model of MLflow's flavours {', '.join(names)}" if names else ""


def _with_tokenizer(checkpoint: Path, found: Path, scratch: Path) -> Path:
    """A checkpoint with the tokenizer that MLflow's transformers flavour keeps in a folder beside it."""
    tokenizer = found / "components" / "tokenizer"
    if not tokenizer.is_dir() or (checkpoint / "tokenizer.json").exists():
        return checkpoint
    scratch.mkdir()
    names = set()
    for folder in (checkpoint, tokenizer):
        check_links(folder)
        for path in sorted(folder.iterdir()):
            if path.is_file() and is_read(path.name) and path.name not in names:
                copy_file(path, scratch / path.name)
                names.add(path.name)
    return scratch


def _words(error: Exception) -> str:
    """What others' libraries say, who may quote an address with a password in it."""
    return redacted(first_line(error))
