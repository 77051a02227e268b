"""An opened registry: its database, its store, and who acts."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from centra.errors import CentraError, ConflictError
from centra.store import BlobStore, open_store
from registry.database.engine import make_engine, translated, writing
from registry.database.migrations import check_schema, upgrade
from registry.database.sqlite import check_exists, check_unchanged
from registry.database.unit_of_work import UnitOfWork
from registry.settings import CONFIG, Settings, write_config
from registry.storage.identity import check_store, write_identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Engine

    from registry.rules.lifecycle import Actor
    from registry.settings import Rules

__all__ = ["Registry"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registry:
    """What every use case takes as its first argument."""

    engine: Engine
    store: BlobStore
    actor: Actor
    rules: Rules | None = None
    """What ``centra.toml`` proposes here; in force is what the database holds: see
    :mod:`registry.policies`."""
    folder: Path = Path()
    """Where ``centra.toml`` is, or would be."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """What said where the database and the store are: an option, a variable or a file."""

    @classmethod
    def open(
        cls,
        *,
        database: str | None = None,
        store: str | None = None,
        actor: str | None = None,
        folder: Path | None = None,
    ) -> Registry:
        """Open a registry; nothing is read or written yet.

        Args:
            database: see :func:`registry.database.engine.make_engine`.
            store: see :func:`centra.store.open_store`.
            actor: ``team/person``.
            folder: where to look for ``centra.toml``, and above; default the current folder.

        What is not given comes from the environment or from ``centra.toml``; see
        :meth:`registry.settings.Settings.load`.

        Raises:
            UsageError: a setting is malformed, or none says where the registry is.
        """
        settings = Settings.load(database=database, store=store, actor=actor, folder=folder)
        _log.debug("settings: %s; actor %s", settings.origins, settings.actor)
        return cls(
            engine=make_engine(settings.database),
            store=open_store(settings.store),
            actor=settings.actor,
            rules=settings.rules,
            folder=settings.folder,
            origins=settings.origins,
        )

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        database: str | None = None,
        store: str | None = None,
        actor: str | None = None,
    ) -> Registry:
        """Make a registry: write ``centra.toml`` and create the tables; harmless to repeat.

        Args:
            folder: where ``centra.toml`` goes; see :func:`registry.settings.write_config`.
            database, store, actor: as for :meth:`open`.

        Raises:
            ConflictError: ``centra.toml`` names another registry.
            UsageError, StoreNotWritableError, DatabaseError: it cannot be made; no
                ``centra.toml`` is left behind.
        """
        existed = (folder / CONFIG).is_file()
        path = write_config(folder, database=database, store=store)
        try:
            registry = cls.open(database=database, store=store, actor=actor, folder=folder)
            upgrade(registry.engine)
        except CentraError:
            if not existed:
                path.unlink(missing_ok=True)
                with suppress(OSError):  # Unless there is something in it.
                    (folder / ".centra").rmdir()
            raise
        return registry

    def check_store(self) -> None:
        """Refuse a store that is not the one that the database writes to; asked once.

        Every writing transaction begins with it. Whoever works long before that, or writes to the
        store alone, asks first.

        Raises:
            WrongStoreError, FormatError: see :func:`registry.storage.identity.check_store`.
            StoreError, DatabaseError: the registry cannot be used.
        """
        _ = self._checked

    @cached_property
    def _checked(self) -> tuple[tuple[str, str], bool]:
        return check_store(self)

    @cached_property
    def _identity(self) -> tuple[str, str]:
        """What is checked, and from now on said by the store, too."""
        own, bound = self._checked
        if not bound:
            write_identity(self.store, own)
        return own

    @contextmanager
    def read(self) -> Iterator[UnitOfWork]:
        """A transaction that sees one state and changes nothing.

        Raises:
            DatabaseError: the database cannot be reached or has other tables.
        """
        check_exists(self.engine)
        with translated(self.engine), self.engine.connect() as connection:
            check_schema(connection)
            with Session(connection, autoflush=False) as session:
                yield UnitOfWork(session, self.actor)
            check_unchanged(connection)

    @contextmanager
    def write(self, *, any_store: bool = False) -> Iterator[UnitOfWork]:
        """A transaction that commits when its block ends, and not at all when it raises.

        Args:
            any_store: whichever the store is; for what is about to say which one it is to be.

        Raises:
            WrongStoreError, FormatError, StoreError, StoreNotWritableError: see :meth:`check_store`.
            ConflictError: the store was moved since that was asked.
            DatabaseError: the database cannot be reached or has other tables.
        """
        identity = None if any_store else self._identity
        with translated(self.engine), writing(self.engine).begin() as connection:
            check_schema(connection)
            with Session(connection) as session:
                uow = UnitOfWork(session, self.actor)
                if identity and uow.identity() != identity:
                    raise ConflictError(
                        "the registry's store was moved meanwhile", code="store-moved-meanwhile"
                    )
                yield uow
                session.flush()
