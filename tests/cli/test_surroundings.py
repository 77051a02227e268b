"""Folders of any name, and addresses with passwords, from the command line."""

from __future__ import annotations

import os
import shutil
import socket
import string
from pathlib import Path
from urllib.parse import quote

import pytest

from centra.errors import UsageError
from centra.releases.find import find_release
from registry import Registry
from tests.cli.helpers import centra, process, read, refused

ASCII = "".join(sorted(set(string.printable) - set("/")))
ODD = {
    "printable": f"a{ASCII}z",
    "encoded": "feature%2Fx",
    "query": "what?mode=ro&password=x",
    "mark": "a#b",
    "marks": "#production",
    "letters": "Ünï 部署 \u202e \u2028",
    "end": "x.. ",
    "address": "s3:",
    "settings": "%(here)s ${x} [a]*{b,c}",
    "option": "-x",
    "home": "~",
}
MARKER = "s3kr1tMarker"

every_odd_name = pytest.mark.parametrize("name", ODD.values(), ids=list(ODD))


@every_odd_name
def test_a_registry_lies_in_its_own_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / name
    odd.mkdir()
    monkeypatch.chdir(odd)
    centra("init")
    centra("init")
    centra("db", "check")
    assert read("task", "list") == []
    assert (odd / ".centra" / "registry.db").is_file()
    made = {path.name for path in tmp_path.iterdir()}
    assert made <= {name, "cache", "work"}, "nothing lies beside it"


