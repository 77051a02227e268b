"""Writing an export: into a folder beside the one that was asked for, which takes its place at the end."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from centra.errors import ConflictError, StoreNotWritableError, UsageError
from centra.exports.base import Export, ExportPrecision
from centra.progress import Progress, silent
from centra.system.files import check_utf8, make_folder, sync_folder
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from centra.exports.base import Format, Source, Written

__all__ = ["write_export"]

_log = logging.getLogger(__name__)


def write_export(
    source: Source,
    form: Format,
    output: str | Path,
    *,
    precision: str | None = None,
    progress: Progress = silent,
) -> Export:
    """Write a release or a task in a format, checked in the peer that reads it.

    Args:
        source: what is exported.
        form: see :func:`centra.exports.format_named`.
        output: the folder, which must not be there yet; or an address, where the format has one.
        precision: one of the format's; by default its usual one.
        progress: told of each step.

    Raises:
        UsageError: the format is for one task and the source holds several, has no such precision, is
            not written to such an address, or needs a package that is not installed.
        ConflictError: there is something at ``output``.
        IncompatibleError: see :attr:`centra.exports.base.Format.write`.
        StoreNotWritableError: the folder cannot be written.
        BlobNotFoundError, CorruptBlobError, FormatError, StoreError: the source cannot be read.
    """
    since = time.monotonic()
    chosen = _precision(form, precision)
    _check_tasks(form, source)
    _check_packages(form)
    if isinstance(output, str) and "://" in output:
        written = _push(form, source, output, progress)
        place, files = written.output or output, dict(written.files)
    else:
        folder = Path(output).absolute()
        with _made_at(folder) as made:
            written = form.write(source, made, chosen, progress)
            files = {
                str(path.relative_to(made)): path.stat().st_size
                for path in sorted(made.rglob("*"))
                if path.is_file()
            }
        place = str(output)
    size, seconds = sum(files.values()), time.monotonic() - since
    _log.info("exported to %s as %s: %d bytes in %.1f s", place, form.name, size, seconds)
    return Export(
        format=form.name,
        output=place,
        precision=chosen,
        files=files,
        tasks={name: source.versions.get(name) for name in source.manifest.tasks},
        release=source.release,
        parity=dict(written.parity),
        notes=written.notes,
    )


def _push(form: Format, source: Source, address: str, progress: Progress) -> Written:
    if form.push is None:
        raise UsageError(
            f"format {form.name} is written to a folder, not to {redacted(address, address)!r}",
            code="format-address",
            format=form.name,
        )
    return form.push(source, address, progress)


def _precision(form: Format, name: str | None) -> ExportPrecision:
    if name is None:
        return form.precisions[0]
    if name not in form.precisions:
        raise UsageError(
            f"format {form.name} has no precision {name!r:.60}; expected "
            f"{' or '.join(form.precisions)}",
            code="format-precision",
            format=form.name,
            precision=name,
        )
    return ExportPrecision(name)


def _check_tasks(form: Format, source: Source) -> None:
    tasks = [*source.manifest.tasks]
    if len(tasks) > 1 and not form.several:
        raise UsageError(
            f"format {form.name} holds one task, but the release has {len(tasks)}: "
            f"{', '.join(tasks)}. Export each by itself.",
            code="format-of-one-task",
            format=form.name,
            tasks=tasks,
        )


def _check_packages(form: Format) -> None:
    missing = [p for p in form.packages if importlib.util.find_spec(p.module) is None]
    if missing:
        raise UsageError(
            f"format {form.name} needs {', '.join(p.module for p in missing)}: pip install "
            + " ".join(f"'{p.install}'" for p in missing),
            code="package-missing",
            format=form.name,
            packages=[p.install for p in missing],
        )


@contextmanager
def _made_at(output: Path) -> Iterator[Path]:
    """A new folder, which stands at a path when the block ends without error, whole or not at all."""
    check_utf8(output)
    _check_free(output)
    try:
        make_folder(output.parent)
        made = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as error:
        raise _not_writable(output, error) from error
    try:
        yield made
        _make_durable(made)
        _check_free(output)
        made.chmod(0o755)
        made.rename(output)
        sync_folder(output.parent)
    except OSError as error:
        raise _not_writable(output, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _check_free(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise ConflictError(
            f"{output} exists already; an export is written to a new folder",
            code="output-exists",
            output=str(output),
        )


def _make_durable(folder: Path) -> None:
    """Make all that is in a folder outlast a power cut."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def _not_writable(output: Path, error: OSError) -> StoreNotWritableError:
    return StoreNotWritableError(
        f"cannot write to {output}: {error.strerror or error}",
        code="folder-not-writable",
        folder=str(output),
    )
