from __future__ import annotations

import os
import pwd
import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centra.errors import ConflictError, NotFoundError, StoreNotWritableError, UsageError
from centra.store import LocalStore
from registry import Registry
from registry.database.engine import make_engine
from registry.settings import CONFIG, Rules, Settings, write_config

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = ("CENTRA_DATABASE_URL", "CENTRA_STORE", "CENTRA_ACTOR")
# What TOML can hold, but for one control character that no path has.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), min_size=1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and no settings in the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def configure(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'{key} = "{value}"\n' for key, value in values.items()]
    (folder / CONFIG).write_text("".join(lines))


# Which of three places wins.


def test_arguments_win_over_the_environment_and_it_over_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(home, database="sqlite:////file.db", store="/file", actor="file/f")
    loaded = Settings.load()
    assert (loaded.database, loaded.store) == ("sqlite:////file.db", "/file")
    assert str(loaded.actor) == "file/f"
    assert set(loaded.origins.values()) == {str(home / CONFIG)}
    for name, value in zip(VARIABLES, ("sqlite:////env.db", "/env", "env/e"), strict=True):
        monkeypatch.setenv(name, value)
    loaded = Settings.load()
    assert (loaded.database, loaded.store) == ("sqlite:////env.db", "/env")
    assert str(loaded.actor) == "env/e"
    assert loaded.origins == {"database": "CENTRA_DATABASE_URL", "store": "CENTRA_STORE"}
    loaded = Settings.load(database="sqlite:////argument.db", store="/argument", actor="arg/a")
    assert (loaded.database, loaded.store) == ("sqlite:////argument.db", "/argument")
    assert str(loaded.actor) == "arg/a"
    assert loaded.origins == {"database": "--database", "store": "--store"}


def test_each_setting_is_looked_up_by_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home, database="sqlite:////file.db", store="/file")
    monkeypatch.setenv("CENTRA_STORE", "s3://bucket/prefix")
    loaded = Settings.load(actor="nlu/ada")
    assert (loaded.database, loaded.store) == ("sqlite:////file.db", "s3://bucket/prefix")
    assert str(loaded.actor) == "nlu/ada"


def test_empty_values_count_as_not_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home, database="sqlite:////file.db", store="/file", actor="nlu/ada")
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    loaded = Settings.load(database="", store="", actor="")
    assert (loaded.database, loaded.store) == ("sqlite:////file.db", "/file")
    assert str(loaded.actor) == "nlu/ada"


@pytest.mark.parametrize("missing", ["database", "store"])
def test_a_setting_that_the_file_leaves_empty_is_missing(home: Path, missing: str) -> None:
    configure(home, **{"database": "sqlite:////file.db", "store": "/file", missing: ""})
    with pytest.raises(NotFoundError, match=missing):
        Settings.load()


def test_without_any_setting_the_error_says_how_to_begin() -> None:
    with pytest.raises(NotFoundError, match=r"there is no centra\.toml here or above") as caught:
        Settings.load()
    assert caught.value.code == "registry-not-configured"
    assert caught.value.data == {"missing": "database"}


def test_a_file_that_lacks_a_setting_is_named(home: Path) -> None:
    configure(home, database="sqlite:////file.db")
    with pytest.raises(NotFoundError, match=f"no store is configured: {home / CONFIG}"):
        Settings.load()


@pytest.mark.parametrize("word", ["release", "nlu/ada"])
def test_without_an_actor_the_account_acts_for_no_team_whatever_the_environment_says(
    home: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    write_config(home, database=None, store=None)
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, word)
    actor = Settings.load().actor
    assert (actor.team, actor.person) == (None, pwd.getpwuid(os.getuid()).pw_name)


