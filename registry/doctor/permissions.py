"""Looking at rights: whether what is written here can be written, and not by everybody."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from centra.formats.toml import read_toml
from centra.store import LocalStore
from centra.store.s3 import S3Store
from centra.system.redaction import secrets_in
from registry.database.engine import translated
from registry.doctor.findings import Finding, Setup, well
from registry.settings import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.connection import Registry

__all__ = ["check_permissions", "may_write", "nearest"]


def check_permissions(setup: Setup) -> list[Finding]:
    """Whether database, store and cache can be written, and not by everybody."""
    registry = setup.registry
    wrong: list[Finding] = []
    if setup.usable("database"):
        wrong += _config_findings(registry.folder / CONFIG)
        wrong += _database_findings(registry, migrated=setup.usable("migration"))
    store = registry.store
    local = store.cache if isinstance(store, S3Store) else store
    if isinstance(local, LocalStore):
        wrong += _path_findings(local.root)
    return wrong or well("what is written here can be written, and not by everybody")


def nearest(path: Path) -> Path:
    """A path, or of the folders above it the first that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def may_write(path: Path) -> bool:
    """Whether a file can be written, or something be made in a folder."""
    if not path.is_dir():
        return os.access(path, os.W_OK)
    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def _config_findings(config: Path) -> Iterator[Finding]:
    if config.is_file() and _mode(config) & stat.S_IROTH and _holds_secrets(config):
        yield Finding(
            state="warning",
            code="password-readable",
            text=f"everybody may read the password in {config}",
            data={"path": str(config)},
        )


def _database_findings(registry: Registry, *, migrated: bool) -> Iterator[Finding]:
    engine = registry.engine
    if engine.name == "sqlite":
        # The folder, too: the write-ahead log lies beside the database.
        file = Path(engine.url.database or "")
        yield from _path_findings(file)
        yield from _path_findings(file.parent)
    elif migrated:
        with translated(engine), engine.connect() as connection:
            may_insert = text("SELECT has_table_privilege('audit_events', 'INSERT')")
            if not connection.scalar(may_insert):
                user = engine.url.username
                yield Finding(
                    code="database-read-only",
                    text=f"{user} may read the database, but not write it",
                    data={"user": user},
                )


def _path_findings(path: Path) -> Iterator[Finding]:
    """What is wrong with a file or folder that we write; one that is not there yet can be made."""
    path = nearest(path)
    if not may_write(path):
        text, data = f"you may not write {path}", {"path": str(path)}
        yield Finding(code="not-writable", text=text, data=data)
    # In a sticky folder, such as /tmp, nobody can replace another's files.
    if _mode(path) & stat.S_IWOTH and not _mode(path) & stat.S_ISVTX:
        text, data = f"everybody may write {path}", {"path": str(path)}
        yield Finding(state="warning", code="writable-by-all", text=text, data=data)


def _holds_secrets(config: Path) -> bool:
    content = read_toml(config)
    return any(secrets_in(content.get(key, "")) for key in ("database", "store"))


def _mode(path: Path) -> int:
    return path.stat().st_mode
