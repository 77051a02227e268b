"""Registries on SQLite and on PostgreSQL, and tiny modules to put into them.

A database is migrated, and its backbones are registered, once a session; tests get copies.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.registry.helpers import Postgres, Registries, Sqlite, fresh_postgres, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from registry import Registry
    from tests.registry.helpers import Databases


@pytest.fixture(scope="session")
def encoders(
    tiny_backbone: support.Backbone, imported: Callable[[str], support.Backbone]
) -> dict[str, support.Backbone]:
    """The backbones that every registry has: ``tiny@1`` and ``other@1``."""
    return {"tiny": tiny_backbone, "other": imported("roberta")}


@pytest.fixture(scope="session")
def template_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that every registry's store is a copy of."""
    return tmp_path_factory.mktemp("registry") / "store"


@pytest.fixture(scope="session")
def sqlite_databases(template_store: Path, encoders: dict[str, support.Backbone]) -> Sqlite:
    """SQLite databases."""
    file = template_store.with_name("template.db")
    prepare(f"sqlite:///{file}", template_store, **encoders)
    return Sqlite(file)


@pytest.fixture(scope="session")
def postgresql_databases(
    postgres_url: str, template_store: Path, encoders: dict[str, support.Backbone]
) -> Iterator[Postgres]:
    """Databases of a real PostgreSQL server."""
    with fresh_postgres(postgres_url, "template0") as url:
        prepare(url, template_store, **encoders)
        yield Postgres(postgres_url, url.partition("?")[0].rpartition("/")[2])


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """Fresh databases, of either kind."""
    return request.getfixturevalue(f"{request.param}_databases")


@pytest.fixture(scope="session")
def registries(
    databases: Databases, template_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registries]:
    """Registries on either kind of database."""
    with closing(
        Registries(databases, template_store, tmp_path_factory.mktemp("databases"))
    ) as registries:
        yield registries


@pytest.fixture
def make_registry(registries: Registries, tmp_path: Path) -> Iterator[Callable[[], Registry]]:
    """A function that makes registries, each with its own database and local store."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(registries.lend(tmp_path))


@pytest.fixture
def registry(make_registry: Callable[[], Registry]) -> Registry:
    """A registry with two backbones and no task, acting as nlu/ada."""
    return make_registry()


@pytest.fixture
def bring(
    registries: Registries, registry: Registry
) -> Callable[[str, Callable[[], object]], Registry]:
    """See :meth:`tests.registry.helpers.Registries.bring`; of this test's registry."""
    return partial(registries.bring, registry)


@pytest.fixture
def empty_database(databases: Databases, tmp_path: Path) -> Iterator[str]:
    """The address of a database without any table."""
    with databases.empty(tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def module(
    encoders: dict[str, support.Backbone], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The file of a tiny module; the same options give the same file, made once.

    Options are those of :func:`tests.support.make_module`, and ``on``: the backbone's name.
    """
    folder = tmp_path_factory.mktemp("modules")
    made: dict[str, Path] = {}

    def make(kind: str = "classification", *, on: str = "tiny", **options: object) -> Path:
        key = repr((kind, on, sorted(options.items())))
        if key not in made:
            backbone = encoders[on]
            made[key] = folder / f"{len(made)}.safetensors"
            support.make_module(kind, backbone.spec, backbone.store, **options).write(made[key])
        return made[key]

    return make