@pytest.mark.parametrize("name", [None, "nlu/ada", "a\nb", "", "x" * 64])
def test_an_account_without_a_name_that_can_be_shown_is_a_number(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    def account(uid: int) -> pwd.struct_passwd:
        if name is None:
            raise KeyError(f"getpwuid(): uid not found: {uid}")
        return pwd.struct_passwd([name, "x", uid, uid, "", "/", "/bin/sh"])

    write_config(home, database=None, store=None)
    monkeypatch.setattr(pwd, "getpwuid", account)
    actor = Settings.load().actor
    assert (actor.team, actor.person) == (None, f"uid-{os.getuid()}")


def test_a_malformed_actor_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(home, database=None, store=None)
    monkeypatch.setenv("CENTRA_ACTOR", "ada")
    with pytest.raises(UsageError, match="expected TEAM/PERSON"):
        Settings.load()


# Where the file is, and what its paths count from.


def test_the_file_is_found_upward_from_here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(home, database="sqlite:////file.db", store="/file")
    below = home / "a" / "b"
    below.mkdir(parents=True)
    assert Settings.load(folder=below).store == "/file"
    monkeypatch.chdir(below)
    assert Settings.load().store == "/file"


def test_the_nearest_file_wins(home: Path) -> None:
    configure(home, database="sqlite:////far.db", store="/far")
    configure(home / "near", database="sqlite:////near.db", store="/near")
    assert Settings.load(folder=home / "near").store == "/near"


def test_a_folder_of_the_files_name_is_passed_over(home: Path) -> None:
    configure(home, database="sqlite:////file.db", store="/file")
    (home / "below" / CONFIG).mkdir(parents=True)
    assert Settings.load(folder=home / "below").store == "/file"


def test_relative_paths_in_the_file_count_from_its_folder(home: Path) -> None:
    configure(home, database="sqlite:///data/r.db", store="blobs")
    below = home / "below"
    below.mkdir()
    loaded = Settings.load(folder=below)
    assert make_engine(loaded.database).url.database == str(home / "data" / "r.db")
    assert loaded.store == str(home / "blobs")


def test_a_database_that_is_a_plain_path_counts_from_the_files_folder(home: Path) -> None:
    configure(home, database="r.db", store="blobs")
    loaded = Settings.load(folder=home)
    assert make_engine(loaded.database).url.database == str(home / "r.db")


def test_relative_paths_in_the_environment_count_from_here(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(home.parent, database="sqlite:///other.db", store="other")
    monkeypatch.setenv("CENTRA_DATABASE_URL", "sqlite:///r.db")
    monkeypatch.setenv("CENTRA_STORE", "blobs")
    registry = Registry.open()
    assert registry.engine.url.database == "r.db"
    assert isinstance(registry.store, LocalStore)
    assert registry.store.root == home / "blobs"


@pytest.mark.parametrize(
    ("database", "store"),
    [
        ("postgresql://ada:secret@db.example/centra", "s3://bucket/prefix?region=eu-west-1"),
        ("sqlite:////var/lib/centra.db", "file:///var/lib/store"),
        ("sqlite:////var/lib/centra.db", "/var/lib/store"),
    ],
)
def test_addresses_that_are_no_relative_paths_stay_as_they_are(
    home: Path, database: str, store: str
) -> None:
    configure(home, database=database, store=store)
    loaded = Settings.load()
    assert (loaded.database, loaded.store) == (database, store)


def test_opening_a_registry_reads_and_writes_nothing(home: Path) -> None:
    write_config(home, database=None, store=None)
    before = sorted(home.rglob("*"))
    Registry.open()
    assert sorted(home.rglob("*")) == before


# A file that cannot be used.


@pytest.mark.parametrize(
    "content", [b"database = ", b"database", b'database = "\xff"', b"[database", b"\0"]
)
def test_a_file_that_is_no_toml_is_named(home: Path, content: bytes) -> None:
    (home / CONFIG).write_bytes(content)
    with pytest.raises(UsageError, match=f"{home / CONFIG}: cannot be read as TOML"):
        Settings.load()


def test_an_unknown_setting_is_named_with_those_there_are(home: Path) -> None:
    configure(home, database="sqlite:////r.db", store="/s", databse="x")
    with pytest.raises(
        UsageError, match=r"unknown setting 'databse'; expected actor, channels, compose, database"
    ):
        Settings.load()


@pytest.mark.parametrize("value", ["7", "true", '["a"]', "{ url = 'x' }"])
def test_a_setting_that_is_no_text_is_named(home: Path, value: str) -> None:
    (home / CONFIG).write_text(f"store = {value}\n")
    with pytest.raises(UsageError, match="store must be a string"):
        Settings.load()


# Rules.


def test_the_rules_of_the_file_are_taken_as_they_stand(home: Path) -> None:
    configure(home, database="sqlite:////r.db", store="/s")
    with (home / CONFIG).open("a") as file:
        file.write("[policy]\nadmins = ['release']\n[channels.production]\nmax_layers = 3\n")
    below = home / "below"
    below.mkdir()
    rules = Settings.load(folder=below).rules
    assert rules == Rules.read(home / CONFIG)
    assert rules == Rules(
        file=home / CONFIG,
        tables={
            "policy": {"admins": ["release"]},
            "channels": {"production": {"max_layers": 3}},
        },
    )


def test_without_a_file_there_are_no_rules(home: Path) -> None:
    assert Settings.load(database="r.db", store="s").rules is None
    with pytest.raises(NotFoundError, match=r"rules\.toml: no such file"):
        Rules.read(home / "rules.toml")


# Writing the file.


def test_a_new_registry_lies_in_its_folder(home: Path) -> None:
    path = write_config(home, database=None, store=None)
    assert path == home / CONFIG
    assert tomllib.loads(path.read_text()) == {
        "database": ".centra/registry.db",
        "store": ".centra/store",
    }
    loaded = Settings.load(folder=home)
    assert make_engine(loaded.database).url.database == str(home / ".centra" / "registry.db")
    assert loaded.store == str(home / ".centra" / "store")
    assert (home / ".centra").is_dir()


def test_given_addresses_are_written_as_given(home: Path) -> None:
    write_config(home / "new", database="postgresql://db/centra", store="s3://bucket/x")
    loaded = Settings.load(folder=home / "new")
    assert (loaded.database, loaded.store) == ("postgresql://db/centra", "s3://bucket/x")


@settings(max_examples=30)
@given(database=TEXTS, store=TEXTS)
def test_any_address_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, database: str, store: str
) -> None:
    path = write_config(tmp_path_factory.mktemp("any"), database=database, store=store)
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    assert found == {"database": database, "store": store}


def test_writing_the_same_again_leaves_the_file_alone(home: Path) -> None:
    path = write_config(home, database=None, store=None)
    path.write_text(f'# Ours.\n{path.read_text()}actor = "nlu/ada"\n')
    before = path.read_bytes()
    assert write_config(home, database=None, store=None) == path
    assert write_config(home, database="sqlite:///.centra/registry.db", store=None) == path
    assert path.read_bytes() == before


@pytest.mark.parametrize("other", [{"database": "x.db"}, {"store": "elsewhere"}])
def test_another_registry_in_the_file_is_never_overwritten(
    home: Path, other: dict[str, str]
) -> None:
    path = write_config(home, database=None, store=None)
    before = path.read_bytes()
    with pytest.raises(ConflictError, match="names another registry"):
        write_config(home, **{"database": None, "store": None, **other})
    assert path.read_bytes() == before


def test_a_process_that_dies_while_writing_leaves_no_half_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dies)
        with pytest.raises(KeyboardInterrupt):
            write_config(home, database=None, store=None)
    assert not (home / CONFIG).exists()
    write_config(home, database=None, store=None)
    assert Settings.load().store


def test_a_folder_that_cannot_be_written_is_named(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(StoreNotWritableError, match="cannot write"):
        write_config(home / "file" / "below", database=None, store=None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = " + "[" * 100_000, "nested too deep"),
        ("a = " + "{a=" * 5000 + "1" + "}" * 5000, "nested too deep"),
        ("a." * 100_000 + "a = 1", "nested too deep"),
        ("[" + "a." * 100_000 + "a]", "nested too deep"),
        ("[compose]\n" + "a." * 80 + "a = 1", "nested too deep"),
        ("a = " + "9" * 5000, "cannot be read as TOML"),
        ("#" * (1 << 21), "more than 1,048,576 bytes"),
        ('database = "a\\u0000b"', "holds NUL"),
        ('store = "a\\u0000b"', "holds NUL"),
        ("store = " + "[1, " * 30 + "]" * 30, "."),
    ],
    ids=lambda value: value[:24],
)
def test_settings_that_nobody_writes_are_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "centra.toml").write_text(text)

    with pytest.raises(UsageError, match=says) as caught:
        Settings.load(folder=tmp_path)
    assert len(str(caught.value)) < 500
