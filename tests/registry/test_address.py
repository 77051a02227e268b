"""Addresses of databases: any path is one, and none shows a password."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from centra.errors import UsageError
from registry.database.address import address_text, anchored_address, parse_address
from registry.database.engine import make_engine

HOME = Path("/home/registry")
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))
MARKER = "s3kr1t-marker"


@given(folder=NAMES, file=NAMES)
def test_every_path_is_itself(folder: str, file: str) -> None:
    path = f"/srv/{folder}/{file}"
    assert parse_address(path).database == path
    assert (
        parse_address(anchored_address(f"./{folder}/{file}", HOME)).database
        == f"{HOME}/{folder}/{file}"
    )
    assert address_text(parse_address(path)) == path


@given(folder=NAMES, file=NAMES)
def test_behind_sqlite_a_path_is_itself_or_refused(folder: str, file: str) -> None:
    path = f"/srv/{folder}/{file}"
    try:
        url = parse_address(f"sqlite:///{path}")
    except UsageError:
        assert "?" in path
        return
    assert url.database == path
    assert create_engine(url).url.database == path


@pytest.mark.parametrize("character", sorted(set(string.printable) - set("/")))
def test_every_printable_character_is_one_of_a_name(character: str) -> None:
    for path in (f"/a/{character}b/r.db", f"/a/b{character}/r.db", f"/a/b/{character}"):
        assert parse_address(path).database == parse_address(f"sqlite:///{path}").database == path


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (".centra/registry.db", f"{HOME}/.centra/registry.db"),
        ("sqlite:///r.db", f"{HOME}/r.db"),
        ("sqlite:///a%2Fb.db", f"{HOME}/a%2Fb.db"),
        ("sqlite:////r.db", "/r.db"),
        ("SQLite+pysqlite:///r.db", f"{HOME}/r.db"),
        ("./sqlite:x.db", f"{HOME}/sqlite:x.db"),
        ("a:b.db", f"{HOME}/a:b.db"),
        ("./~/r.db", f"{HOME}/~/r.db"),
        ("./a:b@c/r.db", f"{HOME}/a:b@c/r.db"),
        ("a@b:c.db", f"{HOME}/a@b:c.db"),
    ],
)
def test_a_relative_path_counts_from_its_folder(address: str, path: str) -> None:
    assert parse_address(anchored_address(address, HOME)).database == path


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://ada:{MARKER}@x@db/centra",
        f"postgresql://ada:x@{MARKER}@db/centra",
        f"postgresql://ada:x@{MARKER}?y=z@db/centra",
        f"postgresql://db?password={MARKER}@x",
        f"postgresql://ada:{MARKER}@db:port/centra",
        f"postgresql:/ada:{MARKER}@db/centra",
        f"postgresql:ada:{MARKER}@db/centra",
        f"//ada:{MARKER}@db/centra",
        f"://ada:{MARKER}@db/centra",
        f"jdbc:postgresql://db/centra?user=ada&password={MARKER}",
        f"mysql://ada:{MARKER}@db/centra",
        f"sqlite://ada:{MARKER}@db/centra",
        f"sqlite:///r.db?password={MARKER}",
        f"host=db user=ada password={MARKER} dbname=centra",
        f"password = '{MARKER}' host=db",
        f"user=ada {MARKER}",
        f"ada@x://{MARKER}",
        f"a:{MARKER}@db/centra",
        f"postgresql//ada:{MARKER}@db/centra",
        f"postgresql;//ada:{MARKER}@db/centra",
    ],
)
def test_what_is_refused_is_not_shown(address: str) -> None:
    for refuse in (parse_address, lambda text: parse_address(anchored_address(text, HOME))):
        with pytest.raises(UsageError) as caught:
            refuse(address)
        assert MARKER not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (f"postgresql://ada:{MARKER}@db/centra", "postgresql+psycopg://ada:***@db/centra"),
        (f"postgres://ada:p%40{MARKER}@db/centra", "postgresql+psycopg://ada:***@db/centra"),
        (f"postgresql://:{MARKER}@db:5/centra", "postgresql+psycopg://:***@db:5/centra"),
        (
            f"postgresql://db/centra?user=ada&password={MARKER}",
            "postgresql+psycopg://ada:***@db/centra",
        ),
        (f"postgresql://db/centra?password={MARKER}", "postgresql+psycopg://db/centra"),
        (
            f"postgresql://db/centra?sslmode=require&sslpassword={MARKER}",
            "postgresql+psycopg://db/centra?sslmode=require",
        ),
        (
            f"postgresql://ada:{MARKER}@/centra?host=/run/pg",
            "postgresql+psycopg://ada:***@/centra?host=%2Frun%2Fpg",
        ),
        (
            f"postgresql://ada:a/b?c=d#e:{MARKER}@db/centra",
            "postgresql+psycopg://ada:***@db/centra",
        ),
    ],
)
def test_a_server_is_told_without_its_password(address: str, told: str) -> None:
    url = parse_address(address)
    assert address_text(url) == told
    assert MARKER not in repr(url.difference_update_query(["sslpassword"]))
    (_, given) = make_engine(address).dialect.create_connect_args(url)
    assert any(MARKER in str(value) for value in given.values())


@pytest.mark.parametrize("address", ["~/r.db", "~", "sqlite:///", "", ":memory:", "~eve/r.db"])
def test_a_path_that_only_a_shell_understands_or_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        make_engine(address)