def test_where_weights_cannot_be_opened_nothing_is_put(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    for args in (
        ("--store", odd / "store", "task", "list"),
        ("release", "pull", "1", "--output", odd / "pulled"),
        ("compose", "--release", "--output", odd / "folder"),
    ):
        refused(*args, code=2, says="is not UTF-8")
    monkeypatch.chdir(odd)
    refused("init", code=2, says="is not UTF-8")
    assert list(odd.iterdir()) == []


@every_odd_name
def test_a_release_is_found_in_a_folder_of_any_name(
    name: str, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / name
    shutil.copytree(template, odd)
    monkeypatch.chdir(odd)
    digest = read("release", "show", "1")["digest"]
    centra("release", "pull", "1", "--output", odd / name)
    for address in (
        f"{odd}/.centra/store",
        f"{odd}/.centra/store#latest",
        f"{odd}/.centra/store#{digest}",
        f"{odd}/{name}",
        f"./{name}",
        f"./{name}/",
    ):
        assert find_release(address).digest == digest, address
    centra("release", "pull", f"{odd}/.centra/store#latest", "--output", f"again/{name}")
    centra("export", f"{odd}/{name}.tar", "--release", "1")
    centra("import", f"{odd}/{name}.tar")
    assert read("doctor")


def test_neighbours_do_not_share_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("feature/x", "feature%2Fx", "what", "what?", "a", "a#b"):
        (tmp_path / name).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        for prefix in ("", "sqlite:///"):
            centra(
                "--database", f"{prefix}{tmp_path}/{name}/own.db", "--store", ".", "db", "upgrade"
            )
        centra("init")
        assert {"own.db", ".centra", "centra.toml"} <= {path.name for path in Path().iterdir()}


def test_a_folder_that_could_be_a_store_and_its_channel_is_refused(home: Path) -> None:
    centra("release", "pull", "1", "--output", home / ".centra" / "store#latest")
    source = f"{home}/.centra/store#latest"
    with pytest.raises(UsageError, match=r"store#latest/ for the first, or .*store/\.#latest"):
        find_release(source)
    assert (
        find_release(f"{source}/").manifest
        == find_release(f"{home}/.centra/store/.#latest").manifest
    )


def test_a_store_in_a_shells_shorthand_is_refused(home: Path) -> None:
    for option, value in (("--store", "~/store"), ("--database", "~/r.db")):
        assert "stands for a home in a shell" in centra(option, value, "gc", code=2).stderr
    for value in ("s3:/bucket/x", "s3:bucket", "file:/x", "file:///a%2Fb", "file:///a?b", "gs://b"):
        assert "expected a folder or s3://" in centra("--store", value, "gc", code=2).stderr


# Passwords


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


PORT = closed_port()
DATABASES = [
    f"postgresql://ada:{MARKER}@127.0.0.1:{PORT}/centra",
    f"postgresql://ada:{quote(f'@:/{MARKER}?#', safe='')}@127.0.0.1:{PORT}/centra",
    f"postgresql://ada@127.0.0.1:{PORT}/centra?password={MARKER}&sslpassword={MARKER}",
    f"postgresql://127.0.0.1:{PORT}/centra?password={MARKER}",
    f"postgresql://ada:{MARKER}@127.0.0.1:{PORT}/centra?nonsense=1",
    f"postgresql://ada:{MARKER}@127.0.0.1:{PORT}/centra?port={MARKER}",
    f"postgresql://ada:{MARKER}@/centra?host=/nowhere/{PORT}",
    f"postgresql://ada:{MARKER}@{'x' * 70}.invalid/centra",
    f"postgresql://ada:x@{MARKER}@127.0.0.1:{PORT}/centra",
    f"postgresql://ada:{MARKER}@127.0.0.1:port/centra",
    f"postgresql:/ada:{MARKER}@db/centra",
    f"mysql://ada:{MARKER}@db/centra",
    f"host=127.0.0.1 port={PORT} user=ada password={MARKER}",
]
STORES = [
    f"s3://me:{MARKER}@bucket/prefix",
    f"s3://bucket/prefix?aws_secret_access_key={MARKER}",
    f"s3://bucket/prefix?{MARKER}",
    f"gs://me:{MARKER}@bucket/prefix",
]
COMMANDS = [
    ("task", "list", "--json"),
    ("db", "upgrade"),
    ("audit", "--json"),
    ("gc",),
    ("doctor",),
    ("doctor", "--json"),
    ("init",),
]


def hidden(*args: str) -> None:
    """Run a command in this process; neither its output nor an error of any sort shows the marker."""
    from click.testing import CliRunner

    import cli

    result = CliRunner().invoke(cli.main, args)
    assert result.exit_code != 0, args
    assert MARKER not in result.output.replace(f"?{MARKER}", "")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception


@pytest.mark.parametrize("address", DATABASES, ids=range(len(DATABASES)))
def test_no_command_shows_the_password_of_a_database(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in COMMANDS:
        hidden("--database", address, "--store", str(tmp_path / "store"), *command)
    monkeypatch.setenv("CENTRA_DATABASE_URL", address)
    monkeypatch.setenv("CENTRA_STORE", str(tmp_path / "store"))
    hidden("doctor")
    monkeypatch.delenv("CENTRA_DATABASE_URL")
    Path("centra.toml").write_text(f"database = '{address}'\nstore = '.'\n")
    for command in (("init",), ("doctor",), ("--database", "other.db", "init")):
        hidden(*command)


@pytest.mark.parametrize("address", STORES, ids=range(len(STORES)))
def test_no_command_shows_a_secret_of_a_store(address: str, home: Path) -> None:
    for command in (("gc",), ("doctor",), ("compose",), ("channel", "sync")):
        hidden("--store", address, *command)
    hidden("predict", "--release", f"{address}#production", "hi")


@pytest.mark.usefixtures("impatient")
def test_an_endpoint_that_does_not_answer_shows_no_password(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", MARKER)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    endpoint = f"http://me:{MARKER}@127.0.0.1:{PORT}"
    hidden("--store", f"s3://bucket/p?endpoint_url={endpoint}&region=x", "channel", "sync")
    hidden("--store", f"s3://bucket/p?endpoint_url={quote(endpoint)}&region=x", "channel", "sync")


@pytest.mark.parametrize(
    "args",
    [
        ("init", f"postgresql://ada:{MARKER}@db/centra"),
        (f"postgresql://ada:{MARKER}@db/centra",),
        ("task", "list", f"password={MARKER}"),
        ("audit", "--since", f"postgresql://ada:{MARKER}@db/centra"),
    ],
)
def test_an_address_in_the_wrong_place_is_not_quoted(args: tuple[str, ...]) -> None:
    hidden(*args)


@pytest.mark.parametrize(
    "args",
    [
        ("audit", "--task", "ADDRESS"),
        ("task", "show", "ADDRESS"),
        ("promote", "ADDRESS", "--to", "production"),
        ("promote", "1", "--to", "ADDRESS"),
        ("release", "diff", "1", "ADDRESS"),
        ("release", "verify", "ADDRESS#production"),
        ("task", "register", "mood", "ADDRESS"),
    ],
)
def test_an_address_in_the_place_of_a_name_is_not_quoted(
    args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry.create(tmp_path).engine.dispose()
    monkeypatch.chdir(tmp_path)
    for address in (
        f"postgresql://ada:{MARKER}@db/centra",
        f"mysql://db/centra?password={MARKER}",
        f"ada:{MARKER}@db/centra",
        f"s3//ada:{MARKER}@bucket/p",
    ):
        hidden(*(arg.replace("ADDRESS", address) for arg in args))
        hidden("--store", f"s3//ada:{MARKER}@bucket/p", *args)


def test_a_wrong_password_is_not_shown(postgres_url: str, tmp_path: Path) -> None:
    """By a real server, whose own words are in the message."""
    address = f"{postgres_url}&password={MARKER}&options=-c%20nonsense%3D{MARKER}"
    done = process("--database", address, "--store", str(tmp_path), "db", "current")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert MARKER not in done.stderr
